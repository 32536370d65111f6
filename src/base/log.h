// What a person sees while work goes on: stderr only, silent when nobody looks.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pare {

// Where messages go. `app` makes one from the flags and the environment and hands it down.
struct Log {
  bool quiet = false;     // --quiet: warnings only
  bool terminal = false;  // stderr is a terminal and TERM is not dumb: redraw one status line
  bool color = false;     // terminal and no NO_COLOR, or CLICOLOR_FORCE, or --color always

  void info(std::string_view text) const;     // one line
  void warning(std::string_view text) const;  // one line, "warning: ..."
};

// Reads the environment: NO_COLOR, CLICOLOR_FORCE, TERM, and whether stderr is a terminal.
Log log_from_environment();

double now_seconds();  // of a clock that never goes back

// A status line with rate and remaining time. Silent unless the log's stderr is a terminal, where
// it redraws at most ten times a second; the destructor clears the line.
class Progress {
 public:
  Progress(const Log& log, std::string label, double total, std::string unit);
  ~Progress();
  void add(double amount, std::string_view detail = {});

 private:
  const Log& log_;
  std::string label_, unit_;
  double total_, done_ = 0;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool visible_ = false;
};

// True after SIGINT or SIGTERM (the handler is installed by `app`); long loops ask between pieces.
bool interrupted();
void set_interrupted(int signal_number);
int interrupt_signal();
// Throws Error(Exit::interrupted) if interrupted().
void stop_if_interrupted();

}  // namespace pare
