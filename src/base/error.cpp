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

namespace {

// Changes, insertions, removals and swaps of neighbours that make `a` of `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); i++) {
    std::swap(before, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); j++) {
      const std::size_t change = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({change, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr std::size_t longest = 1024;  // what nobody typed; the cost is the product of lengths
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    if (word.size() > longest || candidate.size() > longest) continue;
    const std::size_t distance = edit_distance(word, candidate);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = candidate;
  }
  return best;
}

void broken(const char* what, const char* file, int line) {
  std::fprintf(stderr, "pare: internal error: %s does not hold at %s:%d\n", what, file, line);
  std::abort();
}

}  // namespace pare
