// Sensitivities: what was measured of a model, one choice at a time, as a document.
//
// A loss is the divergence at the output, KL(base || base with that one thing changed) in nats a
// token: one matrix rounded, the cache stored by another scheme, or the inputs of all matrices of
// the blocks quantized. The loss of a mixture is predicted as the sum of its parts: to second order
// the divergence is a quadratic form of the change of the logits, and rounding errors of different
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
  std::string name;        // as linears(spec) says, or "embed" (a tied head goes with it)
  i64 rows = 0, cols = 0;  // (out, in)
  std::vector<SchemeLoss> options;
};

struct CacheLoss {
  KvScheme scheme;
  double kl = 0;
};

// Of the inputs of all matrices of the blocks at once.
struct ActivationLoss {
  Activation activation;
  double kl = 0;
};

// What was measured and how. `base` and `text` are words for people; `model` and `data` are
// fingerprints of the weights and of the tokens.
struct Sensitivities {
  std::string base, text, rounding, model, data;
  i64 tokens = 0;
  std::vector<MatrixLosses> matrices;
  std::vector<CacheLoss> caches;            // of `pare search`; may be empty
  std::vector<ActivationLoss> activations;  // likewise
};

Json to_json(const Sensitivities&);
// Errors CH-002 name the field that is missing or wrong; `source` is the file's name.
Sensitivities parse_sensitivities(std::string_view text, const std::string& source);
// The weights are those that `model` is the fingerprint of; names and shapes are those of matrices
// of the Spec. Error CH-003 says what is not.
void check(const Sensitivities&, const Spec&, std::string_view model);

}  // namespace pare
