// What the tests of quantization share.
#pragma once

#include <cmath>

#include "base/random.h"
#include "pass/quantize/block.h"
#include "pass/quantize/solver.h"

namespace pare::testing {

inline double output_error(const MatrixTask& task, const Tensor& stored, Pool& pool) {
  return relative_loss(output_loss(task, stored, pool), output_power(task, pool));
}

// Puts changed values back into a model, as f32. The Spec is the caller's to have changed.
inline void put_values(Model& model, const BlockValues& values) {
  for (const auto& [name, v] : values) {
    const Tensor tensor = plain_tensor(v.data, v.shape);
    model.weights[name] = {tensor.scheme, tensor.shape, [tensor] { return tensor; }};
  }
}

// Every tensor decoded to f32.
inline Model in_floats(Model model) {
  for (auto& [name, linear] : linears(model.spec)) linear->scheme = {};
  model.spec.embed = {};
  for (auto& [name, weight] : model.weights) {
    const Tensor tensor = plain_tensor(decode(weight.load()), weight.shape);
    weight = {tensor.scheme, tensor.shape, [tensor] { return tensor; }};
  }
  return model;
}

// Log-uniform in [1/4, 4].
inline std::vector<float> random_scales(std::size_t n, Random& random) {
  std::vector<float> s(n);
  for (float& x : s) x = static_cast<float>(std::exp2(4 * random.uniform() - 2));
  return s;
}

// A few inputs of every norm group made `factor` times larger, their columns that much smaller: the
// function is the same. This is what makes large models hard to quantize with 8-bit activations.
inline Model plant_outliers(Model model, i64 channels, float factor, std::uint64_t seed) {
  Random random(seed);
  for (i64 b = 0; b < static_cast<i64>(model.spec.blocks.size()); b++) {
    BlockValues values = block_values(model, b);
    for (const ScaleGroup& group : scale_groups(model.spec, b)) {
      if (group.absorb != ScaleGroup::Absorb::norm) continue;
      const std::size_t n =
          static_cast<std::size_t>(values.at(group.matrices.front() + ".weight").shape.back());
      std::vector<float> s(n, 1.0f);
      for (i64 k = 0; k < channels; k++) s[random.below(n)] = 1 / factor;
      apply_scale(values, model.spec, group, b, s);
    }
    put_values(model, values);
  }
  return model;
}

}  // namespace pare::testing
