// Speed of a tokenizer: whole calls are timed, ids and all, as a caller sees them.
//
// Encoding runs on the calling thread alone and waits for nothing, so the thread's processor time
// is the time it takes; unlike the clock on the wall, other programs on the machine do not lengthen
// it.
#include "probe/encoding.h"

#include <time.h>

#include <algorithm>

#include "base/log.h"

namespace pare {
namespace {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

EncodingSpeed measure_encoding(const Tokenizer& tokenizer, std::string_view text,
                               bool add_special) {
  if (text.empty()) fail_input("PR-001", "there is no text to encode");
  EncodingSpeed result;
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < 3 || total < 1.0) {
    stop_if_interrupted();
    const double begin = thread_seconds();
    result.tokens = static_cast<i64>(tokenizer.encode(text, add_special).size());
    seconds.push_back(thread_seconds() - begin);
    total += seconds.back();
  }
  result.first = seconds[0];
  result.repeats = static_cast<int>(seconds.size());
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  result.median = *middle;
  return result;
}

}  // namespace pare
