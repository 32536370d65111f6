// Statistics: what one calibration pass sees of the inputs of a model's matrices.
//
// One pass serves every method: rounding with importances, GPTQ, AWQ, SmoothQuant, LLM.int8(),
// static activation scales, pruning. Matrices that read the same input (q, k and v; gate and up;
// all of them in a parallel block) share one record, kept under the name of the first in slot
// order.
//
// Sums over tokens are exact in order: tokens are added in the order they come, chunk by chunk of
// `gram_chunk` tokens from the beginning of a sequence, and threads split outputs; so a record has
// the same bits with any number of threads.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/pool.h"
#include "base/view.h"
#include "model/spec.h"

namespace pare {

// Of the input x (tokens, in) of a Linear as it comes, before any companion.
struct InputStatistics {
  i64 tokens = 0;
  std::vector<double> sum_abs, sum_square;  // (in) of |x|, of x^2
  std::vector<float> max_abs;               // (in)
  std::vector<float> gram;                  // (in, in) mean of x x^T, both triangles; may be empty
  // Whole rows of x: every 2^k-th token from the first, so few that they fit `sample_limit`. Sums
  // forget what lies within one token; rounding of activations depends on it. (n, in), may be empty
  std::vector<float> sample;

  i64 size() const { return static_cast<i64>(max_abs.size()); }
  double mean_abs(i64 k) const {
    return sum_abs[static_cast<std::size_t>(k)] / static_cast<double>(tokens);
  }
  double mean_square(i64 k) const {
    return sum_square[static_cast<std::size_t>(k)] / static_cast<double>(tokens);
  }
  Matrix<const float> gram_view() const { return {gram.data(), size(), size()}; }
  Matrix<const float> sample_view() const {
    return {sample.data(), size() > 0 ? static_cast<i64>(sample.size()) / size() : 0, size()};
  }
};

// Adds the tokens x (tokens, in), which follow the `tokens` counted so far, to the sample. To be
// called before they are counted. The sample does not depend on how tokens are cut into calls.
constexpr i64 sample_limit = 128;
void keep_sample(InputStatistics&, Matrix<const float> x);

// Of the rows a block puts into its cache, before rounding. Keys are seen after rotation.
struct KvStatistics {
  std::vector<float> k_min, k_max;  // (kv_heads * qk_dim); MLA: (kv_rank + rope.dims)
  std::vector<float> v_min, v_max;  // (kv_heads * v_dim)
};

struct Statistics {
  std::map<std::string, InputStatistics, std::less<>>
      inputs;          // by the name of the input, see input_name
  std::string source;  // where the text came from, for reports
  i64 tokens = 0;
};

// The Linear under whose name the input of `linear` ("blocks.3.attn.v") is kept
// ("blocks.3.attn.q").
std::string input_name(const Spec&, const std::string& linear);

}  // namespace pare
