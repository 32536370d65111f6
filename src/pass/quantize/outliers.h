// LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339): the few inputs with very large values keep
// 16-bit weights and are multiplied beside the integer product, so that they do not coarsen the
// codes of all others. And the scales of static activations, which outliers coarsen as well.
#pragma once

#include <span>
#include <vector>

#include "engine/statistics.h"
#include "pass/quantize/block.h"

namespace pare {

// Columns, ascending, whose inputs reached `threshold` in magnitude on some token. All Linears that
// read the input share the list. A threshold of 0 and below takes none, as in bitsandbytes (whose
// own default that is; Transformers sets 6.0, the published number).
constexpr float outlier_threshold = 6.0f;
std::vector<std::int32_t> outlier_columns(const InputStatistics&,
                                          float threshold = outlier_threshold);

// Takes the columns out of "NAME.weight" of the block (they become zero) and makes the slots
// "NAME.outlier_weight" (out, columns), rounded to 16 bits, and "NAME.outlier_index". Returns the
// code the companion is exact in: f16, or bf16 when a weight is beyond f16. The Linear must have no
// outliers yet and read its inputs in order; the Spec is the caller's to change
// (Linear::outliers = columns.size()). Nothing happens without columns.
Code split_outliers(BlockValues&, const std::string& name, std::span<const std::int32_t> columns);

// The scale of a static per-tensor activation: the largest input seen, or the `percentile`-th
// magnitude of the sample of tokens, becomes the largest code. 1 when all inputs were zero. Errors:
// QU-030 a percentile below 100 and no sample.
float static_activation_scale(const InputStatistics&, const Activation&, double percentile = 100);

}  // namespace pare
