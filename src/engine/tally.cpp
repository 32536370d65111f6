// Counting by enumeration: every query, every slot. Slow, and no formula is shared with the cost
// model.
#include "engine/tally.h"

#include <algorithm>

namespace pare {
namespace {

bool sees(const AttendCall& c, KvForm form, i64 key, i64 query) {
  if (key > query) return false;
  if (c.window > 0 && key <= query - c.window && key >= c.sinks) return false;
  if (form == KvForm::only) return true;
  i64 end = c.kept;  // what this query sees packed
  while (end + c.group <= query + 1 - c.wait) end += c.group;
  return (form == KvForm::packed) == (key < end);
}

i64 position_of(const KvSegment& s, i64 slot) {
  return s.positions != nullptr ? s.positions[slot] : s.first + slot;
}

// Bytes of the named slots, ascending, of one head.
i64 bytes_of(const KvRows& rows, const std::vector<i64>& slots) {
  i64 bytes = 0, last = -1;
  for (i64 slot : slots) {
    bytes += rows.part.plain() ? rows.width * bits(rows.part.code) / 8
                               : kv_row_bytes(rows.part, rows.width);
    if (rows.unit(slot) != last) bytes += kv_parameter_bytes(rows.part, rows.width);
    last = rows.unit(slot);
  }
  return bytes;
}

}  // namespace

void Tally::product(const PackedLinear& p, i64 rows) {
  multiply_adds += rows * p.in() * p.out();
  weight_bytes += p.bytes_streamed(rows);
}

void Tally::vector(const void* data, i64 bytes) {
  if (bytes > 0 && seen_.insert(data).second) weight_bytes += bytes;
}

void Tally::attention(const AttendCall& c) {
  i64 pairs = 0;
  for (i64 t = 0; t < c.q.rows; t++)
    for (const KvSegment& s : c.segments)
      for (i64 slot = 0; slot < s.count; slot++)
        pairs += sees(c, s.form, position_of(s, slot), c.first_position + t) ? 1 : 0;
  multiply_adds += pairs * c.heads * (c.qk_dim + c.v_dim);
}

void Tally::cache(const AttendCall& c, i64 kv_heads, bool values) {
  for (const KvSegment& s : c.segments) {
    std::vector<i64> seen;
    for (i64 slot = 0; slot < s.count; slot++)
      for (i64 t = 0; t < c.q.rows; t++)
        if (sees(c, s.form, position_of(s, slot), c.first_position + t)) {
          seen.push_back(slot);
          break;
        }
    kv_read_bytes += kv_heads * (bytes_of(s.k, seen) + (values ? bytes_of(s.v, seen) : 0));
  }
}

}  // namespace pare
