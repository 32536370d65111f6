// How much each matrix matters: the divergence at the output when it alone is rounded.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "probe/perplexity.h"

namespace pare {

// From a matrix as the model has it to its stored form; called once for each candidate.
using Rounder =
    std::function<Tensor(const std::string& matrix, const Tensor& weights, const Scheme&)>;

struct SensitivityJob {
  std::vector<std::string> matrices;  // names of linears(spec), or "embed"
  std::vector<Scheme> candidates;
  std::vector<Sequence> sequences;  // each at most the model's positions long; nothing else is cut
  Rounder round;
};

// KL(model || model with one matrix rounded), mean over all positions of all sequences, nats:
// kl[matrix][candidate]. Rounding a tied embedding rounds the head with it. A candidate equal to
// the scheme a matrix has costs nothing and diverges by 0. Errors: PR-001 nothing to score.
std::vector<std::vector<double>> measure_sensitivities(const Model&, const SensitivityJob&, Pool&,
                                                       const Log&);

// The model with one matrix in another form. `name` as in SensitivityJob.
Model with_matrix(Model, const std::string& name, const Tensor&);

// Mean KL(base || changed) over all positions of all sequences, nats.
double measure_divergence(const Model& base, const Model& changed,
                          const std::vector<Sequence>& sequences, Pool&);

// Mean KL(model || model with its cache stored by a scheme) over all positions but the last of each
// sequence, nats, one a scheme. Losses of caches grow with the length of the sequences. Errors:
// PR-001, EN-007 a scheme that does not suit the model.
std::vector<double> measure_cache_losses(const Model&, const std::vector<KvScheme>&,
                                         const std::vector<Sequence>&, Pool&, const Log&);

// Mean KL(model || model with the inputs of all matrices of its blocks quantized), nats, one an
// activation.
std::vector<double> measure_activation_losses(const Model&, const std::vector<Activation>&,
                                              const std::vector<Sequence>&, Pool&);

// Sequences the model writes itself: `tokens` in all, at most `length` each, seeded; sampled at
// temperature 1 behind `first` (the begin token), or behind a random token when it is -1.
std::vector<Sequence> self_written(Engine&, std::int32_t first, i64 tokens, i64 length,
                                   std::uint64_t seed);

// Ids cut into sequences of at most `length`, in all at most `tokens`.
std::vector<Sequence> cut_text(const std::vector<std::int32_t>& ids, i64 tokens, i64 length);

}  // namespace pare
