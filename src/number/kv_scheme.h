// How a cache stores keys and values.
//
//   scheme = code {":" word} [":k=" item {"," item}] [":window=" N] [":sinks=" N]
//   code   = f32 f16 bf16 | int8 int4 int2 e4m3
//   word   = "token" (one scale a row: a head of a position; the default) | "g" N (one scale per N
//            numbers of a row) | "asym" (scale and minimum)
//   item   = what is different about keys: a code, "token", "g" N, "asym", "sym", or
//            "channel" ["/" N]: one scale per number of a row, shared by N (32) positions in a row
//   window = the newest positions that wait in f16 before they are packed
//   sinks  = the first positions of a sequence, which stay in f16 for good
//
// Examples: f16  int8  int4:g32:asym  int8:k=channel  int4:g32:asym:k=channel/64:window=128
//
// Numbers: symmetric x = s q; asymmetric x = s u + m, u counted from 0. s is an f32 for codes of 8
// bits with one scale a row, else f16, as is m; it is rounded up, so that the largest number of a
// group is representable, and m down. A group with a number that is not finite becomes NaN.
//
// What is packed when. Of a sequence of n positions those below
//   packed_end(n) = sinks + G floor((n - window - sinks) / G),  never below sinks,
// are packed, G being the positions that share a key's scale (1 unless per channel); all others are
// in f16. Position j is seen by the query at i in the form it has in a sequence of i + 1 positions,
// however many tokens were appended at once: prefill in any chunks gives what decoding one by one
// gives.
//
// Keys by channel, values by token, a window in full precision: KIVI, Liu et al. 2024. First
// positions in full precision: KVQuant, Hooper et al. 2024.
#pragma once

#include <string>
#include <string_view>

#include "number/code.h"

namespace pare {

enum class KvGrouping : std::uint8_t {
  none,     // plain floats
  token,    // one scale a row
  group,    // one scale per `count` numbers of a row
  channel,  // one scale per number, shared by `count` positions
};

struct KvPart {
  Code code = Code::f16;
  KvGrouping grouping = KvGrouping::none;
  i64 count = 0;  // of group and channel
  bool asym = false;
  bool operator==(const KvPart&) const = default;

  bool plain() const { return grouping == KvGrouping::none; }
  i64 positions() const { return grouping == KvGrouping::channel ? count : 1; }
};

struct KvScheme {
  KvPart keys, values;
  i64 window = 0, sinks = 0;
  KvScheme() = default;  // f16
  KvScheme(Code);        // floats plain, other codes per token
  bool operator==(const KvScheme&) const = default;

  i64 positions() const { return keys.positions(); }  // G
  bool waits() const { return positions() > 1 || window > 0 || sinks > 0; }
  i64 packed_groups(i64 n) const {
    const i64 old = n - window - sinks;
    return old > 0 ? old / positions() : 0;
  }
  i64 packed_end(i64 n) const { return sinks + positions() * packed_groups(n); }
};

bool kv_code_possible(Code);
// Errors SC-001 a word that is wrong, with what would be right; SC-002 words that do not fit
// together.
KvScheme parse_kv_scheme(std::string_view text);
std::string to_string(const KvScheme&);  // parse_kv_scheme(to_string(s)) == s
void check(const KvScheme&);             // SC-002

// Bytes of one row's codes; numbers of scales (and of minima) of a row, or of a group of positions;
// bytes of one of them.
i64 kv_row_bytes(const KvPart&, i64 width);
i64 kv_scales(const KvPart&, i64 width);
i64 kv_scale_bytes(const KvPart&);
// Bytes of scales and minima of a row, or of a group of positions.
inline i64 kv_parameter_bytes(const KvPart& p, i64 width) {
  return p.plain() ? 0 : kv_scales(p, width) * kv_scale_bytes(p) * (p.asym ? 2 : 1);
}
// Bytes that `positions` packed rows occupy, scales included; part of a group counts as a whole
// one.
i64 kv_packed_bytes(const KvPart&, i64 width, i64 positions);

}  // namespace pare
