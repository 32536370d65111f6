// The storage behind a KvCache, one KvStore per block that keeps something.
//
// A step that appends positions [p, p + n) to a store goes: begin, put every row, segments (what
// an attention call reads), commit. When a ring would overwrite what the first of the new queries
// still sees, the new rows go to a fresh part instead, in the same code, and `commit` moves them
// into the ring; until then readers see [ring, fresh].
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/cache.h"

namespace pare {

// Rows (heads, slots) of `width` numbers in one code.
class KvPlane {
 public:
  KvPlane() = default;
  KvPlane(Code, i64 heads, i64 slots, i64 width);

  void put(i64 head, i64 slot, const float* from, unsigned isa);
  void get(i64 head, i64 slot, float* to) const;  // (width) as floats
  void copy_slot(const KvPlane& from, i64 from_slot, i64 to_slot);

  const std::byte* rows() const { return rows_.get(); }
  const float* scales() const { return scales_.get(); }  // (heads, slots) or null
  i64 slots() const { return slots_; }
  i64 width() const { return width_; }
  i64 row_stride() const { return row_bytes_; }
  i64 head_stride() const { return slots_ * row_bytes_; }
  i64 bytes() const;

 private:
  Code code_ = Code::f32;
  i64 heads_ = 0, slots_ = 0, width_ = 0, row_bytes_ = 0;
  std::unique_ptr<std::byte[]> rows_;
  std::unique_ptr<float[]> scales_;
};

class KvStore {
 public:
  KvStore() = default;
  // `shared`: a later block reads this store too, so what a step hides in the fresh part stays
  // until the end of the step.
  KvStore(const Attention&, i64 capacity, Code, bool shared);

  bool present() const { return k_.slots() > 0; }
  bool ring() const { return !ring_positions_.empty(); }
  bool shared() const { return shared_; }

  void begin(i64 position, i64 count);
  // Row of new token `index` of the step. v is ignored by a latent store. Rows may be put by
  // different threads.
  void put_key(i64 head, i64 index, const float* from, unsigned isa);
  void put_value(i64 head, i64 index, const float* from, unsigned isa);
  // Appends what a reader of the step sees; valid until commit.
  void segments(std::vector<KvSegment>& out) const;
  // What a reader sees row by row, keys as floats (width): how MLA expands its latents.
  i64 visible_rows() const;
  void read_key(i64 row, float* to) const;  // of the first head; row in [0, visible_rows)
  std::int32_t position_of(i64 row) const;
  void commit();

  // False when a sequence of `size` positions cannot go back to `positions`.
  bool can_truncate(i64 size, i64 positions) const;
  void truncate(i64 positions);
  i64 bytes() const { return k_.bytes() + v_.bytes(); }

 private:
  i64 slot_of(i64 position) const;
  KvSegment segment_of(const KvPlane& k, const KvPlane& v) const;

  Code code_ = Code::f32;
  bool latent_ = false, shared_ = false;
  i64 heads_ = 0, window_ = 0, sinks_ = 0;
  KvPlane k_, v_;
  std::vector<std::int32_t> ring_positions_;  // (slots) of a ring; empty: slot = position
  i64 filled_ = 0;                            // slots that hold a row
  // The step in progress.
  i64 step_position_ = 0, step_count_ = 0;
  bool to_fresh_ = false;
  KvPlane fresh_k_, fresh_v_;
};

struct KvCache::State {
  Code code = Code::f32;
  i64 size = 0, capacity = 0;
  std::vector<KvStore> stores;       // (blocks); absent where kv_from points elsewhere
  std::vector<std::int32_t> tokens;  // (size) what was appended, for a replay (engine.cpp)
  std::uint64_t long_ropes = 0;      // which of the net's ropes used long factors for these keys
  bool in_step = false;              // a step began and has not ended (an exception cut it short)

  void append(std::span<const std::int32_t> more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
    size += static_cast<i64>(more.size());
  }
};

}  // namespace pare
