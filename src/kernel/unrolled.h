// Loops whose every round is compiled by itself, so that arrays of vectors stay in registers.
#pragma once

#include <utility>

namespace pare {

// f(0) .. f(n - 1), each with a constant.
template <int n, class F>
[[gnu::always_inline]] inline void unrolled(const F& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, n>{});
}

}  // namespace pare
