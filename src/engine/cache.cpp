// A cache is a store for each block that keeps something.
#include "engine/cache.h"

#include <limits>
#include <new>

#include "engine/store.h"

namespace pare {
namespace {

constexpr i64 most_positions = std::numeric_limits<std::int32_t>::max();  // positions are 32-bit

void check_positions(const Spec& spec, i64 positions) {
  if (spec.learned_positions > 0 && positions > spec.learned_positions)
    fail(Exit::input, "EN-004", "the model's table of positions is too short",
         {{"found", fmt::format("{} positions asked for", positions)},
          {"need", fmt::format("at most {}", spec.learned_positions)}},
         "use a shorter context");
  if (positions < 1 || positions > most_positions)
    fail(Exit::usage, "EN-006", "a cache cannot have this many positions",
         {{"found", std::to_string(positions)}, {"need", fmt::format("1 to {}", most_positions)}});
}

void check_scheme(const KvScheme& scheme) try { check(scheme); } catch (const Error& e) {
  throw Error(e.exit, "EN-007", e.message, e.facts, e.hint);
}

}  // namespace

KvCache::KvCache(const Spec& spec, i64 positions, const KvScheme& scheme)
    : state_(std::make_unique<State>()) {
  check_scheme(scheme);
  check_positions(spec, positions);
  state_->scheme = scheme;
  state_->capacity = positions;
  std::vector<bool> shared(spec.blocks.size());
  for (const Block& b : spec.blocks)
    if (b.attn.kv_from >= 0) shared[static_cast<std::size_t>(b.attn.kv_from)] = true;
  try {
    for (std::size_t i = 0; i < spec.blocks.size(); i++) {
      const Attention& a = spec.blocks[i].attn;
      state_->stores.push_back(a.kv_from >= 0 ? KvStore()
                                              : KvStore(a, positions, scheme, shared[i]));
    }
  } catch (const std::bad_alloc&) {
    i64 bytes = 0;
    for (const Block& b : spec.blocks)
      if (b.attn.kv_from < 0) bytes += kv_packed_bytes(b.attn, scheme, 1);
    fail(Exit::resources, "EN-006", "there is not enough memory for the cache",
         {{"need", fmt::format("{} positions of up to {} bytes", positions, bytes)}},
         "use a shorter context, a smaller batch or a smaller scheme for the cache");
  }
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

i64 KvCache::size() const { return state_->size; }
i64 KvCache::capacity() const { return state_->capacity; }
const KvScheme& KvCache::scheme() const { return state_->scheme; }

i64 KvCache::bytes() const {
  i64 sum = 0;
  for (const KvStore& s : state_->stores) sum += s.bytes();
  return sum;
}

void KvCache::truncate(i64 positions) {
  PARE_CHECK(positions >= 0 && positions <= size());
  for (std::size_t i = 0; i < state_->stores.size(); i++) {
    const KvStore& store = state_->stores[i];
    const bool damaged = state_->in_step && store.overwrites() && positions > 0;
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

}  // namespace pare
