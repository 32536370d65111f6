// What a command prints: results on stdout, whole or not at all; errors on stderr in one form.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/human.h"
#include "base/json.h"
#include "base/log.h"

namespace pare {

// How a command talks: made once from the flags and the environment.
struct Output {
  Log log;
  bool json = false;
  mutable bool answered = false;  // a result was printed, so stdout is complete

  // Writes to stdout and flushes. A closed pipe ends the program quietly; a full disk is an Error.
  void text(std::string_view) const;
  // One JSON object: {"tool": "pare", "version": ..., "command": ..., then the members of
  // `result`}.
  void result(std::string_view command, const Json& result) const;
};

// Columns aligned by width; the first column left, the others right unless `left` says otherwise.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text(bool all_left = false) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// error[ST-001]: message, then its facts and hint, a line each. Colours when the log has them.
std::string error_text(const Error&, const Log&);
Json error_json(const Error&);

}  // namespace pare
