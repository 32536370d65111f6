// What the tests of this layer share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/engine.h"
#include "support.h"

namespace pare::testing {

using Ids = std::vector<std::int32_t>;

// Logits of every position, flat.
inline std::vector<float> copy_of(Matrix<const float> m) {
  std::vector<float> out;
  for (i64 r = 0; r < m.rows; r++) out.insert(out.end(), m.row(r), m.row(r) + m.cols);
  return out;
}

// The sequence in steps of `tokens` tokens; 0: all at once. (positions, vocab)
inline std::vector<float> logits_of(Engine& engine, const Ids& ids, i64 tokens = 0) {
  KvCache cache = engine.make_cache(static_cast<i64>(ids.size()));
  std::vector<float> all;
  const std::size_t step = tokens > 0 ? static_cast<std::size_t>(tokens) : ids.size();
  for (std::size_t at = 0; at < ids.size(); at += step) {
    const Input input{&cache, std::span(ids).subspan(at, std::min(step, ids.size() - at))};
    const std::vector<float> some = copy_of(engine.step({&input, 1}, Want::all));
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

// Largest |a - b| / max(1, |b|) from element `first` on.
inline double difference(const std::vector<float>& a, const std::vector<float>& b,
                         std::size_t first = 0) {
  if (a.size() != b.size()) return HUGE_VAL;
  double largest = 0;
  for (std::size_t i = first; i < a.size(); i++) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]) /
                     std::max(1.0, std::abs(static_cast<double>(b[i])));
    largest = d <= largest ? largest : d;  // a NaN is the largest of all
  }
  return largest;
}

// Every class of machine this one can be.
inline std::vector<unsigned> classes_here() {
  std::vector<unsigned> classes;
  for (unsigned all : {0u, 0u | isa_avx2, isa_avx2 | isa_avx512, isa_avx2 | isa_avx512 | isa_amx})
    if ((all & ~isa_here()) == 0) classes.push_back(all);
  return classes;
}

inline EngineOptions options_with(unsigned isa, std::optional<KvScheme> kv = {}) {
  EngineOptions o;
  o.isa = isa;
  o.kv = kv;
  return o;
}
inline EngineOptions reference_options(std::optional<KvScheme> kv = {}) {
  EngineOptions o;
  o.reference = true;
  o.kv = kv;
  return o;
}

}  // namespace pare::testing
