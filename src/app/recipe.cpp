// pare recipe: the ready ones, and what a recipe would do to a model, from its Spec alone.
#include <algorithm>
#include <map>

#include "app/commands.h"
#include "recipe/apply.h"
#include "recipe/ready.h"

namespace pare {
namespace {

// One matrix before and after.
struct Line {
  std::string name, before, after, activation, rule;
  i64 rows = 0, cols = 0, bytes = 0;
};

Spec spec_of(const std::string& argument, const CommonOptions& common) {
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::path(argument) / "config.json", ignored))
    return spec_of_folder(argument);
  return load_model(argument, {common.tokenizer}).spec;
}

std::vector<Line> matrices(const Spec& spec) {
  std::vector<Line> lines;
  const auto add = [&](const std::string& name, const Scheme& scheme, const Activation& activation,
                       i64 rows, i64 cols) {
    lines.push_back({name,
                     {},
                     to_string(scheme),
                     to_string(activation),
                     {},
                     rows,
                     cols,
                     stored_bytes(scheme, rows, cols)});
  };
  add("embed", spec.embed, {}, spec.vocab, spec.dim);
  for (const auto& [name, linear] : linears(spec)) {
    if (name == "head" && spec.tied) continue;  // the embedding is its weight
    add(name, linear->scheme, linear->activation, linear->out, linear->in);
  }
  return lines;
}

// The rule that decided each matrix's scheme in the last step that changed it.
std::map<std::string, std::string> deciders(const Recipe& recipe, Spec spec) {
  std::map<std::string, std::string> out;
  const std::vector<Pass> all = passes(recipe);
  for (std::size_t i = 0; i < all.size(); i++) {
    if (const auto* o = std::get_if<QuantizeOptions>(&recipe.steps[i].options)) {
      const Spec planned = all[i].plan(spec);  // its Errors name the step
      for (const Choice& c : choose_matrices(spec, *o)) {
        std::string by = fmt::format("line {}", recipe.steps[i].line);
        for (const Rule& rule : o->rules)
          if (rule.scheme && matches(rule.pattern, c.name)) by = rule.pattern;
        out[c.name] = by;
      }
      spec = planned;
    } else {
      spec = all[i].plan(std::move(spec));
      for (const Line& line : matrices(spec))
        out[line.name] = fmt::format("line {}", recipe.steps[i].line);
    }
  }
  return out;
}

Json line_json(const Line& l) {
  return Json::object({{"name", Json(l.name)},
                       {"before", Json(l.before)},
                       {"after", Json(l.after)},
                       {"activations", Json(l.activation)},
                       {"by", Json(l.rule)},
                       {"bits", Json(bits_per_weight(parse_scheme(l.after), l.rows, l.cols))},
                       {"bytes", Json(l.bytes)}});
}

Json gates_json(const Gates& g) {
  Json json = Json::object();
  if (g.max_kl) json.set("max_kl", *g.max_kl);
  if (g.min_speedup) json.set("min_speedup", *g.min_speedup);
  if (g.max_bytes) json.set("max_bytes", *g.max_bytes);
  return json;
}

std::string gates_text(const Gates& g, i64 bytes) {
  std::string text;
  if (g.max_bytes)
    text += fmt::format("gate max_bytes {}: {}\n", *g.max_bytes,
                        bytes <= *g.max_bytes ? "kept" : "not kept");
  if (g.max_kl) text += fmt::format("gate max_kl {}: measured by pare apply\n", *g.max_kl);
  if (g.min_speedup)
    text += fmt::format("gate min_speedup {}: measured by pare prove\n", *g.min_speedup);
  return text;
}

}  // namespace

void command_recipe_check(const RecipeCheckOptions& o, const CommonOptions& common,
                          const Output& out) {
  const Recipe recipe = find_recipe(o.recipe);
  const Spec base = spec_of(o.model, common);
  const Spec planned = plan(recipe, base);
  std::vector<Line> lines = matrices(planned);
  const auto by = deciders(recipe, base);
  std::map<std::string, std::string> before;
  for (const Line& line : matrices(base)) before[line.name] = line.after;
  for (Line& line : lines) {
    line.before = before.contains(line.name) ? before[line.name] : before["embed"];
    if (const auto it = by.find(line.name); it != by.end()) line.rule = it->second;
  }
  if (out.json) {
    Json::Array list, steps;
    for (const Line& line : lines) list.push_back(line_json(line));
    for (const Pass& pass : passes(recipe)) steps.emplace_back(pass.line);
    return out.result("recipe check",
                      Json::object({{"recipe", Json(o.recipe)},
                                    {"model", Json(o.model)},
                                    {"about", Json(recipe.about)},
                                    {"steps", Json(std::move(steps))},
                                    {"weight_bytes_before", Json(weight_bytes(base))},
                                    {"weight_bytes", Json(weight_bytes(planned))},
                                    {"gates", gates_json(recipe.gates)},
                                    {"matrices", Json(std::move(list))}}));
  }
  Table table({"matrix", "before", "after", "activations", "bits", "bytes", "by"});
  for (const Line& l : lines)
    table.add({l.name, l.before, l.after, l.activation,
               fmt::format("{:.3f}", bits_per_weight(parse_scheme(l.after), l.rows, l.cols)),
               std::to_string(l.bytes), l.rule.empty() ? "-" : l.rule});
  std::string text = recipe.about.empty() ? "" : pare::quoted(recipe.about) + "\n";
  text += table.text();
  text +=
      fmt::format("{}: {} -> {}\n", o.model, human_bytes(static_cast<double>(weight_bytes(base))),
                  human_bytes(static_cast<double>(weight_bytes(planned))));
  out.text(text + gates_text(recipe.gates, weight_bytes(planned)));
}

void command_recipe_list(const Output& out) {
  Table table({"recipe", "what it is for"});
  Json::Array list;
  for (const ReadyRecipe& ready : ready_recipes()) {
    const std::string name(ready.name), about = find_recipe(name).about;
    table.add({name, about});
    list.push_back(Json::object({{"name", Json(name)}, {"about", Json(about)}}));
  }
  if (out.json)
    return out.result("recipe list", Json::object({{"recipes", Json(std::move(list))}}));
  out.text(table.text(true));
}

void command_recipe_show(const std::string& name, const Output& out) {
  const Recipe recipe = find_recipe(name);
  if (!out.json) return out.text(recipe.text);
  out.result("recipe show", Json::object({{"name", Json(name)},
                                          {"about", Json(recipe.about)},
                                          {"text", Json(recipe.text)}}));
}

}  // namespace pare
