// Rounding a whole matrix to nearest: fit every unit, snap every weight.
#include <algorithm>

#include "number/encode.h"

namespace pare {
namespace {

void refuse_sparsity(const Scheme& scheme) {
  if (scheme.sparsity == Sparsity::bitmask)
    fail(Exit::usage, "NU-020",
         "a bitmask needs a pass that prunes; quantization alone keeps every weight");
}

// Rows of `source` are drawn through `row_at` so that decoding and quantizing share one row of
// floats.
template <class RowAt>
Tensor quantize_rows(i64 rows, i64 cols, const Scheme& scheme, const FitOptions& options,
                     std::span<const float> importance, Pool* pool, Matrix<const float> whole,
                     const RowAt& row_at) {
  Encoder encoder(scheme, rows, cols, options, whole);
  const i64 unit_rows = encoder.unit_rows(), unit_cols = encoder.unit_cols();
  const auto work = [&](i64 begin, i64 end) {
    std::vector<float> buffer(static_cast<std::size_t>(unit_rows * cols));
    for (i64 unit = begin; unit < end; unit++) {
      const i64 row0 = unit * unit_rows, row1 = std::min(rows, row0 + unit_rows);
      for (i64 r = row0; r < row1; r++) row_at(r, buffer.data() + (r - row0) * cols);
      for (i64 c = 0; c < cols; c += unit_cols) {
        const i64 n = std::min(unit_cols, cols - c);
        encoder.fit(row0, c, {buffer.data() + c, row1 - row0, n, cols},
                    importance.empty() ? importance
                                       : importance.subspan(static_cast<std::size_t>(c),
                                                            static_cast<std::size_t>(n)));
        for (i64 r = row0; r < row1; r++)
          for (i64 k = c; k < c + n; k++)
            encoder.snap(r, k, buffer[static_cast<std::size_t>((r - row0) * cols + k)]);
      }
    }
  };
  const i64 units = (rows + unit_rows - 1) / unit_rows;
  if (pool != nullptr)
    pool->run(units, 1, work);
  else
    work(0, units);
  return encoder.finish();
}

}  // namespace

Tensor quantize(Matrix<const float> weights, const Scheme& scheme, const FitOptions& options,
                std::span<const float> importance, Pool* pool) {
  if (scheme.plain()) {
    std::vector<float> flat;
    for (i64 r = 0; r < weights.rows; r++)
      flat.insert(flat.end(), weights.row(r), weights.row(r) + weights.cols);
    if (bits(scheme.code) >= 16)
      return plain_tensor(flat, {weights.rows, weights.cols}, scheme.code);
    std::vector<std::uint8_t> codes(flat.size());
    for (std::size_t i = 0; i < flat.size(); i++)
      codes[i] = static_cast<std::uint8_t>(encode(scheme.code, flat[i]));
    Tensor t;
    t.scheme = scheme;
    t.shape = {weights.rows, weights.cols};
    t.codes = blob_of(std::move(codes));
    return t;
  }
  refuse_sparsity(scheme);
  return quantize_rows(weights.rows, weights.cols, scheme, options, importance, pool, weights,
                       [&](i64 r, float* to) { std::copy_n(weights.row(r), weights.cols, to); });
}

Tensor requantize(const Tensor& source, const Scheme& scheme, const FitOptions& options,
                  std::span<const float> importance, Pool* pool) {
  const i64 rows = source.rows(), cols = source.cols();
  const bool needs_whole = scheme.plain() || (scheme.second_level && scheme.super_count == 0);
  if (needs_whole) {
    const std::vector<float> flat = decode(source);
    return quantize({flat.data(), rows, cols}, scheme, options, importance, pool);
  }
  refuse_sparsity(scheme);
  return quantize_rows(rows, cols, scheme, options, importance, pool, {}, [&](i64 r, float* to) {
    decode_row(source, r, {to, static_cast<std::size_t>(cols)});
  });
}

}  // namespace pare
