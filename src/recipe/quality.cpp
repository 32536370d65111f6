// The gates are held before anything is published: bytes follow from the Spec, so they are known
// before any work; divergence is measured on the finished weights.
#include "recipe/quality.h"

#include <algorithm>

namespace pare {

std::optional<Quality> measure_quality(const Model& base, const Model& model, const Recipe& recipe,
                                       const ApplyOptions& o, std::vector<std::int32_t> rest,
                                       Pool& pool, const Log& log) {
  if (!recipe.gates.max_kl && !o.eval_text) return std::nullopt;
  std::vector<Sequence> sequences(1);
  Quality q;
  if (o.eval_text) {
    sequences[0].ids = text_ids(base, *o.eval_text);
    sequences[0].bytes = static_cast<i64>(o.eval_text->size());
    q.text = o.eval_name;
  } else if (rest.size() > 1) {
    sequences[0].ids = std::move(rest);
    q.text = "the last tenth of " + o.data.name;
  } else {
    sequences.clear();
    for (auto& s : write_sequences(base, std::min<i64>(o.data.tokens(), 8192),
                                   o.data.length(base.spec), o.data.seed() + 1, pool, log)) {
      Sequence sequence;
      sequence.ids = std::move(s);
      sequences.push_back(std::move(sequence));
    }
    q.text = fmt::format("text written by the model with seed {}", o.data.seed() + 1);
  }
  Engine first(base, pool), second(model, pool);
  q.result = evaluate(second, &first, sequences, Protocol(), pool, log);
  return q;
}

void enforce_bytes(const Recipe& recipe, const Spec& spec) {
  const i64 bytes = weight_bytes(spec);
  if (!recipe.gates.max_bytes || bytes <= *recipe.gates.max_bytes) return;
  fail(Exit::gate, "QU-028", "the weights would take more bytes than max_bytes allows",
       {{"found", std::to_string(bytes)},
        {"need", fmt::format("at most {}", *recipe.gates.max_bytes)}},
       "nothing was published; use fewer bits, or head and embedding quantized too");
}

void enforce_kl(const Recipe& recipe, const std::optional<Quality>& q) {
  if (!recipe.gates.max_kl) return;
  PARE_CHECK(q.has_value());
  const double kl = q->result.divergence->kl_mean;
  if (kl <= *recipe.gates.max_kl) return;  // NaN does not pass
  fail(Exit::gate, "QU-026", "the model is further from the original than max_kl allows",
       {{"found", fmt::format("mean KL {:.5f} nats on {}", kl, q->text)},
        {"need", fmt::format("at most {}", *recipe.gates.max_kl)}},
       "nothing was published; use more bits or another method");
}

std::vector<Evidence> evidence_of(const std::optional<Quality>& q) {
  if (!q) return {};
  const EvalResult& r = q->result;
  return {{"apply", "model", "mean KL in nats on " + q->text, 0, r.divergence->kl_mean},
          {"apply", "model", "perplexity on " + q->text, r.base_score->perplexity(),
           r.score.perplexity()}};
}

}  // namespace pare
