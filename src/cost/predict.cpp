// From counted operations to seconds.
//
// A long prompt is run in chunks, as the engine does, so its weights are counted once a chunk; at
// 512 tokens that is far beyond every ridge. Activations between operations stay in caches and are
// not charged to memory; what they occupy is.
#include "cost/predict.h"

#include <algorithm>
#include <cmath>

#include "cost/rates.h"
#include "model/model.h"

namespace pare {
namespace {

OperationTime time_of(Operation op, const Hardware& h) {
  OperationTime t;
  t.code = op.product ? executed_code(op.scheme, op.activation, h)
                      : executed_code(Scheme(), Activation(), h);
  if (!op.product && !h.measured && h.rate.contains("bf16")) t.code = "bf16";
  t.memory_seconds = op.bytes() / h.bytes_per_second;
  t.compute_seconds = op.flops / *h.rate_of(t.code);
  t.limit = t.compute_seconds > t.memory_seconds ? Limit::compute : Limit::memory;
  t.seconds = std::max(t.memory_seconds, t.compute_seconds);
  t.operation = std::move(op);
  return t;
}

void add(StepTime& to, StepTime&& part) {
  to.seconds += part.seconds;
  to.count.flops += part.count.flops;
  to.count.weight_bytes += part.count.weight_bytes;
  to.count.kv_read_bytes += part.count.kv_read_bytes;
  to.count.kv_write_bytes += part.count.kv_write_bytes;
  if (to.operations.empty()) {
    to.operations = std::move(part.operations);
    return;
  }
  for (std::size_t i = 0; i < to.operations.size(); i++) {
    OperationTime& a = to.operations[i];
    const OperationTime& b = part.operations[i];
    a.memory_seconds += b.memory_seconds;
    a.compute_seconds += b.compute_seconds;
    a.seconds += b.seconds;
    a.operation.rows += b.operation.rows;
    a.operation.queries += b.operation.queries;
    a.operation.flops += b.operation.flops;
    a.operation.weight_bytes += b.operation.weight_bytes;
    a.operation.kv_read_bytes += b.operation.kv_read_bytes;
    a.operation.kv_write_bytes += b.operation.kv_write_bytes;
  }
}

void decide_limit(StepTime& step) {
  double by[2] = {};
  for (const OperationTime& t : step.operations) by[static_cast<int>(t.limit)] += t.seconds;
  step.limit = by[1] > by[0] ? Limit::compute : Limit::memory;
}

// The engine lays the tokens of all sequences one after the other and cuts them into chunks: some
// whole prompts at once when they are short, a piece of one when they are long.
StepTime predict_prefill(const Spec& spec, const Hardware& h, const Use& use) {
  Load load;
  load.batch = use.batch;
  load.tokens = use.prompt;
  load.kv = kv_of(spec, use);
  if (h.engine == nullptr || use.batch * use.prompt <= chunk_tokens)
    return predict_pass(spec, h, load, use.threads);
  StepTime total;
  const i64 together = std::max<i64>(1, chunk_tokens / use.prompt);
  for (i64 first = 0; first < use.batch; first += together) {
    load.batch = std::min(together, use.batch - first);
    for (i64 done = 0; done < use.prompt; done += load.tokens) {
      load.tokens = std::min(chunk_tokens, use.prompt - done);
      load.context = done;
      add(total, predict_pass(spec, h, load, use.threads));
    }
  }
  return total;
}

}  // namespace

std::string_view to_string(Limit limit) { return limit == Limit::memory ? "memory" : "compute"; }

KvScheme kv_of(const Spec& spec, const Use& use) { return use.kv ? *use.kv : default_kv(spec); }

StepTime predict_pass(const Spec& spec, const Hardware& h, const Load& asked, int threads) {
  Load load = asked;
  load.packed = h.measured;
  StepTime step;
  for (Operation& op : operations(spec, load)) step.operations.push_back(time_of(std::move(op), h));
  std::vector<Operation> counted;
  for (const OperationTime& t : step.operations) counted.push_back(t.operation);
  step.count = sum(counted);
  if (h.engine != nullptr) {
    const TeamRates& team = h.engine->team(threads);
    const double rows = real(load.batch * load.tokens);
    for (OperationTime& t : step.operations)
      t.seconds = operation_seconds(*h.engine, team, t.operation, step.count.weight_bytes);
    step.seconds =
        rest_seconds(team, real(static_cast<i64>(spec.blocks.size())), rows, vector_elements(spec));
  }
  for (const OperationTime& t : step.operations) step.seconds += t.seconds;
  decide_limit(step);
  return step;
}

Memory predict_memory(const Spec& spec, const Use& use, i64 prefill_rows) {
  Memory m;
  m.weights = real(weight_bytes(spec));
  m.cache = real(use.batch) * kv_cache_bytes(spec, kv_of(spec, use), use.context);
  i64 widest = 2 * spec.dim;
  for (const auto& [name, linear] : linears(spec))
    if (name != "head") widest = std::max(widest, spec.dim * 2 + linear->in + 2 * linear->out);
  m.activations = real(prefill_rows * widest) * 2 + real(use.batch * spec.vocab) * 4;
  return m;
}

Prediction predict(const Spec& spec, const Hardware& h, const Use& use) {
  Prediction p;
  p.prefill = predict_prefill(spec, h, use);
  decide_limit(p.prefill);
  Load load;
  load.batch = use.batch;
  load.context = use.context;
  load.kv = kv_of(spec, use);
  p.decode = predict_pass(spec, h, load, use.threads);
  p.ttft_seconds = p.prefill.seconds;
  p.seconds_per_token = p.decode.seconds;
  p.prefill_tokens_per_second = real(use.batch * use.prompt) / p.prefill.seconds;
  p.decode_tokens_per_second = real(use.batch) / p.decode.seconds;
  const double bandwidth =
      h.engine != nullptr ? h.engine->team(use.threads).bytes_per_second : h.bytes_per_second;
  p.mbu =
      (p.decode.count.weight_bytes + p.decode.count.kv_read_bytes) / p.decode.seconds / bandwidth;
  double best = 0;  // FLOPs at the rates of the codes that run them
  for (const OperationTime& t : p.prefill.operations) best += t.compute_seconds;
  p.mfu = best / p.prefill.seconds;
  p.kv_bytes_per_token = kv_bytes_per_token(spec, load.kv);
  p.memory = predict_memory(spec, use, std::min(chunk_tokens, use.batch * use.prompt));
  p.fits = p.memory.total() <= usable_memory * h.memory_bytes;
  p.largest_batch = largest_batch(spec, h, use);
  return p;
}

i64 largest_batch(const Spec& spec, const Hardware& h, const Use& use) {
  Use one = use;
  one.batch = 1;
  const Memory m = predict_memory(spec, one, std::min(chunk_tokens, use.batch * use.prompt));
  const double logits = real(spec.vocab) * 4;
  const double room = usable_memory * h.memory_bytes - m.weights - (m.activations - logits);
  return room <= 0 ? 0 : static_cast<i64>(std::floor(room / (m.cache + logits)));
}

i64 largest_context(const Spec& spec, const Hardware& h, const Use& use) {
  Use none = use;
  none.context = 0;
  const double rest =
      predict_memory(spec, none, std::min(chunk_tokens, use.batch * use.prompt)).total();
  const KvScheme kv = kv_of(spec, use);
  const auto fits = [&](i64 context) {
    return rest + real(use.batch) * kv_cache_bytes(spec, kv, context) <=
           usable_memory * h.memory_bytes;
  };
  i64 low = 0, high = spec.max_positions > 0 ? spec.max_positions : i64{1} << 40;
  if (!fits(low)) return 0;
  if (fits(high)) return high;
  while (high - low > 1) {
    const i64 middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace pare
