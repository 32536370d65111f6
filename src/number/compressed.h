// Between our planes and the tensors of compressed-tensors checkpoints (formats: docs/formats.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "number/raw_plane.h"

namespace pare {

// The format name ("pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized",
// "mxfp4-pack-quantized") that holds this scheme exactly for this many input columns, or none.
std::optional<std::string> compressed_format(const Scheme&, const Activation&, i64 cols);

// Names, dtypes and shapes without data (`bytes` empty), to plan a file.
std::vector<RawPlane> plan_compressed(const Scheme&, const std::string& format, i64 rows, i64 cols);
std::vector<RawPlane> to_compressed(const Tensor&, const std::string& format);

// The inverse; `planes` may hold others too. Error NU-030 names what is missing or has the wrong
// shape.
Tensor from_compressed(const std::vector<RawPlane>& planes, const Scheme&,
                       const std::string& format, i64 rows, i64 cols);

// QuantizationArgs of weights and inputs, and back. Error NU-031 names what Pare cannot express.
Json weight_args(const Scheme&);
Json activation_args(const Activation&);  // null for none
Scheme parse_weight_args(const Json&, const std::string& format);
Activation parse_activation_args(const Json&);

}  // namespace pare
