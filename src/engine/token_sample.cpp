// A sample of tokens whose length is not known beforehand: every token is kept until the sample is
// full; then every second is dropped and from there on only every second is taken, and so on. What
// is kept follows from the number of tokens alone.
#include "engine/statistics.h"

namespace pare {
namespace {

// Tokens between two that are kept, of `tokens` in all.
i64 stride_of(i64 tokens) {
  i64 stride = 1;
  while ((tokens + stride - 1) / stride > sample_limit) stride *= 2;
  return stride;
}

}  // namespace

i64 sample_rows(i64 tokens) {
  const i64 stride = stride_of(tokens);
  return (tokens + stride - 1) / stride;
}

void keep_sample(InputStatistics& in, Matrix<const float> x) {
  const i64 before = stride_of(in.tokens), after = stride_of(in.tokens + x.rows);
  const i64 kept = sample_rows(in.tokens);
  PARE_CHECK(static_cast<i64>(in.sample.size()) == kept * x.cols);
  std::vector<float> sample;
  for (i64 r = 0; r < kept; r += after / before) {
    const auto row = in.sample.begin() + r * x.cols;
    sample.insert(sample.end(), row, row + x.cols);
  }
  const i64 first = (in.tokens + after - 1) / after * after;  // the next token to keep
  for (i64 t = first; t < in.tokens + x.rows; t += after) {
    const float* row = x.row(t - in.tokens);
    sample.insert(sample.end(), row, row + x.cols);
  }
  in.sample = std::move(sample);
}

}  // namespace pare
