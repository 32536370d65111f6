// Where keys and values lie between steps.
//
// The problem is the ring. A window of w positions needs w slots and no more, position p in slot p
// mod w behind the sinks; but a prompt of n tokens is appended at once, and its last token takes
// the place of a key that its first token still sees. Every layout with exactly w + s slots
// therefore attends first and writes later: the chunk's keys wait in a fresh part in the same code
// (a quantized cache must give the same numbers whichever way a key came in), and queries see
// [ring, fresh]. A single token needs no such care: what it overwrites has just left its window.
//
// Slots of a ring that a truncation emptied keep a position that no query reaches, so that no
// reader needs to know about them.
//
// Windows and sinks: Xiao et al. 2023, StreamingLLM (positions here stay absolute). Latent rows:
// DeepSeek-V2, section 2.1. Sharing: Brandon et al. 2024, cross-layer attention.
#include "engine/cache.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "engine/store.h"
#include "number/code.h"

namespace pare {
namespace {

constexpr std::int32_t nowhere = std::numeric_limits<std::int32_t>::max();
constexpr i64 most_positions = nowhere;  // positions are 32-bit

bool has_scales(Code code) { return code == Code::int8 || code == Code::e4m3; }

bool possible(Code code) {
  return code == Code::f32 || code == Code::f16 || code == Code::bf16 || has_scales(code);
}

i64 key_heads(const Attention& a) { return a.mla() ? 1 : a.kv_heads; }
i64 key_width(const Attention& a) { return a.mla() ? a.kv_rank + a.rope.dims : a.qk_dim; }
i64 value_width(const Attention& a) { return a.mla() ? 0 : a.v_dim; }

}  // namespace

KvPlane::KvPlane(Code code, i64 heads, i64 slots, i64 width)
    : code_(code), heads_(heads), slots_(slots), width_(width) {
  if (width == 0) return;
  row_bytes_ = kv_row_bytes(code, width);
  std::uint64_t rows = 0, bytes = 0;
  const bool fits =
      mul_ok(static_cast<std::uint64_t>(heads), static_cast<std::uint64_t>(slots), rows) &&
      mul_ok(rows, static_cast<std::uint64_t>(row_bytes_), bytes) &&
      bytes < (std::uint64_t{1} << 46);
  if (!fits) throw std::bad_alloc();
  // Not zeroed: pages of a long cache are touched as they fill.
  rows_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
  if (has_scales(code)) scales_ = std::make_unique_for_overwrite<float[]>(rows);
}

i64 KvPlane::bytes() const {
  return heads_ * slots_ * (row_bytes_ + (scales_ ? static_cast<i64>(sizeof(float)) : 0));
}

void KvPlane::put(i64 head, i64 slot, const float* from, unsigned isa) {
  const i64 row = head * slots_ + slot;
  const float scale = store_kv_row(code_, from, width_, rows_.get() + row * row_bytes_, isa);
  if (scales_) scales_[static_cast<std::size_t>(row)] = scale;
}

void KvPlane::get(i64 head, i64 slot, float* to) const {
  const i64 row = head * slots_ + slot;
  const std::byte* from = rows_.get() + row * row_bytes_;
  const auto n = static_cast<std::size_t>(width_);
  if (code_ == Code::f32) {
    std::memcpy(to, from, n * sizeof(float));
  } else if (code_ == Code::f16 || code_ == Code::bf16) {
    for (std::size_t i = 0; i < n; i++) {
      std::uint16_t bits;
      std::memcpy(&bits, from + 2 * i, sizeof bits);
      to[i] = code_ == Code::f16 ? from_f16(bits) : from_bf16(bits);
    }
  } else {
    const std::span<const float> table = values(code_);
    const float scale = scales_[static_cast<std::size_t>(row)];
    for (std::size_t i = 0; i < n; i++) to[i] = table[static_cast<std::size_t>(from[i])] * scale;
  }
}

void KvPlane::copy_slot(const KvPlane& from, i64 from_slot, i64 to_slot) {
  for (i64 h = 0; h < heads_ && width_ > 0; h++) {
    const i64 source = h * from.slots_ + from_slot, target = h * slots_ + to_slot;
    std::memcpy(rows_.get() + target * row_bytes_, from.rows_.get() + source * row_bytes_,
                static_cast<std::size_t>(row_bytes_));
    if (scales_)
      scales_[static_cast<std::size_t>(target)] = from.scales_[static_cast<std::size_t>(source)];
  }
}

KvStore::KvStore(const Attention& a, i64 capacity, Code code, bool shared)
    : code_(code),
      latent_(a.mla()),
      shared_(shared),
      heads_(pare::key_heads(a)),
      window_(a.window),
      sinks_(a.sinks) {
  const bool is_ring = window_ > 0 && window_ + sinks_ < capacity;
  const i64 slots = is_ring ? window_ + sinks_ : capacity;
  k_ = KvPlane(code, heads_, slots, key_width(a));
  v_ = KvPlane(code, heads_, slots, value_width(a));
  if (is_ring) ring_positions_.assign(static_cast<std::size_t>(slots), nowhere);
}

i64 KvStore::slot_of(i64 position) const {
  if (!ring() || position < sinks_) return position;
  return sinks_ + (position - sinks_) % window_;
}

void KvStore::begin(i64 position, i64 count) {
  PARE_CHECK(step_count_ == 0 && count > 0);
  step_position_ = position;
  step_count_ = count;
  to_fresh_ = ring() && count > 1 && position + count > k_.slots();
  if (to_fresh_) {
    fresh_k_ = KvPlane(code_, heads_, count, k_.width());
    fresh_v_ = KvPlane(code_, heads_, count, v_.width());
    return;
  }
  filled_ = std::max(filled_, std::min(position + count, k_.slots()));
  if (!ring()) return;
  for (i64 p = position; p < position + count; p++)
    ring_positions_[static_cast<std::size_t>(slot_of(p))] = static_cast<std::int32_t>(p);
}

void KvStore::put_key(i64 head, i64 index, const float* from, unsigned isa) {
  if (to_fresh_)
    fresh_k_.put(head, index, from, isa);
  else
    k_.put(head, slot_of(step_position_ + index), from, isa);
}

void KvStore::put_value(i64 head, i64 index, const float* from, unsigned isa) {
  if (to_fresh_)
    fresh_v_.put(head, index, from, isa);
  else
    v_.put(head, slot_of(step_position_ + index), from, isa);
}

KvSegment KvStore::segment_of(const KvPlane& k, const KvPlane& v) const {
  const KvPlane& value = latent_ ? k : v;  // the value of a latent row is its front
  KvSegment s;
  s.code = code_;
  s.k = k.rows();
  s.v = value.rows();
  s.k_head_stride = k.head_stride();
  s.k_row_stride = k.row_stride();
  s.v_head_stride = value.head_stride();
  s.v_row_stride = value.row_stride();
  s.k_scales = k.scales();
  s.v_scales = value.scales();
  s.scale_stride = k.slots();
  return s;
}

void KvStore::segments(std::vector<KvSegment>& out) const {
  if (filled_ > 0) {
    KvSegment s = segment_of(k_, v_);
    s.count = filled_;
    if (ring()) s.positions = ring_positions_.data();
    out.push_back(s);
  }
  if (to_fresh_) {
    KvSegment s = segment_of(fresh_k_, fresh_v_);
    s.count = step_count_;
    s.first = step_position_;
    out.push_back(s);
  }
}

i64 KvStore::visible_rows() const { return filled_ + (to_fresh_ ? step_count_ : 0); }

void KvStore::read_key(i64 row, float* to) const {
  if (row < filled_)
    k_.get(0, row, to);
  else
    fresh_k_.get(0, row - filled_, to);
}

std::int32_t KvStore::position_of(i64 row) const {
  if (row >= filled_) return static_cast<std::int32_t>(step_position_ + row - filled_);
  return ring() ? ring_positions_[static_cast<std::size_t>(row)] : static_cast<std::int32_t>(row);
}

void KvStore::commit() {
  if (to_fresh_) {
    const i64 end = step_position_ + step_count_;
    for (i64 p = step_position_; p < end; p++) {
      if (p >= sinks_ && p + window_ < end) continue;  // a later one takes its slot
      const i64 slot = slot_of(p);
      k_.copy_slot(fresh_k_, p - step_position_, slot);
      v_.copy_slot(fresh_v_, p - step_position_, slot);
      ring_positions_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(p);
    }
    filled_ = std::min(end, k_.slots());
    fresh_k_ = {};
    fresh_v_ = {};
    to_fresh_ = false;
  }
  step_count_ = 0;
}

bool KvStore::can_truncate(i64 size, i64 positions) const {
  if (!ring()) return true;
  const i64 oldest_kept = std::max(sinks_, size - window_);
  const i64 oldest_needed = std::max(sinks_, positions - window_ + 1);
  return oldest_needed >= positions || oldest_needed >= oldest_kept;
}

void KvStore::truncate(i64 positions) {
  // A step that an exception cut short leaves its fresh part behind.
  fresh_k_ = {};
  fresh_v_ = {};
  to_fresh_ = false;
  step_count_ = 0;
  if (positions == 0) filled_ = 0;
  if (!ring()) {
    filled_ = std::min(filled_, positions);
    return;
  }
  for (std::int32_t& p : ring_positions_)
    if (p >= positions) p = nowhere;
}

KvCache::KvCache(const Spec& spec, i64 positions, Code code) : state_(std::make_unique<State>()) {
  if (!possible(code))
    fail(Exit::usage, "EN-007", "a cache cannot be stored in this code",
         {{"found", std::string(info(code).name)}, {"need", "f32, f16, bf16, int8 or e4m3"}});
  if (spec.learned_positions > 0 && positions > spec.learned_positions)
    fail(Exit::input, "EN-004", "the model's table of positions is too short",
         {{"found", fmt::format("{} positions asked for", positions)},
          {"need", fmt::format("at most {}", spec.learned_positions)}},
         "use a shorter context");
  if (positions < 1 || positions > most_positions)
    fail(Exit::usage, "EN-006", "a cache cannot have this many positions",
         {{"found", std::to_string(positions)}, {"need", fmt::format("1 to {}", most_positions)}});
  state_->code = code;
  state_->capacity = positions;
  std::vector<bool> shared(spec.blocks.size());
  for (const Block& b : spec.blocks)
    if (b.attn.kv_from >= 0) shared[static_cast<std::size_t>(b.attn.kv_from)] = true;
  try {
    for (std::size_t i = 0; i < spec.blocks.size(); i++) {
      const Attention& a = spec.blocks[i].attn;
      state_->stores.push_back(a.kv_from >= 0 ? KvStore() : KvStore(a, positions, code, shared[i]));
    }
  } catch (const std::bad_alloc&) {
    i64 bytes = 0;
    for (const Block& b : spec.blocks)
      if (b.attn.kv_from < 0) bytes += kv_position_bytes(b.attn, code);
    fail(Exit::resources, "EN-006", "there is not enough memory for the cache",
         {{"need", fmt::format("{} positions of up to {} bytes", positions, bytes)}},
         "use a shorter context, a smaller batch or a smaller cache code");
  }
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

i64 KvCache::size() const { return state_->size; }
i64 KvCache::capacity() const { return state_->capacity; }
Code KvCache::code() const { return state_->code; }

i64 KvCache::bytes() const {
  i64 sum = 0;
  for (const KvStore& s : state_->stores) sum += s.bytes();
  return sum;
}

void KvCache::truncate(i64 positions) {
  PARE_CHECK(positions >= 0 && positions <= size());
  for (std::size_t i = 0; i < state_->stores.size(); i++) {
    const KvStore& store = state_->stores[i];
    const bool damaged = state_->in_step && store.ring() && positions > 0;
    if (damaged || !store.can_truncate(size(), positions))
      fail(Exit::failed, "EN-003", "the cache has already overwritten what would be needed",
           {{"block", std::to_string(i)},
            {"found", fmt::format("{} positions seen", size())},
            {"need", fmt::format("to go back to {}", positions)}},
           "start the sequence again");
  }
  for (KvStore& s : state_->stores) s.truncate(positions);
  state_->size = positions;
  state_->tokens.resize(static_cast<std::size_t>(positions));
  state_->in_step = false;
}

i64 kv_position_bytes(const Attention& a, Code code) {
  i64 bytes = 0;
  for (i64 width : {key_width(a), value_width(a)})
    if (width > 0)
      bytes += kv_row_bytes(code, width) + (has_scales(code) ? static_cast<i64>(sizeof(float)) : 0);
  return key_heads(a) * bytes;
}

}  // namespace pare
