// Codes: the alphabets of stored values.
//
// A code of 8 bits or fewer IS a table of values, indexed by the stored bit pattern; encode is the
// nearest entry (ties to the even code point, or as the code's own specification says). Sources:
// IEEE 754 (f32, f16), OCP 8-bit Floating Point 1.0 (e4m3, e5m2), OCP Microscaling 1.0 (e2m1,
// e8m0), Dettmers et al. 2023, QLoRA (nf4), bitsandbytes (fp4), ggml (iq4nl table).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"

namespace pare {

enum class Code : std::uint8_t {
  f32,
  f16,
  bf16,
  e4m3,  // finite: 448 is the largest, no infinity, NaN is 0x7f and 0xff
  e5m2,  // IEEE-like: infinities and NaN exist; quantizing saturates at 57344
  e8m0,  // 2^(x-127), 0xff is NaN; scales only
  int8,
  int7,
  int6,
  int5,
  int4,
  int3,
  int2,  // two's complement range [-2^(b-1), 2^(b-1)-1]
  uint8,
  uint6,
  uint4,  // [0, 2^b-1]; scales and minima under a second level
  nf4,
  fp4,    // sixteen values in [-1, 1]: normal float (QLoRA); bitsandbytes' FP4 order
  e2m1,   // 0 .5 1 1.5 2 3 4 6 and negatives
  iq4nl,  // ggml's sixteen integer values -127 .. 113
};

struct CodeInfo {
  Code code;
  std::string_view name;
  int bits;
  bool integer;  // int* and uint*
  float max;     // largest finite magnitude of the code
};

const CodeInfo& info(Code);
std::span<const CodeInfo> all_codes();
std::optional<Code> find_code(std::string_view name);
inline int bits(Code c) { return info(c).bits; }

// The value of a stored bit pattern (the low bits(c) bits count). The integer codes below 8 bits
// are stored in offset binary (q + 2^(b-1)), int8 in two's complement.
float decode(Code, std::uint32_t stored);

// The stored pattern nearest to x. Codes of 8 bits and fewer saturate (infinities too) and map NaN
// to NaN where the code has one, else to 0; f16 and bf16 round to nearest even and overflow to
// infinity.
std::uint32_t encode(Code, float x);

// All values of a code of at most 8 bits, index = stored pattern (2^bits entries).
std::span<const float> values(Code);

// A code's finite values in ascending order, for encoders: x is stored as pattern[i] when
// from[i] <= x < from[i + 1] (from[0] is -infinity). Codes of at most 8 bits.
struct Ladder {
  std::span<const float> value, from;
  std::span<const std::uint8_t> pattern;
};
Ladder ladder(Code);

// Fast scalar conversions, used everywhere.
float from_f16(std::uint16_t);
std::uint16_t to_f16(float);
float from_bf16(std::uint16_t);
std::uint16_t to_bf16(float);

constexpr bool is_float8(Code c) { return c == Code::e4m3 || c == Code::e5m2; }

}  // namespace pare
