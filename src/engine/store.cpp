// Where keys and values lie between steps.
//
// The problem is the ring. A window of w positions needs w slots and no more, position p in slot p
// mod w behind the sinks; but a prompt of n tokens is appended at once, and its last token takes
// the place of a key that its first token still sees. Every layout with exactly w + s slots
// therefore attends first and writes later: the chunk's keys wait aside in the same code (a
// quantized cache must give the same numbers whichever way a key came in), and queries see
// [ring, fresh]. A single token needs no such care: what it overwrites has just left its window.
//
// A scheme that waits doubles the problem: within a chunk the same position is recent for one query
// and packed for a later one. Both forms are then present, each query sees the one that is due
// (kernel/attend.h), and rows are packed from their f16 form, never from what came in, so that it
// does not matter when that happens. The ring of recent rows is a little longer than the scheme
// needs: a few tokens can be taken back (speculation) before a row is missing.
//
// Slots of a ring that a truncation emptied keep a position that no query reaches, so that no
// reader needs to know about them.
//
// Windows and sinks: Xiao et al. 2023, StreamingLLM (positions here stay absolute). Latent rows:
// DeepSeek-V2, section 2.1. Sharing: Brandon et al. 2024, cross-layer attention.
#include "engine/store.h"

#include <algorithm>
#include <limits>

namespace pare {
namespace {

constexpr std::int32_t nowhere = std::numeric_limits<std::int32_t>::max();
constexpr i64 spare = 16;  // recent rows more than needed

}  // namespace

KvPlanes KvStore::planes(const KvPart& k, const KvPart& v, i64 slots) const {
  return {KvPlane(k, heads_, slots, k_width_), KvPlane(v, heads_, slots, v_width_)};
}

KvStore::KvStore(const Attention& a, i64 capacity, const KvScheme& scheme, bool shared)
    : scheme_(scheme),
      latent_(a.mla()),
      shared_(shared),
      heads_(kv_heads_stored(a)),
      k_width_(kv_key_width(a)),
      v_width_(kv_value_width(a)),
      window_(a.window),
      sinks_(a.sinks) {
  const i64 group = scheme.positions();
  i64 groups = scheme.packed_groups(capacity);
  if (window_ > 0) {
    sink_groups_ = (std::max<i64>(0, sinks_ - scheme.sinks) + group - 1) / group;
    ring_groups_ = (window_ + group - 1) / group;
    const bool is_ring = sink_groups_ + ring_groups_ < groups;
    if (is_ring) groups = sink_groups_ + ring_groups_;
    if (is_ring) packed_positions_.assign(static_cast<std::size_t>(groups * group), nowhere);
  }
  packed_ = planes(scheme.keys, scheme.values, groups * group);
  if (!scheme.waits()) return;
  const KvPart half = KvScheme(Code::f16).keys;
  kept_ = planes(half, half, std::min(scheme.sinks, capacity));
  const i64 recent =
      std::min(scheme.window + group + spare, std::max<i64>(0, capacity - scheme.sinks));
  recent_ = planes(half, half, recent);
  recent_positions_.assign(static_cast<std::size_t>(recent), nowhere);
}

i64 KvStore::group_slot(i64 group) const {
  if (ring() && group >= sink_groups_) group = sink_groups_ + (group - sink_groups_) % ring_groups_;
  return group * scheme_.positions();
}

void KvStore::place_group(i64 group) {
  if (!ring()) return;
  const i64 slot = group_slot(group), share = scheme_.positions();
  for (i64 i = 0; i < share; i++)
    packed_positions_[static_cast<std::size_t>(slot + i)] =
        static_cast<std::int32_t>(scheme_.sinks + group * share + i);
}

void KvStore::place_recent(i64 position) {
  recent_positions_[static_cast<std::size_t>(recent_slot(position))] =
      static_cast<std::int32_t>(position);
}

void KvStore::begin(i64 position, i64 count) {
  PARE_CHECK(step_count_ == 0 && count > 0);
  step_position_ = position;
  step_count_ = count;
  const i64 end = position + count, share = scheme_.positions();
  longest_ = std::max(longest_, end);
  group0_ = scheme_.packed_groups(position);
  group1_ = scheme_.packed_groups(end);
  packs_aside_ = ring() && count > 1 && group1_ * share > packed_.slots();
  if (packs_aside_) {
    fresh_packed_ = planes(scheme_.keys, scheme_.values, (group1_ - group0_) * share);
  } else {
    packed_count_ = std::max(packed_count_, std::min(group1_ * share, packed_.slots()));
    for (i64 g = group0_; g < group1_; g++) place_group(g);
  }
  if (!scheme_.waits()) return;
  kept_count_ = std::min(end, kept_.slots());
  fresh_first_ = std::max(position, scheme_.sinks);
  waits_aside_ = end - scheme_.packed_end(position) > recent_.slots();
  if (waits_aside_) {
    const KvPart half = KvScheme(Code::f16).keys;
    fresh_recent_ = planes(half, half, end - fresh_first_);
    return;
  }
  for (i64 p = fresh_first_; p < end; p++) place_recent(p);
  recent_count_ = std::max(recent_count_, std::min(end - scheme_.sinks, recent_.slots()));
}

void KvStore::put(Side side, i64 head, i64 index, const float* from) {
  const auto into = [&](KvPlanes& planes, i64 slot) {
    (side == Side::key ? planes.k : planes.v).put(head, slot, from);
  };
  const i64 position = step_position_ + index;
  if (!scheme_.waits())
    return packs_aside_ ? into(fresh_packed_, index) : into(packed_, group_slot(position));
  if (position < scheme_.sinks) return into(kept_, position);
  if (waits_aside_) return into(fresh_recent_, position - fresh_first_);
  into(recent_, recent_slot(position));
}

void KvStore::put_key(i64 head, i64 index, const float* from) { put(Side::key, head, index, from); }

void KvStore::put_value(i64 head, i64 index, const float* from) {
  put(Side::value, head, index, from);
}

void KvStore::seal(i64 item) {
  const i64 head = item % heads_, group = group0_ + item / heads_;
  seal(Side::key, head, group);
  if (v_width_ > 0) seal(Side::value, head, group);
}

void KvStore::seal(Side side, i64 head, i64 group) {
  const auto plane = [&](auto& planes) -> auto& { return side == Side::key ? planes.k : planes.v; };
  const i64 share = scheme_.positions(), width = side == Side::key ? k_width_ : v_width_;
  std::vector<float> rows(static_cast<std::size_t>(share * width));
  const Matrix<float> all(rows.data(), share, width);
  for (i64 i = 0; i < share; i++) {
    const i64 position = scheme_.sinks + group * share + i;
    if (waits_aside_ && position >= fresh_first_)
      plane(fresh_recent_).get(head, position - fresh_first_, all.row(i));
    else
      plane(recent_).get(head, recent_slot(position), all.row(i));
  }
  KvPlane& to = plane(packs_aside_ ? fresh_packed_ : packed_);
  const i64 slot = packs_aside_ ? (group - group0_) * share : group_slot(group);
  if (side == Side::key && scheme_.keys.grouping == KvGrouping::channel)
    return to.put_group(head, slot / share, all);
  for (i64 i = 0; i < share; i++) to.put(head, slot + i, all.row(i));
}

KvSegment KvStore::segment_of(const KvPlanes& from, KvForm form, i64 count, i64 first,
                              const std::vector<std::int32_t>* positions) const {
  KvSegment s;
  s.k = from.k.rows();
  s.v = latent_ ? s.k : from.v.rows();  // the value of a latent row is its front
  s.form = form;
  s.count = count;
  s.first = first;
  if (positions != nullptr) s.positions = positions->data();
  return s;
}

void KvStore::segments(std::vector<KvSegment>& out) const {
  const KvForm packed = scheme_.waits() ? KvForm::packed : KvForm::only;
  const i64 share = scheme_.positions();
  if (kept_count_ > 0) out.push_back(segment_of(kept_, KvForm::only, kept_count_, 0, nullptr));
  if (packed_count_ > 0)
    out.push_back(segment_of(packed_, packed, packed_count_, scheme_.sinks,
                             ring() ? &packed_positions_ : nullptr));
  if (packs_aside_ && group1_ > group0_)
    out.push_back(segment_of(fresh_packed_, packed, (group1_ - group0_) * share,
                             scheme_.sinks + group0_ * share, nullptr));
  if (recent_count_ > 0)
    out.push_back(segment_of(recent_, KvForm::recent, recent_count_, 0, &recent_positions_));
  if (waits_aside_)
    out.push_back(segment_of(fresh_recent_, KvForm::recent,
                             step_position_ + step_count_ - fresh_first_, fresh_first_, nullptr));
}

void KvStore::commit() {
  const i64 end = step_position_ + step_count_, share = scheme_.positions();
  if (packs_aside_) {
    for (i64 g = group0_; g < group1_; g++) {
      if (g >= sink_groups_ && g + ring_groups_ < group1_) continue;  // a later one takes its slots
      packed_.copy(fresh_packed_, (g - group0_) * share, group_slot(g), share);
      place_group(g);
    }
    packed_count_ = std::min(group1_ * share, packed_.slots());
  }
  if (waits_aside_) {
    for (i64 p = std::max(fresh_first_, end - recent_.slots()); p < end; p++) {
      recent_.copy(fresh_recent_, p - fresh_first_, recent_slot(p), 1);
      place_recent(p);
    }
    recent_count_ = std::max(recent_count_, std::min(end - scheme_.sinks, recent_.slots()));
  }
  fresh_packed_ = {};
  fresh_recent_ = {};
  packs_aside_ = waits_aside_ = false;
  step_count_ = group0_ = group1_ = 0;
}

bool KvStore::can_truncate(i64 size, i64 positions) const {
  if (positions == 0) return true;
  size = std::max(size, longest_);
  // Rows that are recent again must still be there in f16.
  const i64 end = scheme_.packed_end(positions);
  if (scheme_.waits() && end < positions && end < size - recent_.slots()) return false;
  if (!ring()) return true;
  const i64 oldest_kept = std::max(sink_groups_, scheme_.packed_groups(size) - ring_groups_);
  const i64 first_seen = std::max<i64>(0, positions - window_ + 1 - scheme_.sinks);
  const i64 oldest_needed = std::max(sink_groups_, first_seen / scheme_.positions());
  return oldest_needed >= scheme_.packed_groups(positions) || oldest_needed >= oldest_kept;
}

void KvStore::truncate(i64 positions) {
  // A step that an exception cut short leaves its fresh parts behind.
  fresh_packed_ = {};
  fresh_recent_ = {};
  packs_aside_ = waits_aside_ = false;
  step_count_ = group0_ = group1_ = 0;
  kept_count_ = std::min(kept_count_, positions);
  const i64 end = scheme_.packed_end(positions);
  if (!ring()) packed_count_ = std::min(packed_count_, end - scheme_.sinks);
  for (std::int32_t& p : packed_positions_)
    if (p >= end) p = nowhere;
  for (std::int32_t& p : recent_positions_)
    if (p >= positions) p = nowhere;
  if (positions == 0) packed_count_ = recent_count_ = longest_ = 0;
}

}  // namespace pare
