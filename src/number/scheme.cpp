// Schemes as text.
//
// The printer writes the shortest form (an alias where one fits) and the parser expands aliases
// before it reads, so every scheme has one spelling and parse(print(s)) == s.
#include "number/scheme.h"

#include <algorithm>
#include <vector>

#include "number/words.h"

namespace pare {
namespace {

struct Alias {
  std::string_view name, text;
};
// The block formats of ggml and of the OCP and NVIDIA specifications, said in our terms.
constexpr Alias aliases[] = {
    {"mxfp4", "e2m1:g32:s=e8m0"},
    {"mxfp8", "e4m3:g32:s=e8m0"},
    {"nvfp4", "e2m1:g16:s=e4m3/f32x0"},
    {"q4_0", "int4:g32:s=f16"},
    {"q4_1", "int4:g32:min:s=f16"},
    {"q5_0", "int5:g32:s=f16"},
    {"q5_1", "int5:g32:min:s=f16"},
    {"q8_0", "int8:g32:s=f16"},
    {"q2_k", "int2:g16:min:s=uint4/f16x16"},
    {"q3_k", "int3:g16:s=int6/f16x16"},
    {"q4_k", "int4:g32:min:s=uint6/f16x8"},
    {"q5_k", "int5:g32:min:s=uint6/f16x8"},
    {"q6_k", "int6:g16:s=int8/f16x16"},
    {"iq4_nl", "iq4nl:g32:s=f16"},
    {"iq4_xs", "iq4nl:g32:s=int6/f16x8"},
};
constexpr std::string_view double_quantized = "s=uint8/f32x256";

[[noreturn]] void bad(std::string_view whole, std::string_view word, std::string_view need) {
  fail(Exit::usage, "SC-001", fmt::format("{} is not a scheme", pare::quoted(whole)),
       {{"found", pare::quoted(word)}, {"need", std::string(need)}},
       "examples: bf16, int8:channel, int4:g128, int4:g32:asym, nf4:g64:dq, e4m3:b128x128, q4_k");
}

bool number(std::string_view text, i64& value) {
  return pare::number(text, 0, i64{1} << 24, value);
}

std::string code_names(bool scales) {
  std::string names;
  for (const CodeInfo& i : all_codes()) {
    const bool unsigned_code = i.name[0] == 'u';
    if (!scales && (unsigned_code || i.code == Code::e8m0)) continue;
    names += (names.empty() ? "" : " ") + std::string(i.name);
  }
  return names;
}

Code code_word(std::string_view whole, std::string_view word, bool scales) {
  const std::optional<Code> code = find_code(word);
  if (!code || (!scales && (word[0] == 'u' || *code == Code::e8m0)))
    bad(whole, word, "one of " + code_names(scales));
  return *code;
}

void scale_word(Scheme& s, std::string_view whole, std::string_view word) {
  word.remove_prefix(2);
  const std::size_t slash = word.find('/');
  s.scale = code_word(whole, word.substr(0, slash), true);
  if (slash == std::string_view::npos) return;
  const std::string_view second = word.substr(slash + 1);
  const std::size_t x = second.rfind('x');
  if (x == std::string_view::npos || !number(second.substr(x + 1), s.super_count))
    bad(whole, second, "CODExN: the second level's code and how many scales share it");
  s.second_level = true;
  s.super = code_word(whole, second.substr(0, x), true);
}

bool grouping_word(Scheme& s, std::string_view word) {
  if (word == "tensor")
    s.grouping = Grouping::tensor;
  else if (word == "channel")
    s.grouping = Grouping::channel;
  else if (word.size() > 1 && word[0] == 'g' && number(word.substr(1), s.cols) && s.cols > 0)
    s.grouping = Grouping::group;
  else if (const std::size_t x = word.find('x');
           word.size() > 3 && word[0] == 'b' && x != std::string_view::npos &&
           number(word.substr(1, x - 1), s.rows) && number(word.substr(x + 1), s.cols) &&
           s.rows > 0 && s.cols > 0)
    s.grouping = Grouping::block;
  else
    return false;
  return true;
}

void other_word(Scheme& s, std::string_view whole, std::string_view word) {
  if (word == "asym")
    s.offset = Offset::zero;
  else if (word == "min")
    s.offset = Offset::minimum;
  else if (word == "dq")
    scale_word(s, whole, double_quantized);
  else if (word.starts_with("s="))
    scale_word(s, whole, word);
  else if (word == "bitmask")
    s.sparsity = Sparsity::bitmask;
  else if (const std::size_t of = word.find("of"); of != std::string_view::npos) {
    i64 n = 0, m = 0;
    if (!number(word.substr(0, of), n) || !number(word.substr(of + 2), m) || n < 1 || m <= n ||
        m > 32)
      bad(whole, word, "NofM with 1 <= N < M <= 32");
    s.sparsity = Sparsity::n_of_m;
    s.keep_n = static_cast<int>(n);
    s.keep_m = static_cast<int>(m);
  } else {
    bad(whole, word, "tensor, channel, gN, bMxN, asym, min, dq, s=CODE, bitmask or NofM");
  }
}

Code default_scale(const Scheme& s) {
  return s.grouping == Grouping::tensor ? Code::f32 : Code::bf16;
}

std::string plain_text(const Scheme& s) {
  std::string text(info(s.code).name);
  switch (s.grouping) {
    case Grouping::none:
      break;
    case Grouping::tensor:
      text += ":tensor";
      break;
    case Grouping::channel:
      text += ":channel";
      break;
    case Grouping::group:
      text += fmt::format(":g{}", s.cols);
      break;
    case Grouping::block:
      text += fmt::format(":b{}x{}", s.rows, s.cols);
      break;
  }
  if (s.offset == Offset::zero) text += ":asym";
  if (s.offset == Offset::minimum) text += ":min";
  if (!s.plain() && (s.second_level || s.scale != default_scale(s))) {
    std::string scale = fmt::format("s={}", info(s.scale).name);
    if (s.second_level) scale += fmt::format("/{}x{}", info(s.super).name, s.super_count);
    text += scale == double_quantized ? ":dq" : ":" + scale;
  }
  if (s.sparsity == Sparsity::bitmask) text += ":bitmask";
  if (s.sparsity == Sparsity::n_of_m) text += fmt::format(":{}of{}", s.keep_n, s.keep_m);
  return text;
}

}  // namespace

Scheme parse_scheme(std::string_view whole) {
  std::string text(whole);
  for (const Alias& a : aliases) {
    const std::size_t end = text.find(':');
    if (text.substr(0, end) == a.name) {
      text = std::string(a.text) + (end == std::string::npos ? "" : text.substr(end));
      break;
    }
  }
  const std::vector<std::string_view> words = split(text, ':');
  Scheme s;
  s.code = code_word(whole, words[0], false);
  s.scale = Code::bf16;
  bool grouped = false, scaled = false;
  for (std::size_t i = 1; i < words.size(); i++) {
    if (!grouped && grouping_word(s, words[i])) {
      grouped = true;
      continue;
    }
    scaled = scaled || words[i].starts_with("s=") || words[i] == "dq";
    other_word(s, whole, words[i]);
  }
  if (!scaled) s.scale = default_scale(s);
  if (s.plain()) s.scale = Code::bf16;
  try {
    check(s);
  } catch (const Error& e) {
    fail(Exit::usage, e.code, fmt::format("{} is not a scheme: {}", pare::quoted(whole), e.message),
         e.facts);
  }
  return s;
}

std::string to_string(const Scheme& s) {
  const std::string text = plain_text(s);
  for (const Alias& a : aliases) {
    if (text == a.text) return std::string(a.name);
    if (text.starts_with(a.text) && text[a.text.size()] == ':' &&
        (text.substr(a.text.size()) == ":bitmask" ||
         text.find("of", a.text.size()) != std::string::npos))
      return std::string(a.name) + text.substr(a.text.size());
  }
  return text;
}

void check(const Scheme& s) {
  const CodeInfo& code = info(s.code);
  const auto refuse = [](std::string what) { fail(Exit::usage, "SC-002", std::move(what)); };
  const bool plain_code = code.bits >= 16;
  if (s.plain()) {
    if (!plain_code && s.code != Code::e4m3 && s.code != Code::e5m2)
      refuse("this code needs a grouping (tensor, channel, gN or bMxN) for its scales");
    if (s.offset != Offset::none || s.second_level)
      refuse("plain floats have no scale and no offset");
  } else if (plain_code) {
    refuse("f32, f16 and bf16 have no scale");
  }
  if (s.offset != Offset::none && !code.integer)
    refuse("only integer codes have a zero point or a minimum");
  const CodeInfo& scale = info(s.scale);
  if (s.second_level) {
    if (!scale.integer && s.scale != Code::e4m3)
      refuse("scales under a second level are integers or e4m3");
    if (bits(s.super) < 16) refuse("the second level's scales are f32, f16 or bf16");
    if (s.grouping != Grouping::group) refuse("a second level needs groups (gN)");
    if (s.offset == Offset::minimum && s.scale != Code::uint8 && s.scale != Code::uint6 &&
        s.scale != Code::uint4)
      refuse("minima under a second level are unsigned");
  } else if (scale.integer || s.scale == Code::e5m2 || s.scale == Code::nf4 ||
             s.scale == Code::fp4 || s.scale == Code::e2m1 || s.scale == Code::iq4nl) {
    refuse("scales are f32, f16, bf16, e8m0 or e4m3, or integers under a second level");
  }
  if (s.offset == Offset::minimum && !s.second_level && bits(s.scale) < 16)
    refuse("minima are stored as f32, f16 or bf16");
}

i64 row_bytes(const Scheme& s, i64 cols) {
  const i64 b = bits(s.code);
  return b >= 8 ? cols * (b / 8) : 4 * ceil_div(cols * b, 32);
}

i64 scale_rows(const Scheme& s, i64 rows) {
  switch (s.grouping) {
    case Grouping::none:
      return 0;
    case Grouping::tensor:
      return 1;
    case Grouping::channel:
    case Grouping::group:
      return rows;
    case Grouping::block:
      return ceil_div(rows, s.rows);
  }
  return 0;
}

i64 scale_cols(const Scheme& s, i64 cols) {
  switch (s.grouping) {
    case Grouping::none:
      return 0;
    case Grouping::tensor:
    case Grouping::channel:
      return 1;
    case Grouping::group:
    case Grouping::block:
      return ceil_div(cols, s.cols);
  }
  return 0;
}

i64 stored_bytes(const Scheme& s, i64 rows, i64 cols) {
  i64 code_bits = rows * cols * bits(s.code);
  if (s.sparsity == Sparsity::bitmask) code_bits += rows * cols;
  i64 bytes = ceil_div(code_bits, 8);
  if (s.plain()) return bytes;
  const i64 groups = scale_rows(s, rows) * scale_cols(s, cols);
  const i64 planes = s.offset == Offset::minimum ? 2 : 1;
  bytes += ceil_div(planes * groups * bits(s.scale), 8);
  if (s.offset == Offset::zero) bytes += ceil_div(groups * bits(s.code), 8);
  if (s.second_level) {
    const i64 supers =
        s.super_count == 0 ? 1 : scale_rows(s, rows) * ceil_div(scale_cols(s, cols), s.super_count);
    bytes += planes * supers * bits(s.super) / 8;
  }
  return bytes;
}

double bits_per_weight(const Scheme& s, i64 rows, i64 cols) {
  return rows * cols == 0 ? 0
                          : 8.0 * static_cast<double>(stored_bytes(s, rows, cols)) /
                                static_cast<double>(rows * cols);
}

Activation parse_activation(std::string_view text) {
  const auto refuse = [&](std::string_view word) {
    fail(Exit::usage, "SC-010", fmt::format("{} is not an activation scheme", pare::quoted(text)),
         {{"found", pare::quoted(word)},
          {"need",
           "none, or int8, int4, e4m3 or e5m2 with :token, :tensor, :tensor:static or :gN"}});
  };
  Activation a;
  if (text == "none") return a;
  const std::vector<std::string_view> words = split(text, ':');
  const std::optional<Code> code = find_code(words[0]);
  if (!code ||
      (*code != Code::int8 && *code != Code::int4 && *code != Code::e4m3 && *code != Code::e5m2))
    refuse(words[0]);
  a.code = *code;
  if (words.size() < 2 || words.size() > 3) refuse(text);
  if (words[1] == "token")
    a.per = Activation::Per::token;
  else if (words[1] == "tensor")
    a.per = Activation::Per::tensor;
  else if (words[1].size() > 1 && words[1][0] == 'g' && number(words[1].substr(1), a.group) &&
           a.group > 0)
    a.per = Activation::Per::group;
  else
    refuse(words[1]);
  if (words.size() == 3) {
    if (words[2] != "static" || a.per != Activation::Per::tensor) refuse(words[2]);
    a.is_static = true;
  }
  return a;
}

std::string to_string(const Activation& a) {
  std::string text(info(a.code).name);
  switch (a.per) {
    case Activation::Per::none:
      return "none";
    case Activation::Per::tensor:
      return text + (a.is_static ? ":tensor:static" : ":tensor");
    case Activation::Per::token:
      return text + ":token";
    case Activation::Per::group:
      return text + fmt::format(":g{}", a.group);
  }
  return text;
}

}  // namespace pare
