// The engine: one forward pass for every Spec.
//
// An Engine is immutable after construction but for its scratch memory; any number of caches may
// use it, one step at a time. One forward is a template over Ops (engine/forward.h): CpuOps (packed
// matrices, vector units, threads) and RefOps (scalar, double accumulation).
//
// Rotary frequencies that depend on the length of a sequence (dynamic, longrope) go by its length
// when the step ends, as in Transformers. Keys in the cache keep the rotation they came with under
// dynamic scaling; when a sequence crosses the switch of longrope, the whole sequence is run again
// with the other factors, so that a result does not depend on the steps a sequence came in.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/pool.h"
#include "cost/count.h"
#include "engine/cache.h"
#include "model/model.h"

namespace pare {

struct EngineOptions {
  bool reference = false;  // RefOps: the oracle; slow
  unsigned isa = isa_here();
  std::optional<KvScheme>
      kv;  // of caches; none: the Spec's, else f32 for f32 models, f16 for others
  i64 chunk_tokens =
      pare::chunk_tokens;  // long inputs are run in chunks of at most this many tokens
};

// Tokens appended to one sequence. A cache may occur once in a step.
struct Input {
  KvCache* cache = nullptr;
  std::span<const std::int32_t> tokens;
};
enum class Want { nothing, last, all };

// Looks into a forward pass. `input` sees the input x (tokens, in) of every Linear by its name
// ("blocks.3.attn.q"); `stage` sees intermediate results (tokens, n): "embed",
// "blocks.N.before_attn", ".attn.q", ".attn.k", ".attn.v" (as the projections give them),
// ".attn.mix" (heads joined), ".attn.o", ".after_attn_residual" (not in parallel blocks),
// ".before_ffn", ".ffn.gate", ".ffn.up", ".ffn.hidden", ".ffn.down", "blocks.N", "norm", "logits".
// Norms that a block lacks are not seen. Either may be empty. Views may have a stride and end with
// the call. A long input is seen chunk by chunk, in order.
struct Tap {
  std::function<void(const std::string& linear, Matrix<const float> x)> input;
  std::function<void(const std::string& stage, Matrix<const float> x)> stage;
};

struct Tally;      // engine/tally.h
struct PartTimes;  // engine/tally.h

class Engine {
 public:
  // Packs one weight at a time. The pool must outlive the engine. Errors: EN-007 a scheme
  // that no cache has, EN-008 what no engine runs, EN-009 companions with indices out of range, and
  // those of check(Model).
  Engine(const Model&, Pool&, const EngineOptions& = {});
  ~Engine();
  Engine(Engine&&) noexcept;

  const Spec& spec() const;
  const KvScheme& kv() const;               // of the caches it makes
  KvCache make_cache(i64 positions) const;  // room for that many positions

  // Appends each input's tokens to its cache and computes logits: (rows, vocab), rows = one per
  // input (Want::last) or one per token in order (Want::all). The view is valid until the next
  // call. Errors, before anything has changed: EN-001 a token outside the vocabulary, EN-002 a
  // cache that is full, EN-005 an input without tokens or a cache whose last step was cut short.
  Matrix<const float> step(std::span<const Input>, Want, const Tap* = nullptr);

  // Steps from now on add to the tally what they multiply and read (null: no more). Not of the
  // reference.
  void count(Tally*);
  // Steps from now on add what their parts took (null: no more). The same restriction.
  void time(PartTimes*);

  // What one decode step of `batch` sequences reads from memory: weights by the packed layouts
  // chosen, and of each cache of `context` positions the rows that are visible.
  i64 weight_bytes_per_step(i64 batch) const;
  i64 kv_bytes_per_step(i64 batch, i64 context) const;
  // Multiply-adds times two of appending `tokens` tokens to one sequence of `context` positions,
  // with the logits of the last.
  double flops_per_step(i64 tokens, i64 context) const;
  std::vector<std::string> kernels(i64 batch) const;  // distinct kernel rows in use

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pare
