// A child process and /proc.
//
// A process that has freed memory keeps much of it, so a difference taken within one process says
// little about a second model. A fork begins from the same small state each time; the high-water
// mark is reset there first (Linux: 5 into clear_refs).
#include "probe/memory.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/log.h"

namespace pare {
namespace {

// Of a line "VmHWM:    1234 kB"; -1 when there is none.
i64 status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with(key + ":"))
      return 1024 * std::strtoll(line.c_str() + key.size() + 1, nullptr, 10);
  return -1;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// The child: never returns.
[[noreturn]] void run_child(
    int out, const std::function<void(const std::function<void()>& holding_all)>& work) {
  MemoryUse use;
  try {
    reset_peak();
    const i64 before = status_bytes("RssAnon");
    work([&] { use.own = status_bytes("RssAnon") - before; });
    use.peak = status_bytes("VmHWM");
    if (before < 0 || use.own <= 0 || use.peak < use.own) _exit(1);
  } catch (...) {
    _exit(1);
  }
  _exit(write(out, &use, sizeof use) == static_cast<ssize_t>(sizeof use) ? 0 : 1);
}

}  // namespace

std::optional<MemoryUse> measure_memory(
    const std::function<void(const std::function<void()>& holding_all)>& work) {
  int ends[2];
  if (pipe(ends) != 0) return std::nullopt;
  const pid_t child = fork();
  if (child == 0) run_child(ends[1], work);
  close(ends[1]);
  MemoryUse use;
  ssize_t n = -1;
  while (child > 0 && (n = read(ends[0], &use, sizeof use)) < 0 && errno == EINTR)
    if (interrupted()) kill(child, SIGKILL);  // which also ends the pipe
  close(ends[0]);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  stop_if_interrupted();
  if (n != static_cast<ssize_t>(sizeof use)) return std::nullopt;
  return use;
}

}  // namespace pare
