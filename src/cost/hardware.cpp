// Rows of hardware from their data file.
//
// A figure without a source is no figure: the reader demands both. Rates say what units exist; what
// a machine lacks is not guessed, and `executed_code` falls back to the 16-bit units as software
// does (the codes are decoded first).
#include "cost/hardware.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "base/json.h"
#include "kernel/linear.h"

namespace pare {

extern const char embedded_hardware[];  // data/hardware.json

namespace {

constexpr auto codes =
    std::to_array<std::string_view>({"f32", "bf16", "fp8", "int8", "int4", "fp4"});
constexpr auto kinds = std::to_array<std::string_view>({"gpu", "tpu", "apple", "cpu"});
constexpr auto confidences =
    std::to_array<std::string_view>({"read", "secondary", "derived", "unconfirmed"});

template <class List>
bool among(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

class Reader {
 public:
  Reader(const Json& document, const std::string& source) : source_(source) {
    check_keys(document, {"about", "sources", "hardware"}, "the file");
    if (const Json* sources = document.find("sources")) read_sources(*sources);
    const Json* rows = document.find("hardware");
    if (rows == nullptr || !rows->is_array()) bad("hardware", "a list of rows");
    for (const Json& row : rows->as_array()) list_.push_back(read_row(row));
    for (std::size_t i = 0; i < list_.size(); i++)
      for (std::size_t j = 0; j < i; j++)
        if (list_[i].name == list_[j].name)
          fail_input("HW-004", "two rows of hardware have one name",
                     {{"file", source_}, {"found", pare::quoted(list_[i].name)}});
  }
  std::vector<Hardware> take() { return std::move(list_); }

 private:
  [[noreturn]] void bad(const std::string& where, std::string_view need) const {
    fail_input("HW-002", fmt::format("{} is missing or wrong", where),
               {{"file", source_}, {"need", std::string(need)}});
  }

  void check_keys(const Json& object, const std::vector<std::string>& known,
                  const std::string& where) const {
    if (!object.is_object()) bad(where, "an object");
    for (const auto& [key, value] : object.as_object())
      if (!among(known, key))
        fail_input(
            "HW-001", fmt::format("{} has a key that means nothing", where),
            {{"file", source_}, {"found", pare::quoted(key)}, {"nearest", nearest(key, known)}});
  }

  const std::string& word(const Json& object, const char* key, const std::string& where) const {
    const Json* value = object.find(key);
    if (value == nullptr || !value->is_string() || value->as_string().empty() ||
        value->as_string().size() > 1000)
      bad(fmt::format("{} of {}", key, where), "a string");
    return value->as_string();
  }

  void read_sources(const Json& sources) {
    if (!sources.is_object()) bad("sources", "an object");
    for (const auto& [key, value] : sources.as_object()) {
      const std::string where = "source " + pare::quoted(key);
      check_keys(value, {"text", "confidence"}, where);
      const std::string& confidence = word(value, "confidence", where);
      if (!among(confidences, confidence))
        bad("confidence of " + where, "read, secondary, derived or unconfirmed");
      sources_[key] = fmt::format("{} ({})", word(value, "text", where), confidence);
    }
  }

  // [number, "key of a source"]; 0 when it may be absent and is.
  double figure(Hardware& h, const Json& object, const char* key, bool needed) const {
    const std::string where = fmt::format("{} of {}", key, pare::quoted(h.name));
    const Json* value = object.find(key);
    if (value == nullptr && !needed) return 0;
    if (value == nullptr || !value->is_array() || value->as_array().size() != 2 ||
        !value->as_array()[0].is_number() || !value->as_array()[1].is_string())
      bad(where, "[a number, \"the key of its source\"]");
    const double number = value->as_array()[0].as_number();
    if (!(number > 0 && number < 1e9)) bad(where, "a number above 0");
    const auto source = sources_.find(value->as_array()[1].as_string());
    if (source == sources_.end())
      fail_input("HW-003", fmt::format("{} names a source that is not there", where),
                 {{"file", source_}, {"found", pare::quoted(value->as_array()[1].as_string())}});
    h.sources[key] = source->second;
    return number;
  }

  Hardware read_row(const Json& row) const {
    Hardware h;
    check_keys(row,
               {"name", "aliases", "kind", "memory_gb", "bandwidth_gbs", "link_gbs", "watts",
                "note", "rate_tflops"},
               "a row of hardware");
    h.name = word(row, "name", "a row of hardware");
    const std::string where = pare::quoted(h.name);
    h.kind = word(row, "kind", where);
    if (!among(kinds, h.kind)) bad("kind of " + where, "gpu, tpu, apple or cpu");
    if (row.find("note") != nullptr) h.note = word(row, "note", where);
    if (const Json* aliases = row.find("aliases")) {
      if (!aliases->is_array()) bad("aliases of " + where, "a list of strings");
      for (const Json& alias : aliases->as_array()) {
        if (!alias.is_string()) bad("aliases of " + where, "a list of strings");
        h.aliases.push_back(alias.as_string());
      }
    }
    h.memory_bytes = 1e9 * figure(h, row, "memory_gb", true);
    h.bytes_per_second = 1e9 * figure(h, row, "bandwidth_gbs", true);
    h.link_bytes_per_second = 1e9 * figure(h, row, "link_gbs", false);
    h.watts = figure(h, row, "watts", false);
    const Json* rates = row.find("rate_tflops");
    if (rates == nullptr || !rates->is_object()) bad("rate_tflops of " + where, "an object");
    for (const auto& [code, value] : rates->as_object()) {
      if (!among(codes, code))
        fail_input("HW-001", fmt::format("{} has a rate of an unknown code", where),
                   {{"file", source_},
                    {"found", pare::quoted(code)},
                    {"need", "f32, bf16, fp8, int8, int4 or fp4"}});
      h.rate[code] = 1e12 * figure(h, *rates, code.c_str(), true);
    }
    if (!h.rate.contains("bf16") && !h.rate.contains("f32"))
      bad("rate_tflops of " + where, "a rate of bf16 or f32");
    return h;
  }

  const std::string& source_;
  std::map<std::string, std::string> sources_;
  std::vector<Hardware> list_;
};

// Lower case, without what people leave out.
std::string plain_name(std::string_view name) {
  std::string out;
  for (char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Pare's own engine multiplies floats in f32, or as three terms of bf16.
bool pare_runs_on(const Hardware& h) { return h.measured && h.rate.contains("f32"); }

std::string pares_floats(const Scheme& s, const Hardware& h) {
  constexpr i64 wide = 8192;
  const bool terms =
      h.rate.contains("bf16x3") && in_terms(s, wide, isa_avx2 | isa_avx512 | isa_amx);
  return terms ? "bf16x3" : "f32";
}

}  // namespace

std::optional<double> Hardware::rate_of(std::string_view code) const {
  const auto it = rate.find(code);
  if (it == rate.end()) return std::nullopt;
  return it->second;
}

std::vector<Hardware> parse_hardware(std::string_view text, const std::string& source) {
  return Reader(parse_json(text, source, {8, std::size_t{4} << 20, 100000}), source).take();
}

const std::vector<Hardware>& known_hardware() {
  static const std::vector<Hardware> rows = parse_hardware(embedded_hardware, "hardware.json");
  return rows;
}

const Hardware& find_hardware(const std::vector<Hardware>& rows, std::string_view name) {
  const std::string wanted = plain_name(name);
  std::vector<std::string> names;
  for (const Hardware& h : rows) {
    if (plain_name(h.name) == wanted) return h;
    names.push_back(h.name);
    for (const std::string& alias : h.aliases) {
      if (plain_name(alias) == wanted) return h;
      names.push_back(alias);
    }
  }
  fail(Exit::usage, "HW-005", "there is no hardware of this name",
       {{"found", pare::quoted(name)}, {"nearest", nearest(plain_name(name), names)}},
       "`pare hardware` lists the names; --hardware-file FILE adds rows");
}

std::string executed_code(const Scheme& s, const Activation& a, const Hardware& h) {
  const auto has = [&](std::string_view code) { return h.rate.contains(code); };
  const std::string sixteen = has("bf16") ? "bf16" : "f32";
  if (a.per == Activation::Per::none) {
    if (pare_runs_on(h)) return pares_floats(s, h);
    return s.plain() && s.code == Code::f32 && has("f32") ? "f32" : sixteen;
  }
  if (info(a.code).integer && info(s.code).integer && !s.plain()) {
    if (bits(a.code) <= 4 && bits(s.code) <= 4 && has("int4")) return "int4";
    if (has("int8")) return "int8";
  }
  if (is_float8(a.code) && has("fp8") && (is_float8(s.code) || bits(s.code) <= 4)) return "fp8";
  if (a.code == Code::e2m1 && s.code == Code::e2m1 && has("fp4")) return "fp4";
  return pare_runs_on(h) ? pares_floats(s, h) : sixteen;
}

double executed_rate(const Scheme& s, const Activation& a, const Hardware& h) {
  const std::optional<double> rate = h.rate_of(executed_code(s, a, h));
  PARE_CHECK(rate.has_value());
  return *rate;
}

double ridge(const Hardware& h, std::string_view code) {
  const std::optional<double> rate = h.rate_of(code);
  return rate ? *rate / h.bytes_per_second : 0;
}

double ridge_batch(const Scheme& s, const Activation& a, const Hardware& h) {
  // Of a large matrix, so that the share of scales is that of the scheme.
  constexpr i64 side = 8192;
  return executed_rate(s, a, h) / h.bytes_per_second * bits_per_weight(s, side, side) / 8 / 2;
}

}  // namespace pare
