// A team of threads that waits by spinning first.
//
// A decode step of a small model is a few hundred products of some microseconds each, so the cost
// of waking a sleeping thread (5 to 50 us) would exceed the work. Workers therefore spin on a
// counter for a short while before they sleep; while the pool is idle they use no processor.
#include "base/pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

namespace pare {
namespace {

constexpr int spin_rounds = 4000;  // some 50 us with the pause instruction; then a worker sleeps

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int default_threads() {
  const char* text = std::getenv("PARE_THREADS");
  if (text == nullptr) return processors();
  int n = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, status] = std::from_chars(text, end, n);
  if (status != std::errc() || stop != end || n < 1 || n > 1024)
    fail(Exit::usage, "CL-010", "PARE_THREADS is not a number of threads",
         {{"found", quoted(text)}, {"need", "1 to 1024"}});
  return n;
}

}  // namespace

struct Pool::State {
  int threads = 1;
  std::vector<std::thread> workers;
  std::atomic<std::uint64_t> round{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};
  const std::function<void(int)>* work = nullptr;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> asleep{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void call(int thread) {
    try {
      (*work)(thread);
    } catch (...) {
      std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }

  void loop(int thread) {
    std::uint64_t seen = 0;
    for (;;) {
      int spins = 0;
      while (round.load(std::memory_order_acquire) == seen) {
        if (++spins < spin_rounds) {
          relax();
          continue;
        }
        std::unique_lock lock(mutex);
        asleep.fetch_add(1);
        wake.wait(lock, [&] { return round.load() != seen; });
        asleep.fetch_sub(1);
      }
      seen = round.load(std::memory_order_acquire);
      if (stop.load()) return;
      call(thread);
      running.fetch_sub(1, std::memory_order_release);
    }
  }

  void start_round() {
    round.fetch_add(1);
    if (asleep.load() > 0) {
      std::lock_guard lock(mutex);
      wake.notify_all();
    }
  }
};

Pool::Pool(int threads) : state_(std::make_unique<State>()) {
  state_->threads = threads > 0 ? threads : default_threads();
  for (int t = 1; t < state_->threads; t++)
    state_->workers.emplace_back([s = state_.get(), t] { s->loop(t); });
}

Pool::~Pool() {
  state_->stop = true;
  {
    std::lock_guard lock(state_->mutex);
    state_->round.fetch_add(1);
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int Pool::threads() const { return state_->threads; }

void Pool::each(const std::function<void(int)>& work) {
  State& s = *state_;
  if (s.threads == 1) return work(0);
  s.work = &work;
  s.running.store(s.threads - 1);
  s.start_round();
  s.call(0);
  int spins = 0;
  while (s.running.load(std::memory_order_acquire) != 0) {
    relax();
    if (++spins > spin_rounds / 4)
      std::this_thread::yield();  // somebody else may need this processor
  }
  if (s.error) {
    std::exception_ptr error = s.error;
    s.error = nullptr;
    std::rethrow_exception(error);
  }
}

void Pool::run(i64 count, i64 grain, const std::function<void(i64, i64)>& work) {
  if (count <= 0) return;
  PARE_CHECK(grain > 0);
  const i64 pieces = (count + grain - 1) / grain;
  const i64 team = std::min<i64>(state_->threads, pieces);
  if (team == 1) return work(0, count);
  each([&](int thread) {
    if (thread >= team) return;
    const i64 begin = std::min(count, pieces * thread / team * grain);
    const i64 end = std::min(count, pieces * (thread + 1) / team * grain);
    if (begin < end) work(begin, end);
  });
}

void Pool::share(i64 count, const std::function<void(i64)>& work) {
  std::atomic<i64> next{0};
  const auto take = [&](int) {
    for (i64 i = next.fetch_add(1); i < count; i = next.fetch_add(1)) work(i);
  };
  if (count > 1) return each(take);
  take(0);
}

}  // namespace pare
