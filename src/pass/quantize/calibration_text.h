// Token sequences to learn from: cut from a text, or written by the model itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/log.h"
#include "base/pool.h"
#include "model/model.h"

namespace pare {

using TokenSequences = std::vector<std::vector<std::int32_t>>;

// At most `tokens` tokens in sequences of `length`, spread evenly over the text; a text that has
// fewer is used whole. A last piece shorter than 16 tokens is left out unless it is the only one.
// Error QU-022: no tokens.
TokenSequences cut_sequences(std::span<const std::int32_t> ids, i64 tokens, i64 length);

// The model writes: seeded sampling at temperature 1 from its begin token, or, where it has none,
// from tokens drawn at random. Same bits for any pool.
TokenSequences write_sequences(const Model&, i64 tokens, i64 length, std::uint64_t seed, Pool&,
                               const Log&);

}  // namespace pare
