// pare quantize: flags to a recipe of one step, which is then applied as any other (apply.cpp).
#include <cstdlib>

#include "app/commands.h"
#include "recipe/recipe.h"

namespace pare {

Range parse_range(const std::string& word) {
  return word == "absmax" ? Range::absmax : word == "percentile" ? Range::percentile : Range::mse;
}

namespace {

void read_schemes(const QuantizeCommand& o, QuantizeOptions& options) {
  if (!o.weights.empty()) options.weights = parse_scheme(o.weights);
  if (!o.activations.empty()) options.activations = parse_activation(o.activations);
  if (!o.head.empty()) options.head = parse_scheme(o.head);
  if (!o.embedding.empty()) options.embedding = parse_scheme(o.embedding);
  options.only = o.only;
  options.skip = o.skip;
  for (const std::string& rule : o.rules) options.rules.push_back(parse_rule(rule));
  options.kv = parse_kv(o.kv);
  options.fit.range = parse_range(o.range);
  options.fit.percentile = o.percentile;
  if (!(o.percentile > 0 && o.percentile <= 100))
    fail(Exit::usage, "CL-009", "--percentile is out of range",
         {{"found", fmt::format("{}", o.percentile)}, {"need", "above 0, at most 100"}});
  if (options.fit.range != Range::percentile && o.percentile != QuantizeCommand{}.percentile)
    fail(Exit::usage, "CL-009", "--percentile needs --range percentile", {{"found", o.range}});
}

// A flag that the method at hand does not look at is a mistake; those of data, apply looks at.
void refuse_idle_flags(const QuantizeCommand& o) {
  const QuantizeCommand none;
  const Method m = parse_method(o.method);
  const auto idle = [&](bool given, const char* flag, bool used, const char* need) {
    if (given && !used)
      fail(Exit::usage, "CL-035", fmt::format("{} has no effect here", flag),
           {{"found", "--method " + o.method}, {"need", need}});
  };
  const bool gptq = m == Method::gptq || m == Method::automatic;
  const bool awq = m == Method::awq || m == Method::automatic;
  idle(o.damping != none.damping, "--damping", gptq, "--method gptq or auto");
  idle(o.act_order != none.act_order, "--act-order", gptq, "--method gptq or auto");
  idle(o.polish != none.polish, "--polish", gptq, "--method gptq or auto");
  idle(!o.clip, "--no-clip", awq, "--method awq or auto");
  idle(o.alpha != none.alpha, "--alpha", m == Method::smoothquant, "--method smoothquant");
  idle(o.threshold != none.threshold, "--threshold", m == Method::llm_int8, "--method llm-int8");
}

void read_method(const QuantizeCommand& o, MethodOptions& method) {
  method.method = parse_method(o.method);
  method.gptq.damping = o.damping;
  method.gptq.polish = o.polish;
  method.gptq.order = act_order_of(o.act_order).value();
  method.alpha = o.alpha == "auto" ? -1 : std::atof(o.alpha.c_str());
  method.outlier_threshold = o.threshold;
  method.clip = o.clip;
  method.strict = o.strict;
  if (!(o.damping > 0 && o.damping < 10))
    fail(Exit::usage, "CL-032", "--damping is out of range",
         {{"found", fmt::format("{}", o.damping)}, {"need", "above 0, below 10"}});
  if (method.alpha > 1 ||
      (o.alpha != "auto" &&
       !(method.alpha >= 0 && o.alpha.find_first_not_of("0123456789.") == std::string::npos)))
    fail(Exit::usage, "CL-033", "--alpha is not a number from 0 to 1, nor auto",
         {{"found", o.alpha}});
  if (!(o.threshold > 0))
    fail(Exit::usage, "CL-034", "--threshold is not above 0",
         {{"found", fmt::format("{}", o.threshold)}});
}

// What the flags say, as a recipe.
Recipe recipe_of_flags(const QuantizeCommand& o) {
  Recipe recipe;
  QuantizeOptions options;
  read_schemes(o, options);
  read_method(o, options.method);
  refuse_idle_flags(o);
  recipe.steps = {{0, std::move(options)}};
  return recipe;
}

void refuse_flags_beside_a_recipe(const QuantizeCommand& o) {
  const QuantizeCommand none;
  const bool more = !o.weights.empty() || !o.activations.empty() || !o.head.empty() ||
                    !o.embedding.empty() || !o.kv.empty() || !o.only.empty() || !o.skip.empty() ||
                    !o.rules.empty() || o.range != none.range || o.percentile != none.percentile ||
                    o.method != none.method;
  if (more)
    fail(Exit::usage, "CL-038", "--recipe says all of what to do", {},
         "write the other flags into the recipe, or leave it out");
}

}  // namespace

void command_quantize(const QuantizeCommand& o, const CommonOptions& common, const Output& out) {
  if (!o.recipe.empty()) refuse_flags_beside_a_recipe(o);
  Recipe recipe = o.recipe.empty() ? recipe_of_flags(o) : find_recipe(o.recipe);
  const Gates own = recipe.gates;
  if (o.max_kl >= 0) recipe.gates.max_kl = o.max_kl;
  // What the output carries says all that was asked.
  if (recipe.text.empty() || recipe.gates != own)
    recipe.text = recipe_text(recipe.steps, recipe.gates, recipe.data, recipe.about);
  apply_and_report(recipe, o, "quantize", common, out);
}

}  // namespace pare
