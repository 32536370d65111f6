// The engine: one forward pass for every Spec.
//
// An Engine is immutable after construction; any number of caches may use it. One forward is a
// template over Ops: CpuOps (packed matrices, vector units, threads) and RefOps (scalar, double
// accumulation).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/pool.h"
#include "engine/cache.h"
#include "model/model.h"

namespace pare {

struct EngineOptions {
  bool reference = false;  // RefOps: the oracle; slow
  unsigned isa = isa_here();
  std::optional<Code>
      kv;  // cache code; none: the Spec's, else f32 for f32 models and f16 for others
  i64 chunk_tokens = 512;  // long inputs are run in chunks of at most this many tokens
};

// Tokens appended to one sequence.
struct Input {
  KvCache* cache = nullptr;
  std::span<const std::int32_t> tokens;
};
enum class Want { nothing, last, all };

// Looks into a forward pass. `input` sees the input x (tokens, in) of every Linear by its name
// ("blocks.3.attn.q"); `stage` sees intermediate results (tokens, n): "embed",
// "blocks.N.before_attn",
// ".attn.q", ".attn.k", ".attn.v" (as the projections give them), ".attn.mix" (heads joined),
// ".attn.o", ".after_attn_residual", ".before_ffn", ".ffn.hidden", ".ffn.down", "blocks.N", "norm",
// "logits". Either may be empty.
struct Tap {
  std::function<void(const std::string& linear, Matrix<const float> x)> input;
  std::function<void(const std::string& stage, Matrix<const float> x)> stage;
};

class Engine {
 public:
  Engine(const Model&, Pool&, const EngineOptions& = {});
  ~Engine();
  Engine(Engine&&) noexcept;

  const Spec& spec() const;
  Code kv_code() const;
  KvCache make_cache(i64 positions) const;  // room for that many positions

  // Appends each input's tokens to its cache and computes logits: (rows, vocab), rows = one per
  // input (Want::last) or one per token in order (Want::all). The view is valid until the next
  // call. Errors: EN-001 a token outside the vocabulary, EN-002 a cache that is full.
  Matrix<const float> step(std::span<const Input>, Want, const Tap* = nullptr);

  // What one decode step reads from memory at this batch and context (weights by the packed layouts
  // chosen, cache by its visible positions), and its multiply-adds times two.
  i64 weight_bytes_per_step(i64 batch) const;
  i64 kv_bytes_per_step(i64 batch, i64 context) const;
  double flops_per_step(i64 tokens, i64 context) const;
  std::vector<std::string> kernels(i64 batch) const;  // distinct kernel rows in use

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pare
