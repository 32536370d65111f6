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
#include <memory>
#include <string>
#include <vector>

#include "base/pool.h"
#include "base/view.h"
#include "file/safetensors.h"
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
i64 sample_rows(i64 tokens);  // of the sample after so many

// Of the rows a block puts into its cache, before rounding. Keys as projected, before rotation;
// blocks with a latent cache have none.
struct KvStatistics {
  std::vector<float> k_min, k_max;  // (kv_heads * qk_dim)
  std::vector<float> v_min, v_max;  // (kv_heads * v_dim)
};

// Of several inputs, by name (input_name).
struct Statistics {
  std::map<std::string, InputStatistics, std::less<>> inputs;
  std::string source;  // where the text came from, for reports
  i64 tokens = 0;
};

// An input of the model and the Linears that read it, in slot order; its name is the first of them.
struct InputSlot {
  std::string name;
  i64 size = 0;
  std::vector<std::string> members;
};
std::vector<InputSlot> input_slots(const Spec&);

// The input of `linear` ("blocks.3.attn.v"): the name under which it is kept ("blocks.3.attn.q").
std::string input_name(const Spec&, const std::string& linear);

// Adds up one input. Rows may come in pieces of any size.
class InputSum {
 public:
  InputSum(i64 n, bool with_gram);
  ~InputSum();
  InputSum(InputSum&&) noexcept;
  void add(Matrix<const float> x, Pool&);  // (tokens, n)
  InputStatistics finish(Pool&);           // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A file of statistics, written input by input and read input by input. Errors: SA-001 the file
// holds no statistics, SA-002 they are of another model; and those of safetensors.
class StatisticsWriter {
 public:
  StatisticsWriter(const std::filesystem::path&, const Spec&, bool gram, i64 tokens,
                   const std::string& source);
  void write(const std::string& input, const InputStatistics&);
  void write(i64 block, const KvStatistics&);
  void finish();

 private:
  bool gram_;
  std::unique_ptr<SafetensorsWriter> writer_;
};
class StatisticsFile {
 public:
  StatisticsFile(const std::filesystem::path&, const Spec&);
  InputStatistics read(const std::string& input) const;
  bool has_gram() const;
  i64 tokens() const { return tokens_; }
  const std::string& source() const { return source_; }

 private:
  std::string path_, source_;
  i64 tokens_ = 0;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace pare
