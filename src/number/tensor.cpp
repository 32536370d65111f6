// Decoding: the definition of every scheme.
//
// A row is decoded by runs of weights that share a scale, each run through the table of its code;
// so the definition is also quick enough to be the fallback of every product.
#include "number/tensor.h"

#include <algorithm>
#include <cstring>

namespace pare {
namespace {

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Element `index` of a plane of scales, in the code's own width (sub-byte codes in a whole byte).
float plane_value(const Blob& plane, Code code, i64 index) {
  switch (bits(code)) {
    case 32:
      return load<float>(plane.data() + 4 * index);
    case 16:
      return decode(code, load<std::uint16_t>(plane.data() + 2 * index));
    default:
      return decode(code, load<std::uint8_t>(plane.data() + index));
  }
}
i64 plane_width(Code code) { return bits(code) >= 16 ? bits(code) / 8 : 1; }

std::uint32_t pattern_at(const std::byte* row, int width, i64 k) {
  if (width == 8) return load<std::uint8_t>(row + k);
  if (width == 4) return (load<std::uint8_t>(row + k / 2) >> (4 * (k & 1))) & 15;
  const i64 bit = k * width, word = bit / 32;
  std::uint64_t two = load<std::uint32_t>(row + 4 * word);
  if (bit % 32 + width > 32)
    two |= static_cast<std::uint64_t>(load<std::uint32_t>(row + 4 * word + 4)) << 32;
  return static_cast<std::uint32_t>(two >> (bit % 32)) & ((1u << width) - 1);
}

struct GroupIndex {
  i64 row, col, cols;  // in the scale plane
  i64 flat() const { return row * cols + col; }
};

GroupIndex group_of(const Tensor& t, i64 row, i64 col) {
  const Scheme& s = t.scheme;
  const i64 r = s.grouping == Grouping::tensor  ? 0
                : s.grouping == Grouping::block ? row / s.rows
                                                : row;
  const i64 c = s.grouping == Grouping::group || s.grouping == Grouping::block ? col / s.cols : 0;
  return {r, c, scale_cols(s, t.cols())};
}

i64 super_index(const Scheme& s, const GroupIndex& g) {
  if (s.super_count == 0) return 0;
  return g.row * ceil_div(g.cols, s.super_count) + g.col / s.super_count;
}

float group_scale(const Tensor& t, const GroupIndex& g) {
  const float scale = plane_value(t.scales, t.scheme.scale, g.flat());
  if (!t.scheme.second_level) return scale;
  return scale * plane_value(t.super_scales, t.scheme.super, super_index(t.scheme, g));
}

float group_min(const Tensor& t, const GroupIndex& g) {
  if (t.scheme.offset != Offset::minimum) return 0;
  const float min = plane_value(t.mins, t.scheme.scale, g.flat());
  if (!t.scheme.second_level) return min;
  return min * plane_value(t.super_mins, t.scheme.super, super_index(t.scheme, g));
}

int group_zero(const Tensor& t, const GroupIndex& g) {
  if (t.scheme.offset != Offset::zero) return 0;
  return load<std::int8_t>(t.zeros.data() + g.flat());
}

void decode_plain(const Tensor& t, const std::byte* row, i64 col0, i64 col1, float* out) {
  switch (t.scheme.code) {
    case Code::f32:
      std::memcpy(out, row + 4 * col0, static_cast<std::size_t>(4 * (col1 - col0)));
      break;
    case Code::f16:
      for (i64 c = col0; c < col1; c++) *out++ = from_f16(load<std::uint16_t>(row + 2 * c));
      break;
    case Code::bf16:
      for (i64 c = col0; c < col1; c++) *out++ = from_bf16(load<std::uint16_t>(row + 2 * c));
      break;
    default:
      const float* table = values(t.scheme.code).data();
      for (i64 c = col0; c < col1; c++) *out++ = table[load<std::uint8_t>(row + c)];
  }
}

// One run of weights under one scale.
void decode_run(const Tensor& t, const std::byte* row, i64 col0, i64 col1, const GroupIndex& g,
                float* out) {
  const Scheme& s = t.scheme;
  const int width = bits(s.code);
  const float scale = group_scale(t, g);
  const float* table = values(s.code).data();
  if (s.offset == Offset::minimum) {
    const float min = group_min(t, g);
    const std::uint32_t flip = s.code == Code::int8 ? 0x80 : 0;  // counted from 0
    for (i64 c = col0; c < col1; c++)
      *out++ = scale * static_cast<float>(pattern_at(row, width, c) ^ flip) - min;
    return;
  }
  const float zero = static_cast<float>(group_zero(t, g));
  for (i64 c = col0; c < col1; c++) *out++ = (table[pattern_at(row, width, c)] - zero) * scale;
}

bool kept(const Tensor& t, i64 row, i64 col) {
  const i64 stride = ceil_div(t.cols(), 8);
  return (load<std::uint8_t>(t.mask.data() + row * stride + col / 8) >> (col % 8)) & 1;
}

}  // namespace

i64 Tensor::bytes() const {
  return static_cast<i64>(codes.size() + scales.size() + zeros.size() + mins.size() +
                          super_scales.size() + super_mins.size() + mask.size());
}

void check(const Tensor& t, std::string_view name) {
  const Scheme& s = t.scheme;
  const i64 rows = t.rows(), cols = t.cols();
  const i64 groups = scale_rows(s, rows) * scale_cols(s, cols);
  const bool minimum = s.offset == Offset::minimum;
  const i64 supers = !s.second_level ? 0
                     : s.super_count == 0
                         ? 1
                         : scale_rows(s, rows) * ceil_div(scale_cols(s, cols), s.super_count);
  const auto demand = [&](const Blob& plane, const char* what, i64 bytes) {
    if (static_cast<i64>(plane.size()) == bytes) return;
    fail_input("NU-001", fmt::format("the plane of {} has the wrong size", what),
               {{"tensor", std::string(name)},
                {"scheme", to_string(s)},
                {"found", fmt::format("{} bytes", plane.size())},
                {"need", fmt::format("{} bytes for {} x {}", bytes, rows, cols)}});
  };
  demand(t.codes, "codes", rows * row_bytes(s, cols));
  demand(t.scales, "scales", groups * plane_width(s.scale));
  demand(t.zeros, "zero points", s.offset == Offset::zero ? groups : 0);
  demand(t.mins, "minima", minimum ? groups * plane_width(s.scale) : 0);
  demand(t.super_scales, "second-level scales", supers * plane_width(s.super));
  demand(t.super_mins, "second-level minima", minimum ? supers * plane_width(s.super) : 0);
  demand(t.mask, "mask", s.sparsity == Sparsity::bitmask ? rows * ceil_div(cols, 8) : 0);
}

void decode_range(const Tensor& t, i64 row, i64 col0, i64 col1, std::span<float> out) {
  PARE_CHECK(row >= 0 && row < t.rows() && col0 >= 0 && col0 <= col1 && col1 <= t.cols());
  PARE_CHECK(static_cast<i64>(out.size()) >= col1 - col0);
  const std::byte* data = t.codes.data() + row * row_bytes(t.scheme, t.cols());
  if (t.scheme.plain()) {
    decode_plain(t, data, col0, col1, out.data());
  } else {
    const bool grouped =
        t.scheme.grouping == Grouping::group || t.scheme.grouping == Grouping::block;
    for (i64 c = col0; c < col1;) {
      const i64 end = grouped ? std::min(col1, (c / t.scheme.cols + 1) * t.scheme.cols) : col1;
      decode_run(t, data, c, end, group_of(t, row, c), out.data() + (c - col0));
      c = end;
    }
  }
  if (t.scheme.sparsity == Sparsity::bitmask)
    for (i64 c = col0; c < col1; c++)
      if (!kept(t, row, c)) out[static_cast<std::size_t>(c - col0)] = 0;
}

void decode_row(const Tensor& t, i64 row, std::span<float> out) {
  decode_range(t, row, 0, t.cols(), out);
}

std::vector<float> decode(const Tensor& t) {
  std::vector<float> out(static_cast<std::size_t>(t.count()));
  for (i64 r = 0; r < t.rows(); r++)
    decode_row(t, r,
               std::span(out).subspan(static_cast<std::size_t>(r * t.cols()),
                                      static_cast<std::size_t>(t.cols())));
  return out;
}

float scale_at(const Tensor& t, i64 row, i64 col) {
  return t.scheme.plain() ? 1.0f : group_scale(t, group_of(t, row, col));
}
float min_at(const Tensor& t, i64 row, i64 col) {
  return t.scheme.plain() ? 0.0f : group_min(t, group_of(t, row, col));
}
int zero_at(const Tensor& t, i64 row, i64 col) {
  return t.scheme.plain() ? 0 : group_zero(t, group_of(t, row, col));
}
int code_at(const Tensor& t, i64 row, i64 col) {
  const std::byte* data = t.codes.data() + row * row_bytes(t.scheme, t.cols());
  PARE_CHECK(bits(t.scheme.code) <= 8);
  const std::uint32_t pattern = pattern_at(data, bits(t.scheme.code), col);
  return info(t.scheme.code).integer ? static_cast<int>(decode(t.scheme.code, pattern))
                                     : static_cast<int>(pattern);
}

Tensor plain_tensor(std::span<const float> from, std::vector<i64> shape, Code code) {
  Tensor t;
  t.scheme.code = code;
  t.shape = std::move(shape);
  PARE_CHECK(static_cast<i64>(from.size()) == t.count());
  if (code == Code::f32) {
    t.codes = blob_of(std::vector<float>(from.begin(), from.end()));
    return t;
  }
  PARE_CHECK(code == Code::f16 || code == Code::bf16);
  std::vector<std::uint16_t> half(from.size());
  for (std::size_t i = 0; i < from.size(); i++)
    half[i] = code == Code::f16 ? to_f16(from[i]) : to_bf16(from[i]);
  t.codes = blob_of(std::move(half));
  return t;
}

}  // namespace pare
