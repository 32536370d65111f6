// pare bench, roof and compare: speed against the machine's limits.
#include <algorithm>

#include "app/commands.h"
#include "app/forecast.h"
#include "app/record.h"
#include "app/roofline.h"
#include "file/io.h"
#include "probe/rates.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

Json timing_json(const Timing& t) {
  return Json::object(
      {{"median", Json(t.median)}, {"minimum", Json(t.minimum)}, {"maximum", Json(t.maximum)}});
}

std::string spread(const Timing& t) {
  return fmt::format("+- {:.0f} %", 50 * (t.maximum - t.minimum) / t.median);
}

Json kernels_json(const Engine& engine, i64 batch) {
  Json::Array names;
  for (const std::string& name : engine.kernels(batch)) names.emplace_back(name);
  return Json(std::move(names));
}

void record_bench(const BenchOptions& o, const Model& model, const Engine& engine,
                  const SpeedResult& r, const Shares& shares, const Forecast& f,
                  const std::string& predictor, int threads, const Log& log) {
  if (ledger_path().empty()) return;
  RunRecord run = run_here("bench", threads);
  run.model = o.model;
  run.identity = identity(model, log);
  run.protocol = fmt::format("prompt {}, {} steps x {} at context {}, cache {}, {} rounds",
                             r.options.prompt, r.options.generate, r.options.batch,
                             r.options.context, to_string(engine.kv()), r.options.repeats);
  run.predictor = predictor;
  const double bytes = static_cast<double>(weight_bytes(model.spec));
  run.figures = {
      {"weight_bytes", "bytes", {}, bytes, {}, {}},
      {"decode_tokens_per_second",
       "tokens/s",
       {},
       r.decode_tokens_per_second,
       {},
       f.decode_tokens_per_second},
      {"prefill_tokens_per_second",
       "tokens/s",
       {},
       r.prefill_tokens_per_second,
       {},
       f.prefill_tokens_per_second},
      {"mbu", "share", {}, shares.mbu, {}, f.mbu},
      {"mfu", "share", {}, shares.mfu, {}, f.mfu},
      {"bytes_per_token", "bytes", {}, r.bytes_per_token, {}, {}},
  };
  record_run(std::move(run), log);
}

// The Spec with the cache that is in use.
Spec with_cache(Spec spec, const KvScheme& kv) {
  spec.kv = kv;
  return spec;
}

}  // namespace

void command_bench(const BenchOptions& o, const CommonOptions& common, const Output& out) {
  const Model model = load_model(o.model, {});
  Pool pool(common.threads);
  EngineOptions options;
  options.kv = parse_kv(o.kv);
  Engine engine(model, pool, options);
  const Roof roof = roof_here(pool, out.log);
  const SpeedResult r = measure_speed(engine, o.speed, out.log);
  const Shares shares = shares_of(r, roof, model.spec);
  const bool cached = r.weight_bytes < static_cast<double>(roof.last_level_cache_bytes);
  const Hardware hardware = hardware_here(roof);
  const Forecast f =
      forecast(with_cache(model.spec, engine.kv()), hardware, roof, r.options, pool.threads());
  record_bench(o, model, engine, r, shares, f, predictor_of(hardware), pool.threads(), out.log);
  if (out.json)
    return out.result(
        "bench", Json::object({{"model", Json(o.model)},
                               {"isa", Json(isa_name(isa_here()))},
                               {"threads", Json(pool.threads())},
                               {"prompt", Json(r.options.prompt)},
                               {"generate", Json(r.options.generate)},
                               {"batch", Json(r.options.batch)},
                               {"context", Json(r.options.context)},
                               {"kv_code", Json(to_string(engine.kv()))},
                               {"prefill_tokens_per_second", Json(r.prefill_tokens_per_second)},
                               {"decode_tokens_per_second", Json(r.decode_tokens_per_second)},
                               {"prefill_seconds", timing_json(r.prefill)},
                               {"decode_step_seconds", timing_json(r.decode)},
                               {"bytes_per_token", Json(r.bytes_per_token)},
                               {"weight_bytes", Json(r.weight_bytes)},
                               {"kv_bytes", Json(r.kv_bytes)},
                               {"read_bytes_per_second", Json(r.read_bytes_per_second)},
                               {"mbu", Json(shares.mbu)},
                               {"prefill_flops_per_second", Json(r.prefill_flops_per_second)},
                               {"mfu", Json(shares.mfu)},
                               {"predicted_prefill_seconds", Json(f.prefill_seconds)},
                               {"predicted_decode_step_seconds", Json(f.decode_seconds)},
                               {"predictor", Json(predictor_of(hardware))},
                               {"fits_last_level_cache", Json(cached)},
                               {"kernels", kernels_json(engine, r.options.batch)},
                               {"prefill_kernels", kernels_json(engine, r.options.prompt)}}));
  std::string text = fmt::format(
      "{}  ({}, {} threads, cache {})\n"
      "  prefill  {:.1f} tokens/s {}   {} tokens x {}, {}, {:.0f} % of peak\n"
      "  decode   {:.2f} tokens/s {}   {} steps x {} at context {}\n"
      "           {} a token ({} weights + {} cache a step), {}, MBU {:.0f} %\n",
      o.model, isa_name(isa_here()), pool.threads(), to_string(engine.kv()),
      r.prefill_tokens_per_second, spread(r.prefill), r.options.prompt, r.options.batch,
      human_rate(r.prefill_flops_per_second, "FLOP"), 100 * shares.mfu, r.decode_tokens_per_second,
      spread(r.decode), r.options.generate, r.options.batch, r.options.context,
      human_bytes(r.bytes_per_token), human_bytes(r.weight_bytes), human_bytes(r.kv_bytes),
      human_rate(r.read_bytes_per_second, "B"), 100 * shares.mbu);
  text +=
      fmt::format("  predicted from {}: prefill {:.1f} tokens/s, decode {:.2f} tokens/s\n",
                  predictor_of(hardware), f.prefill_tokens_per_second, f.decode_tokens_per_second);
  if (cached)
    text +=
        "  note: the weights fit in the last-level cache, so memory bandwidth is not their limit\n";
  else if (shares.mbu > 1.05)
    text +=
        "  note: the remembered roof is too low (measured while the machine was busy?); `pare "
        "roof` measures it again\n";
  out.text(text);
}

void command_roof(const RoofOptions& o, const CommonOptions& common, const Output& out) {
  for (const std::string& product : o.products) parse_product(product);  // before any measurement
  Pool pool(common.threads);
  const Roof roof = measure_and_remember(pool, o.seconds, out.log);
  const auto rates =
      o.kernels ? measure_rates_and_remember(pool, 0.06 * o.seconds, o.rounds, o.products, out.log)
                : std::shared_ptr<const EngineRates>();
  if (out.json) {
    Json json = roof_json(roof);
    if (rates) json.set("engine", to_json(*rates));
    return out.result("roof", json);
  }
  Table table({"code", "ISA", "1 thread", fmt::format("{} threads", pool.threads())});
  for (const Roof::Peak& peak : roof.peaks)
    table.add({peak.code, peak.isa, human_rate(peak.flops_per_second_single, "FLOP"),
               human_rate(peak.flops_per_second, "FLOP")});
  std::string kernels;
  if (rates) {
    Table list({"product", "inputs", "1 thread", fmt::format("{} threads", pool.threads())});
    const auto speed = [](const ProductRate& r, std::size_t i) {
      return i == 0 ? human_rate(r.bytes_per_second(i), "B")
                    : human_rate(r.flops_per_second(i), "FLOP");
    };
    const TeamRates &one = rates->teams.front(), &all = rates->teams.back();
    for (std::size_t k = 0; k < one.products.size(); k++)
      for (std::size_t i : {std::size_t{0}, one.products[k].points.size() - 1})
        if (!one.products[k].cached)
          list.add({one.products[k].key, fmt::format("{:.0f}", one.products[k].points[i].batch),
                    speed(one.products[k], i), speed(all.products[k], i)});
    kernels = "\n" + list.text(true);
  }
  out.text(fmt::format(
      "{}\n  read       {} with {} threads, {} with one\n  cache      {} last level\n  ridge      "
      "{:.1f} FLOP a byte in f32\n\n{}",
      roof.processor, human_rate(roof.read_bytes_per_second, "B"), pool.threads(),
      human_rate(roof.read_bytes_per_second_single, "B"),
      human_bytes(static_cast<double>(roof.last_level_cache_bytes)),
      peak_flops(roof, "f32") / roof.read_bytes_per_second, table.text(true) + kernels));
}

void command_compare(const CompareOptions& o, const CommonOptions& common, const Output& out) {
  const Model base = load_model(o.model, {common.tokenizer});
  if (base.tokenizer.empty())
    fail_input("RN-001", "the model has no tokenizer, so text cannot be scored",
               {{"model", o.model}});
  const Tokenizer tokenizer = load_tokenizer(base.tokenizer);
  const std::string text = read_text_argument(o.text);
  const std::vector<Sequence> sequences = {{tokenizer.encode(text), static_cast<i64>(text.size())}};
  Pool pool(common.threads);
  Context context{pool, out.log};
  const Roof roof = roof_here(pool, out.log);
  Engine base_engine(base, pool);
  SpeedOptions speed_options = o.speed;
  const i64 room = base.spec.max_positions;
  speed_options.prompt = std::min(speed_options.prompt, room / 2);
  speed_options.generate = std::min(speed_options.generate, room / 4);

  Table table({"recipe", "weights", "bits", "perplexity", "KL", "same top-1", "decode tok/s", "MBU",
               "prefill tok/s"});
  Json::Array rows;
  std::string protocol;
  std::vector<std::string> recipes = {""};
  recipes.insert(recipes.end(), o.recipes.begin(), o.recipes.end());
  for (const std::string& recipe : recipes) {
    stop_if_interrupted();
    Model model = base;
    if (!recipe.empty()) {
      const std::size_t plus = recipe.find('+');
      QuantizeOptions options;
      options.weights = parse_scheme(recipe.substr(0, plus));
      if (plus != std::string::npos)
        options.activations = parse_activation(recipe.substr(plus + 1));
      model = quantize_pass(options).run(std::move(model), context);
    }
    Engine engine(model, pool);
    const EvalResult eval = evaluate(engine, &base_engine, sequences, o.protocol, pool, out.log);
    const SpeedResult speed = measure_speed(engine, speed_options, out.log);
    const Shares shares = shares_of(speed, roof, model.spec);
    protocol = to_string(eval.protocol);
    const i64 bytes = weight_bytes(model.spec);
    const double bits =
        8.0 * static_cast<double>(bytes) / static_cast<double>(parameters(model.spec));
    const std::string name = recipe.empty() ? "as it is" : recipe;
    table.add({name, human_bytes(static_cast<double>(bytes)), fmt::format("{:.2f}", bits),
               fmt::format("{:.3f}", eval.score.perplexity()),
               fmt::format("{:.5f}", eval.divergence->kl_mean),
               fmt::format("{:.1f} %", 100 * eval.divergence->top1_agreement),
               fmt::format("{:.0f}", speed.decode_tokens_per_second),
               fmt::format("{:.0f} %", 100 * shares.mbu),
               fmt::format("{:.0f}", speed.prefill_tokens_per_second)});
    rows.push_back(
        Json::object({{"recipe", Json(name)},
                      {"weight_bytes", Json(bytes)},
                      {"bits_per_weight", Json(bits)},
                      {"perplexity", Json(eval.score.perplexity())},
                      {"kl_mean", Json(eval.divergence->kl_mean)},
                      {"kl_p99", Json(eval.divergence->kl_p99)},
                      {"top1_agreement", Json(eval.divergence->top1_agreement)},
                      {"decode_tokens_per_second", Json(speed.decode_tokens_per_second)},
                      {"mbu", Json(shares.mbu)},
                      {"prefill_tokens_per_second", Json(speed.prefill_tokens_per_second)}}));
  }
  if (out.json)
    return out.result("compare", Json::object({{"model", Json(o.model)},
                                               {"text", Json(o.text)},
                                               {"protocol", Json(protocol)},
                                               {"isa", Json(isa_name(isa_here()))},
                                               {"threads", Json(pool.threads())},
                                               {"rows", Json(std::move(rows))}}));
  std::string result = table.text();
  result += fmt::format(
      "\n{}: {}; {}, {} threads; KL in nats to the model as it is; prompt {}, {} steps\n", o.text,
      protocol, isa_name(isa_here()), pool.threads(), speed_options.prompt, speed_options.generate);
  if (static_cast<double>(weight_bytes(base.spec)) <
      static_cast<double>(roof.last_level_cache_bytes))
    result +=
        "MBU is held against memory bandwidth; these weights fit in the last-level cache, so it "
        "may pass 100 %\n";
  out.text(result);
}

}  // namespace pare
