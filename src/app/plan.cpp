// pare plan: what a model costs on a machine, and what a change would buy, before any work.
//
// The Spec is all that is needed: from a config.json, from the header of a GGUF file, or from the
// list of known shapes. Where a folder has weights, their headers say how they are stored.
#include "app/plan.h"

#include <algorithm>

#include "app/commands.h"
#include "app/hardware.h"
#include "file/hub.h"
#include "file/io.h"
#include "recipe/plan.h"
#include "recipe/recipe.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

bool has_weights(const fs::path& folder) {
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(folder, status))
    if (entry.path().extension() == ".safetensors") return true;
  return false;
}

// What a plan from config.json alone cannot know.
std::string missing_schemes(const fs::path& config) {
  const Json j = parse_json(read_text_file(config, 64u << 20), config.string());
  const Json* form = j.find("quantization_config");
  if (form == nullptr) form = j.find("compression_config");
  if (form == nullptr) return {};
  const Json* method = form->find("quant_method");
  const std::string name =
      method != nullptr && method->is_string() ? method->as_string() : "another";
  if (name == "pare") return {};
  return fmt::format(
      "The configuration says that weights are quantized in the form {}; without them "
      "\"as it is\" counts plain floats.",
      pare::quoted(name));
}

bool is_known(const std::string& name) {
  const std::vector<std::string> names = known_specs();
  return std::find(names.begin(), names.end(), name) != names.end();
}

struct Subject {
  Spec spec;
  std::string note;  // empty: none
};

Subject subject_of(const std::string& argument, const CommonOptions& common) {
  std::error_code status;
  const bool there = fs::exists(argument, status);
  if (!there && is_known(argument)) return {known_spec(argument), {}};
  if (!there && argument.find_first_of("/.") == std::string::npos && !argument.empty()) try {
      resolve_model(argument);
    } catch (const Error&) {
      known_spec(argument);  // its Error lists the shapes
    }
  const fs::path path = resolve_model(argument);
  if (fs::is_regular_file(path, status) && path.extension() == ".json")
    return {spec_of_config(path), missing_schemes(path)};
  if (fs::is_directory(path, status) && !has_weights(path))
    return {spec_of_folder(path), missing_schemes(path / "config.json")};
  return {load_model(argument, {common.tokenizer}).spec, {}};
}

QuantizeOptions flags_options(const PlanOptions& o) {
  QuantizeOptions q;
  if (!o.weights.empty()) q.weights = parse_scheme(o.weights);
  if (!o.activations.empty()) q.activations = parse_activation(o.activations);
  if (!o.head.empty()) q.head = parse_scheme(o.head);
  if (!o.embedding.empty()) q.embedding = parse_scheme(o.embedding);
  q.kv = parse_kv(o.kv);
  return q;
}

std::string flags_name(const PlanOptions& o) {
  std::string name;
  const auto add = [&](const std::string& value, const char* key) {
    if (!value.empty()) name += (name.empty() ? "" : "+") + (key + value);
  };
  add(o.weights, ""), add(o.activations, ""), add(o.head, "head="), add(o.embedding, "embedding=");
  add(o.kv, "kv=");
  return name;
}

std::vector<PlanCase> cases_of(const PlanOptions& o, const Spec& base, const Use& use) {
  std::vector<PlanCase> cases = {{"as it is", base, use}};
  for (const std::string& file : o.recipes) {
    Spec spec = base;
    for (const Pass& pass : passes(find_recipe(file))) spec = pass.plan(std::move(spec));
    cases.push_back({fs::path(file).stem().string(), std::move(spec), use});
  }
  if (const std::string name = flags_name(o); !name.empty())
    cases.push_back({name, quantize_pass(flags_options(o)).plan(base), use});
  for (const std::string& words : o.compare) cases.push_back({words, planned(base, words), use});
  return cases;
}

Use use_of(const PlanOptions& o, const Spec& spec, int threads) {
  const i64 most = spec.max_positions > 0 ? spec.max_positions : i64{1} << 40;
  Use use;
  use.batch = o.batch;
  use.context = o.context > 0 ? o.context : std::min<i64>(2048, most);
  use.prompt = o.prompt > 0 ? o.prompt : std::min<i64>(512, most);
  use.threads = threads;
  return use;
}

std::vector<const Hardware*> machines_of(const PlanOptions& o, const std::vector<Hardware>& rows) {
  std::vector<const Hardware*> machines;
  for (const std::string& name : o.hardware) machines.push_back(&choose_hardware(rows, name));
  if (!machines.empty()) return machines;
  for (const Hardware& h : rows)
    if (h.measured) machines.push_back(&h);
  for (const char* name : {"h100", "a100", "rtx 4090"})
    machines.push_back(&find_hardware(rows, name));
  return machines;
}

// The changes that were asked for; without any, the model as it is.
void demand_fit(const std::vector<PlanCase>& cases, const std::vector<MachinePlan>& plans) {
  std::string list;
  for (const MachinePlan& plan : plans)
    for (std::size_t i = cases.size() > 1 ? 1 : 0; i < cases.size(); i++)
      if (!plan.outcomes[i].prediction.fits)
        list +=
            fmt::format("{}{} on {}", list.empty() ? "" : "; ", cases[i].name, plan.hardware->name);
  if (!list.empty()) fail(Exit::gate, "PN-010", "it does not fit everywhere", {{"found", list}});
}

std::string heading(const PlanOptions& o, const Spec& spec, const Use& use) {
  return fmt::format(
      "{}: {} parameters, {}; {} blocks, vocabulary {}{}\n"
      "context {}, batch {}, prompt {}\n",
      o.model, human_count(static_cast<double>(parameters(spec))),
      human_bytes(static_cast<double>(weight_bytes(spec))), spec.blocks.size(), spec.vocab,
      spec.tied ? ", head tied" : "", use.context, use.batch, use.prompt);
}

}  // namespace

MachinePlan plan_on(const Hardware& h, const std::vector<PlanCase>& cases) {
  MachinePlan plan;
  plan.hardware = &h;
  std::vector<StepProducts> products;
  for (const PlanCase& c : cases) products.push_back(step_products(c.spec, h));
  for (std::size_t i = 0; i < cases.size(); i++) {
    const PlanCase& c = cases[i];
    Outcome outcome;
    outcome.prediction = predict(c.spec, h, c.use);
    outcome.schemes = block_schemes(c.spec);
    outcome.largest_context = largest_context(c.spec, h, c.use);
    for (const StepProducts& other : products)
      outcome.than.push_back(faster(products[i], other, h, c.use.threads));
    outcome.advice = advise(c.spec, h, c.use, outcome.prediction);
    plan.outcomes.push_back(std::move(outcome));
  }
  return plan;
}

void command_plan(const PlanOptions& o, const CommonOptions& common, const Output& out) {
  const Subject subject = subject_of(o.model, common);
  const Use use = use_of(o, subject.spec, common.threads);
  const std::vector<PlanCase> cases = cases_of(o, subject.spec, use);
  const std::vector<Hardware> rows = hardware_rows(o.hardware_file, common.threads);
  std::vector<MachinePlan> plans;
  for (const Hardware* h : machines_of(o, rows)) plans.push_back(plan_on(*h, cases));
  if (out.json) {
    Json result = Json::object({{"model", Json(o.model)},
                                {"parameters", Json(parameters(subject.spec))},
                                {"context", Json(use.context)},
                                {"batch", Json(use.batch)},
                                {"prompt", Json(use.prompt)},
                                {"note", subject.note.empty() ? Json() : Json(subject.note)},
                                {"plans", plan_json(cases, plans)}});
    out.result("plan", result);
  } else {
    std::string text = heading(o, subject.spec, use);
    if (!subject.note.empty()) text += "note: " + subject.note + "\n";
    text += "\n" + (o.will_it_fit ? fit_text(cases, plans) : plan_text(cases, plans));
    if (o.plot) text += "\n" + plan_plots(cases, plans);
    out.text(text);
  }
  if (o.will_it_fit) demand_fit(cases, plans);
}

}  // namespace pare
