// How well a model predicts a text, and how far its distributions are from another model's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "engine/engine.h"

namespace pare {

// The protocol decides the figure (five different ones are in use for "WikiText-2 perplexity"), so
// it is part of every result: the text is tokenized once, cut into windows of `window` tokens that
// begin `stride` tokens apart; of each window the tokens not yet scored are, except its first.
struct Protocol {
  i64 window = 0;  // 0: min(2048, the model's positions)
  i64 stride = 0;  // 0: = window (windows do not overlap)
  i64 limit = 0;   // tokens used from the front of the text; 0: all
  // As llama.cpp's perplexity tool: whole windows only, of each the tokens after its first half +
  // 1; a vocabulary that begins texts with a token puts it in the place of each window's first.
  bool second_half = false;
  std::int32_t begin_token = -1;  // for second_half; -1: none
};
std::string to_string(
    const Protocol&);  // "window 512, stride 512, first token of a window not scored"

struct Sequence {
  std::vector<std::int32_t> ids;
  i64 bytes = 0;  // of text the tokens stand for; 0: unknown
};

// ln sum exp(x), of logits; in double.
double log_sum_exp(const float* x, i64 n);

struct Score {
  i64 tokens = 0;  // scored
  double nll = 0;  // sum of -ln p, natural logarithm
  i64 bytes = 0;   // of text that the scored tokens stand for; 0: unknown
  double nll_per_token() const { return tokens > 0 ? nll / static_cast<double>(tokens) : 0; }
  double perplexity() const;
  double bits_per_byte() const;  // 0 when bytes are unknown
};

// Distance of a model's next-token distributions q to a base's p, over all scored positions.
struct Divergence {
  double kl_mean = 0, kl_median = 0, kl_p99 = 0, kl_max = 0;  // KL(p || q), nats
  double top1_agreement = 0;  // share of positions where both rank the same token first
  double same_top_p = 0;   // mean overlap (intersection over union) of the two sets of tokens that
                           // make up the first 90 % of probability
  double rms_delta_p = 0;  // root mean square change of the correct token's probability
};

struct EvalResult {
  Protocol protocol;  // with the defaults filled in
  Score score;
  std::vector<Score> sequences;
  std::optional<Score> base_score;
  std::optional<Divergence> divergence;
};

// Scores every sequence; with `base` also compares. Sequences longer than the window are cut by the
// protocol. Errors: PR-001 nothing to score, PR-002 vocabularies differ, PR-003 bad window or
// stride.
EvalResult evaluate(Engine& model, Engine* base, const std::vector<Sequence>& sequences, Protocol,
                    Pool& pool, const Log&);

// KL(p || q) and the other per-position measures from two rows of logits (n).
struct PositionDistance {
  double kl = 0, overlap = 0;
  bool same_top = false;
  double p_target = 0, q_target = 0;
};
PositionDistance compare_position(const float* p_logits, const float* q_logits, i64 n,
                                  std::int32_t target);

// -ln softmax(logits)[target], in double.
double negative_log_likelihood(const float* logits, i64 n, std::int32_t target);

}  // namespace pare
