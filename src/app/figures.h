// Figures with units as people read them: of proofs and of the ledger.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "recipe/proof.h"

namespace pare {

// By unit: "bytes" 3.20 MB, "share" 87.3 %, "tokens/s" 1234.5, "ratio" 1.53 x, "nats" 0.01621;
// none: empty.
std::string figure_text(const std::optional<double>&, const std::string& unit);

// predicted / measured - 1, as "+2.1 %"; empty without both.
std::string error_of_prediction(const std::optional<double>& measured,
                                const std::optional<double>& predicted);

// A line a figure: base, out, and where there are any, predictions and their errors. The row
// "x_spread" is shown behind the figure x: "754.5 +- 13 %".
std::string figures_text(const std::vector<ProofRow>&);

}  // namespace pare
