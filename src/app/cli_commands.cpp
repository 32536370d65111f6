// Every command's flags, and the options that they fill.
//
// What a flag may hold is checked here as far as one value can be wrong by itself; what does not go
// together is the command's own to say.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>

#include "app/cli.h"

namespace pare {
namespace {

constexpr const char* kv_help =
    "scheme of the cache: f16, int8, e4m3, int4:g32:asym, int4:asym:k=channel:window=64";

void add_output(CLI::App& app, Flags& flags) {
  app.add_flag("--json", flags.json, "print one JSON object on stdout");
  app.add_flag("-q,--quiet", flags.quiet, "no progress and no notes on stderr");
  app.add_option("--color", flags.color, "colour on stderr: auto, always, never")
      ->check(CLI::IsMember({"auto", "always", "never"}));
}

void add_common(CLI::App& app, Flags& flags) {
  add_output(app, flags);
  app.add_option("--threads", flags.common.threads, "threads (default: all processors)")
      ->check(CLI::Range(1, 1024));
}

// What CLI11 lets through: signs and overflow of an unsigned number, NaN within any range.
std::string check_seed(const std::string& word) {
  std::uint64_t value = 0;
  const char* end = word.data() + word.size();
  const auto parsed = std::from_chars(word.data(), end, value);
  const bool good = parsed.ec == std::errc() && parsed.ptr == end;
  return good ? "" : fmt::format("{} is not a number from 0 to 2^64 - 1", pare::quoted(word));
}
std::string check_number(const std::string& word) {
  return std::isfinite(std::strtod(word.c_str(), nullptr)) ? "" : word + " is not a number";
}

void add_tokenizer(CLI::App& app, Flags& flags) {
  app.add_option("--tokenizer", flags.common.tokenizer,
                 "tokenizer file for a model that carries none");
}

void add_speed(CLI::App& app, SpeedOptions& speed) {
  const auto count = CLI::Range(i64{1}, i64{1} << 24);
  app.add_option("--prompt", speed.prompt, "tokens of prefill")->check(count);
  app.add_option("--generate", speed.generate, "decode steps")->check(count);
  app.add_option("--batch", speed.batch, "sequences at once")->check(CLI::Range(1, 4096));
  app.add_option("--context", speed.context, "tokens in the cache when decode starts")
      ->check(count);
  app.add_option("--repeats", speed.repeats, "rounds; the median is reported")
      ->check(CLI::Range(1, 1000));
}

void add_protocol(CLI::App& app, Protocol& protocol) {
  const auto count = CLI::Range(i64{1}, i64{1} << 40);
  app.add_option("--window", protocol.window,
                 "tokens a window (default: 2048 or the model's context)")
      ->check(count);
  app.add_option("--stride", protocol.stride, "tokens between windows (default: the window)")
      ->check(count);
  app.add_option("--limit", protocol.limit, "use only the first N tokens")->check(count);
  app.add_option_function<std::string>(
         "--score",
         [&protocol](const std::string& word) { protocol.second_half = word == "second-half"; },
         "what of a window is scored: all but its first token, or second-half as llama.cpp does")
      ->check(CLI::IsMember({"all", "second-half"}));
}

constexpr const char* model_help =
    "Hugging Face folder, .gguf file, llama2.c .bin, or org/name in the local hub cache";

void define_inspect(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* show =
      app.add_subcommand("show", "What a model is: its parts, bytes, cache, integrity");
  show->add_option("model", c.show.model, model_help)->required();
  show->add_flag("--tensors", c.show.tensors, "list every tensor");
  show->add_option("--kv", c.show.kv, kv_help);
  show->add_flag("!--no-scan", c.show.scan, "do not read the weights for the integrity line");
  add_common(*show, f);
  add_tokenizer(*show, f);

  CLI::App* tokenize = app.add_subcommand("tokenize", "Text to token ids and back");
  tokenize->add_option("model", c.tokenize.model, "model folder or tokenizer file")->required();
  tokenize->add_option("text", c.tokenize.text, "the text (empty: \"\")");
  tokenize->add_option("--file", c.tokenize.file, "read the text from FILE (- is standard input)");
  CLI::Option* decode =
      tokenize->add_flag("--decode", c.tokenize.decode, "the text is a JSON list of ids");
  tokenize->add_flag("!--no-special", c.tokenize.special, "do not add begin or end tokens");
  CLI::Option* pieces =
      tokenize->add_flag("--pieces", c.tokenize.pieces, "also print each token's text")
          ->excludes(decode);
  tokenize
      ->add_flag("--speed", c.tokenize.speed,
                 "measure encoding instead: MB/s of one thread, the text again and again")
      ->excludes(decode)
      ->excludes(pieces);
  add_output(*tokenize, f);
}

void define_run(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* run = app.add_subcommand("run", "Generate text");
  run->add_option("model", c.run.model, model_help)->required();
  CLI::Option* prompt = run->add_option("prompt", c.run.prompt, "the prompt (- is standard input)");
  run->add_option("--ids", c.run.ids,
                  "prompts as token ids, one JSON list a line, run as one batch")
      ->excludes(prompt);
  run->add_option("--tokens", c.run.tokens, "tokens to generate")->check(CLI::Range(1, 1 << 24));
  CLI::Option* greedy = run->add_flag("--greedy", c.run.greedy, "always the most likely token");
  run->add_option("--temperature", c.run.sampling.temperature, "0 is greedy")->excludes(greedy);
  run->add_option("--top-k", c.run.sampling.top_k, "keep the K most likely tokens (0: all)")
      ->excludes(greedy);
  run->add_option("--top-p", c.run.sampling.top_p, "keep the most likely P of probability (1: all)")
      ->excludes(greedy);
  run->add_option("--min-p", c.run.sampling.min_p, "keep what is at least P times the most likely")
      ->excludes(greedy);
  run->add_option("--seed", c.run.seed, "seed of the sampling")->check(check_seed);
  run->add_flag("!--no-stop", c.run.stop_at_end, "go on after an end token");
  run->add_option("--kv", c.run.kv, kv_help);
  run->add_flag("--reference", c.run.reference, "scalar reference arithmetic (slow)");
  add_common(*run, f);
  add_tokenizer(*run, f);
}

void add_data(CLI::App& sub, DataOptions& d) {
  sub.add_option("--text", d.text, "calibrate on the text FILE (default: text the model writes)");
  sub.add_option("--ids", d.ids, "calibrate on token ids, one JSON list a line");
  sub.add_option("--tokens", d.tokens, "tokens to calibrate on (default: 65536)");
  sub.add_option("--length", d.length, "tokens of a sequence (default: 512)");
  sub.add_option("--data-seed", d.seed, "seed of the text that the model writes")
      ->check(check_seed);
  sub.add_option("--ram", d.ram,
                 "megabytes that calibration may take (default: half of what is free)");
}

// What all commands that apply a recipe take.
void add_apply(CLI::App& sub, ApplyCommand& c) {
  sub.add_option("-o,--out", c.out, "folder to write")->required();
  add_data(sub, c.data);
  sub.add_option("--stats", c.data.statistics, "learn from a FILE of `pare calibrate`");
  sub.add_flag("--strict", c.strict, "fail where a method would give way to rounding to nearest");
  sub.add_flag("--restart", c.restart, "drop unfinished work of an earlier run");
  sub.add_option("--eval-text", c.eval_text, "measure perplexity and KL on the text FILE");
  sub.add_flag("--force", c.force, "replace an existing folder");
}

void define_methods(CLI::App& sub, QuantizeCommand& c) {
  sub.add_option("--method", c.method, "rtn, gptq, awq, smoothquant, llm-int8, hqq, auto");
  sub.add_option("--damping", c.damping, "gptq: share of the mean diagonal added to it");
  sub.add_option("--act-order", c.act_order,
                 "gptq: columns group by group by falling E[x^2], "
                 "over all groups (fixed), or as they lie")
      ->check(CLI::IsMember({"groups", "fixed", "none"}));
  sub.add_option("--polish", c.polish,
                 "gptq: sweeps of coordinate descent over the codes afterwards")
      ->check(CLI::Range(0, 1000));
  sub.add_flag("!--no-clip", c.clip, "awq, auto: do not clip ranges");
  sub.add_option("--alpha", c.alpha, "smoothquant: 0 to 1, or auto");
  sub.add_option("--threshold", c.threshold,
                 "llm-int8: inputs from this magnitude on are outliers");
  sub.add_option("--max-kl", c.max_kl, "publish nothing above this mean KL to the original, nats");
}

void define_calibrate(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* sub =
      app.add_subcommand("calibrate", "Collect statistics of the inputs of all matrices");
  sub->add_option("model", c.calibrate.model, model_help)->required();
  sub->add_option("-o,--out", c.calibrate.out, "file to write")->required();
  add_data(*sub, c.calibrate.data);
  sub->add_flag("!--no-gram", c.calibrate.gram,
                "without Gram matrices: smaller, not for gptq and awq");
  sub->add_flag("--force", c.calibrate.force, "replace an existing file");
  add_common(*sub, f);
  add_tokenizer(*sub, f);
}

void define_change(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* convert = app.add_subcommand("convert", "Turn a model into a Hugging Face folder");
  convert->add_option("source", c.convert.source, model_help)->required();
  convert->add_option("-o,--out", c.convert.out, "folder to write")->required();
  convert->add_option("--to", c.convert.to,
                      "store matrices as f32, f16 or bf16 (default: as they are)");
  convert->add_flag("--force", c.convert.force, "replace an existing folder");
  add_common(*convert, f);
  add_tokenizer(*convert, f);

  CLI::App* quantize =
      app.add_subcommand("quantize", "Quantize, by rounding to nearest or learning from data");
  quantize->add_option("model", c.quantize.model, model_help)->required();
  add_apply(*quantize, c.quantize);
  CLI::Option* weights = quantize->add_option("--weights", c.quantize.weights,
                                              "scheme of the matrices: int4:g128, nf4:g64, ...");
  quantize->add_option("--activations", c.quantize.activations, "int8:token, e4m3:token, ...")
      ->needs(weights);
  quantize->add_option("--only", c.quantize.only, "only matrices that match PATTERN (repeatable)")
      ->needs(weights);
  quantize->add_option("--skip", c.quantize.skip, "not matrices that match PATTERN (repeatable)");
  quantize->add_option(
      "--rule", c.quantize.rules,
      "PATTERN=SCHEME[+ACTIVATION] or PATTERN=keep; a later one wins (repeatable)");
  quantize->add_option("--recipe", c.quantize.recipe,
                       "recipe that says what to do, instead of flags (`pare apply`)");
  quantize->add_option("--head", c.quantize.head,
                       "scheme of the output matrix (default: unchanged)");
  quantize->add_option("--embedding", c.quantize.embedding,
                       "scheme of the embedding (default: unchanged)");
  quantize->add_option("--kv", c.quantize.kv, kv_help);
  quantize->add_option("--range", c.quantize.range, "how ranges are found: mse, absmax, percentile")
      ->check(CLI::IsMember({"mse", "absmax", "percentile"}));
  quantize->add_option("--percentile", c.quantize.percentile, "for --range percentile");
  define_methods(*quantize, c.quantize);
  add_common(*quantize, f);
  add_tokenizer(*quantize, f);

  CLI::App* apply =
      app.add_subcommand("apply", "Apply a recipe: steps in order, gates, resumed when killed");
  apply->add_option("model", c.apply.model, model_help)->required();
  apply->add_option("recipe", c.apply.recipe, "TOML file, or one of `pare recipe list`")
      ->required();
  add_apply(*apply, c.apply);
  add_common(*apply, f);
  add_tokenizer(*apply, f);

  CLI::App* random =
      app.add_subcommand("random", "Write a model of a known shape with random weights");
  random->add_option("--like", c.random.like, "llama-3.2-1b, ... or a folder with a config.json")
      ->required();
  random->add_option("-o,--out", c.random.out, "folder to write")->required();
  random->add_option("--weights", c.random.weights, "scheme of the matrices");
  random->add_option("--seed", c.random.seed, "seed of the weights")->check(check_seed);
  random->add_flag("--force", c.random.force, "replace an existing folder");
  add_common(*random, f);
}

void define_export(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* sub = app.add_subcommand("export", "Write a model in the form of another program");
  sub->add_option("model", c.to_export.model, model_help)->required();
  sub->add_option("-o,--out", c.to_export.out, "file or folder to write")->required();
  sub->add_option("--format", c.to_export.format, export_formats())->required();
  sub->add_option("--stats", c.to_export.statistics,
                  "gguf:TYPE: weigh errors by the inputs in a FILE of `pare calibrate`");
  sub->add_flag("--force", c.to_export.force, "replace an existing output");
  add_common(*sub, f);
  add_tokenizer(*sub, f);

  CLI::App* verify =
      app.add_subcommand("verify", "Hashes, shapes, finite values and one forward pass");
  verify->add_option("model", c.verify.model, model_help)->required();
  add_common(*verify, f);
  add_tokenizer(*verify, f);
}

void define_choose(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* recipe =
      app.add_subcommand("recipe", "Ready recipes, and what a recipe would do to a model");
  recipe->require_subcommand(1);
  CLI::App* check = recipe->add_subcommand("check", "Each matrix before and after, and bytes");
  check->add_option("recipe", c.recipe_check.recipe, "TOML file, or the name of a ready recipe")
      ->required();
  check->add_option("model", c.recipe_check.model, model_help)->required();
  add_common(*check, f);
  add_tokenizer(*check, f);
  CLI::App* list = recipe->add_subcommand("list", "The ready recipes and what each is for");
  add_output(*list, f);
  CLI::App* show = recipe->add_subcommand("show", "The text of a recipe");
  show->add_option("recipe", c.recipe_check.recipe, "name of a ready recipe, or TOML file")
      ->required();
  add_output(*show, f);

  CLI::App* choose = app.add_subcommand("choose", "Decide from measurements and a budget");
  choose->require_subcommand(1);
  CLI::App* bits = choose->add_subcommand(
      "bits", "A scheme for each matrix: least divergence within a budget of bits");
  ChooseBitsOptions& o = c.choose_bits;
  bits->add_option("model", o.model, model_help)->required();
  bits->add_option("--budget", o.budget, "bits a weight, scales and all planes counted")
      ->required();
  bits->add_option("-o,--out", o.out, "recipe to write (TOML)");
  bits->add_option("--text", o.text,
                   "text to measure on (- is standard input; default: the model writes its own)");
  bits->add_option("--candidates", o.candidates, "schemes to choose from, with commas between")
      ->delimiter(',');
  bits->add_option("--sensitivities", o.sensitivities,
                   "JSON FILE of what was measured: used when it exists, else written");
  bits->add_option("--only", o.only, "matrices that match PATTERN (default: blocks.*; repeatable)");
  bits->add_option("--skip", o.skip, "not matrices that match PATTERN (repeatable)");
  bits->add_option("--range", o.range, "how ranges are found: mse, absmax")
      ->check(CLI::IsMember({"mse", "absmax"}));
  bits->add_option("--tokens", o.tokens, "tokens to measure on")->check(CLI::Range(2, 1 << 24));
  bits->add_option("--window", o.window, "tokens of a sequence at most")
      ->check(CLI::Range(2, 1 << 20));
  bits->add_option("--seed", o.seed, "seed of the model's own text")->check(check_seed);
  bits->add_flag("--verify", o.verify,
                 "measure the mixture too when the sensitivities are known (give the same --text)");
  bits->add_flag("--force", o.force, "replace an existing recipe");
  add_common(*bits, f);
  add_tokenizer(*bits, f);
}

void add_search_texts(CLI::App& sub, SearchOptions& o) {
  sub.add_option(
      "--text", o.text,
      "text FILE to measure and learn on; its end is held out (default: the model writes)");
  sub.add_option("--eval-text", o.eval_text, "measure recipes on the text FILE instead");
  sub.add_option("--tokens", o.tokens, "tokens to measure single changes on")
      ->check(CLI::Range(2, 1 << 24));
  sub.add_option("--window", o.window, "tokens of a sequence at most")
      ->check(CLI::Range(2, 1 << 20));
  sub.add_option("--verify-tokens", o.verify_tokens, "tokens to measure recipes on, at most")
      ->check(CLI::Range(64, 1 << 24));
  sub.add_option("--seed", o.seed, "seed of the model's own text")->check(check_seed);
  sub.add_option("--sensitivities", o.sensitivities,
                 "JSON FILE of what was measured: used and completed");
}

void define_search(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* sub = app.add_subcommand(
      "search", "The recipe that keeps to limits of bytes and speed and loses least");
  SearchOptions& o = c.search;
  const auto positive = CLI::Range(1e-12, 1e18);
  sub->add_option("model", o.model, model_help)->required();
  sub->add_option("--max-bytes", o.max_bytes, "bytes of all weights as stored")->check(positive);
  sub->add_option("--max-memory", o.max_memory, "bytes of weights, cache and buffers in use")
      ->check(positive);
  sub->add_option("--min-tokens-per-second", o.min_tokens_per_second, "of decoding, predicted")
      ->check(positive);
  sub->add_option("--max-kl", o.max_kl, "mean KL to the model, nats a token")->check(positive);
  for (const char* flag : {"--max-bytes", "--max-memory", "--min-tokens-per-second", "--max-kl"})
    sub->get_option(flag)->check(check_number);
  sub->add_option("--hardware", o.hardware, "name of a machine (default: this one, by its roof)");
  sub->add_option("--context", o.context, "positions in the cache (default: 2048 or the model's)")
      ->check(CLI::Range(i64{1}, i64{1} << 24));
  sub->add_option("--batch", o.batch, "sequences at once")->check(CLI::Range(1, 1 << 20));
  sub->add_option("--by", o.by, "the front's cost: bytes, memory, speed (default: what is limited)")
      ->check(CLI::IsMember({"bytes", "memory", "speed"}));
  sub->add_option("--candidates", o.candidates, "schemes of matrices, with commas between")
      ->delimiter(',');
  sub->add_option("--kv", o.caches, "schemes of the cache, with commas between, or none")
      ->delimiter(',');
  sub->add_option("--activations", o.activations, "activations of the blocks, or none")
      ->delimiter(',');
  sub->add_option("--skip", o.skip, "leave matrices that match PATTERN as they are (repeatable)");
  sub->add_option("--method", o.method,
                  "rtn, gptq, awq, auto (default: gptq with --text, else rtn)")
      ->check(CLI::IsMember({"rtn", "gptq", "awq", "auto"}));
  sub->add_option("--range", o.range, "how ranges are found: mse, absmax")
      ->check(CLI::IsMember({"mse", "absmax"}));
  add_search_texts(*sub, o);
  sub->add_option("--points", o.points, "recipes of the front at most")->check(CLI::Range(2, 200));
  sub->add_option("--verify", o.verify, "recipes that are built and measured (default: all)")
      ->check(CLI::Range(0, 1000));
  sub->add_option("-o,--out", o.out, "recipe to write (TOML)");
  sub->add_option("--all", o.all, "folder for the recipes of the whole front");
  sub->add_flag("--force", o.force, "replace existing recipes");
  add_common(*sub, f);
  add_tokenizer(*sub, f);
}

void define_measure(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* eval = app.add_subcommand("eval", "Perplexity, divergence from another model, tasks");
  eval->add_option("model", c.eval.model, model_help)->required();
  eval->add_option("--text", c.eval.text, "text FILE (- is standard input)");
  eval->add_option("--ids", c.eval.ids, "token ids instead of text, one JSON list a line");
  CLI::Option* tasks = eval->add_option("--tasks", c.eval.tasks, "multiple choice, JSONL");
  eval->add_option("--against", c.eval.against, "model to compare with");
  CLI::Option* logits = eval->add_option("--logits", c.eval.logits,
                                         "with --ids: write all logits to a safetensors FILE");
  eval->add_option("--kv", c.eval.kv, kv_help);
  eval->add_flag("--reference", c.eval.reference, "scalar reference arithmetic (slow)");
  eval->add_flag("--force", c.eval.force, "replace an existing logits file")->needs(logits);
  add_protocol(*eval, c.eval.protocol);
  for (const char* flag : {"--window", "--stride", "--limit"})
    tasks->excludes(eval->get_option(flag));
  add_common(*eval, f);
  add_tokenizer(*eval, f);

  CLI::App* bench = app.add_subcommand("bench", "Tokens per second against this machine's limits");
  bench->add_option("model", c.bench.model, model_help)->required();
  bench->add_option("--kv", c.bench.kv, kv_help);
  add_speed(*bench, c.bench.speed);
  add_common(*bench, f);

  CLI::App* roof = app.add_subcommand("roof", "Measure this machine: bandwidth and peak per code");
  roof->add_flag(
      "--kernels", c.roof.kernels,
      "also measure Pare's kernels (minutes): predictions for this machine then stand on them");
  roof->add_option("--rounds", c.roof.rounds,
                   "times that each product is measured; the median counts")
      ->check(CLI::Range(1, 100))
      ->needs("--kernels");
  roof->add_option("--products", c.roof.products,
                   "of Pare's kernels only these products anew, e.g. bf16,int8:channel+int8:token; "
                   "where nothing was measured before, all")
      ->delimiter(',')
      ->needs("--kernels");
  roof->add_option("--seconds", c.roof.seconds, "time of each measurement")
      ->check(CLI::Range(0.01, 60.0))
      ->check(check_number);
  add_common(*roof, f);

  CLI::App* compare = app.add_subcommand(
      "compare", "Quantize in several ways and print one table of size, quality and speed");
  compare->add_option("model", c.compare.model, model_help)->required();
  compare->add_option("--text", c.compare.text, "text FILE to score")->required();
  compare->add_option("--recipe", c.compare.recipes, "WEIGHTS or WEIGHTS+ACTIVATIONS (repeatable)")
      ->required();
  add_protocol(*compare, c.compare.protocol);
  add_speed(*compare, c.compare.speed);
  add_common(*compare, f);
}

void define_prove(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* prove = app.add_subcommand(
      "prove", "Measure a finished model beside its base and what was predicted; keep the proof");
  ProveOptions& o = c.prove;
  prove->add_option("base", o.base, model_help)->required();
  prove->add_option("out", o.out, "the finished model")->required();
  prove->add_option("--text", o.text,
                    "text FILE to score (- is standard input; default: the base writes its own)");
  add_protocol(*prove, o.protocol);
  prove->add_option("--tokens", o.protocol.limit, "the same as --limit")
      ->check(CLI::Range(i64{1}, i64{1} << 40))
      ->excludes(prove->get_option("--limit"));
  add_speed(*prove, o.speed);
  prove->add_option("--recipe", o.recipe,
                    "TOML FILE or ready recipe whose gates hold (default: the model's own)");
  const auto gate = CLI::Range(0.0, 1e18);
  prove->add_option("--max-kl", o.max_kl, "gate: mean KL to the base, nats")
      ->check(gate)
      ->check(check_number);
  prove->add_option("--min-speedup", o.min_speedup, "gate: of decode, against the base")
      ->check(gate)
      ->check(check_number);
  prove->add_option("--max-bytes", o.max_bytes, "gate: bytes of the weights")
      ->check(gate)
      ->check(check_number);
  prove->add_option("--proof", o.proof, "keep the proof in FILE (default: OUT/pare_proof.json)");
  add_common(*prove, f);
  add_tokenizer(*prove, f);
}

void define_runs(CLI::App& app, Commands& c, Flags& f) {
  using Action = RunsOptions::Action;
  RunsOptions& o = c.runs;
  CLI::App* runs = app.add_subcommand("runs", "Past runs: listed, compared, held to predictions");
  runs->require_subcommand(0, 1);
  const auto sub = [&](const char* name, const char* help, Action action) {
    CLI::App* one = runs->add_subcommand(name, help);
    one->callback([&o, action] { o.action = action; });
    return one;
  };
  const auto count = CLI::Range(i64{1}, i64{1} << 53);
  const auto model = [&](CLI::App* one) {
    one->add_option("--model", o.model, "runs whose model's path holds this, or of this identity");
  };
  runs->add_option("--limit", o.limit, "the newest N (default: 20)")->check(count);
  model(runs);
  add_output(*runs, f);
  CLI::App* show = sub("show", "All of one run", Action::show);
  CLI::App* compare = sub("compare", "Two runs side by side", Action::compare);
  CLI::App* errors = sub("errors", "How well predictions held on this machine", Action::errors);
  CLI::App* remove = sub("remove", "Forget a run", Action::remove);
  CLI::App* lines = sub("export", "All runs, one JSON object a line", Action::to_lines);
  for (CLI::App* one : {show, compare, remove})
    one->add_option("id", o.id, "number of the run")->required()->check(count);
  compare->add_option("other", o.other, "number of the other run")->required()->check(count);
  errors->add_option("--threads", f.common.threads, "only runs with N threads")
      ->check(CLI::Range(1, 1024));
  model(lines);
  for (CLI::App* one : {show, compare, errors, remove}) add_output(*one, f);
}

void define_report(CLI::App& app, Commands& c, Flags& f) {
  CLI::App* sub = app.add_subcommand("report", "One HTML file about finished models");
  sub->add_option("models", c.report.models, "models that Pare made")->required();
  sub->add_option("-o,--out", c.report.out, "HTML file to write")->required();
  sub->add_option("--base", c.report.base, "the model they were made from");
  sub->add_option("--hardware", c.report.hardware,
                  "machine of the roofline: here, h100, rtx 4090, ...");
  sub->add_option("--title", c.report.title, "heading of the page");
  sub->add_flag("--force", c.report.force, "replace an existing file");
  add_common(*sub, f);
  add_tokenizer(*sub, f);
}

void define_plan(CLI::App& app, Commands& c, Flags& f) {
  constexpr const char* file_help = "more rows of hardware from a JSON FILE";
  CLI::App* hardware =
      app.add_subcommand("hardware", "What machines can do: listed, in full, or compared");
  hardware->add_option("name", c.hardware.names, "names of hardware; here is this machine");
  hardware->add_option("--hardware-file", c.hardware.file, file_help);
  add_common(*hardware, f);

  PlanOptions& o = c.plan;
  CLI::App* plan =
      app.add_subcommand("plan", "What a model costs on a machine and what a change would buy");
  plan->add_option("model", o.model, "a model, its config.json, or a known shape: llama-3-70b, ...")
      ->required();
  plan->add_option("--recipe", o.recipes, "TOML FILE or ready recipe of a change (repeatable)");
  CLI::Option* weights = plan->add_option("--weights", o.weights, "scheme of the matrices");
  plan->add_option("--activations", o.activations, "int8:token, e4m3:token, ...")->needs(weights);
  plan->add_option("--head", o.head, "scheme of the output matrix");
  plan->add_option("--embedding", o.embedding, "scheme of the embedding");
  plan->add_option("--kv", o.kv, kv_help);
  plan->add_option("--compare", o.compare,
                   "changes side by side: w8,w4,w3,w8a8,w4a8,nf4,fp8,kv8,kv4, schemes, w4+kv8")
      ->delimiter(',');
  plan->add_option("--hardware", o.hardware, "names (`pare hardware`); here is this machine")
      ->delimiter(',');
  plan->add_option("--hardware-file", o.hardware_file, file_help);
  const auto count = CLI::Range(i64{1}, i64{1} << 32);
  plan->add_option("--context", o.context, "positions cached when a token is computed")
      ->check(count);
  plan->add_option("--batch", o.batch, "sequences at once")
      ->check(CLI::Range(i64{1}, i64{1} << 20));
  plan->add_option("--prompt", o.prompt, "tokens of prefill")
      ->check(CLI::Range(i64{1}, i64{1} << 24));
  plan->add_flag("--will-it-fit", o.will_it_fit, "yes or no; exit code 3 where it does not");
  plan->add_flag("--plot", o.plot, "draw bytes by part, times and rooflines");
  add_common(*plan, f);
  add_tokenizer(*plan, f);
}

}  // namespace

void define_commands(CLI::App& app, Commands& c, Flags& f) {
  define_inspect(app, c, f);
  define_run(app, c, f);
  define_change(app, c, f);
  define_calibrate(app, c, f);
  define_export(app, c, f);
  define_choose(app, c, f);
  define_search(app, c, f);
  define_measure(app, c, f);
  define_prove(app, c, f);
  define_runs(app, c, f);
  define_report(app, c, f);
  define_plan(app, c, f);
  for (CLI::App* sub : app.get_subcommands({})) {
    if (const std::string text = examples_of(sub->get_name()); !text.empty())
      sub->footer("Examples:\n" + text);
    sub->get_formatter()->column_width(28);
  }
}

}  // namespace pare
