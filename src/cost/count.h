// What a forward pass reads and computes, operation by operation, counted from the Spec alone.
//
// A multiply-add is two FLOPs. Products and attention are counted; norms, rotations and activation
// functions are not (a fraction of a percent, by another unit). Causal attention counts the pairs
// that are visible, not the square. Every weight is read once a pass, of the cache the rows that
// are visible. For MLA the cheaper of the two orders counts, as that is what the engine runs.
// Mixtures of experts: FLOPs of the active experts, bytes of the expected number of distinct ones
// under uniform routing, E (1 - (1 - k/E)^rows).
#pragma once

#include <string>
#include <vector>

#include "model/spec.h"

namespace pare {

// Tokens that the engine runs together; longer steps are cut into such chunks.
constexpr i64 chunk_tokens = 512;

// One pass: `tokens` new tokens behind `context` cached positions in each of `batch` sequences.
struct Load {
  i64 batch = 1, tokens = 1, context = 0;
  KvScheme kv;              // of the cache
  bool all_logits = false;  // else of the last token of each sequence
  // Bytes as Pare's engine lays matrices out (kernel/packed.h) instead of as files store them:
  // codes of 2 and 3 bits take 4 there, of 5 to 7 bits 8, and vectors are floats.
  bool packed = false;
};

enum class Section : std::uint8_t { embedding, attention, ffn, head, norms };
std::string_view to_string(Section);  // "embedding", "attention", "ffn", "head", "norms"

struct Operation {
  std::string name;  // "embed", "blocks.3.attn.q", "blocks.3.attn.mix", "head", "norms"
  i64 block = -1;
  Section section = Section::ffn;
  bool product = false;           // with a stored matrix; else attention, a lookup or vectors
  i64 rows = 0, in = 0, out = 0;  // of a product: inputs and its shape
  i64 tokens = 0;                 // of each sequence: 1 in decode
  Scheme scheme;                  // of a product's matrix
  Activation activation;          // of its input
  std::string kv_code;            // of attention: how the keys it reads are stored
  double heads_per_kv = 1;        // of attention: queries that share a row
  double queries = 0;             // of attention: heads times rows
  double flops = 0;
  double weight_bytes = 0, kv_read_bytes = 0, kv_write_bytes = 0;
  double bytes() const { return weight_bytes + kv_read_bytes + kv_write_bytes; }
};

// In the order of execution. Sums over them are the pass.
std::vector<Operation> operations(const Spec&, const Load&);

struct Count {
  double flops = 0, weight_bytes = 0, kv_read_bytes = 0, kv_write_bytes = 0;
  double bytes() const { return weight_bytes + kv_read_bytes + kv_write_bytes; }
};
Count sum(const std::vector<Operation>&);

// Numbers of one token that pass through norms, rotations, activation functions and residual sums.
double vector_elements(const Spec&);

// Keys that the query at `position` sees, itself included.
i64 visible_positions(const Attention&, i64 position);
// Sum of visible_positions over `tokens` queries from `context` on.
double visible_pairs(const Attention&, i64 tokens, i64 context);

// Whether `queries` new tokens over `keys` visible rows cost fewer multiply-adds with absorbed
// projections than with materialised keys and values (MLA).
bool absorbed_is_cheaper(const Attention&, i64 queries, i64 keys);

// Bytes of cached rows that one new token behind `context` positions reads, its own included. A
// block that shares the cache of another reads it again.
i64 kv_bytes_read(const Spec&, const KvScheme&, i64 context);

// Bytes of a cache of `positions` positions of one sequence: windows hold at most window + sinks.
double kv_cache_bytes(const Spec&, const KvScheme&, i64 positions);

// FLOPs of appending `tokens` tokens to a sequence of `context` positions and computing the logits
// of the last.
double forward_flops(const Spec&, i64 tokens, i64 context);

}  // namespace pare
