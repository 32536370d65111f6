// Schemes of caches as text, and their sizes.
//
// The words before "k=" say how values are stored and, unless "k=" says otherwise, keys; the
// printer writes what differs and nothing else, so every scheme has one spelling.
#include "number/kv_scheme.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "number/words.h"

namespace pare {
namespace {

constexpr i64 usual_positions = 32;  // KIVI's group
constexpr i64 most_positions = 4096, most_group = 65536, most_window = i64{1} << 24;
constexpr std::string_view code_list = "f32, f16, bf16, int8, int4, int2 or e4m3";

[[noreturn]] void no_cache_scheme(std::string_view whole, std::string_view word,
                                  std::string_view need) {
  fail(Exit::usage, "SC-001", fmt::format("{} is not a scheme for a cache", quoted(whole)),
       {{"found", quoted(word)}, {"need", std::string(need)}},
       "examples: f16, int8, e4m3, int8:k=channel, int4:g32:asym, int4:asym:k=channel:window=64");
}

[[noreturn]] void unfit(const KvScheme& s, std::string_view need) {
  fail(Exit::usage, "SC-002", "the words of the cache's scheme do not fit together",
       {{"found", to_string(s)}, {"need", std::string(need)}});
}

KvPart part_of(Code code) {
  KvPart p;
  p.code = code;
  p.grouping = bits(code) >= 16 ? KvGrouping::none : KvGrouping::token;
  return p;
}

bool code_word(KvPart& p, std::string_view word) {
  const std::optional<Code> code = find_code(word);
  if (!code || !kv_code_possible(*code)) return false;
  const KvPart fresh = part_of(*code);
  if (p.plain() || fresh.plain())
    p = fresh;
  else
    p.code = *code;
  return true;
}

bool grouping_word(KvPart& p, std::string_view word) {
  if (word == "token") {
    p.grouping = KvGrouping::token;
    p.count = 0;
  } else if (word.size() > 1 && word[0] == 'g' && number(word.substr(1), 1, most_group, p.count)) {
    p.grouping = KvGrouping::group;
  } else if (word == "asym") {
    p.asym = true;
  } else {
    return false;
  }
  return true;
}

bool key_word(KvPart& p, std::string_view word) {
  constexpr std::string_view channel = "channel";
  if (word == "sym") {
    p.asym = false;
  } else if (word.starts_with(channel)) {
    p.grouping = KvGrouping::channel;
    p.count = usual_positions;
    word.remove_prefix(channel.size());
    return word.empty() || (word[0] == '/' && number(word.substr(1), 2, most_positions, p.count));
  } else {
    return code_word(p, word) || grouping_word(p, word);
  }
  return true;
}

std::string grouping_text(const KvPart& p) {
  if (p.grouping == KvGrouping::group) return fmt::format("g{}", p.count);
  if (p.grouping == KvGrouping::channel)
    return p.count == usual_positions ? "channel" : fmt::format("channel/{}", p.count);
  return "token";
}

// What a reader of "k=" would start from: the values' part, or the code's own where one is plain.
std::string difference(const KvPart& keys, const KvPart& values) {
  std::string text;
  const auto say = [&](std::string_view word) {
    text += fmt::format("{}{}", text.empty() ? "" : ",", word);
  };
  KvPart base = values;
  if (keys.code != values.code) {
    code_word(base, info(keys.code).name);
    say(info(keys.code).name);
  }
  if (keys.grouping != base.grouping || keys.count != base.count) say(grouping_text(keys));
  if (keys.asym != base.asym) say(keys.asym ? "asym" : "sym");
  return text;
}

}  // namespace

KvScheme::KvScheme(Code code) : keys(part_of(code)), values(keys) {}

bool kv_code_possible(Code code) {
  switch (code) {
    case Code::f32:
    case Code::f16:
    case Code::bf16:
    case Code::int8:
    case Code::int4:
    case Code::int2:
    case Code::e4m3:
      return true;
    default:
      return false;
  }
}

KvScheme parse_kv_scheme(std::string_view text) {
  KvScheme s;
  const std::vector<std::string_view> words = split(text, ':');
  if (!code_word(s.values, words[0])) no_cache_scheme(text, words[0], code_list);
  bool keys_said = false, rest = false;
  s.keys = s.values;
  for (std::size_t i = 1; i < words.size(); i++) {
    const std::string_view word = words[i];
    if (word.starts_with("window=") && number(word.substr(7), 0, most_window, s.window)) {
      rest = true;
    } else if (word.starts_with("sinks=") && number(word.substr(6), 0, most_window, s.sinks)) {
      rest = true;
    } else if (word.starts_with("k=") && !keys_said && !rest) {
      keys_said = true;
      for (std::string_view item : split(word.substr(2), ','))
        if (!key_word(s.keys, item))
          no_cache_scheme(text, item,
                          "a code, token, gN, channel, channel/N (N of 2 to 4096), asym or sym");
    } else if (!keys_said && !rest && grouping_word(s.values, word)) {
      s.keys = s.values;
    } else {
      no_cache_scheme(text, word, "token, gN, asym; then k=...; then window=N, sinks=N");
    }
  }
  check(s);
  return s;
}

std::string to_string(const KvScheme& s) {
  std::string text(info(s.values.code).name);
  if (s.values.grouping == KvGrouping::group || s.values.grouping == KvGrouping::channel)
    text += ":" + grouping_text(s.values);
  if (s.values.asym) text += ":asym";
  if (s.keys != s.values) text += ":k=" + difference(s.keys, s.values);
  if (s.window > 0) text += fmt::format(":window={}", s.window);
  if (s.sinks > 0) text += fmt::format(":sinks={}", s.sinks);
  return text;
}

void check(const KvScheme& s) {
  for (const KvPart* p : {&s.keys, &s.values}) {
    if (!kv_code_possible(p->code)) unfit(s, code_list);
    if (p->plain() != (bits(p->code) >= 16))
      unfit(s, "no grouping for floats, and one for other codes");
    if (p->asym && (p->plain() || !info(p->code).integer)) unfit(s, "asym with int8, int4 or int2");
    const bool counts = p->grouping == KvGrouping::group || p->grouping == KvGrouping::channel;
    if (counts ? p->count < 1 || p->count > most_group : p->count != 0)
      unfit(s, "1 to 65536 numbers or positions a scale");
  }
  if (s.values.grouping == KvGrouping::channel) unfit(s, "values per token or in groups of a row");
  if (s.window < 0 || s.window > most_window || s.sinks < 0 || s.sinks > most_window)
    unfit(s, "window and sinks of 0 to 16777216");
  if (s.keys.plain() && s.values.plain() && s.waits())
    unfit(s, "window and sinks with a code that packs: int8, int4, int2 or e4m3");
}

i64 kv_row_bytes(const KvPart& p, i64 width) {
  const i64 per_byte = 8 / std::min(8, bits(p.code));
  return bits(p.code) >= 8 ? width * bits(p.code) / 8 : (width + per_byte - 1) / per_byte;
}

i64 kv_scales(const KvPart& p, i64 width) {
  switch (p.grouping) {
    case KvGrouping::none:
      return 0;
    case KvGrouping::token:
      return 1;
    case KvGrouping::group:
      return (width + p.count - 1) / p.count;
    case KvGrouping::channel:
      break;
  }
  return width;
}

i64 kv_scale_bytes(const KvPart& p) {
  return p.grouping == KvGrouping::token && bits(p.code) == 8 ? 4 : 2;
}

i64 kv_packed_bytes(const KvPart& p, i64 width, i64 positions) {
  const i64 groups = (positions + p.positions() - 1) / p.positions();
  return positions * kv_row_bytes(p, width) + groups * kv_parameter_bytes(p, width);
}

}  // namespace pare
