// Exact conversion to ggml's grids.
//
// Integer schemes and e2m1 put a weight on level n of a ladder of equal steps: x = u n, or
// x = u q - m with q counted from the lowest code. A ggml type does the same with its own range of
// levels and its own storage of u and m, so conversion is a matter of ranges and of numbers that
// f16 has; no weight is decoded. The k-quants, whose sub-block scales are products, are reached
// with all second-level factors equal to one, which needs one u for 256 weights.
#include "number/ggml_exact.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace pare {
namespace {

enum class Form { signed_levels, from_minimum, same_codes };
struct Grid {
  std::uint32_t type;
  Form form;
  int low, high;  // levels
  i64 run;        // weights that share u and m
};
constexpr Grid grids[] = {
    // by bytes
    {10, Form::from_minimum, 0, 3, 256},      // Q2_K
    {11, Form::signed_levels, -4, 3, 256},    // Q3_K
    {39, Form::same_codes, 0, 0, 32},         // MXFP4
    {2, Form::signed_levels, -8, 7, 32},      // Q4_0
    {20, Form::same_codes, 0, 0, 32},         // IQ4_NL
    {12, Form::from_minimum, 0, 15, 256},     // Q4_K
    {3, Form::from_minimum, 0, 15, 32},       // Q4_1
    {6, Form::signed_levels, -16, 15, 32},    // Q5_0
    {13, Form::from_minimum, 0, 31, 256},     // Q5_K
    {7, Form::from_minimum, 0, 31, 32},       // Q5_1
    {14, Form::signed_levels, -32, 31, 256},  // Q6_K
    {8, Form::signed_levels, -128, 127, 32},  // Q8_0
};

bool f16_has(float x) { return std::isfinite(x) && from_f16(to_f16(x)) == x; }

// u, m and levels of the source.
struct Source {
  const Tensor& t;
  bool halves;  // e2m1: levels are twice the values

  bool integer() const { return info(t.scheme.code).integer; }
  float unit(i64 row, i64 col) const {
    return halves ? 0.5f * scale_at(t, row, col) : scale_at(t, row, col);
  }
  int lowest() const { return -(1 << (bits(t.scheme.code) - 1)); }
  bool masked(i64 row, i64 col) const {
    if (t.scheme.sparsity != Sparsity::bitmask) return false;
    const std::byte* plane = t.mask.data() + row * ((t.cols() + 7) / 8);
    return ((static_cast<int>(plane[col / 8]) >> (col % 8)) & 1) == 0;
  }
  int level(i64 row, i64 col, int zero) const {
    if (masked(row, col)) return 0;
    const int code = code_at(t, row, col);
    if (integer()) return code - zero;
    return static_cast<int>(2.0f * decode(Code::e2m1, static_cast<std::uint32_t>(code)));
  }
  // Levels of all weights without looking at them.
  bool range_known() const { return t.scheme.offset == Offset::none; }
  int least() const { return halves ? -12 : lowest(); }
  int most() const { return halves ? 12 : -lowest() - 1; }
};

bool one_unit_in(const Scheme& s, i64 run) {
  switch (s.grouping) {
    case Grouping::none:
      return false;
    case Grouping::tensor:
    case Grouping::channel:
      return true;
    case Grouping::group:
    case Grouping::block:
      return s.cols % run == 0;
  }
  return false;
}

struct Builder {
  Scheme s;
  i64 cols;
  std::vector<std::uint8_t> codes, scales, mins, supers, super_mins;

  Builder(const Scheme& scheme, i64 rows, i64 width) : s(scheme), cols(width) {
    const std::size_t groups = static_cast<std::size_t>(scale_rows(s, rows) * scale_cols(s, cols));
    const std::size_t bytes = bits(s.scale) >= 16 ? 2 : 1;
    codes.resize(static_cast<std::size_t>(rows * row_bytes(s, cols)));
    scales.resize(groups * bytes);
    if (s.offset == Offset::minimum) mins.resize(groups * bytes);
    if (!s.second_level) return;
    supers.resize(2 * groups / static_cast<std::size_t>(s.super_count));
    if (s.offset == Offset::minimum) super_mins.resize(supers.size());
  }

  static void half(std::vector<std::uint8_t>& plane, i64 index, float value) {
    const std::uint16_t stored = to_f16(value);
    std::memcpy(plane.data() + 2 * index, &stored, 2);
  }

  // u and m of `run` weights from (row, col).
  void unit(i64 row, i64 col, float u, float m) {
    const i64 group = row * scale_cols(s, cols) + col / s.cols;
    const bool minimum = s.offset == Offset::minimum;
    if (!s.second_level) {
      if (s.scale == Code::e8m0)
        scales[static_cast<std::size_t>(group)] = static_cast<std::uint8_t>(encode(s.scale, u));
      else
        half(scales, group, u);
      if (minimum) half(mins, group, m);
      return;
    }
    for (i64 k = 0; k < s.super_count; k++) {
      const auto one = static_cast<std::uint8_t>(encode(s.scale, 1.0f));
      scales[static_cast<std::size_t>(group + k)] = one;
      if (minimum) mins[static_cast<std::size_t>(group + k)] = one;
    }
    half(supers, group / s.super_count, u);
    if (minimum) half(super_mins, group / s.super_count, m);
  }

  void code(i64 row, i64 col, int pattern) {
    std::uint8_t* data = codes.data() + row * row_bytes(s, cols);
    const int b = bits(s.code);
    for (int k = 0; k < b; k++) {
      const i64 bit = col * b + k;
      data[bit / 8] = static_cast<std::uint8_t>(data[bit / 8] | ((pattern >> k & 1) << (bit % 8)));
    }
  }

  Tensor finish(std::vector<i64> shape) {
    Tensor t;
    t.scheme = s;
    t.shape = std::move(shape);
    t.codes = blob_of(std::move(codes));
    t.scales = blob_of(std::move(scales));
    t.mins = blob_of(std::move(mins));
    t.super_scales = blob_of(std::move(supers));
    t.super_mins = blob_of(std::move(super_mins));
    return t;
  }
};

// Levels of one run on a grid of signed levels.
bool signed_run(const Source& from, const Grid& grid, i64 row, i64 col, Builder* to) {
  const float u = from.unit(row, col);
  if (!f16_has(u)) return false;
  const int zero = zero_at(from.t, row, col);
  const bool known = from.range_known() && from.least() >= grid.low && from.most() <= grid.high;
  if (known && to == nullptr) return true;
  for (i64 c = col; c < col + grid.run; c++) {
    const int n = from.level(row, c, zero);
    if (n < grid.low || n > grid.high) return false;
    if (to != nullptr) to->code(row, c, to->s.code == Code::int8 ? n & 255 : n - grid.low);
  }
  if (to != nullptr) to->unit(row, col, u, 0);
  return true;
}

// One run as u q - m. A zero point is a minimum of u (zero - lowest code).
bool minimum_run(const Source& from, const Grid& grid, i64 row, i64 col, Builder* to) {
  const float u = from.unit(row, col);
  const bool stored = from.t.scheme.offset == Offset::minimum;
  const int lowest = from.lowest(), zero = stored ? 0 : zero_at(from.t, row, col);
  const float m = stored ? min_at(from.t, row, col) : u * static_cast<float>(zero - lowest);
  if (!f16_has(u) || !f16_has(m)) return false;
  if (to == nullptr) return true;
  for (i64 c = col; c < col + grid.run; c++) to->code(row, c, code_at(from.t, row, c) - lowest);
  to->unit(row, col, u, m);
  return true;
}

bool same_run(const Source& from, const Grid& grid, i64 row, i64 col, Builder* to) {
  const float u = scale_at(from.t, row, col);
  const Code scale = grid.type == 39 ? Code::e8m0 : Code::f16;
  if (!std::isfinite(u) || decode(scale, encode(scale, u)) != u) return false;
  if (to == nullptr) return true;
  for (i64 c = col; c < col + grid.run; c++) to->code(row, c, code_at(from.t, row, c));
  to->unit(row, col, u, 0);
  return true;
}

// Whether a scheme can be on the grid at all, whatever its scales.
bool possible(const Source& from, const Grid& grid) {
  const Scheme& s = from.t.scheme;
  if (!one_unit_in(s, grid.run) || from.t.cols() % grid.run != 0) return false;
  switch (grid.form) {
    case Form::signed_levels:
      return s.offset != Offset::minimum && (from.integer() || from.halves);
    case Form::from_minimum:
      return from.integer() && s.sparsity != Sparsity::bitmask &&
             (1 << bits(s.code)) - 1 <= grid.high;
    case Form::same_codes:
      return s.sparsity != Sparsity::bitmask && s.code == scheme_of_ggml(grid.type).code;
  }
  return false;
}

bool convert(const Tensor& t, const Grid& grid, Builder* to) {
  const Source from{t, t.scheme.code == Code::e2m1};
  if (!possible(from, grid)) return false;
  for (i64 r = 0; r < t.rows(); r++)
    for (i64 c = 0; c < t.cols(); c += grid.run) {
      const bool done = grid.form == Form::signed_levels  ? signed_run(from, grid, r, c, to)
                        : grid.form == Form::from_minimum ? minimum_run(from, grid, r, c, to)
                                                          : same_run(from, grid, r, c, to);
      if (!done) return false;
    }
  return true;
}

}  // namespace

std::vector<std::uint32_t> exact_ggml_types(const Tensor& t) {
  std::vector<std::uint32_t> types;
  for (std::uint32_t type : ggml_types())
    if (const Scheme s = scheme_of_ggml(type); s == t.scheme && t.cols() % ggml_block(type) == 0)
      types.push_back(type);
  if (t.scheme.plain()) return types;
  for (const Grid& grid : grids)
    if ((types.empty() || types[0] != grid.type) && convert(t, grid, nullptr))
      types.push_back(grid.type);
  return types;
}

std::optional<Tensor> exact_in_ggml(const Tensor& t, std::uint32_t type) {
  const Scheme s = scheme_of_ggml(type);
  if (t.cols() % ggml_block(type) != 0) return std::nullopt;
  if (t.scheme == s) return t;
  if (t.scheme.plain()) return std::nullopt;
  for (const Grid& grid : grids) {
    if (grid.type != type) continue;
    if (!convert(t, grid, nullptr)) return std::nullopt;
    Builder builder(s, t.rows(), t.cols());
    PARE_CHECK(convert(t, grid, &builder));
    return builder.finish(t.shape);
  }
  return std::nullopt;
}

}  // namespace pare
