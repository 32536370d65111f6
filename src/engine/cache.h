// KvCache: laid out from the Spec. Full, ring window with sinks, latent (MLA), shared (CLA),
// quantized.
//
//   block of the Spec      stored per position                  positions held
//   plain                  kv_heads rows of qk_dim and v_dim    capacity
//   window w, sinks s      likewise                             min(capacity, w + s)
//   MLA                    one row of kv_rank + rope.dims       as above
//   kv_from = j            nothing                              -
//
// Rows are stored by the cache's scheme (number/kv_scheme.h), latent rows by that of its keys. A
// scheme that packs groups of positions holds windows and sinks in whole groups, and beside what is
// packed the newest window + group + 16 positions in f16.
//
// What a query sees of a position depends on the two positions alone, not on how many tokens were
// appended at once.
#pragma once

#include <memory>

#include "kernel/attend.h"
#include "model/spec.h"

namespace pare {

class KvCache {
 public:
  // `positions`: capacity of blocks without a window; windows hold at most window + sinks.
  // Errors: EN-004 more positions than the model's table has, EN-006 not enough memory, EN-007 a
  // scheme that check(KvScheme) refuses.
  KvCache(const Spec&, i64 positions, const KvScheme&);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  i64 size() const;  // tokens seen so far
  i64 capacity() const;
  i64 bytes() const;  // allocated for keys, values and their scales
  const KvScheme& scheme() const;
  // Forgets everything after the first `positions` tokens. Error EN-003 when a ring has already
  // overwritten what would be needed, or positions that would be recent again are left only in
  // packed form; the cache is then unchanged. The latter never happens within 16 tokens of the
  // longest that the sequence has been.
  void truncate(i64 positions);

  struct State;  // the engine's own view (engine/store.h)
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace pare
