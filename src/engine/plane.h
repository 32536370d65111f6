// Memory for rows of a cache: keys or values of all heads of a block.
#pragma once

#include <memory>
#include <vector>

#include "kernel/kv_rows.h"

namespace pare {

// Rows (heads, slots) of `width` numbers. Per channel, slots are whole groups of part.count.
class KvPlane {
 public:
  KvPlane() = default;
  KvPlane(const KvPart&, i64 heads, i64 slots, i64 width);

  void put(i64 head, i64 slot, const float* from);                     // not per channel
  void put_group(i64 head, i64 unit, Matrix<const float> rows);        // per channel
  void get(i64 head, i64 slot, float* to) const;                       // (width) as floats
  void copy(const KvPlane& from, i64 from_slot, i64 slot, i64 count);  // whole groups

  KvRows rows() const;
  i64 slots() const { return slots_; }
  i64 width() const { return width_; }
  i64 bytes() const { return width_ > 0 ? heads_ * kv_packed_bytes(part_, width_, slots_) : 0; }

 private:
  i64 units() const { return slots_ / part_.positions(); }
  std::byte* parameters(i64 head, i64 unit) const;

  KvPart part_;
  i64 heads_ = 0, slots_ = 0, width_ = 0, row_bytes_ = 0, parameter_bytes_ = 0;
  std::unique_ptr<std::byte[]> rows_, parameters_;
};

// Keys and values, slot by slot; latent stores have keys alone.
struct KvPlanes {
  KvPlane k, v;
  i64 slots() const { return k.slots(); }
  i64 bytes() const { return k.bytes() + v.bytes(); }
  void copy(const KvPlanes& from, i64 from_slot, i64 slot, i64 count) {
    k.copy(from.k, from_slot, slot, count);
    v.copy(from.v, from_slot, slot, count);
  }
};

}  // namespace pare
