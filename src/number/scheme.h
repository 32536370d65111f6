// Schemes: how a matrix is stored. Compositional: no list of combinations exists anywhere.
//
//   scheme   = code [":" grouping] [":" offset] [":" scale] [":" sparsity] | alias
//   grouping = "tensor" | "channel" | "g" N | "b" M "x" N      (weights that share one scale)
//   offset   = "asym" (integer zero point) | "min" (stored minimum)       default symmetric
//   scale    = "s=" code ["/" code "x" N]        storage of scales; after "/" the second level: its
//              code and how many scales share it (0 = all of the tensor)
//   sparsity = "bitmask" | N "of" M
//   alias    = mxfp4 mxfp8 nvfp4 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs,
//              and the suffix ":dq" = ":s=uint8/f32x256" (double quantization)
//
// Examples: bf16  int8:channel  int4:g128  int4:g32:asym  nf4:g64:dq  e4m3:b128x128  int3:g128
// nvfp4
#pragma once

#include <string>
#include <string_view>

#include "number/code.h"

namespace pare {

enum class Grouping : std::uint8_t {
  none,     // plain floats: no scale
  tensor,   // one scale
  channel,  // one scale a row (output)
  group,    // one scale per `cols` consecutive weights of a row
  block,    // one scale per tile of `rows` x `cols`
};
enum class Offset : std::uint8_t {
  none,     // x = scale * q
  zero,     // x = scale * (q - zero), zero an integer of the code's own range
  minimum,  // x = scale * q' - min, q' = q counted from 0 (the stored pattern), min stored like
            // scale
};
enum class Sparsity : std::uint8_t { dense, bitmask, n_of_m };

struct Scheme {
  Code code = Code::f32;
  Grouping grouping = Grouping::none;
  i64 rows = 0, cols = 0;  // group: cols; block: both; else 0
  Offset offset = Offset::none;
  Code scale = Code::bf16;    // storage of scales (and minima); uint*/int* only with a second level
  bool second_level = false;  // scales are codes under a further scale
  Code super = Code::f32;     // storage of the second level's scales
  i64 super_count = 0;        // scales (along a row) that share one; 0 = the whole tensor
  Sparsity sparsity = Sparsity::dense;
  int keep_n = 0, keep_m = 0;  // n_of_m
  bool operator==(const Scheme&) const = default;

  bool plain() const { return grouping == Grouping::none; }
};

// Errors SC-001.. name the word that is wrong and list what would be right.
Scheme parse_scheme(std::string_view text);
std::string to_string(const Scheme&);  // parse_scheme(to_string(s)) == s; aliases where they fit
void check(const Scheme&);             // combinations that make no sense

// Bytes of one row of codes: tight for codes of 8 bits and more, else rounded up to 4 bytes.
i64 row_bytes(const Scheme&, i64 cols);
i64 scale_rows(const Scheme&, i64 rows);  // rows of the scale plane
i64 scale_cols(const Scheme&, i64 cols);  // columns of the scale plane
// Bytes as a file stores them, all planes: codes tight, sub-byte scales and zero points at their
// bits.
i64 stored_bytes(const Scheme&, i64 rows, i64 cols);
double bits_per_weight(const Scheme&, i64 rows, i64 cols);

// How inputs of a product are quantized.
struct Activation {
  enum class Per : std::uint8_t { none, tensor, token, group };
  Per per = Per::none;     // none: activations stay floats
  Code code = Code::int8;  // int8 or e4m3 (or int4, e5m2)
  i64 group = 0;           // per == group
  bool is_static = false;  // per tensor with a stored scale; else measured at run time
  bool operator==(const Activation&) const = default;
};
// "none", "int8:token", "e4m3:token", "int8:tensor" (dynamic), "int8:tensor:static", "int8:g128"
Activation parse_activation(std::string_view text);
std::string to_string(const Activation&);

}  // namespace pare
