// What the layouts of other programs share.
#include "number/raw_plane.h"

#include <cstring>

namespace pare {

const RawPlane* find_plane(const std::vector<RawPlane>& planes, std::string_view suffix) {
  for (const RawPlane& p : planes)
    if (p.suffix == suffix) return &p;
  return nullptr;
}

Blob demand_plane(const std::vector<RawPlane>& planes, const RawPlane& want) {
  const RawPlane* p = find_plane(planes, want.suffix);
  if (p == nullptr) fail_input("NU-030", fmt::format("{} is missing", want.suffix));
  i64 have = 1, need = 1;
  for (i64 d : p->shape) have *= d;
  for (i64 d : want.shape) need *= d;
  if (p->dtype != want.dtype || have != need)
    fail_input("NU-030", fmt::format("{} has the wrong type or shape", want.suffix),
               {{"found", fmt::format("{} with {} elements", p->dtype, have)},
                {"need", fmt::format("{} with {} elements", want.dtype, need)}});
  return p->bytes;
}

i64 group_columns(const Scheme& s, i64 cols) {
  const bool grouped = s.grouping == Grouping::group || s.grouping == Grouping::block;
  return grouped && s.cols < cols ? s.cols : cols;
}

std::vector<float> spread_scales(const Tensor& t, i64 group) {
  std::vector<float> scales;
  scales.reserve(static_cast<std::size_t>(t.rows() * ((t.cols() + group - 1) / group)));
  for (i64 r = 0; r < t.rows(); r++)
    for (i64 c = 0; c < t.cols(); c += group) scales.push_back(scale_at(t, r, c));
  return scales;
}

Blob f16_scales_by_group(const Tensor& t, i64 group) {
  const i64 rows = t.rows(), groups = (t.cols() + group - 1) / group;
  std::vector<std::uint16_t> out(static_cast<std::size_t>(rows * groups));
  for (i64 r = 0; r < rows; r++)
    for (i64 g = 0; g < groups; g++) {
      const float scale = scale_at(t, r, g * group);
      const std::uint16_t half = to_f16(scale);
      if (from_f16(half) != scale)
        fail_input("NU-033", "a scale is no number of f16, in which the format stores scales",
                   {{"found", fmt::format("{} at row {}, column {}", scale, r, g * group)},
                    {"need", fmt::format("{} or another value of f16", from_f16(half))}},
                   "quantize with scales in f16: add :s=f16 to the scheme");
      out[static_cast<std::size_t>(g * rows + r)] = half;
    }
  return blob_of(std::move(out));
}

Blob turn_plane(const Blob& plane, i64 rows, i64 cols, std::size_t width) {
  PARE_CHECK(plane.size() == static_cast<std::size_t>(rows * cols) * width);
  std::vector<std::byte> out(plane.size());
  for (i64 r = 0; r < rows; r++)
    for (i64 c = 0; c < cols; c++)
      std::memcpy(out.data() + static_cast<std::size_t>(c * rows + r) * width,
                  plane.data() + static_cast<std::size_t>(r * cols + c) * width, width);
  return blob_of(std::move(out));
}

std::string float_name(Code code) {
  PARE_CHECK(code == Code::f32 || code == Code::f16 || code == Code::bf16);
  return code == Code::f32 ? "F32" : code == Code::f16 ? "F16" : "BF16";
}

}  // namespace pare
