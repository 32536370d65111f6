// Which matrices are quantized how, and rounding to nearest; methods that learn from data are in
// calibrated.cpp.
//
// Each matrix is decoded, its groups are fitted (by default the range that minimizes the squared
// error, number/encode.h) and every weight is stored as the nearest code. No data is needed, so
// matrices are independent and the pass is lazy: it replaces each promise by "load, then quantize"
// and the saver draws one tensor at a time through it. Peak memory is therefore the largest matrix
// and its codes.
#include "pass/quantize/quantize.h"

#include <algorithm>

#include "model/integrity.h"
#include "pass/promise.h"

namespace pare {
namespace {

std::vector<std::string> matrix_names(const Spec& spec) {
  std::vector<std::string> names = {"embed"};
  for (const auto& [name, linear] : linears(spec)) names.push_back(name);
  return names;
}

void require_match(const std::vector<std::string>& patterns, const std::vector<std::string>& names,
                   std::string_view flag) {
  for (const std::string& pattern : patterns) {
    const bool any = std::any_of(names.begin(), names.end(),
                                 [&](const std::string& n) { return matches(pattern, n); });
    if (any) continue;
    std::string closest = nearest(pattern, names);
    if (closest.empty()) closest = names[names.size() / 2];
    fail(Exit::usage, "QU-001", fmt::format("{} {} matches no matrix", flag, pare::quoted(pattern)),
         {{"nearest", closest}}, "`pare show MODEL --tensors` lists the names");
  }
}

bool any_match(const std::vector<std::string>& patterns, std::string_view name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return matches(p, name); });
}

// What the rules say of one matrix; a later rule wins, field by field.
struct Verdict {
  std::optional<Scheme> scheme;
  std::optional<Activation> activation;
  bool keep = false;
};

Verdict verdict(const std::vector<Rule>& rules, std::string_view name) {
  Verdict v;
  for (const Rule& rule : rules) {
    if (!matches(rule.pattern, name)) continue;
    if (rule.keep || rule.scheme) v.scheme = rule.scheme, v.keep = rule.keep;
    if (rule.activation) v.activation = rule.activation;
  }
  return v;
}

// Scheme and activation of one matrix; none: it stays as it is.
std::optional<Choice> choose(const std::string& name, const QuantizeOptions& o) {
  const bool head = name == "head", embed = name == "embed";
  const bool named = any_match(o.only, name);
  std::optional<Scheme> scheme = o.weights;
  if (embed) scheme = o.embedding;
  if (head) scheme = o.head ? o.head : (named ? o.weights : std::nullopt);
  const bool outside = !o.only.empty() && !named;
  if (outside && !head && !embed) return std::nullopt;
  const Verdict rules = outside ? Verdict{} : verdict(o.rules, name);
  if (rules.keep) return std::nullopt;
  if (rules.scheme) scheme = rules.scheme;
  // --embedding stands whatever --skip says of matrices.
  const bool skipped = any_match(o.skip, name) && !(embed && o.embedding);
  if (!scheme || skipped) return std::nullopt;
  if (embed) return Choice{name, *scheme, {}};
  const Activation activation = head ? Activation{} : o.activations;
  return Choice{name, *scheme, rules.activation.value_or(activation)};
}

void require_use(const std::vector<Rule>& rules, const std::vector<Choice>& choices) {
  for (const Rule& rule : rules) {
    if (!rule.activation || rule.scheme) continue;
    const bool any = std::any_of(choices.begin(), choices.end(), [&](const Choice& c) {
      return c.name != "embed" && matches(rule.pattern, c.name);
    });
    if (!any)
      fail(Exit::usage, "QU-004",
           fmt::format("{} {} gives activations to no quantized matrix", rule.where,
                       pare::quoted(rule.pattern)),
           {}, "give its matrices a scheme too");
  }
}

Spec plan(Spec spec, const QuantizeOptions& options) {
  const std::vector<Choice> choices = choose_matrices(spec, options);
  auto all = linears(spec);
  for (const Choice& choice : choices) {
    if (choice.name == "embed") {
      spec.embed = choice.scheme;
      continue;
    }
    const auto it = std::find_if(all.begin(), all.end(),
                                 [&](const auto& item) { return item.first == choice.name; });
    PARE_CHECK(it != all.end());
    it->second->scheme = choice.scheme;
    it->second->activation = choice.activation;
    const auto outliers = options.method.outliers.find(input_name(spec, choice.name));
    if (outliers == options.method.outliers.end() || outliers->second.empty()) continue;
    if (it->second->outliers > 0 || it->second->permuted || it->second->rotation > 0)
      fail_input("QU-025", "a matrix has companions already that outlier columns do not go with",
                 {{"matrix", choice.name}}, "leave it out with --skip");
    it->second->outliers = static_cast<i64>(outliers->second.size());
  }
  // A tied head is the embedding; a scheme of its own unties it.
  if (spec.tied) {
    const bool own_head = std::any_of(choices.begin(), choices.end(),
                                      [](const Choice& c) { return c.name == "head"; });
    if (!own_head)
      spec.head.scheme = spec.embed;
    else if (spec.head.scheme != spec.embed)
      spec.tied = false;
  }
  if (options.kv) spec.kv = options.kv;
  return spec;
}

std::string describe(const QuantizeOptions& o) {
  std::string line = "quantize";
  if (o.weights) line += " weights=" + to_string(*o.weights);
  if (o.activations.per != Activation::Per::none)
    line += " activations=" + to_string(o.activations);
  for (const std::string& p : o.only) line += " only=" + p;
  for (const std::string& p : o.skip) line += " skip=" + p;
  if (o.head) line += " head=" + to_string(*o.head);
  if (o.embedding) line += " embedding=" + to_string(*o.embedding);
  if (o.kv) line += " kv=" + to_string(*o.kv);
  for (const Rule& r : o.rules) line += " rule=" + to_string(r);
  static constexpr const char* ranges[] = {"absmax", "mse", "percentile"};
  line += fmt::format(" range={}", ranges[static_cast<int>(o.fit.range)]);
  if (o.fit.range == Range::percentile) line += fmt::format(" percentile={}", o.fit.percentile);
  return line + describe(o.method);
}

bool learns(const MethodOptions& o) { return o.method != Method::rtn || o.data != nullptr; }

// Everything but the embedding, whose rows are no product's, and a head that stays tied to it.
std::vector<Target> targets_of(const Spec& spec, const Spec& planned,
                               const QuantizeOptions& options) {
  std::vector<Target> targets;
  for (const Choice& c : choose_matrices(spec, options))
    if (c.name != "embed" && !(c.name == "head" && planned.tied))
      targets.push_back({c.name, c.scheme, c.activation, options.fit});
  return targets;
}

// The nearest code to NaN is a guess, and one infinity makes a whole group's scale infinite.
void refuse_non_finite(const Tensor& source, const std::string& name, Pool& pool) {
  const i64 bad = count_non_finite(source, pool);
  if (bad == 0) return;
  fail_input("QU-006", "a matrix has values that are not finite, which no code stands for",
             {{"tensor", name}, {"found", fmt::format("{} of {} values", bad, source.count())}},
             fmt::format("get the file again, or leave the matrix as it is with --skip '{}'",
                         name.substr(0, name.rfind('.'))));
}

Model run(Model model, const QuantizeOptions& options, const std::string& line, Context& context) {
  const KvScheme before = default_kv(model.spec);
  const Spec planned = plan(model.spec, options);
  require_data_for_static(model.spec, options);
  if (learns(options.method)) {
    const std::vector<Target> targets = targets_of(model.spec, planned, options);
    model = quantize_calibrated(std::move(model), planned, targets, options.method, context);
  }
  std::set<std::string, std::less<>> promised;
  for (const Slot& slot : slots(planned)) {
    if (slot.vector) continue;
    // An untied head starts as a copy of the embedding.
    const bool untied = slot.name == "head.weight" && !model.weights.contains(slot.name);
    const auto it = model.weights.find(untied ? "embed.weight" : slot.name);
    PARE_CHECK(it != model.weights.end());
    Weight weight = it->second;
    if (weight.scheme != slot.scheme) {
      const Scheme scheme = slot.scheme;
      model.evidence.push_back({"quantize", slot.name, "bits per weight",
                                bits_per_weight(weight.scheme, slot.shape[0], slot.shape[1]),
                                bits_per_weight(scheme, slot.shape[0], slot.shape[1])});
      weight.load = [load = weight.load, name = slot.name, scheme, fit = options.fit,
                     &pool = context.pool] {
        const Tensor source = load();
        refuse_non_finite(source, name, pool);
        return requantize(source, scheme, fit, {}, &pool);
      };
      weight.scheme = scheme;
      promised.insert(slot.name);
    }
    model.weights.insert_or_assign(slot.name, std::move(weight));
  }
  model.spec = planned;
  keep_promises(model, promised, context);
  model.history.push_back(line);
  if (options.kv)
    model.evidence.push_back({"quantize", "cache", "bytes per token",
                              kv_bytes_per_token(planned, before),
                              kv_bytes_per_token(planned, *options.kv)});
  return model;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  // Greedy with one point of return: linear in practice, quadratic at worst, never exponential.
  std::size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      p++, n++;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') p++;
  return p == pattern.size();
}

std::vector<Choice> choose_matrices(const Spec& spec, const QuantizeOptions& options) {
  const std::vector<std::string> names = matrix_names(spec);
  require_match(options.only, names, "--only");
  require_match(options.skip, names, "--skip");
  for (const Rule& rule : options.rules) require_match({rule.pattern}, names, rule.where);
  if (!options.weights && !options.head && !options.embedding && !options.kv &&
      options.rules.empty())
    fail(Exit::usage, "QU-002", "there is nothing to quantize", {},
         "give --weights, --head, --embedding, --rule or --kv");
  std::vector<Choice> choices;
  for (const std::string& name : names)
    if (const std::optional<Choice> choice = choose(name, options)) choices.push_back(*choice);
  require_use(options.rules, choices);
  if (choices.empty() && !options.kv)
    fail(Exit::usage, "QU-003", "the patterns leave no matrix to quantize");
  return choices;
}

void require_data_for_static(const Spec& spec, const QuantizeOptions& options) {
  if (options.method.data != nullptr) return;
  for (const Choice& c : choose_matrices(spec, options))
    if (c.activation.is_static)
      fail(Exit::usage, "QU-027", "the scale of static activations is learnt from data",
           {{"matrix", c.name}, {"found", to_string(c.activation)}},
           "give --text FILE, or quantize inputs dynamically: int8:token");
}

Pass quantize_pass(const QuantizeOptions& options) {
  const std::string line = describe(options);
  return {"quantize", line, [options](Spec spec) { return plan(std::move(spec), options); },
          [options, line](Model model, Context& context) {
            return run(std::move(model), options, line, context);
          }};
}

}  // namespace pare
