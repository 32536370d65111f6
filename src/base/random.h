// Random numbers that are the same on every machine: a counter is hashed, nothing is carried.
//
// value(i) depends only on (seed, i), so any slice of a stream can be made by any thread. The hash
// is the finalizer of SplitMix64 (Steele, Lea, Flood 2014) applied twice.
#pragma once

#include <cmath>
#include <cstdint>

namespace pare {

inline std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0)
      : key_(mix64(seed ^ mix64(stream ^ 0x5851f42d4c957f2du))) {}

  std::uint64_t bits() { return at(counter_++); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  std::uint64_t below(std::uint64_t n) {  // [0, n), bias below 2^-64 n
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits()) * n) >> 64);
  }
  double normal() {  // Box-Muller, one of the two values
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
  }
  std::uint64_t at(std::uint64_t index) const { return mix64(key_ ^ mix64(index)); }

 private:
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

}  // namespace pare
