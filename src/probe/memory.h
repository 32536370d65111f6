// Memory that a process needs for some work, as the system counts it.
#pragma once

#include <functional>
#include <optional>

#include "base/error.h"

namespace pare {

struct MemoryUse {
  i64 own = 0;   // bytes of its own that the work holds at its end; mapped files not counted
  i64 peak = 0;  // the most that was ever resident, mapped files and the program itself included
};

// Does the work in a child process, so that nothing done before or after counts; `work` calls its
// argument while it still holds all it needs. To be called while this process has no other
// threads. None: the system does not say, or the work failed there.
std::optional<MemoryUse> measure_memory(
    const std::function<void(const std::function<void()>& holding_all)>& work);

}  // namespace pare
