// KvCache: laid out from the Spec. Full, ring window with sinks, latent (MLA), shared (CLA),
// quantized.
//
//   block of the Spec      stored per position                  positions held
//   plain                  kv_heads rows of qk_dim and v_dim    capacity
//   window w, sinks s      likewise                             min(capacity, w + s)
//   MLA                    one row of kv_rank + rope.dims       as above
//   kv_from = j            nothing                              -
//
// Rows are stored in the cache's code; int8 and e4m3 rows carry one f32 scale each.
#pragma once

#include <memory>

#include "kernel/attend.h"
#include "model/spec.h"

namespace pare {

class KvCache {
 public:
  // `positions`: capacity of blocks without a window; windows hold at most window + sinks.
  // Errors: EN-004 more positions than the model's table has, EN-006 not enough memory, EN-007 a
  // code that no cache has (f32, f16, bf16, int8 and e4m3 are possible).
  KvCache(const Spec&, i64 positions, Code code);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  i64 size() const;  // tokens seen so far
  i64 capacity() const;
  i64 bytes() const;  // allocated for keys, values and their scales
  Code code() const;
  // Forgets everything after the first `positions` tokens. Error EN-003 when a ring has already
  // overwritten what would be needed; the cache is then unchanged.
  void truncate(i64 positions);

  struct State;  // the engine's own view (engine/store.h)
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// Bytes that one stored position of this block occupies, scales included; kv_from blocks: of the
// rows they read.
i64 kv_position_bytes(const Attention&, Code code);

}  // namespace pare
