// Messages and progress on stderr.
//
// stdout belongs to results, so nothing here writes to it. Colours and redrawing need a terminal
// and obey NO_COLOR (no-color.org), CLICOLOR_FORCE and TERM=dumb.
#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace pare {
namespace {

std::atomic<int> signal_seen{0};

bool environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

void line(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

std::string duration(double seconds) {
  const i64 s = static_cast<i64>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02} min", s / 60, s % 60);
  return fmt::format("{}:{:02} h", s / 3600, s % 3600 / 60);
}

}  // namespace

void Log::info(std::string_view text) const {
  if (!quiet) line(fmt::format("{}\n", text));
}

void Log::warning(std::string_view text) const {
  line(fmt::format("{}warning:{} {}\n", color ? "\x1b[33m" : "", color ? "\x1b[0m" : "", text));
}

Log log_from_environment() {
  Log log;
  const char* term = std::getenv("TERM");
  log.terminal = isatty(STDERR_FILENO) == 1 && !(term != nullptr && std::strcmp(term, "dumb") == 0);
  log.color = (log.terminal && !environment("NO_COLOR")) || environment("CLICOLOR_FORCE");
  return log;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Progress::Progress(const Log& log, std::string label, double total, std::string unit)
    : log_(log),
      label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

Progress::~Progress() {
  if (visible_) line("\r\x1b[K");
}

void Progress::add(double amount, std::string_view detail) {
  done_ += amount;
  if (!log_.terminal || log_.quiet) return;
  const auto now = std::chrono::steady_clock::now();
  if (visible_ && now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? done_ / seconds : 0;
  const double left = rate > 0 ? (total_ - done_) / rate : 0;
  line(fmt::format("\r\x1b[K{} {:3.0f} %  {:.3g} {}/s  {} left  {}", label_,
                   total_ > 0 ? 100 * done_ / total_ : 0, rate, unit_, duration(left), detail));
  visible_ = true;
}

bool interrupted() { return signal_seen.load(std::memory_order_relaxed) != 0; }
void set_interrupted(int signal_number) { signal_seen.store(signal_number); }
int interrupt_signal() { return signal_seen.load(); }

void stop_if_interrupted() {
  if (interrupted())
    fail(Exit::interrupted, "CL-130", "interrupted; nothing was left under the final name");
}

}  // namespace pare
