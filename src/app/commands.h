// The commands: one struct of options and one function each. `cli.cpp` fills the structs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/calibration.h"
#include "app/output.h"
#include "engine/engine.h"
#include "engine/sample.h"
#include "pass/quantize/quantize.h"
#include "probe/perplexity.h"
#include "probe/speed.h"

namespace pare {

// Flags that every command understands.
struct CommonOptions {
  int threads = 0;        // 0: all this process may use
  std::string tokenizer;  // FILE for models that carry none
};

struct ShowOptions {
  std::string model;
  bool tensors = false;  // list every tensor
  bool scan = true;      // read all weights for the integrity line
  std::string kv;        // scheme of a cache to count bytes for; empty: the model's
};
struct RunOptions {
  std::string model, prompt, ids;
  i64 tokens = 128;
  bool greedy = false, stop_at_end = true;
  SampleOptions sampling;
  std::uint64_t seed = 0;
  std::string kv;
  bool reference = false;
};
struct TokenizeOptions {
  std::string model, file;
  std::optional<std::string> text;
  bool decode = false, special = true, pieces = false, speed = false;
};
struct ConvertOptions {
  std::string source, out, to;
  bool force = false;
};
// What all commands that apply a recipe take.
struct ApplyCommand {
  std::string model, out, recipe;  // a file or the name of a ready recipe
  std::string eval_text;
  bool strict = false, restart = false, force = false;
  DataOptions data;
};
// `recipe`, when given, says all of what the other flags would say.
struct QuantizeCommand : ApplyCommand {
  std::string weights, activations, head, embedding, kv, range = "mse";
  double percentile = 99.9;
  std::vector<std::string> only, skip, rules;
  std::string method = "rtn", act_order = "groups", alpha = "auto";
  double damping = 0.01, threshold = 6, max_kl = -1;
  int polish = 4;
  bool clip = true;
};
struct RecipeCheckOptions {
  std::string recipe, model;  // of `recipe show` the first alone
};
struct ChooseBitsOptions {
  std::string model, out, text, sensitivities;
  double budget = 0;  // bits per weight
  std::vector<std::string> candidates, only, skip;
  std::string range = "mse";
  i64 tokens = 2048, window = 512;
  std::uint64_t seed = 0;
  bool verify = false;  // measure the mixture also when the sensitivities are known
  bool force = false;
};
struct SearchOptions {
  std::string model, out, all;  // a recipe; a folder for the recipes of the front
  std::optional<double> max_bytes, max_memory, min_tokens_per_second, max_kl;
  std::string hardware, by, text, eval_text, sensitivities, method, range = "mse";
  std::vector<std::string> candidates, caches, activations, skip;
  i64 batch = 1, context = 0;  // 0: min(2048, the model's positions)
  i64 tokens = 2048, window = 512, verify_tokens = 4096, points = 12, verify = -1;
  std::uint64_t seed = 0;
  bool force = false;
};
struct CalibrateCommand {
  std::string model, out;
  DataOptions data;
  bool gram = true, force = false;
};
struct ExportOptions {
  std::string model, out, format, statistics;
  bool force = false;
};
struct VerifyOptions {
  std::string model;
};
struct EvalOptions {
  std::string model, text, ids, tasks, against, logits, kv;
  Protocol protocol;
  bool reference = false, force = false;
};
struct BenchOptions {
  std::string model, kv;
  SpeedOptions speed;
};
struct RoofOptions {
  double seconds = 0.5;  // a measurement
  bool kernels = false;  // Pare's kernels too, which predictions for this machine then stand on
  int rounds = 2;        // of measuring them
  std::vector<std::string> products;  // only these of them; empty: all
};
struct CompareOptions {
  std::string model, text;
  std::vector<std::string> recipes;
  Protocol protocol;
  SpeedOptions speed;
};
struct ProveOptions {
  std::string base, out, text, recipe, proof;
  Protocol protocol;
  SpeedOptions speed{0, 0, 1, 0, 5};  // 0: as the models allow
  std::optional<double> max_kl, min_speedup, max_bytes;
};
struct RunsOptions {
  enum class Action { list, show, compare, errors, remove, to_lines } action = Action::list;
  i64 id = 0, other = 0, limit = 20;
  std::string model;
};
struct ReportOptions {
  std::vector<std::string> models;
  std::string out, base, title, hardware;
  bool force = false;
};
struct HardwareCommand {
  std::vector<std::string> names;  // none: all
  std::string file;                // more rows
};
struct PlanOptions {
  std::string model;
  std::vector<std::string> recipes, compare, hardware;
  std::string weights, activations, head, embedding, kv, hardware_file;
  i64 context = 0, prompt = 0;  // 0: 2048 and 512, or what the model has
  i64 batch = 1;
  bool will_it_fit = false, plot = false;
};
struct RandomOptions {
  std::string like, out, weights = "bf16";
  std::uint64_t seed = 0;
  bool force = false;
};

void command_show(const ShowOptions&, const CommonOptions&, const Output&);
void command_run(const RunOptions&, const CommonOptions&, const Output&);
void command_tokenize(const TokenizeOptions&, const CommonOptions&, const Output&);
void command_convert(const ConvertOptions&, const CommonOptions&, const Output&);
void command_quantize(const QuantizeCommand&, const CommonOptions&, const Output&);
void command_apply(const ApplyCommand&, const CommonOptions&, const Output&);
void command_export(const ExportOptions&, const CommonOptions&, const Output&);
void command_recipe_check(const RecipeCheckOptions&, const CommonOptions&, const Output&);
void command_recipe_list(const Output&);
void command_recipe_show(const std::string& recipe, const Output&);
void command_choose_bits(const ChooseBitsOptions&, const CommonOptions&, const Output&);
void command_search(const SearchOptions&, const CommonOptions&, const Output&);
void command_verify(const VerifyOptions&, const CommonOptions&, const Output&);
void command_calibrate(const CalibrateCommand&, const CommonOptions&, const Output&);
void command_eval(const EvalOptions&, const CommonOptions&, const Output&);
void command_bench(const BenchOptions&, const CommonOptions&, const Output&);
void command_roof(const RoofOptions&, const CommonOptions&, const Output&);
void command_compare(const CompareOptions&, const CommonOptions&, const Output&);
void command_prove(const ProveOptions&, const CommonOptions&, const Output&);
void command_runs(const RunsOptions&, const CommonOptions&, const Output&);
void command_report(const ReportOptions&, const CommonOptions&, const Output&);
void command_hardware(const HardwareCommand&, const CommonOptions&, const Output&);
void command_plan(const PlanOptions&, const CommonOptions&, const Output&);
void command_random(const RandomOptions&, const CommonOptions&, const Output&);

std::string export_formats();  // the formats of `pare export`, for --help

// Says what was written; `extra` joins the JSON.
void report_saved(const Model&, const SaveReport&, const std::string& target, const char* command,
                  const Output&, const Json& extra);
// Writes the model and says so.
void save_and_report(const Model&, const std::string& target, bool force, const char* command,
                     const Output&);

struct Recipe;
// Loads the model, applies the recipe, prints what came out.
void apply_and_report(const Recipe&, const ApplyCommand&, const char* command, const CommonOptions&,
                      const Output&);

Json divergence_json(const Divergence&);

// Token ids, one JSON list a line. Errors name the line.
std::vector<Sequence> read_ids(const std::filesystem::path&);
// Empty: the model's. Errors of parse_kv_scheme.
std::optional<KvScheme> parse_kv(const std::string& text);
// "mse", "absmax" or "percentile" (checked by the command line).
Range parse_range(const std::string& word);
// The text of a file, or of standard input for "-".
std::string read_text_argument(const std::string& path);

}  // namespace pare
