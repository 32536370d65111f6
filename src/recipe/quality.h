// Quality of an outcome, and whether it passes its gates.
#pragma once

#include "recipe/apply.h"

namespace pare {

// On the text to evaluate on; else on `rest`, what was left of the text that was learnt from; else
// on text that the base writes. None: nobody asks (no eval_text, no max_kl).
std::optional<Quality> measure_quality(const Model& base, const Model& model, const Recipe&,
                                       const ApplyOptions&, std::vector<std::int32_t> rest, Pool&,
                                       const Log&);

void enforce_bytes(const Recipe&, const Spec&);                    // Error QU-028
void enforce_kl(const Recipe&, const std::optional<Quality>&);     // Error QU-026
std::vector<Evidence> evidence_of(const std::optional<Quality>&);  // for the notes

}  // namespace pare
