// The AWQ layout (GEMM).
//
// Words run along the outputs: one holds eight neighbouring outputs of one input, the even ones in
// the lower half and the odd ones in the upper. Zero points are stored as they are, and always: a
// symmetric matrix gets zero points of 8.
#include "number/awq.h"

#include <array>
#include <cstring>

namespace pare {
namespace {

constexpr std::array<int, 8> lane_of = {0, 4, 1, 5, 2, 6, 3, 7};  // of output 8 c + j

std::uint32_t nibble(const std::byte* row, i64 k) {
  return (static_cast<std::uint32_t>(row[k / 2]) >> (4 * (k & 1))) & 15u;
}

Blob pack_codes(const Tensor& t) {
  const i64 rows = t.rows(), cols = t.cols(), words = rows / 8, stride = row_bytes(t.scheme, cols);
  std::vector<std::uint32_t> out(static_cast<std::size_t>(cols * words));
  for (i64 w = 0; w < words; w++)
    for (i64 k = 0; k < cols; k++) {
      std::uint32_t word = 0;
      for (i64 j = 0; j < 8; j++)
        word |= nibble(t.codes.data() + (8 * w + j) * stride, k)
                << (4 * lane_of[static_cast<std::size_t>(j)]);
      out[static_cast<std::size_t>(k * words + w)] = word;
    }
  return blob_of(std::move(out));
}

Blob unpack_codes(const Blob& plane, const Scheme& s, i64 rows, i64 cols) {
  const i64 words = rows / 8, stride = row_bytes(s, cols);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(rows * stride));
  for (i64 w = 0; w < words; w++)
    for (i64 k = 0; k < cols; k++) {
      std::uint32_t word = 0;
      std::memcpy(&word, plane.data() + 4 * (k * words + w), 4);
      for (i64 j = 0; j < 8; j++) {
        std::uint8_t& pair = out[static_cast<std::size_t>((8 * w + j) * stride + k / 2)];
        const std::uint32_t code = (word >> (4 * lane_of[static_cast<std::size_t>(j)])) & 15u;
        pair = static_cast<std::uint8_t>(pair | code << (4 * (k & 1)));
      }
    }
  return blob_of(std::move(out));
}

Blob pack_zeros(const Tensor& t, i64 group) {
  const i64 rows = t.rows(), words = rows / 8, groups = t.cols() / group;
  std::vector<std::uint32_t> out(static_cast<std::size_t>(groups * words));
  for (i64 g = 0; g < groups; g++)
    for (i64 r = 0; r < rows; r++) {
      const int zero = zero_at(t, r, g * group) + 8;
      if (zero < 0 || zero > 15)
        fail_input("NU-034", "a zero point does not fit four bits",
                   {{"found", std::to_string(zero)}, {"need", "0 to 15"}});
      out[static_cast<std::size_t>(g * words + r / 8)] |=
          static_cast<std::uint32_t>(zero) << (4 * lane_of[static_cast<std::size_t>(r % 8)]);
    }
  return blob_of(std::move(out));
}

Blob unpack_zeros(const Blob& plane, i64 rows, i64 groups) {
  std::vector<std::int8_t> out(static_cast<std::size_t>(rows * groups));
  for (i64 r = 0; r < rows; r++)
    for (i64 g = 0; g < groups; g++) {
      std::uint32_t word = 0;
      std::memcpy(&word, plane.data() + 4 * (g * (rows / 8) + r / 8), 4);
      const int stored =
          static_cast<int>((word >> (4 * lane_of[static_cast<std::size_t>(r % 8)])) & 15u);
      out[static_cast<std::size_t>(r * groups + g)] = static_cast<std::int8_t>(stored - 8);
    }
  return blob_of(std::move(out));
}

}  // namespace

std::optional<Misfit> awq_misfit(const Scheme& s, i64 rows, i64 cols) {
  if (s.code != Code::int4 || s.plain() || s.sparsity != Sparsity::dense ||
      s.offset == Offset::minimum)
    return Misfit{to_string(s), "int4, symmetric or with zero points", "int4:g128:asym:s=f16"};
  const i64 group = group_columns(s, cols);
  if (cols % group != 0)
    return Misfit{fmt::format("{} inputs in groups of {}", cols, group), "whole groups",
                  cols % 32 == 0 ? "int4:g32:asym:s=f16" : "int4:channel:asym:s=f16"};
  if (rows % 8 != 0)
    return Misfit{fmt::format("{} outputs", rows), "a multiple of 8, which fill words", ""};
  return std::nullopt;
}

std::vector<RawPlane> plan_awq(const Scheme& s, i64 rows, i64 cols) {
  const i64 groups = ceil_div(cols, group_columns(s, cols));
  return {{"qweight", "I32", {cols, rows / 8}, {}},
          {"qzeros", "I32", {groups, rows / 8}, {}},
          {"scales", "F16", {groups, rows}, {}}};
}

std::vector<RawPlane> to_awq(const Tensor& t) {
  const i64 group = group_columns(t.scheme, t.cols());
  std::vector<RawPlane> planes = plan_awq(t.scheme, t.rows(), t.cols());
  planes[0].bytes = pack_codes(t);
  planes[1].bytes = pack_zeros(t, group);
  planes[2].bytes = f16_scales_by_group(t, group);
  return planes;
}

Tensor from_awq(const std::vector<RawPlane>& planes, const Scheme& s, i64 rows, i64 cols) {
  PARE_CHECK(!awq_misfit(s, rows, cols) && s.offset == Offset::zero);
  std::vector<RawPlane> plan = plan_awq(s, rows, cols);
  plan[2].dtype = float_name(s.scale);
  const i64 groups = plan[2].shape[0];
  Tensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  t.codes = unpack_codes(demand_plane(planes, plan[0]), s, rows, cols);
  t.zeros = unpack_zeros(demand_plane(planes, plan[1]), rows, groups);
  t.scales = turn_plane(demand_plane(planes, plan[2]), groups, rows,
                        static_cast<std::size_t>(bits(s.scale) / 8));
  check(t, "weight");
  return t;
}

}  // namespace pare
