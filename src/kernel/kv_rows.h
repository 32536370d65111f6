// Rows of a cache: how keys and values of number/kv_scheme.h lie in memory.
//
// Row (head, slot) starts at data + head * head_stride + slot * row_stride. A code of 8 bits or
// more is stored number by number. Of a code of b < 8 bits, with h = ceil(width * b / 8), byte i of
// the row holds the numbers i, h + i, 2h + i, .. in its fields of b bits from the lowest up: a
// vector of bytes is then one vector of neighbours per field. Fields behind the width are 0.
//
// The parameters of a row (per channel: of a group of positions, slot / group) are its scales and,
// if the part is asymmetric, as many minima behind them.
#pragma once

#include "base/view.h"
#include "number/kv_scheme.h"

namespace pare {

struct KvRows {
  KvPart part;
  i64 width = 0;
  const std::byte* data = nullptr;
  i64 head_stride = 0, row_stride = 0;  // bytes
  const std::byte* parameters = nullptr;
  i64 parameter_head_stride = 0, parameter_stride = 0;  // bytes; of rows or groups of positions

  i64 unit(i64 slot) const { return slot / part.positions(); }  // whose parameters a row uses
};

// Plain f32 rows.
KvRows float_rows(const float* data, i64 width, i64 head_stride, i64 row_stride);

// Stores one row of n numbers (not per channel).
void store_kv_row(const KvPart&, const float* from, i64 n, std::byte* to, std::byte* parameters);
// Stores part.count rows that share the scales of their columns.
void store_kv_group(const KvPart&, Matrix<const float> rows, std::byte* to, i64 row_stride,
                    std::byte* parameters);

// What number i of a row means, and a whole row: the definitions.
float kv_number(const KvRows&, i64 head, i64 slot, i64 i);
void read_kv_row(const KvRows&, i64 head, i64 slot, float* to);

}  // namespace pare
