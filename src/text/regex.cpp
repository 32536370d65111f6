// Patterns by PCRE2.
//
// Tokenizer files are written for Oniguruma with Unicode classes; three differences matter. There
// \s is the property White_Space, while PCRE2 adds U+180E: it is spelled out here. There \w
// includes marks and all connectors; spelled out too. And \h is a hexadecimal digit there,
// horizontal space here. A subject is checked once (PCRE2_NO_UTF_CHECK at each match): checking at
// each of a million matches of one text would be quadratic. std::regex is out of the question: it
// recurses on the text.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

namespace pare {
namespace {

constexpr std::uint32_t match_limit = 10'000'000;
constexpr std::uint32_t heap_limit_kib = 65536;
constexpr std::size_t max_pattern_bytes = 65536;

constexpr std::string_view white_space =
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
constexpr std::string_view word_chars = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}";

// Rewrites the escapes whose meaning differs. Inside a class a negated one (\S, \W) cannot be
// spelled out; it keeps PCRE2's meaning, which differs for U+180E alone.
std::string translate(std::string_view pattern) {
  std::string out;
  int depth = 0;  // of [
  for (std::size_t i = 0; i < pattern.size(); i++) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      const bool in_class = depth > 0;
      if (next == 's' || (next == 'S' && !in_class)) {
        out += in_class ? "" : next == 's' ? "[" : "[^";
        out += white_space;
        out += in_class ? "" : "]";
      } else if (next == 'w' || (next == 'W' && !in_class)) {
        out += in_class ? "" : next == 'w' ? "[" : "[^";
        out += word_chars;
        out += in_class ? "" : "]";
      } else if (next == 'h') {
        out += in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]";
      } else {
        out += c;
        out += next;
      }
      continue;
    }
    const bool nested = c == '[' && depth > 0 && pattern.substr(i, 2) != "[:";
    if (depth > 0 && (nested || pattern.substr(i, 2) == "&&"))
      fail_input("TK-008", "a pattern uses a class inside a class, which is not supported",
                 {{"pattern", pare::quoted(pattern)}, {"offset", fmt::format("{}", i)}},
                 "write a literal bracket as \\[");
    if (c == '[') {
      depth++;
      out += c;
      // A bracket or caret right after the opening one is not the end of the class.
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
      continue;
    }
    if (c == ']' && depth > 0) depth--;
    out += c;
  }
  return out;
}

std::string pcre2_text(int code) {
  unsigned char buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0)
    return fmt::format("code {}", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::State {
  std::string pattern;
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~State() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::string_view pattern) {
  if (pattern.size() > max_pattern_bytes)
    fail_input("TK-008", "a pattern is too long",
               {{"found", fmt::format("{} bytes", pattern.size())},
                {"need", fmt::format("at most {}", max_pattern_bytes)}});
  auto state = std::make_shared<State>();
  state->pattern = std::string(pattern);
  const std::string translated = translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* compile = pcre2_compile_context_create(nullptr);
  PARE_CHECK(compile != nullptr);
  pcre2_set_parens_nest_limit(compile, 100);
  state->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &error, &offset, compile);
  pcre2_compile_context_free(compile);
  if (state->code == nullptr)
    fail_input("TK-008", "a pattern does not compile: " + pcre2_text(error),
               {{"pattern", pare::quoted(pattern)}, {"offset", fmt::format("{}", offset)}});
  // Without JIT (a hardened kernel) matching is slower, not different.
  pcre2_jit_compile(state->code, PCRE2_JIT_COMPLETE);
  state->context = pcre2_match_context_create(nullptr);
  PARE_CHECK(state->context != nullptr);
  pcre2_set_match_limit(state->context, match_limit);
  pcre2_set_depth_limit(state->context, match_limit);
  pcre2_set_heap_limit(state->context, heap_limit_kib);
  state_ = std::move(state);
}

const std::string& Regex::pattern() const { return state_->pattern; }

struct RegexMatcher::State {
  pcre2_match_data* data = nullptr;
  pcre2_jit_stack* stack = nullptr;
  pcre2_match_context* context = nullptr;
  ~State() {
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
    pcre2_match_data_free(data);
  }
};

RegexMatcher::RegexMatcher(const Regex& regex)
    : regex_(regex.state_), state_(std::make_unique<State>()) {
  state_->data = pcre2_match_data_create_from_pattern(regex_->code, nullptr);
  state_->stack = pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, nullptr);
  state_->context = pcre2_match_context_copy(regex_->context);
  PARE_CHECK(state_->data != nullptr && state_->context != nullptr);
  if (state_->stack != nullptr) pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

RegexMatcher::~RegexMatcher() = default;

bool RegexMatcher::find(std::string_view text, std::size_t from, std::size_t& begin,
                        std::size_t& end) {
  const int result =
      pcre2_match(regex_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, state_->data, state_->context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    fail_input("TK-008", "a pattern is too expensive for this text: " + pcre2_text(result),
               {{"pattern", pare::quoted(regex_->pattern)}, {"offset", fmt::format("{}", from)}});
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(state_->data);
  begin = span[0];
  end = span[1];
  // \K inside a lookahead can put the end before the begin; such a match is empty for our purpose.
  if (end < begin) end = begin;
  return true;
}

}  // namespace pare
