// The FP8 block layout: renaming, but for scales of 16 bits, which widen to f32 exactly.
#include "number/fp8.h"

namespace pare {

std::optional<Misfit> fp8_misfit(const Scheme& s, i64, i64) {
  const bool blocks = s.grouping == Grouping::block && s.rows == 128 && s.cols == 128;
  if (s.code == Code::e4m3 && blocks && s.sparsity == Sparsity::dense && s.offset == Offset::none)
    return std::nullopt;
  return Misfit{to_string(s), "e4m3 in blocks of 128 x 128", "e4m3:b128x128"};
}

std::vector<RawPlane> plan_fp8(const Scheme& s, i64 rows, i64 cols) {
  return {{"weight", "F8_E4M3", {rows, cols}, {}},
          {"weight_scale_inv", "F32", {scale_rows(s, rows), scale_cols(s, cols)}, {}}};
}

std::vector<RawPlane> to_fp8(const Tensor& t) {
  std::vector<RawPlane> planes = plan_fp8(t.scheme, t.rows(), t.cols());
  std::vector<float> scales;
  for (i64 r = 0; r < t.rows(); r += t.scheme.rows)
    for (i64 c = 0; c < t.cols(); c += t.scheme.cols) scales.push_back(scale_at(t, r, c));
  planes[0].bytes = t.codes;
  planes[1].bytes = blob_of(std::move(scales));
  return planes;
}

Tensor from_fp8(const std::vector<RawPlane>& planes, const Scheme& s, const std::string& scale,
                i64 rows, i64 cols) {
  Tensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  const std::string dtype = s.scale == Code::e8m0 ? "F8_E8M0" : float_name(s.scale);
  t.codes = demand_plane(planes, {"weight", "F8_E4M3", {rows, cols}, {}});
  t.scales = demand_plane(planes, {scale, dtype, {scale_rows(s, rows), scale_cols(s, cols)}, {}});
  check(t, "weight");
  return t;
}

}  // namespace pare
