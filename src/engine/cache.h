// KvCache: laid out from the Spec. Full, ring window with sinks, latent (MLA), shared (CLA),
// quantized.
#pragma once

#include <memory>

#include "kernel/attend.h"
#include "model/spec.h"

namespace pare {

class KvCache {
 public:
  // `positions`: capacity of blocks without a window; windows hold at most window + sinks.
  KvCache(const Spec&, i64 positions, Code code);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  i64 size() const;  // tokens seen so far
  i64 capacity() const;
  i64 bytes() const;  // allocated
  Code code() const;
  // Forgets everything after the first `positions` tokens. Error EN-003 when a ring has already
  // overwritten what would be needed.
  void truncate(i64 positions);

  struct State;  // the engine's own view
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace pare
