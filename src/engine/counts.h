// What a step reads and computes, counted from the Spec.
#pragma once

#include "model/spec.h"

namespace pare {

// Keys that the query at `position` sees, itself included.
i64 visible_positions(const Attention&, i64 position);

// Bytes of cached rows that one new token behind `context` positions reads, its own included. A
// block that shares the cache of another reads it again.
i64 kv_bytes_read(const Spec&, const KvScheme&, i64 context);

// Twice the multiply-adds of appending `tokens` tokens to a sequence of `context` positions and
// computing the logits of the last: products and attention; norms and the like are not counted.
double forward_flops(const Spec&, i64 tokens, i64 context);

}  // namespace pare
