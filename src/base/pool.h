// Threads: a fixed team that runs slices of a loop.
//
// Every kernel splits outputs, never an inner sum; so results have the same bits with any number of
// threads, whoever does which part.
#pragma once

#include <functional>
#include <memory>

#include "base/error.h"

namespace pare {

class Pool {
 public:
  // threads <= 0: PARE_THREADS if set, else the number of processors this process may use.
  explicit Pool(int threads = 0);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;

  // Calls work(begin, end) for disjoint ranges that cover [0, count), each a multiple of `grain`
  // long (but the last), one range a thread; returns when all are done. Exceptions of a worker are
  // rethrown here. Not reentrant: a worker must not call run() of the same pool.
  void run(i64 count, i64 grain, const std::function<void(i64 begin, i64 end)>& work);

  // Calls work(i) for every i in [0, count), each on the thread that is free next: for pieces whose
  // costs differ, or whose threads are not equally fast. No piece may depend on who does it.
  void share(i64 count, const std::function<void(i64 i)>& work);

  // Calls work(thread) once on every thread.
  void each(const std::function<void(int thread)>& work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pare
