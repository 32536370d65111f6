// Declarations of the functions behind the row table; defined in linear_*.cpp and
// integer_tiles_*.cpp.
#pragma once

#include "kernel/packed.h"

namespace pare {

#define PARE_DECLARE_ROWS(isa)                          \
  void linear_f32_##isa##_vector(const PackedCall&);    \
  void linear_f32_##isa##_matrix(const PackedCall&);    \
  void linear_f16_##isa##_vector(const PackedCall&);    \
  void linear_f16_##isa##_matrix(const PackedCall&);    \
  void linear_bf16_##isa##_vector(const PackedCall&);   \
  void linear_bf16_##isa##_matrix(const PackedCall&);   \
  void linear_e4m3_##isa##_vector(const PackedCall&);   \
  void linear_e4m3_##isa##_matrix(const PackedCall&);   \
  void linear_e5m2_##isa##_vector(const PackedCall&);   \
  void linear_e5m2_##isa##_matrix(const PackedCall&);   \
  void linear_i8_##isa##_vector(const PackedCall&);     \
  void linear_i8_##isa##_matrix(const PackedCall&);     \
  void linear_nib4_##isa##_vector(const PackedCall&);   \
  void linear_nib4_##isa##_matrix(const PackedCall&);   \
  void linear_i8_##isa##_integers(const PackedCall&);   \
  void linear_nib4_##isa##_integers(const PackedCall&); \
  void linear_f32_##isa##_tiles(const PackedCall&);     \
  void linear_f16_##isa##_tiles(const PackedCall&);     \
  void linear_bf16_##isa##_tiles(const PackedCall&);    \
  void linear_e4m3_##isa##_tiles(const PackedCall&);    \
  void linear_e5m2_##isa##_tiles(const PackedCall&);    \
  void linear_i8_##isa##_tiles(const PackedCall&);      \
  void linear_nib4_##isa##_tiles(const PackedCall&);

PARE_DECLARE_ROWS(avx2)
PARE_DECLARE_ROWS(avx512)
void linear_i8_avx512_integer_tiles(const PackedCall&);
void linear_nib4_avx512_integer_tiles(const PackedCall&);
void linear_i8_amx_integer_tiles(const PackedCall&);
void linear_nib4_amx_integer_tiles(const PackedCall&);
void linear_bf16_amx_tiles(const PackedCall&);
void linear_e4m3_amx_tiles(const PackedCall&);
void linear_e5m2_amx_tiles(const PackedCall&);
void linear_i8_amx_tiles(const PackedCall&);
void linear_nib4_amx_tiles(const PackedCall&);

// n floats, and zeros up to `padded`, as three bf16 rows that add up to them exactly.
void split_terms_amx(const float* x, std::int64_t n, std::int64_t padded, std::uint16_t* terms,
                     std::int64_t apart);
#undef PARE_DECLARE_ROWS

}  // namespace pare
