// The codes as tables.
//
// Every code of eight bits or fewer is built once into a table of its values, and encoding looks
// for the nearest entry, so that definition and use cannot drift apart. f16 and bf16 are converted
// by bit arithmetic (round to nearest even, subnormals included); tests compare all patterns with
// the definition.
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

// A code's finite values in ascending order with their patterns, for the nearest-entry search.
struct Lookup {
  std::vector<float> by_pattern;
  std::vector<float> sorted;
  std::vector<std::uint8_t> pattern;
};

Lookup make_lookup(Code code) {
  Lookup lookup;
  const unsigned n = 1u << bits(code);
  std::vector<std::pair<float, unsigned>> entries;
  for (unsigned p = 0; p < n; p++) {
    const float value = define(code, p);
    lookup.by_pattern.push_back(value);
    if (std::isfinite(value)) entries.emplace_back(value, p);
  }
  // -0 before +0: a number that rounds to zero from below or above then meets the zero of its sign.
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    if (a.first != b.first) return a.first < b.first;
    return std::signbit(a.first) && !std::signbit(b.first);
  });
  for (const auto& [value, p] : entries) {
    lookup.sorted.push_back(value);
    lookup.pattern.push_back(static_cast<std::uint8_t>(p));
  }
  return lookup;
}

const Lookup& lookup_of(Code code) {
  static const std::array<Lookup, code_count> all = [] {
    std::array<Lookup, code_count> tables;
    for (const CodeInfo& i : infos)
      if (i.bits <= 8) tables[static_cast<std::size_t>(i.code)] = make_lookup(i.code);
    return tables;
  }();
  return all[static_cast<std::size_t>(code)];
}

// Which of two equally near entries wins.
bool upper_wins_tie(Code code, const Lookup& table, std::size_t lower) {
  if (code == Code::nf4 || code == Code::fp4)
    return false;                        // the published thresholds go up only if greater
  if (code == Code::iq4nl) return true;  // ggml's search
  if (info(code).integer) return (static_cast<int>(table.sorted[lower]) & 1) != 0;
  return (table.pattern[lower] & 1) != 0;  // even mantissa
}

std::uint32_t nearest_pattern(Code code, float x) {
  const Lookup& table = lookup_of(code);
  const auto& values = table.sorted;
  if (std::isnan(x)) {
    switch (code) {
      case Code::e4m3:
      case Code::e5m2:
        return 0x7f;
      case Code::e8m0:
        return 0xff;
      default:
        x = 0;
    }
  }
  std::size_t upper =
      static_cast<std::size_t>(std::lower_bound(values.begin(), values.end(), x) - values.begin());
  if (upper == values.size()) return table.pattern.back();
  if (values[upper] == x) {  // +0 is the later of two zeros
    const bool later =
        x == 0 && !std::signbit(x) && upper + 1 < values.size() && values[upper + 1] == 0;
    return table.pattern[upper + (later ? 1 : 0)];
  }
  if (upper == 0) return table.pattern[0];
  const std::size_t lower = upper - 1;
  const double down = static_cast<double>(x) - values[lower];
  const double up = static_cast<double>(values[upper]) - x;
  const bool take_upper = up < down || (up == down && upper_wins_tie(code, table, lower));
  return table.pattern[take_upper ? upper : lower];
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
      return lookup_of(code).by_pattern[stored & ((1u << bits(code)) - 1)];
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
    default:
      return nearest_pattern(code, x);
  }
}

std::span<const float> values(Code code) {
  PARE_CHECK(bits(code) <= 8);
  return lookup_of(code).by_pattern;
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
