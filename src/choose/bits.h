// Which matrix gets how many bits: measured losses and a budget in, a scheme for each matrix out.
//
// A loss is the divergence at the output, KL(base || base with that one matrix rounded) in nats a
// token. The loss of a mixture is predicted as the sum over its matrices: to second order the
// divergence is a quadratic form of the change of the logits, and rounding errors of different
// matrices are nearly uncorrelated, so cross terms vanish. Sums of sensitivities under a budget of
// bits: Dong et al. 2019, HAWQ (arXiv:1911.03852), with the Hessian; here the divergence itself is
// measured.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/spec.h"
#include "number/scheme.h"

namespace pare {

struct SchemeLoss {
  Scheme scheme;
  i64 bytes = 0;  // stored_bytes of the matrix
  double kl = 0;
};

struct MatrixLosses {
  std::string name;        // as linears(spec) says, or "embed"
  i64 rows = 0, cols = 0;  // (out, in)
  std::vector<SchemeLoss> options;
};

// What was measured and how. `base` and `text` are words for people.
struct Sensitivities {
  std::string base, text, rounding;
  i64 tokens = 0;
  std::vector<MatrixLosses> matrices;
};

Json to_json(const Sensitivities&);
// Errors CH-002 name the field that is missing or wrong; `source` is the file's name.
Sensitivities parse_sensitivities(std::string_view text, const std::string& source);
// Names and shapes are those of matrices of the Spec. Error CH-003 names the first that is not.
void check(const Sensitivities&, const Spec&);

struct BitsPlan {
  std::vector<SchemeLoss> chosen;  // one a matrix, in the order of the sensitivities
  i64 bytes = 0, weights = 0;
  double kl = 0;     // predicted
  double bound = 0;  // no choice within the budget is predicted below it
  bool exact = true;
  double bits() const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

// The choice of least predicted loss whose bytes, all planes counted, are at most
// `bits_per_weight` times the weights of all matrices. Error CH-001 says what the cheapest choice
// needs.
BitsPlan choose_bits(const Sensitivities&, double bits_per_weight);

}  // namespace pare
