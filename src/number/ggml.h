// ggml blocks to planes and back: exact, code for code (layouts: ggml's source; docs/formats.md).
#pragma once

#include <optional>
#include <span>

#include "number/tensor.h"

namespace pare {

// Every type that can be read and written, floats first, then by rising id within a family.
std::span<const std::uint32_t> ggml_types();
// Error NU-010 for a type that cannot.
i64 ggml_block(std::uint32_t ggml_type);              // weights of a block
i64 ggml_block_bytes(std::uint32_t ggml_type);        // and its bytes
std::string_view ggml_name(std::uint32_t ggml_type);  // "Q4_K"

// The scheme that holds a ggml type without loss; Error NU-010 naming the type when there is none.
Scheme scheme_of_ggml(std::uint32_t ggml_type);

// Takes the blocks of a (rows, cols) tensor apart. Plain floats are not copied. Errors: NU-011
// (columns not a multiple of the block, or the wrong number of bytes), NU-012 (a scale that is not
// a number).
Tensor tensor_from_ggml(std::uint32_t ggml_type, i64 rows, i64 cols, const Blob& blocks);

// The inverse for every scheme that scheme_of_ggml gives.
Blob blocks_from_tensor(const Tensor&, std::uint32_t ggml_type);

}  // namespace pare
