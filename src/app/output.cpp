// Printing.
//
// Widths count code points, not bytes, so that a table with a model name in any language stays
// aligned.
#include "app/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace pare {
namespace {

std::size_t width(std::string_view text) {
  std::size_t n = 0;
  for (char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return n;
}

}  // namespace

void Output::text(std::string_view text) const {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  if (errno == EPIPE) std::_Exit(0);  // `pare ... | head` is not an error
  fail(Exit::resources, "CL-020", fmt::format("cannot write to stdout: {}", std::strerror(errno)));
}

void Output::result(std::string_view command, const Json& result) const {
  Json whole = Json::object(
      {{"tool", Json("pare")}, {"version", Json(PARE_VERSION)}, {"command", Json(command)}});
  for (const Json::Member& member : result.as_object()) whole.set(member.first, member.second);
  text(whole.dump() + "\n");
  answered = true;
}

std::string Table::text(bool all_left) const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); c++) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); c++) {
      const std::string pad(widths[c] - width(row[c]), ' ');
      if (c > 0) line += "  ";
      line += c == 0 || all_left ? row[c] + pad : pad + row[c];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string error_text(const Error& e, const Log& log) {
  const char* red = log.color ? "\x1b[31m" : "";
  const char* plain = log.color ? "\x1b[0m" : "";
  std::string out = fmt::format("{}error[{}]{}: {}\n", red, e.code, plain, e.message);
  for (const Fact& fact : e.facts) out += fmt::format("  {:<8} {}\n", fact.label, fact.value);
  if (!e.hint.empty()) out += fmt::format("  {:<8} {}\n", "hint", e.hint);
  return out;
}

Json error_json(const Error& e) {
  Json facts = Json::object();
  for (const Fact& fact : e.facts) facts.set(fact.label, fact.value);
  return Json::object({{"error", Json::object({{"code", Json(e.code)},
                                               {"message", Json(e.message)},
                                               {"facts", std::move(facts)},
                                               {"hint", Json(e.hint)},
                                               {"exit", Json(static_cast<int>(e.exit))}})}});
}

}  // namespace pare
