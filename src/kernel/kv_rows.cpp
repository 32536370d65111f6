// Packing rows of a cache, and the scalar meaning of what was packed.
//
// Parameters are rounded to their storage before a code is chosen, and in the direction that keeps
// the whole range representable: a clipped key is an outlier lost, and outliers are what attention
// looks at. What is left is half a step of the stored scale.
#include "kernel/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace pare {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

std::uint16_t half_up(float x) {  // the least f16 >= x, at most the largest
  std::uint16_t h = to_f16(std::clamp(x, -65504.0f, 65504.0f));
  if (from_f16(h) >= x || h == 0x7bff) return h;
  if (h == 0x8000) h = 0;
  return static_cast<std::uint16_t>((h & 0x8000) != 0 ? h - 1 : h + 1);
}
std::uint16_t half_down(float x) { return half_up(-x) ^ 0x8000; }

// Positive side of the symmetric range.
float largest_code(Code code) {
  switch (code) {
    case Code::int8:
      return 127;
    case Code::int4:
      return 7;
    case Code::int2:
      return 1;
    default:
      return 448;
  }
}
float code_count(Code code) { return static_cast<float>(1 << bits(code)); }

struct Parameters {
  float scale = 0, minimum = 0;
};

float parameter(const KvPart& p, const std::byte* from, i64 i) {
  if (kv_scale_bytes(p) == 4) {
    float x;
    std::memcpy(&x, from + 4 * i, 4);
    return x;
  }
  std::uint16_t h;
  std::memcpy(&h, from + 2 * i, 2);
  return from_f16(h);
}

void put_half(std::byte* to, i64 i, std::uint16_t h) { std::memcpy(to + 2 * i, &h, 2); }

// Decides and stores the parameters of `count` numbers, `stride` apart; they become parameter
// `index` of `total`.
Parameters fit(const KvPart& p, const float* x, i64 count, i64 stride, std::byte* to, i64 index,
               i64 total) {
  float least = x[0], most = x[0];
  bool finite = true;
  for (i64 i = 0; i < count; i++) {
    const float v = x[i * stride];
    finite = finite && std::isfinite(v);
    least = std::min(least, v);
    most = std::max(most, v);
  }
  const bool wide = kv_scale_bytes(p) == 4;
  float scale = nan, minimum = 0;
  if (finite && p.asym) {
    minimum = wide ? least : from_f16(half_down(least));
    scale = (most - minimum) / (code_count(p.code) - 1);
  } else if (finite) {
    scale = std::max(-least, most) / largest_code(p.code);
  }
  if (wide) {
    std::memcpy(to + 4 * index, &scale, 4);
    if (p.asym) std::memcpy(to + 4 * (total + index), &minimum, 4);
    return {scale, minimum};
  }
  const std::uint16_t h = finite ? half_up(scale) : std::uint16_t{0x7e00};
  put_half(to, index, h);
  if (p.asym) put_half(to, total + index, half_down(minimum));
  return {from_f16(h), minimum};
}

// Nearest integer, ties to even, of |x| < 2^22.
float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

// The stored field of one number.
std::uint32_t field(const KvPart& p, float x, const Parameters& parameters, float inverse) {
  if (!(parameters.scale > 0))
    return p.asym || p.code == Code::int8 || p.code == Code::e4m3
               ? 0u
               : static_cast<std::uint32_t>(code_count(p.code) / 2);
  const float y = (x - parameters.minimum) * inverse;
  if (p.asym) {
    const float top = code_count(p.code) - 1;
    return static_cast<std::uint32_t>(nearest(std::clamp(y, 0.0f, top)));
  }
  if (p.code == Code::e4m3) return encode(p.code, y);
  const float top = largest_code(p.code);
  const int q = static_cast<int>(nearest(std::clamp(y, -top, top)));
  if (p.code == Code::int8) return static_cast<std::uint8_t>(static_cast<std::int8_t>(q));
  return static_cast<std::uint32_t>(q + static_cast<int>(code_count(p.code)) / 2);
}

void put_field(const KvPart& p, std::byte* row, i64 row_bytes, i64 i, std::uint32_t value) {
  if (bits(p.code) == 8) {
    row[i] = static_cast<std::byte>(value);
    return;
  }
  const i64 shift = i / row_bytes * bits(p.code);
  row[i % row_bytes] |= static_cast<std::byte>(value << shift);
}

void store_floats(Code code, const float* from, i64 n, std::byte* to) {
  if (code == Code::f32) {
    std::memcpy(to, from, static_cast<std::size_t>(4 * n));
    return;
  }
  for (i64 i = 0; i < n; i++)
    put_half(to, i, code == Code::f16 ? to_f16(from[i]) : to_bf16(from[i]));
}

}  // namespace

KvRows float_rows(const float* data, i64 width, i64 head_stride, i64 row_stride) {
  KvRows r;
  r.part = KvScheme(Code::f32).keys;
  r.width = width;
  r.data = reinterpret_cast<const std::byte*>(data);
  r.head_stride = head_stride * static_cast<i64>(sizeof(float));
  r.row_stride = row_stride * static_cast<i64>(sizeof(float));
  return r;
}

void store_kv_row(const KvPart& p, const float* from, i64 n, std::byte* to, std::byte* parameters) {
  if (p.plain()) return store_floats(p.code, from, n, to);
  PARE_CHECK(p.grouping != KvGrouping::channel);
  const i64 bytes = kv_row_bytes(p, n), groups = kv_scales(p, n);
  const i64 size = p.grouping == KvGrouping::group ? p.count : n;
  std::memset(to, 0, static_cast<std::size_t>(bytes));
  for (i64 g = 0; g < groups; g++) {
    const i64 begin = g * size, end = std::min(n, begin + size);
    const Parameters fitted = fit(p, from + begin, end - begin, 1, parameters, g, groups);
    const float inverse = fitted.scale > 0 ? 1.0f / fitted.scale : 0.0f;
    for (i64 i = begin; i < end; i++)
      put_field(p, to, bytes, i, field(p, from[i], fitted, inverse));
  }
}

void store_kv_group(const KvPart& p, Matrix<const float> rows, std::byte* to, i64 row_stride,
                    std::byte* parameters) {
  PARE_CHECK(p.grouping == KvGrouping::channel && rows.rows == p.count);
  const i64 bytes = kv_row_bytes(p, rows.cols);
  for (i64 r = 0; r < rows.rows; r++)
    std::memset(to + r * row_stride, 0, static_cast<std::size_t>(bytes));
  for (i64 i = 0; i < rows.cols; i++) {
    const Parameters fitted =
        fit(p, rows.data + i, rows.rows, rows.stride, parameters, i, rows.cols);
    const float inverse = fitted.scale > 0 ? 1.0f / fitted.scale : 0.0f;
    for (i64 r = 0; r < rows.rows; r++)
      put_field(p, to + r * row_stride, bytes, i, field(p, rows.row(r)[i], fitted, inverse));
  }
}

float kv_number(const KvRows& r, i64 head, i64 slot, i64 i) {
  const std::byte* row = r.data + head * r.head_stride + slot * r.row_stride;
  const KvPart& p = r.part;
  std::uint32_t stored = 0;
  if (bits(p.code) >= 8) {
    const i64 bytes = bits(p.code) / 8;
    std::memcpy(&stored, row + i * bytes, static_cast<std::size_t>(bytes));
  } else {
    const i64 bytes = kv_row_bytes(p, r.width), shift = i / bytes * bits(p.code);
    stored = (static_cast<std::uint32_t>(row[i % bytes]) >> shift) & ((1u << bits(p.code)) - 1);
  }
  if (p.plain()) return decode(p.code, stored);
  const std::byte* from =
      r.parameters + head * r.parameter_head_stride + r.unit(slot) * r.parameter_stride;
  const i64 total = kv_scales(p, r.width);
  const i64 index = p.grouping == KvGrouping::channel ? i
                    : p.grouping == KvGrouping::group ? i / p.count
                                                      : 0;
  const float scale = parameter(p, from, index);
  if (p.asym) return std::fma(static_cast<float>(stored), scale, parameter(p, from, total + index));
  return decode(p.code, stored) * scale;
}

void read_kv_row(const KvRows& r, i64 head, i64 slot, float* to) {
  for (i64 i = 0; i < r.width; i++) to[i] = kv_number(r, head, slot, i);
}

}  // namespace pare
