// The codes as tables.
//
// Every code of eight bits or fewer is built once into a table of its values, and from it a ladder:
// the values in order, each with the smallest float that is stored as it. Encoding is a search in
// the ladder, so that definition and use cannot drift apart; ties, published thresholds and the
// sign of zero are decided once, while it is built. The floats of 8 and 16 bits are converted by
// bit arithmetic (round to nearest even, subnormals included); tests compare them with the
// definition.
#include "number/code.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace pare {
namespace {

constexpr CodeInfo infos[] = {
    {Code::f32, "f32", 32, false, 3.4028234663852886e38f},
    {Code::f16, "f16", 16, false, 65504.0f},
    {Code::bf16, "bf16", 16, false, 3.3895313892515355e38f},
    {Code::e4m3, "e4m3", 8, false, 448.0f},
    {Code::e5m2, "e5m2", 8, false, 57344.0f},
    {Code::e8m0, "e8m0", 8, false, 1.7014118346046923e38f},
    {Code::int8, "int8", 8, true, 128.0f},
    {Code::int7, "int7", 7, true, 64.0f},
    {Code::int6, "int6", 6, true, 32.0f},
    {Code::int5, "int5", 5, true, 16.0f},
    {Code::int4, "int4", 4, true, 8.0f},
    {Code::int3, "int3", 3, true, 4.0f},
    {Code::int2, "int2", 2, true, 2.0f},
    {Code::uint8, "uint8", 8, true, 255.0f},
    {Code::uint6, "uint6", 6, true, 63.0f},
    {Code::uint4, "uint4", 4, true, 15.0f},
    {Code::nf4, "nf4", 4, false, 1.0f},
    {Code::fp4, "fp4", 4, false, 1.0f},
    {Code::e2m1, "e2m1", 4, false, 6.0f},
    {Code::iq4nl, "iq4nl", 4, false, 127.0f},
};
constexpr std::size_t code_count = std::size(infos);

// Published constants: QLoRA's NormalFloat4, to be copied and not derived (derivation differs by
// 1e-7).
constexpr float nf4_values[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};
// Where the reference implementation goes up, exclusively: midpoints as it wrote them, some an f32
// step away from the exact ones.
constexpr float nf4_thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};
constexpr float fp4_magnitudes[8] = {0.0f,        0.0052083333f, 0.66666667f, 1.0f,
                                     0.33333333f, 0.5f,          0.16666667f, 0.25f};
constexpr float e2m1_magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
constexpr float iq4nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();

float mini_float(unsigned stored, int exponent_bits, int mantissa_bits, int bias) {
  const unsigned mantissa = stored & ((1u << mantissa_bits) - 1);
  const unsigned exponent = (stored >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const float sign = (stored >> (exponent_bits + mantissa_bits)) & 1 ? -1.0f : 1.0f;
  const float fraction = static_cast<float>(mantissa) / static_cast<float>(1u << mantissa_bits);
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1.0f + fraction, static_cast<int>(exponent) - bias);
}

float define(Code code, unsigned stored) {
  switch (code) {
    case Code::e4m3:
      return (stored & 0x7f) == 0x7f ? quiet_nan : mini_float(stored, 4, 3, 7);
    case Code::e5m2:
      if ((stored & 0x7c) == 0x7c)
        return (stored & 3) != 0 ? quiet_nan
                                 : std::copysign(std::numeric_limits<float>::infinity(),
                                                 stored & 0x80 ? -1.0f : 1.0f);
      return mini_float(stored, 5, 2, 15);
    case Code::e8m0:
      return stored == 0xff ? quiet_nan : std::ldexp(1.0f, static_cast<int>(stored) - 127);
    case Code::int8:
      return static_cast<float>(static_cast<std::int8_t>(stored));
    case Code::int7:
    case Code::int6:
    case Code::int5:
    case Code::int4:
    case Code::int3:
    case Code::int2:
      return static_cast<float>(static_cast<int>(stored) - (1 << (bits(code) - 1)));
    case Code::uint8:
    case Code::uint6:
    case Code::uint4:
      return static_cast<float>(stored);
    case Code::nf4:
      return nf4_values[stored];
    case Code::fp4:
      return (stored & 8 ? -1.0f : 1.0f) * fp4_magnitudes[stored & 7];
    case Code::e2m1:
      return (stored & 8 ? -1.0f : 1.0f) * e2m1_magnitudes[stored & 7];
    case Code::iq4nl:
      return iq4nl_values[stored];
    case Code::f32:
    case Code::f16:
    case Code::bf16:
      break;
  }
  PARE_CHECK(false);
}

// Which of two neighbouring entries an exact midpoint belongs to.
bool upper_wins_tie(Code code, float lower, unsigned lower_pattern) {
  switch (code) {
    case Code::fp4:
      return lower < 0;  // a magnitude goes up only if greater
    case Code::iq4nl:
      return true;  // ggml's search
    default:
      break;
  }
  if (info(code).integer) return (static_cast<int>(lower) & 1) != 0;
  return (lower_pattern & 1) != 0;  // even mantissa
}

// The smallest float that is stored as the upper of two neighbours.
float first_of_upper(float lower, float upper, bool upper_wins) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const double middle = (static_cast<double>(lower) + upper) / 2;  // exact
  float from = static_cast<float>(middle);
  if (from < middle) from = std::nextafter(from, infinity);
  if (from == middle && !upper_wins) from = std::nextafter(from, infinity);
  return from;
}

struct Tables {
  std::vector<float> by_pattern;  // index = pattern
  std::vector<float> value, from;
  std::vector<std::uint8_t> pattern;
  std::uint8_t plus_zero = 0, minus_zero = 0;
};

Tables make_tables(Code code) {
  Tables t;
  const unsigned n = 1u << bits(code);
  std::vector<std::pair<float, unsigned>> entries;
  for (unsigned p = 0; p < n; p++) {
    const float value = define(code, p);
    t.by_pattern.push_back(value);
    if (std::isfinite(value)) entries.emplace_back(value, p);
  }
  // -0 before +0: a number that rounds to zero from below or above then meets the zero of its sign.
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    if (a.first != b.first) return a.first < b.first;
    return std::signbit(a.first) && !std::signbit(b.first);
  });
  t.from.push_back(-std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < entries.size(); i++) {
    const auto& [value, p] = entries[i];
    t.value.push_back(value);
    t.pattern.push_back(static_cast<std::uint8_t>(p));
    if (i == 0) continue;
    const auto& [below, q] = entries[i - 1];
    if (code == Code::nf4)
      t.from.push_back(std::nextafter(nf4_thresholds[i - 1], 2.0f));
    else
      t.from.push_back(
          below == value ? 0.0f : first_of_upper(below, value, upper_wins_tie(code, below, q)));
  }
  for (const auto& [value, p] : entries)
    if (value == 0 && !std::signbit(value))
      t.plus_zero = t.minus_zero = static_cast<std::uint8_t>(p);
  for (const auto& [value, p] : entries)
    if (value == 0 && std::signbit(value)) t.minus_zero = static_cast<std::uint8_t>(p);
  return t;
}

const Tables& tables_of(Code code) {
  static const std::array<Tables, code_count> all = [] {
    std::array<Tables, code_count> tables;
    for (const CodeInfo& i : infos)
      if (i.bits <= 8) tables[static_cast<std::size_t>(i.code)] = make_tables(i.code);
    return tables;
  }();
  return all[static_cast<std::size_t>(code)];
}

// The last entry whose range begins at or below x; a search without branches that mispredict.
std::uint32_t nearest_pattern(Code code, float x) {
  const Tables& t = tables_of(code);
  if (std::isnan(x)) {
    if (code == Code::e8m0) return 0xff;
    x = 0;
  }
  if (x == 0 && t.plus_zero != t.minus_zero) return std::signbit(x) ? t.minus_zero : t.plus_zero;
  const float* base = t.from.data();
  for (std::size_t n = t.from.size(); n > 1;) {
    const std::size_t half = n / 2;
    base += x >= base[half] ? half : 0;
    n -= half;
  }
  return t.pattern[static_cast<std::size_t>(base - t.from.data())];
}

// The 8-bit floats by bit arithmetic, as f16 below: what is not a normal number of the code is
// rounded by an addition whose last place is the code's smallest step.
template <int mantissa_bits, int bias, std::uint32_t largest_pattern>
std::uint32_t to_mini(float x, float largest) {
  constexpr int dropped = 23 - mantissa_bits;
  constexpr std::uint32_t smallest_normal = static_cast<std::uint32_t>(128 - bias) << 23;
  constexpr std::uint32_t adder = static_cast<std::uint32_t>(151 - bias - mantissa_bits) << 23;
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (u >> 24) & 0x80, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7f;
  if (magnitude >= std::bit_cast<std::uint32_t>(largest)) return sign | largest_pattern;
  if (magnitude < smallest_normal) {
    const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(adder);
    return sign | (std::bit_cast<std::uint32_t>(sum) - adder);
  }
  constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - bias) << 23;
  const std::uint32_t odd = (magnitude >> dropped) & 1;
  return sign | ((magnitude - rebias + ((1u << (dropped - 1)) - 1) + odd) >> dropped);
}

}  // namespace

const CodeInfo& info(Code code) { return infos[static_cast<std::size_t>(code)]; }
std::span<const CodeInfo> all_codes() { return infos; }

std::optional<Code> find_code(std::string_view name) {
  for (const CodeInfo& i : infos)
    if (i.name == name) return i.code;
  return std::nullopt;
}

float decode(Code code, std::uint32_t stored) {
  switch (code) {
    case Code::f32:
      return std::bit_cast<float>(stored);
    case Code::f16:
      return from_f16(static_cast<std::uint16_t>(stored));
    case Code::bf16:
      return from_bf16(static_cast<std::uint16_t>(stored));
    default:
      return tables_of(code).by_pattern[stored & ((1u << bits(code)) - 1)];
  }
}

std::uint32_t encode(Code code, float x) {
  switch (code) {
    case Code::f32:
      return std::bit_cast<std::uint32_t>(x);
    case Code::f16:
      return to_f16(x);
    case Code::bf16:
      return to_bf16(x);
    case Code::e4m3:
      return to_mini<3, 7, 0x7e>(x, 448.0f);
    case Code::e5m2:
      return to_mini<2, 15, 0x7b>(x, 57344.0f);
    default:
      return nearest_pattern(code, x);
  }
}

std::span<const float> values(Code code) {
  PARE_CHECK(bits(code) <= 8);
  return tables_of(code).by_pattern;
}

Ladder ladder(Code code) {
  PARE_CHECK(bits(code) <= 8);
  const Tables& t = tables_of(code);
  return {t.value, t.from, t.pattern};
}

float from_f16(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16;
  const std::uint32_t exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

std::uint16_t to_f16(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);  // >= 65520
  if (magnitude < 0x38800000) {  // below the smallest normal: the adder does the rounding
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(sum) - 0x3f000000u));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfff + odd) >> 13));
}

float from_bf16(std::uint16_t h) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16);
}

std::uint16_t to_bf16(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>((u >> 16) | 0x40);
  return static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

}  // namespace pare
