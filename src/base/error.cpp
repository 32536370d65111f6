// Errors as values with facts.
//
// A message is composed once, when the error is made or a fact is added, so that `what()` is
// complete wherever it is caught. Names that come from files are escaped: a tensor called "\x1b[2J"
// must not reach a terminal.
#include "base/error.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace pare {

Error::Error(Exit exit_class, std::string_view error_code, std::string text,
             std::vector<Fact> fact_list, std::string hint_text)
    : exit(exit_class),
      code(error_code),
      message(std::move(text)),
      facts(std::move(fact_list)),
      hint(std::move(hint_text)) {
  compose();
}

Error& Error::with(std::string_view label, std::string_view value) {
  for (const Fact& f : facts)
    if (f.label == label) return *this;
  facts.insert(facts.begin(), {std::string(label), std::string(value)});
  compose();
  return *this;
}

void Error::compose() {
  whole_ = message;
  for (std::size_t i = 0; i < facts.size(); i++)
    whole_ += fmt::format("{}{} {}", i == 0 ? " (" : "; ", facts[i].label, facts[i].value);
  if (!facts.empty()) whole_ += ")";
  if (!hint.empty()) whole_ += "; " + hint;
}

void fail(Exit exit_class, std::string_view code, std::string message, std::vector<Fact> facts,
          std::string hint) {
  throw Error(exit_class, code, std::move(message), std::move(facts), std::move(hint));
}

void fail_input(std::string_view code, std::string message, std::vector<Fact> facts,
                std::string hint) {
  fail(Exit::input, code, std::move(message), std::move(facts), std::move(hint));
}

std::string quoted(std::string_view text) {
  constexpr std::size_t limit = 200;
  std::string out = "'";
  for (unsigned char c : text.substr(0, limit)) {
    if (c < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", c);
    else
      out += static_cast<char>(c);
  }
  if (text.size() > limit) out += "...";
  return out + "'";
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j <= candidate.size(); j++) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); i++) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); j++) {
        const std::size_t change = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

void broken(const char* what, const char* file, int line) {
  std::fprintf(stderr, "pare: internal error: %s does not hold at %s:%d\n", what, file, line);
  std::abort();
}

}  // namespace pare
