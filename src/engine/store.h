// The storage behind a KvCache, one KvStore per block that keeps something.
//
// Where position j of a sequence of n lies (number/kv_scheme.h says what is packed when):
//
//   kept    j < sinks of the scheme                       f16, slot j
//   packed  sinks <= j < packed_end(n)                    the scheme's codes, in groups of
//   positions;
//                                                         of a window the newest groups (a ring)
//                                                         and those of attention's sinks
//   recent  the others, and some older ones               f16, a ring
//
// A scheme that packs at once has packed rows alone.
//
// A step that appends positions [p, p + n) goes: begin, put every row, seal (packs the groups that
// have become old enough), segments (what an attention call reads), commit. What would overwrite
// rows that the first of the new queries still sees goes to a fresh part instead, in the same form,
// and `commit` moves it into its ring.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/cache.h"
#include "engine/plane.h"
#include "kernel/attend.h"

namespace pare {

class KvStore {
 public:
  KvStore() = default;
  // `shared`: a later block reads this store too, so what a step hides in a fresh part stays until
  // the end of the step.
  KvStore(const Attention&, i64 capacity, const KvScheme&, bool shared);

  bool present() const { return heads_ > 0; }
  bool ring() const { return !packed_positions_.empty(); }
  bool shared() const { return shared_; }
  // Whether a step that was cut short may have overwritten what an earlier position needs.
  bool overwrites() const { return ring() || scheme_.waits(); }

  void begin(i64 position, i64 count);
  // Row of new token `index` of the step. v is ignored by a latent store. Rows may be put by
  // different threads.
  void put_key(i64 head, i64 index, const float* from);
  void put_value(i64 head, i64 index, const float* from);
  // Packs, in items that different threads may take; all of them, after the rows and before
  // anybody reads.
  i64 seal_items() const { return scheme_.waits() ? heads_ * (group1_ - group0_) : 0; }
  void seal(i64 item);
  // Appends what a reader of the step sees; valid until commit.
  void segments(std::vector<KvSegment>& out) const;
  void commit();

  // False when a sequence of `size` positions cannot go back to `positions`.
  bool can_truncate(i64 size, i64 positions) const;
  void truncate(i64 positions);
  i64 bytes() const { return kept_.bytes() + packed_.bytes() + recent_.bytes(); }
  const KvScheme& scheme() const { return scheme_; }

 private:
  enum class Side : std::uint8_t { key, value };
  void put(Side, i64 head, i64 index, const float* from);
  void seal(Side, i64 head, i64 group);
  KvPlanes planes(const KvPart& k, const KvPart& v, i64 slots) const;
  i64 group_slot(i64 group) const;  // first slot of the group
  i64 recent_slot(i64 position) const { return (position - scheme_.sinks) % recent_.slots(); }
  void place_group(i64 group);
  void place_recent(i64 position);
  KvSegment segment_of(const KvPlanes&, KvForm, i64 count, i64 first,
                       const std::vector<std::int32_t>* positions) const;

  KvScheme scheme_;
  bool latent_ = false, shared_ = false;
  i64 heads_ = 0, k_width_ = 0, v_width_ = 0;
  i64 window_ = 0, sinks_ = 0;             // of attention
  i64 sink_groups_ = 0, ring_groups_ = 0;  // of a ring of groups
  KvPlanes kept_, packed_, recent_;
  std::vector<std::int32_t> packed_positions_;  // (slots) of a ring; empty: slot = position - sinks
  std::vector<std::int32_t> recent_positions_;  // (slots)
  i64 kept_count_ = 0, packed_count_ = 0, recent_count_ = 0;  // slots in use
  i64 longest_ = 0;  // the sequence has been: what rings have overwritten, truncation does not undo
  // The step in progress: positions, groups that it packs, rows and groups that wait aside.
  i64 step_position_ = 0, step_count_ = 0, group0_ = 0, group1_ = 0;
  i64 fresh_first_ = 0;  // position of the first fresh row
  bool packs_aside_ = false, waits_aside_ = false;
  KvPlanes fresh_packed_, fresh_recent_;
};

struct KvCache::State {
  KvScheme scheme;
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
