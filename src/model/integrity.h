// Integrity: every value of every tensor is a finite number.
#pragma once

#include <string>

#include "model/model.h"

namespace pare {

struct Integrity {
  i64 values = 0, non_finite = 0, zeros = 0;
  std::string first_bad;  // slot name, when non_finite > 0
};

// Values that are no finite numbers. Rows are decoded one at a time a thread.
i64 count_non_finite(const Tensor&, Pool&);

// Loads each tensor once, one in memory at a time.
Integrity integrity(const Model&, Pool&, const Log&);

}  // namespace pare
