// Timing of whole forward passes.
//
// One untimed round warms caches and threads. Rounds alternate prefill and decode, so a machine
// that slows down for a while spoils a round, not one of the two figures; the median round is
// reported with the extremes. MBU follows Databricks' definition: bytes that must be read, over
// time, over bandwidth.
#include "probe/speed.h"

#include <algorithm>

namespace pare {
namespace {

Timing summarize(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

std::vector<std::int32_t> random_tokens(i64 count, i64 vocab, Random& random) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  return ids;
}

struct Round {
  double prefill = 0;
  std::vector<double> steps;
};

Round run_round(Engine& engine, const SpeedOptions& o, Random& random) {
  const i64 vocab = engine.spec().vocab;
  std::vector<KvCache> caches;
  std::vector<std::vector<std::int32_t>> prompts, fillers;
  const i64 filler = o.context - o.prompt;
  for (i64 b = 0; b < o.batch; b++) {
    caches.push_back(engine.make_cache(o.context + o.generate));
    prompts.push_back(random_tokens(o.prompt, vocab, random));
    fillers.push_back(random_tokens(filler, vocab, random));
  }
  const auto step = [&](const std::vector<std::vector<std::int32_t>>& tokens) {
    std::vector<Input> inputs;
    for (std::size_t b = 0; b < caches.size(); b++) inputs.push_back({&caches[b], tokens[b]});
    const double start = now_seconds();
    engine.step(inputs, Want::last);
    return now_seconds() - start;
  };
  Round round;
  round.prefill = step(prompts);
  if (filler > 0) step(fillers);
  for (i64 g = 0; g < o.generate; g++) {
    stop_if_interrupted();
    std::vector<std::vector<std::int32_t>> next;
    for (i64 b = 0; b < o.batch; b++) next.push_back(random_tokens(1, vocab, random));
    round.steps.push_back(step(next));
  }
  return round;
}

struct Rounds {
  std::vector<double> prefill, decode;  // seconds: of one prefill; of one step, mean of a round
  void add(const Round& round) {
    prefill.push_back(round.prefill);
    double sum = 0;
    for (double s : round.steps) sum += s;
    decode.push_back(sum / static_cast<double>(round.steps.size()));
  }
};

void warm_up(Engine& engine, const SpeedOptions& o, Random& random) {
  const i64 warm = std::min<i64>(o.prompt, 32);
  run_round(engine, {warm, std::min<i64>(o.generate, 4), o.batch, warm, 1}, random);
}

SpeedResult result_of(Engine& engine, const SpeedOptions& o, const Rounds& rounds) {
  SpeedResult result;
  result.options = o;
  result.prefill = summarize(rounds.prefill);
  result.decode = summarize(rounds.decode);
  const double batch = static_cast<double>(o.batch);
  result.prefill_tokens_per_second = batch * static_cast<double>(o.prompt) / result.prefill.median;
  result.decode_tokens_per_second = batch / result.decode.median;
  result.weight_bytes = static_cast<double>(engine.weight_bytes_per_step(o.batch));
  result.kv_bytes =
      static_cast<double>(engine.kv_bytes_per_step(o.batch, o.context + o.generate / 2));
  result.bytes_per_token = (result.weight_bytes + result.kv_bytes) / batch;
  result.read_bytes_per_second = (result.weight_bytes + result.kv_bytes) / result.decode.median;
  result.prefill_flops_per_second =
      batch * engine.flops_per_step(o.prompt, 0) / result.prefill.median;
  return result;
}

Timing ratios(const std::vector<double>& base, const std::vector<double>& out) {
  std::vector<double> ratio;
  for (std::size_t i = 0; i < base.size(); i++) ratio.push_back(base[i] / out[i]);
  return summarize(std::move(ratio));
}

}  // namespace

SpeedOptions checked(SpeedOptions o, i64 positions) {
  o.context = std::max(o.context, o.prompt);
  if (o.prompt < 1 || o.generate < 1 || o.batch < 1 || o.repeats < 1 ||
      o.context + o.generate > positions)
    fail(Exit::usage, "SPD-001", "prompt, context and generation do not suit the model",
         {{"found", fmt::format("prompt {}, context {}, generation {}, batch {}", o.prompt,
                                o.context, o.generate, o.batch)},
          {"need", fmt::format("at least 1 each, and at most {} positions", positions)}});
  return o;
}

SpeedResult measure_speed(Engine& engine, SpeedOptions options, const Log& log) {
  const SpeedOptions o = checked(options, engine.spec().max_positions);
  Random random(1);
  Progress progress(log, "bench", o.repeats + 1, "rounds");
  warm_up(engine, o, random);
  progress.add(1);
  Rounds rounds;
  for (int r = 0; r < o.repeats; r++) {
    rounds.add(run_round(engine, o, random));
    progress.add(1);
  }
  return result_of(engine, o, rounds);
}

SpeedPair measure_speeds(Engine& base, Engine& out, SpeedOptions options, const Log& log) {
  PARE_CHECK(base.spec().vocab == out.spec().vocab);
  const SpeedOptions o =
      checked(options, std::min(base.spec().max_positions, out.spec().max_positions));
  Engine* const engines[2] = {&base, &out};
  Random randoms[2] = {Random(1), Random(1)};
  Rounds rounds[2];
  Progress progress(log, "speed", 2 * (o.repeats + 1), "rounds");
  for (int r = -1; r < o.repeats; r++)
    for (int k = 0; k < 2; k++) {
      const int which = r % 2 == 0 ? k : 1 - k;
      if (r < 0)
        warm_up(*engines[which], o, randoms[which]);
      else
        rounds[which].add(run_round(*engines[which], o, randoms[which]));
      progress.add(1);
    }
  return {result_of(base, o, rounds[0]), result_of(out, o, rounds[1]),
          ratios(rounds[0].prefill, rounds[1].prefill), ratios(rounds[0].decode, rounds[1].decode)};
}

}  // namespace pare
