// fit and snap: the planes of a tensor in the making, and what each group was given.
#include "number/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "number/fit.h"

namespace pare {

using namespace fitting;

namespace {}  // namespace

struct Encoder::State {
  Scheme s;
  i64 rows = 0, cols = 0, group_rows = 0, group_cols = 0, code_row_bytes = 0;
  FitOptions options;
  std::vector<std::uint8_t> codes, scales, mins, super_scales, super_mins, mask;
  std::vector<std::int8_t> zeros;
  std::vector<Params> params;
  float tensor_super = 0;  // of a second level that spans the tensor
  bool finished = false;
  // Of the scheme, asked for at every snap.
  Kind kind = Kind::integer;
  Limits range{0, 0};
  int code_bits = 0;

  static i64 width(Code code) { return bits(code) >= 16 ? bits(code) / 8 : 1; }

  i64 group_index(i64 row, i64 col) const {
    const i64 r = s.grouping == Grouping::tensor  ? 0
                  : s.grouping == Grouping::block ? row / s.rows
                                                  : row;
    const i64 c = s.grouping == Grouping::group || s.grouping == Grouping::block ? col / s.cols : 0;
    return r * group_cols + c;
  }

  static void put(std::vector<std::uint8_t>& plane, Code code, i64 index, std::uint32_t stored) {
    std::memcpy(plane.data() + index * width(code), &stored, static_cast<std::size_t>(width(code)));
  }

  void set_scale(i64 group, Params p) {
    if (p.scale == 0) {  // a group of zeros under a code without a zero
      put(scales, s.scale, group, 0);
      params[static_cast<std::size_t>(group)] = p;
      return;
    }
    std::uint32_t stored = 0;
    p = with_scale(p, storable(s.scale, p.scale, &stored));
    put(scales, s.scale, group, stored);
    if (s.offset == Offset::zero)
      zeros[static_cast<std::size_t>(group)] = static_cast<std::int8_t>(p.zero);
    if (s.offset == Offset::minimum) {
      const std::uint32_t min = encode(s.scale, p.min);
      p.min = decode(s.scale, min);
      put(mins, s.scale, group, min);
    }
    params[static_cast<std::size_t>(group)] = p;
  }

  void set_minimum(i64 group, i64 row, i64 col, float minimum) {
    Params& p = params[static_cast<std::size_t>(group)];
    if (s.offset == Offset::zero) {
      const float steps = std::clamp(minimum * p.inverse, 0.0f, range.high - range.low);
      p.zero = static_cast<int>(range.low + round_even(steps));
      zeros[static_cast<std::size_t>(group)] = static_cast<std::int8_t>(p.zero);
      return;
    }
    float unit = 1;
    if (s.second_level) {
      const i64 super = s.super_count == 0 ? 0
                                           : row * ceil_div(group_cols, s.super_count) +
                                                 col / s.cols / s.super_count;
      std::uint32_t stored = 0;
      std::memcpy(&stored, super_mins.data() + super * width(s.super),
                  static_cast<std::size_t>(width(s.super)));
      unit = decode(s.super, stored);
      minimum = unit > 0 ? std::clamp(minimum / unit, 0.0f, limits_of(s.scale).high) : 0;
    }
    const std::uint32_t stored = encode(s.scale, minimum);
    p.min = decode(s.scale, stored) * unit;
    put(mins, s.scale, group, stored);
  }

  // Groups [first, first + n) of one row share second-level scales: fit each freely, then round
  // together.
  void fit_k_quant(i64 row, i64 col, Tile tile, i64 first) {
    std::vector<float> own;  // without importances larger weights count for more, as in ggml
    if (tile.weight == nullptr) {
      double square = 0;
      for (float x : tile.values.span(0)) square += static_cast<double>(x) * x;
      const float rms =
          static_cast<float>(std::sqrt(square / static_cast<double>(tile.values.cols)));
      for (float x : tile.values.span(0)) own.push_back(rms + std::abs(x));
      if (std::isfinite(square) && square > 0) tile.weight = own.data();
    }
    SuperGroup group{s, {}, {}};
    for (i64 begin = 0; begin < tile.values.cols; begin += s.cols) {
      const i64 n = std::min(s.cols, tile.values.cols - begin);
      const Tile t{{tile.values.data + begin, 1, n, tile.values.stride},
                   tile.weight != nullptr ? tile.weight + begin : nullptr};
      const bool zero = !(extent_of(t).magnitude() > 0);
      group.tiles.push_back(t);
      group.raw.push_back(zero ? with_scale({}, 0) : fit_group(s, t, options, Scale::free));
    }
    const SuperGroup::Choice c = group.search();
    const i64 super = row * ceil_div(group_cols, s.super_count) + col / s.cols / s.super_count;
    put(super_scales, s.super, super, encode(s.super, c.unit));
    if (s.offset == Offset::minimum) put(super_mins, s.super, super, encode(s.super, c.min_unit));
    for (std::size_t k = 0; k < c.scales.size(); k++) {
      const i64 g = first + static_cast<i64>(k);
      put(scales, s.scale, g, encode(s.scale, static_cast<float>(c.scales[k])));
      if (s.offset == Offset::minimum)
        put(mins, s.scale, g, encode(s.scale, static_cast<float>(c.mins[k])));
      params[static_cast<std::size_t>(g)] = group.at(c, c.scales[k], c.mins[k]);
    }
  }

  void fit_super(i64 row, i64 col, const Tile& tile, i64 first) {
    if (k_quant(s) && s.offset != Offset::zero && s.cols <= 256 && options.range == Range::mse)
      return fit_k_quant(row, col, tile, first);
    const i64 n = ceil_div(tile.values.cols, s.cols);
    std::vector<Params> raw(static_cast<std::size_t>(n));
    std::vector<bool> zero(static_cast<std::size_t>(n));
    float top = 0, top_min = 0;
    const auto part = [&](i64 k) {
      const i64 begin = k * s.cols, end = std::min(tile.values.cols, begin + s.cols);
      return Tile{{tile.values.data + begin, 1, end - begin, tile.values.stride},
                  tile.weight != nullptr ? tile.weight + begin : nullptr};
    };
    for (i64 k = 0; k < n; k++) {
      const Tile t = part(k);
      Params& p = raw[static_cast<std::size_t>(k)];
      zero[static_cast<std::size_t>(k)] = !(extent_of(t).magnitude() > 0);
      p = fit_group(s, t, options, Scale::free);
      if (zero[static_cast<std::size_t>(k)]) p = with_scale({}, 0);
      top = std::max(top, p.scale);
      top_min = std::max(top_min, p.min);
    }
    const float most = s.scale == Code::e4m3 ? 448.0f : limits_of(s.scale).high;
    const i64 super = s.super_count == 0 ? 0
                                         : row * ceil_div(group_cols, s.super_count) +
                                               col / s.cols / s.super_count;
    float unit = tensor_super;
    if (s.super_count != 0) {
      std::uint32_t stored = 0;
      unit = top > 0 ? storable(s.super, top / most, &stored) : 0;
      put(super_scales, s.super, super, stored);
    }
    float min_unit = 0;
    if (s.offset == Offset::minimum) {
      std::uint32_t stored = 0;
      if (top_min > 0) min_unit = storable(s.super, top_min / most, &stored);
      put(super_mins, s.super, super, stored);
    }
    for (i64 k = 0; k < n; k++) {
      Params p = raw[static_cast<std::size_t>(k)];
      std::uint32_t stored = encode(s.scale, 0.0f);
      if (!zero[static_cast<std::size_t>(k)] && unit > 0) {
        stored = encode(s.scale, std::min(p.scale / unit, most));
        if (!(decode(s.scale, stored) > 0))
          stored = encode(s.scale, s.scale == Code::e4m3 ? 0x1p-9f : 1.0f);
      }
      p = with_scale(p, decode(s.scale, stored) * unit);
      put(scales, s.scale, first + k, stored);
      if (s.offset == Offset::minimum) {
        const std::uint32_t min =
            min_unit > 0 ? encode(s.scale, std::min(p.min / min_unit, most)) : 0;
        p.min = decode(s.scale, min) * min_unit;
        put(mins, s.scale, first + k, min);
      }
      if (s.offset == Offset::zero)
        zeros[static_cast<std::size_t>(first + k)] = static_cast<std::int8_t>(p.zero);
      params[static_cast<std::size_t>(first + k)] = p;
    }
  }

  void put_code(i64 row, i64 col, std::uint32_t pattern) {
    std::uint8_t* data = codes.data() + row * code_row_bytes;
    const int b = code_bits;
    if (b == 8) {
      data[col] = static_cast<std::uint8_t>(pattern);
    } else if (b == 4) {
      const int shift = 4 * static_cast<int>(col & 1);
      data[col / 2] = static_cast<std::uint8_t>((data[col / 2] & ~(15 << shift)) |
                                                (static_cast<int>(pattern) << shift));
    } else {  // a code may straddle bytes
      const i64 bit = col * b;
      const int shift = static_cast<int>(bit % 8), field = ((1 << b) - 1) << shift,
                value = static_cast<int>(pattern) << shift;
      std::uint8_t* byte = data + bit / 8;
      byte[0] = static_cast<std::uint8_t>((byte[0] & ~field) | value);
      if (shift + b > 8)
        byte[1] = static_cast<std::uint8_t>((byte[1] & ~(field >> 8)) | value >> 8);
    }
  }

  float snap(i64 row, i64 col, float want) {
    const Params& p = params[static_cast<std::size_t>(group_index(row, col))];
    if (std::isnan(want)) want = 0;  // integers have no other word for it
    // Under a scale of 0 an infinity, or a sum that overflows, makes a NaN again.
    const auto number = [](float x) { return std::isnan(x) ? 0.0f : x; };
    switch (kind) {
      case Kind::integer: {
        const float zero = static_cast<float>(p.zero);
        const float q =
            round_even(std::clamp(number(want * p.inverse), range.low - zero, range.high - zero));
        put_code(
            row, col,
            static_cast<std::uint32_t>(static_cast<int>(q) + p.zero -
                                       (s.code == Code::int8 ? 0 : static_cast<int>(range.low))) &
                ((1u << code_bits) - 1));
        return q * p.scale;
      }
      case Kind::minimum: {
        const float q = round_even(
            std::clamp(number((want + p.min) * p.inverse), 0.0f, range.high - range.low));
        put_code(row, col, static_cast<std::uint32_t>(q) ^ (s.code == Code::int8 ? 0x80u : 0u));
        return p.scale * q - p.min;
      }
      case Kind::table:
        break;
    }
    const std::uint32_t pattern = encode(s.code, want * p.inverse);
    put_code(row, col, pattern);
    return decode(s.code, pattern) * p.scale;
  }
};

Encoder::Encoder(const Scheme& scheme, i64 rows, i64 cols, const FitOptions& options,
                 Matrix<const float> whole)
    : state_(std::make_shared<State>()) {
  check(scheme);
  PARE_CHECK(!scheme.plain() && rows > 0 && cols > 0);
  State& st = *state_;
  st.s = scheme;
  st.rows = rows;
  st.cols = cols;
  st.options = options;
  st.kind = kind_of(scheme);
  st.range = limits_of(scheme.code);
  st.code_bits = bits(scheme.code);
  st.code_row_bytes = row_bytes(scheme, cols);
  st.group_rows = scale_rows(scheme, rows);
  st.group_cols = scale_cols(scheme, cols);
  const std::size_t groups = static_cast<std::size_t>(st.group_rows * st.group_cols);
  st.codes.resize(static_cast<std::size_t>(rows * st.code_row_bytes));
  st.scales.resize(groups * static_cast<std::size_t>(State::width(scheme.scale)));
  st.params.resize(groups);
  if (scheme.offset == Offset::zero) st.zeros.resize(groups);
  if (scheme.offset == Offset::minimum) st.mins.resize(st.scales.size());
  if (scheme.second_level) {
    const i64 supers =
        scheme.super_count == 0 ? 1 : rows * ceil_div(st.group_cols, scheme.super_count);
    st.super_scales.resize(static_cast<std::size_t>(supers * State::width(scheme.super)));
    if (scheme.offset == Offset::minimum) st.super_mins.resize(st.super_scales.size());
    if (scheme.super_count == 0) {
      PARE_CHECK(whole.rows == rows && whole.cols == cols);
      const float top = extent_of({whole, nullptr}).magnitude();
      const float most = scheme.scale == Code::e4m3 ? 448.0f : limits_of(scheme.scale).high;
      const float code_top =
          info(scheme.code).integer ? limits_of(scheme.code).high : info(scheme.code).max;
      std::uint32_t stored = 0;
      float unit = storable(scheme.super, top > 0 ? top / (most * code_top) : 1.0f);
      // Checkpoints keep the reciprocal of an f32 scale; a value that is one comes back unchanged.
      const float twice = 1.0f / (1.0f / unit);
      if (scheme.super == Code::f32 && twice > 0 && std::isfinite(twice)) unit = twice;
      st.tensor_super = storable(scheme.super, unit, &stored);
      State::put(st.super_scales, scheme.super, 0, stored);
    }
  }
}

i64 Encoder::unit_rows() const {
  const Scheme& s = state_->s;
  return s.grouping == Grouping::tensor ? state_->rows : s.grouping == Grouping::block ? s.rows : 1;
}

i64 Encoder::unit_cols() const {
  const Scheme& s = state_->s;
  switch (s.grouping) {
    case Grouping::group:
      return std::min(state_->cols,
                      s.second_level && s.super_count > 0 ? s.cols * s.super_count : s.cols);
    case Grouping::block:
      return s.cols;
    default:
      return state_->cols;
  }
}

void Encoder::fit(i64 row, i64 col, Matrix<const float> values, std::span<const float> importance) {
  State& st = *state_;
  PARE_CHECK(row % unit_rows() == 0 && col % unit_cols() == 0);
  PARE_CHECK(importance.empty() || static_cast<i64>(importance.size()) == values.cols);
  const Tile tile{values, importance.empty() ? nullptr : importance.data()};
  const i64 group = st.group_index(row, col);
  if (st.s.second_level) return st.fit_super(row, col, tile, group);
  st.set_scale(group, fit_group(st.s, tile, st.options, Scale::stored));
}

float Encoder::snap(i64 row, i64 col, float want) { return state_->snap(row, col, want); }

float Encoder::scale(i64 row, i64 col) const {
  return state_->params[static_cast<std::size_t>(state_->group_index(row, col))].scale;
}

float Encoder::minimum(i64 row, i64 col) const {
  const Params& p = state_->params[static_cast<std::size_t>(state_->group_index(row, col))];
  return state_->s.offset == Offset::zero
             ? p.scale * (static_cast<float>(p.zero) - limits_of(state_->s.code).low)
             : p.min;
}

void Encoder::set_minimum(i64 row, i64 col, float minimum) {
  PARE_CHECK(state_->s.offset != Offset::none);
  state_->set_minimum(state_->group_index(row, col), row, col, minimum);
}

std::optional<std::pair<float, float>> Encoder::even_codes() const {
  const Scheme& s = state_->s;
  if (!info(s.code).integer || s.second_level) return std::nullopt;
  const Limits range = limits_of(s.code);
  if (s.offset == Offset::none) return std::pair{range.low, range.high};
  return std::pair{0.0f, range.high - range.low};
}

void Encoder::stretch(i64 row, i64 col, float factor) {
  PARE_CHECK(even_codes());
  const i64 group = state_->group_index(row, col);
  Params p = state_->params[static_cast<std::size_t>(group)];
  p.scale *= factor;
  p.min *= factor;
  state_->set_scale(group, p);
}

Tensor Encoder::finish() {
  State& st = *state_;
  PARE_CHECK(!st.finished);
  st.finished = true;
  Tensor t;
  t.scheme = st.s;
  t.shape = {st.rows, st.cols};
  t.codes = blob_of(std::move(st.codes));
  t.scales = blob_of(std::move(st.scales));
  t.zeros = blob_of(std::move(st.zeros));
  t.mins = blob_of(std::move(st.mins));
  t.super_scales = blob_of(std::move(st.super_scales));
  t.super_mins = blob_of(std::move(st.super_mins));
  return t;
}

}  // namespace pare
