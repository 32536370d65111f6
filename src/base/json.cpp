// A strict JSON reader with byte offsets, and a writer whose output is stable.
//
// Why not a library: model files need four things at once that none of the packaged ones gives:
// byte offsets in errors, refusal of duplicate keys, order of the file kept, and a nesting limit
// that also protects destruction and printing. Recursion is bounded by JsonLimits::depth.
#include "base/json.h"

#include <charconv>
#include <cmath>
#include <unordered_set>

namespace pare {
namespace {

class Parser {
 public:
  Parser(std::string_view text, std::string_view what, JsonLimits limits)
      : text_(text), what_(what), limits_(limits) {}

  Json document() {
    if (text_.size() > limits_.bytes)
      bad("the document is too large", fmt::format("at most {} bytes", limits_.bytes));
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) bad("something follows the document", "the end of the text");
    return value;
  }

 private:
  [[noreturn]] void bad(std::string_view problem, std::string_view need) const {
    std::string found = at_ < text_.size() ? quoted(text_.substr(at_, 12)) : "the end of the text";
    fail_input("JS-001", fmt::format("{} is not valid JSON: {}", what_, problem),
               {{"offset", fmt::format("byte {}", at_)},
                {"found", std::move(found)},
                {"need", std::string(need)}});
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      at_++;
  }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    at_++;
    return true;
  }

  Json parse_value(int depth) {
    if (depth > limits_.depth)
      bad("nested too deeply", fmt::format("at most {} levels", limits_.depth));
    if (++values_ > limits_.values)
      bad("too many values", fmt::format("at most {}", limits_.values));
    skip_space();
    if (at_ >= text_.size()) bad("it ends early", "a value");
    switch (text_[at_]) {
      case '{':
        return parse_object(depth);
      case '[':
        return parse_array(depth);
      case '"':
        return Json(parse_string());
      case 't':
        return word("true", Json(true));
      case 'f':
        return word("false", Json(false));
      case 'n':
        return word("null", Json());
      default:
        return parse_number();
    }
  }

  Json word(std::string_view expected, Json value) {
    if (text_.substr(at_, expected.size()) != expected) bad("unknown word", "true, false or null");
    at_ += expected.size();
    return value;
  }

  Json parse_array(int depth) {
    Json::Array items;
    at_++;
    skip_space();
    if (take(']')) return Json(std::move(items));
    for (;;) {
      items.push_back(parse_value(depth + 1));
      skip_space();
      if (take(']')) return Json(std::move(items));
      if (!take(',')) bad("bad array", "',' or ']'");
    }
  }

  Json parse_object(int depth) {
    Json::Object members;
    std::unordered_set<std::string> seen;  // only for large objects; small ones are scanned
    at_++;
    skip_space();
    if (take('}')) return Json(std::move(members));
    for (;;) {
      skip_space();
      const std::size_t key_at = at_;
      if (at_ >= text_.size() || text_[at_] != '"') bad("bad object", "a string as the key");
      std::string key = parse_string();
      if (is_duplicate(members, seen, key)) {
        at_ = key_at;
        bad(fmt::format("the key {} occurs twice", quoted(key)), "each key once");
      }
      skip_space();
      if (!take(':')) bad("bad object", "':' after the key");
      members.emplace_back(std::move(key), parse_value(depth + 1));
      skip_space();
      if (take('}')) return Json(std::move(members));
      if (!take(',')) bad("bad object", "',' or '}'");
    }
  }

  static bool is_duplicate(const Json::Object& members, std::unordered_set<std::string>& seen,
                           const std::string& key) {
    constexpr std::size_t scan = 16;
    if (members.size() < scan) {
      for (const Json::Member& m : members)
        if (m.first == key) return true;
      return false;
    }
    if (seen.empty())
      for (const Json::Member& m : members) seen.insert(m.first);
    return !seen.insert(key).second;
  }

  Json parse_number() {
    const std::size_t start = at_;
    bool integral = true;
    take('-');
    if (take('0')) {
      if (at_ < text_.size() && is_digit(text_[at_])) bad("bad number", "no leading zero");
    } else if (!digits()) {
      at_ = start;
      bad("not a value", "a value");
    }
    if (take('.')) {
      integral = false;
      if (!digits()) bad("bad number", "digits after the point");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      integral = false;
      at_++;
      if (!take('+')) take('-');
      if (!digits()) bad("bad number", "digits in the exponent");
    }
    const char* begin = text_.data() + start;
    const char* end = text_.data() + at_;
    if (integral) {
      i64 value = 0;
      if (std::from_chars(begin, end, value).ec == std::errc()) return Json(value);
    }
    double value = 0;
    const auto status = std::from_chars(begin, end, value).ec;
    if (status == std::errc::result_out_of_range && tiny(start)) return Json(0.0);
    if (status != std::errc() || !std::isfinite(value)) {
      at_ = start;
      bad("number out of range", "a number that fits a double");
    }
    return Json(value);
  }

  // from_chars reports underflow and overflow alike; a negative exponent means underflow.
  bool tiny(std::size_t start) const {
    const std::string_view number = text_.substr(start, at_ - start);
    const std::size_t e = number.find_first_of("eE");
    if (e == std::string_view::npos)
      return number.substr(0, 2) == "0." || number.substr(0, 3) == "-0.";
    return e + 1 < number.size() && number[e + 1] == '-';
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  bool digits() {
    const std::size_t start = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) at_++;
    return at_ > start;
  }

  std::string parse_string() {
    std::string out;
    at_++;
    for (;;) {
      const std::size_t run = at_;
      while (at_ < text_.size() && static_cast<unsigned char>(text_[at_]) >= 0x20 &&
             static_cast<unsigned char>(text_[at_]) < 0x80 && text_[at_] != '"' &&
             text_[at_] != '\\')
        at_++;
      out.append(text_, run, at_ - run);
      if (at_ >= text_.size()) bad("a string is not closed", "'\"'");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        at_++;
        return out;
      }
      if (c == '\\')
        escape(out);
      else if (c < 0x20)
        bad("control character in a string", "an escape such as \\n");
      else
        utf8(out);
    }
  }

  void utf8(std::string& out) {
    const auto byte = [&](std::size_t i) {
      return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0u;
    };
    const unsigned lead = byte(0);
    int length = 0;
    unsigned low = 0x80, high = 0xBF;  // bounds of the second byte (Unicode table 3-7)
    if (lead >= 0xC2 && lead <= 0xDF)
      length = 2;
    else if (lead >= 0xE0 && lead <= 0xEF) {
      length = 3;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    bool good = length != 0 && byte(1) >= low && byte(1) <= high;
    for (int i = 2; i < length; i++)
      good = good && (byte(static_cast<std::size_t>(i)) & 0xC0) == 0x80;
    if (!good) bad("invalid UTF-8", "valid UTF-8");
    out.append(text_, at_, static_cast<std::size_t>(length));
    at_ += static_cast<std::size_t>(length);
  }

  unsigned hex4() {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      unsigned digit = 0;
      if (is_digit(c))
        digit = static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f')
        digit = static_cast<unsigned>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F')
        digit = static_cast<unsigned>(c - 'A' + 10);
      else
        bad("bad \\u escape", "four hexadecimal digits");
      value = value * 16 + digit;
      at_++;
    }
    return value;
  }

  void escape(std::string& out) {
    at_++;
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    static constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
    if (const std::size_t k = from.find(c); c != '\0' && k != std::string_view::npos) {
      out += to[k];
      at_++;
      return;
    }
    if (c != 'u') bad("unknown escape", "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    at_++;
    unsigned point = hex4();
    if (point >= 0xDC00 && point <= 0xDFFF) bad("lone low surrogate", "a surrogate pair");
    if (point >= 0xD800 && point <= 0xDBFF) {
      if (!(take('\\') && take('u'))) bad("lone high surrogate", "a surrogate pair");
      const unsigned low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) bad("lone high surrogate", "a surrogate pair");
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, point);
  }

  static void append_utf8(std::string& out, unsigned point) {
    const auto put = [&](unsigned b) { out += static_cast<char>(b); };
    if (point < 0x80) {
      put(point);
    } else if (point < 0x800) {
      put(0xC0 | point >> 6), put(0x80 | (point & 63));
    } else if (point < 0x10000) {
      put(0xE0 | point >> 12), put(0x80 | (point >> 6 & 63)), put(0x80 | (point & 63));
    } else {
      put(0xF0 | point >> 18), put(0x80 | (point >> 12 & 63));
      put(0x80 | (point >> 6 & 63)), put(0x80 | (point & 63));
    }
  }

  std::string_view text_, what_;
  JsonLimits limits_;
  std::size_t at_ = 0, values_ = 0;
};

[[noreturn]] void wrong_type(const Json& value, std::string_view need) {
  fail_input("JS-002", "a JSON value has the wrong type",
             {{"found", value.type_name()}, {"need", std::string(need)}});
}

void write(const Json& value, int indent, int level, std::string& out) {
  const auto line = [&](int depth) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * depth), ' ');
  };
  if (value.is_null())
    out += "null";
  else if (value.is_bool())
    out += value.as_bool() ? "true" : "false";
  else if (value.is_int())
    out += std::to_string(value.as_int());
  else if (value.is_number()) {
    const double number = value.as_number();
    if (!std::isfinite(number))
      out += "null";  // JSON has no other word for it
    else {
      std::string text = fmt::format("{}", number);
      if (text.find_first_of(".e") == std::string::npos) text += ".0";
      out += text;
    }
  } else if (value.is_string())
    out += json_quote(value.as_string());
  else if (value.is_array()) {
    const auto& items = value.as_array();
    out += '[';
    for (std::size_t i = 0; i < items.size(); i++) {
      if (i > 0) out += ',';
      line(level + 1);
      write(items[i], indent, level + 1, out);
    }
    if (!items.empty()) line(level);
    out += ']';
  } else {
    const auto& members = value.as_object();
    out += '{';
    for (std::size_t i = 0; i < members.size(); i++) {
      if (i > 0) out += ',';
      line(level + 1);
      out += json_quote(members[i].first);
      out += indent < 0 ? ":" : ": ";
      write(members[i].second, indent, level + 1, out);
    }
    if (!members.empty()) line(level);
    out += '}';
  }
}

}  // namespace

const char* Json::type_name() const {
  static constexpr const char* names[] = {"null",     "a boolean", "an integer", "a number",
                                          "a string", "an array",  "an object"};
  return names[value_.index()];
}

bool Json::as_bool() const {
  if (!is_bool()) wrong_type(*this, "a boolean");
  return std::get<bool>(value_);
}
i64 Json::as_int() const {
  if (!is_int()) wrong_type(*this, "an integer");
  return std::get<i64>(value_);
}
double Json::as_number() const {
  if (is_int()) return static_cast<double>(std::get<i64>(value_));
  if (!is_number()) wrong_type(*this, "a number");
  return std::get<double>(value_);
}
const std::string& Json::as_string() const {
  if (!is_string()) wrong_type(*this, "a string");
  return std::get<std::string>(value_);
}
const Json::Array& Json::as_array() const {
  if (!is_array()) wrong_type(*this, "an array");
  return std::get<Array>(value_);
}
const Json::Object& Json::as_object() const {
  if (!is_object()) wrong_type(*this, "an object");
  return std::get<Object>(value_);
}
Json::Array& Json::as_array() {
  if (!is_array()) wrong_type(*this, "an array");
  return std::get<Array>(value_);
}
Json::Object& Json::as_object() {
  if (!is_object()) wrong_type(*this, "an object");
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const Member& m : std::get<Object>(value_))
    if (m.first == key) return &m.second;
  return nullptr;
}
Json* Json::find(std::string_view key) {
  return const_cast<Json*>(static_cast<const Json*>(this)->find(key));
}
const Json& Json::at(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr)
    fail_input("JS-003", fmt::format("the key {} is missing", quoted(key)),
               {{"found", type_name()}});
  return *value;
}
Json& Json::set(std::string_view key, Json value) {
  if (Json* old = find(key)) return *old = std::move(value);
  as_object().emplace_back(std::string(key), std::move(value));
  return as_object().back().second;
}
void Json::erase(std::string_view key) {
  std::erase_if(as_object(), [&](const Member& m) { return m.first == key; });
}

std::string Json::dump(int indent) const {
  std::string out;
  write(*this, indent, 0, out);
  return out;
}

Json parse_json(std::string_view text, std::string_view what, JsonLimits limits) {
  return Parser(text, what, limits).document();
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", c);
        else
          out += c;
    }
  }
  return out + '"';
}

}  // namespace pare
