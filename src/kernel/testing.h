// What tests of kernels share.
#pragma once

#include <vector>

#include "base/random.h"
#include "kernel/isa.h"

namespace pare {

// The classes this machine has, each with those before it, up to `most`.
inline std::vector<unsigned> classes(unsigned most = isa_avx512) {
  std::vector<unsigned> list = {isa_scalar};
  unsigned all = isa_scalar;
  for (const unsigned next : {isa_avx2, isa_avx512, isa_amx})
    if ((isa_here() & next) != 0 && next <= most) list.push_back(all |= next);
  return list;
}

template <class T = float>
std::vector<T> normal(i64 n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& v : x) v = static_cast<T>(random.normal() * scale);
  return x;
}

}  // namespace pare
