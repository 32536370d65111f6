// What the commands that learn from data share: flags to a source of data.
#pragma once

#include <optional>
#include <string>

#include "recipe/data.h"

namespace pare {

struct DataOptions {
  std::string text, ids, statistics;  // FILE; none: the model writes its own
  std::optional<i64> tokens, length;
  std::optional<std::uint64_t> seed;
  double ram = 0;  // megabytes; 0: half of what is free
};

// Reads text or ids. Errors: CL-036 two of them, CL-037 a number out of range.
DataSource read_source(const DataOptions&);

}  // namespace pare
