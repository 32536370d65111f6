// pare search: from what a user can afford to the recipe that loses least.
//
// Sensitivities are measured once, recipes are found in numbers (choose/search.h), and those that
// matter are built in memory and measured on tokens that nothing was learnt from. What was measured
// decides: predictions only say where to look.
#include "app/search.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/calibration.h"
#include "app/evidence.h"
#include "app/forecast.h"
#include "pass/quantize/calibration_text.h"
#include "recipe/search.h"

namespace pare {
namespace {

constexpr double most_loss = 1.0;    // nats; a front does not go beyond it
constexpr i64 learn_tokens = 16384;  // of methods that learn
constexpr i64 few_tokens = 64;       // fewer say nothing
constexpr int aims = 3;              // further recipes measured to meet a divergence

// ---- texts ----

struct Texts {
  std::vector<Sequence> held_out;
  TokenSequences learning;
  std::string held_out_words;
};

i64 window_of(const Model& model, const SearchOptions& o) {
  return model.spec.max_positions > 0 ? std::min(o.window, model.spec.max_positions) : o.window;
}

// A text in two: its end is held out.
struct Halves {
  std::vector<std::int32_t> front, end;
};
Halves halves(const std::vector<std::int32_t>& ids, const SearchOptions& o) {
  const i64 n = static_cast<i64>(ids.size());
  const i64 end = o.eval_text.empty() ? std::min(o.verify_tokens, n - o.tokens) : 0;
  if (o.eval_text.empty() && o.verify != 0 && end < few_tokens)
    fail(Exit::usage, "CH-006", "the text leaves too few tokens to measure recipes on",
         {{"found", fmt::format("{} tokens, {} of them for single changes", n, o.tokens)},
          {"need", fmt::format("at least {} more", few_tokens)}},
         "lower --tokens, give a longer text or --eval-text FILE");
  const auto cut = ids.end() - static_cast<std::ptrdiff_t>(std::max<i64>(0, end));
  return {{ids.begin(), cut}, {cut, ids.end()}};
}

Texts texts_of(const Model& model, const SearchOptions& o, const std::string& method,
               const Halves& text, Pool& pool, const Log& log) {
  Texts t;
  const i64 window = window_of(model, o);
  if (!o.eval_text.empty()) {
    t.held_out = cut_text(ids_of_text(model, o.eval_text), o.verify_tokens, window);
    t.held_out_words = words_of_text(o.eval_text, 0);
  } else if (!o.text.empty()) {
    t.held_out = cut_text(text.end, o.verify_tokens, window);
    t.held_out_words = "the end of " + words_of_text(o.text, 0);
  } else {
    t.held_out = written_text(model, std::min(o.verify_tokens, o.tokens), window, o.seed + 1, pool);
    t.held_out_words = words_of_text("", o.seed + 1);
  }
  t.held_out_words = fmt::format("{} tokens of {}", tokens_of(t.held_out), t.held_out_words);
  if (!needs_data(parse_method(method))) return t;
  t.learning = o.text.empty() ? write_sequences(model, o.tokens, window, o.seed, pool, log)
                              : cut_sequences(text.front, learn_tokens, window);
  return t;
}

// ---- what was asked ----

template <class Value, class Parser>
std::vector<Value> parsed(const std::vector<std::string>& words,
                          std::initializer_list<const char*> defaults, const Parser& parse) {
  std::vector<Value> list;
  if (words.size() == 1 && words[0] == "none") return list;
  std::vector<std::string> all = words;
  if (all.empty()) all.assign(defaults.begin(), defaults.end());
  for (const std::string& word : all) {
    const Value value = parse(word);
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
  }
  return list;
}

std::vector<std::string> matrices_of(const Spec& spec, const SearchOptions& o) {
  std::vector<std::string> names = {"embed"}, chosen;
  for (const auto& [name, linear] : linears(spec))
    if (name != "head" || !spec.tied) names.push_back(name);
  std::vector<bool> used(o.skip.size());
  for (const std::string& name : names) {
    bool skipped = false;
    for (std::size_t i = 0; i < o.skip.size(); i++)
      if (matches(o.skip[i], name)) used[i] = skipped = true;
    if (!skipped) chosen.push_back(name);
  }
  for (std::size_t i = 0; i < o.skip.size(); i++)
    if (!used[i])
      fail(Exit::usage, "QU-001",
           fmt::format("--skip {} matches no matrix", pare::quoted(o.skip[i])),
           {{"nearest", nearest(o.skip[i], names)}}, "`pare show MODEL --tensors` lists the names");
  if (chosen.empty()) fail(Exit::usage, "QU-003", "the patterns leave no matrix to quantize");
  return chosen;
}

EvidenceJob job_of(const Model& model, const SearchOptions& o, const Log& log) {
  EvidenceJob job;
  job.matrices = matrices_of(model.spec, o);
  job.candidates = candidate_schemes(o.candidates);
  job.caches = parsed<KvScheme>(
      o.caches, {"int8", "int8:k=channel", "int4:asym:k=channel:window=64", "int4:asym:k=channel"},
      parse_kv_scheme);
  job.activations = parsed<Activation>(o.activations, {"int8:token"}, parse_activation);
  for (const Activation& a : job.activations)
    if (a.is_static)
      fail(Exit::usage, "QU-027", "the scale of static activations is learnt from data",
           {{"found", to_string(a)}}, "search for dynamic ones: int8:token");
  job.base = o.model;
  job.model = identity(model, log);
  job.text = words_of_text(o.text, o.seed);
  job.rounding = "rounded to nearest, range " + o.range;
  job.range = parse_range(o.range);
  job.file = o.sensitivities;
  return job;
}

Limits limits_of(const SearchOptions& o, const Use& use) {
  Limits limits{o.max_bytes, o.max_memory, std::nullopt};
  if (o.min_tokens_per_second)
    limits.seconds_per_token = static_cast<double>(use.batch) / *o.min_tokens_per_second;
  return limits;
}

Axis axis_of(const SearchOptions& o) {
  if (o.by == "memory") return Axis::memory;
  if (o.by == "speed") return Axis::speed;
  if (!o.by.empty() || o.max_bytes) return Axis::bytes;
  return o.max_memory ? Axis::memory : o.min_tokens_per_second ? Axis::speed : Axis::bytes;
}

// ---- measuring recipes ----

class Verifier {
 public:
  Verifier(const Model& base, const Search& search, const SearchResult& result, const Texts& texts,
           Pool& pool, const Log& log)
      : base_(base), search_(search), result_(result), texts_(texts), pool_(pool), log_(log) {}

  void measure(Candidate& c) {
    if (c.measured) return;
    stop_if_interrupted();
    SearchRecord record;
    record.method = result_.method;
    Recipe recipe = parse_recipe(
        search_recipe(search_.sensitivities(), c.proposal, base_.spec, record), "recipe");
    auto& options = std::get<QuantizeOptions>(recipe.steps.front().options);
    if (needs_data(options.method.method)) {
      auto data = std::make_shared<Calibration>();
      data->sequences = texts_.learning;
      data->source = "the text of the search";
      options.method.data = std::move(data);
    }
    Log quiet = log_;
    quiet.quiet = true;
    quiet.terminal = false;
    Context context{pool_, quiet};
    Model model = base_;
    for (const Pass& pass : passes(recipe)) model = pass.run(std::move(model), context);
    if (!engine_) engine_.emplace(base_, pool_);
    Engine changed(model, pool_);
    c.measured =
        evaluate(changed, &*engine_, texts_.held_out, Protocol(), pool_, quiet).divergence->kl_mean;
    log_.info(fmt::format("measured: {} bytes, KL {:.6f}, {:.6f} by the sum",
                          c.proposal.weight_bytes, *c.measured, c.proposal.loss));
  }

 private:
  const Model& base_;
  const Search& search_;
  const SearchResult& result_;
  const Texts& texts_;
  Pool& pool_;
  const Log& log_;
  std::optional<Engine> engine_;
};

// `count` of n places, spread evenly, both ends among them.
std::vector<std::size_t> spread(std::size_t n, std::size_t count) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < count && i < n; i++)
    places.push_back(count >= n ? i : count == 1 ? n - 1 : i * (n - 1) / (count - 1));
  return places;
}

void weigh(SearchResult& r) {
  std::vector<LossPair> pairs;
  for (const Candidate& c : r.front)
    if (c.measured) pairs.push_back({c.proposal.loss, *c.measured});
  r.agreement = agreement(pairs);
  r.scale = r.agreement.systematic ? r.agreement.scale : 1;
}

// Puts a proposal into its place; where it is there already, that place.
std::size_t insert(SearchResult& r, Proposal p) {
  for (std::size_t i = 0; i < r.front.size(); i++) {
    const Proposal& q = r.front[i].proposal;
    if (q.schemes == p.schemes && q.kv == p.kv && q.activation == p.activation) return i;
  }
  const double cost = cost_of(p, r.axis);
  std::size_t at = 0;
  while (at < r.front.size() && cost_of(r.front[at].proposal, r.axis) <= cost) at++;
  r.front.insert(r.front.begin() + static_cast<std::ptrdiff_t>(at), Candidate{std::move(p), {}});
  return at;
}

// ---- deciding ----

std::string words_of(const Proposal& p) {
  return fmt::format("{} bytes of weights, {:.0f} of memory, {:.4g} tokens/s, predicted KL {:.6f}",
                     p.weight_bytes, p.memory_bytes, p.tokens_per_second, p.loss);
}

[[noreturn]] void refuse_limits(const Search& search, const Limits& limits) {
  const Search::Nearest nearest = search.nearest(limits);
  fail(Exit::gate, "CH-007", "no recipe of these candidates keeps to the limits",
       {{"nearest", words_of(nearest.proposal)},
        {"excess", fmt::format("{:.2f} %", 100 * nearest.excess)}},
       "raise a limit, or add smaller schemes to --candidates");
}

[[noreturn]] void refuse_loss(const SearchResult& r, double max_kl) {
  const Candidate* least = nullptr;
  for (const Candidate& c : r.front)
    if (within(c.proposal, r.limits) && (least == nullptr || believed(r, c) < believed(r, *least)))
      least = &c;
  PARE_CHECK(least != nullptr);
  const double found = believed(r, *least);
  fail(Exit::gate, "CH-008", "no recipe within the limits is as near to the model as --max-kl asks",
       {{"nearest",
         fmt::format("KL {:.6f} {}, with {}", found, least->measured ? "measured" : "predicted",
                     words_of(least->proposal))},
        {"need", fmt::format("at most {}", max_kl)},
        {"excess", fmt::format("{:.1f} %", 100 * (found / max_kl - 1))}},
       "raise --max-kl or a limit");
}

// Of recipes that keep to everything: with limits the least loss, else the least cost.
std::size_t decide(const SearchResult& r, const SearchOptions& o, bool measured_only) {
  std::size_t best = r.front.size();
  for (std::size_t i = 0; i < r.front.size(); i++) {
    const Candidate& c = r.front[i];
    if (measured_only && !c.measured) continue;
    if (!within(c.proposal, r.limits) || (o.max_kl && believed(r, c) > *o.max_kl)) continue;
    const auto rank = [&](const Candidate& x) {
      return r.limits.any() ? believed(r, x) : cost_of(x.proposal, r.axis);
    };
    if (best == r.front.size() || rank(c) < rank(r.front[best])) best = i;
  }
  return best;
}

// The cheapest recipe within a divergence: predictions are aimed at it by what was measured near.
void aim(SearchResult& r, const Search& search, const SearchOptions& o, Verifier& verifier) {
  double target = *o.max_kl;
  for (int i = 0; i < aims; i++) {
    auto p = search.cheapest(r.axis, target, r.limits);
    if (!p || p->loss <= 0) return;
    const std::size_t at = insert(r, std::move(*p));
    verifier.measure(r.front[at]);
    const double ratio = *r.front[at].measured / r.front[at].proposal.loss;
    const double next = 0.99 * *o.max_kl / std::max(ratio, 1e-3);
    if (std::abs(next / target - 1) < 0.02) return;
    target = next;
  }
}

SearchResult find(const Search& search, const Model& model, const SearchOptions& o, SearchResult r,
                  const Texts& texts, Pool& pool, const Log& log) {
  const bool measures = o.verify != 0;
  r.base = search.as_it_is();
  const bool idle = r.limits.any() && within(r.base, r.limits);
  for (Proposal& p : search.front(r.axis, r.limits, std::max(most_loss, o.max_kl.value_or(0)),
                                  static_cast<std::size_t>(o.points)))
    r.front.push_back({std::move(p), {}});
  std::optional<Proposal> goal;
  if (r.limits.any()) {
    goal = search.best(r.limits);
    if (!goal) refuse_limits(search, r.limits);
    if (idle) goal.reset();
  } else if (o.max_kl) {
    goal = search.cheapest(r.axis, *o.max_kl, r.limits);
    if (goal && goal->loss <= 0) goal.reset();
  }
  std::size_t at = goal ? insert(r, *goal) : 0;
  if (r.front.empty())
    fail(Exit::usage, "CH-009", "these candidates leave no recipe that changes the model");
  Verifier verifier(model, search, r, texts, pool, log);
  if (measures) {
    const std::size_t count = o.verify < 0 ? r.front.size() : static_cast<std::size_t>(o.verify);
    if (goal) verifier.measure(r.front[at]);
    for (std::size_t place : spread(r.front.size(), count)) verifier.measure(r.front[place]);
    if (goal && o.max_kl && !r.limits.any()) aim(r, search, o, verifier);
  }
  weigh(r);
  r.chosen = r.front.size();
  if (idle) {
    log.info("the model as it is keeps to the limits");
  } else if (r.limits.any() || o.max_kl) {
    r.chosen = decide(r, o, measures);
    if (r.chosen == r.front.size()) refuse_loss(r, o.max_kl.value_or(0));
  }
  return r;
}

void write_recipes(const SearchOptions& o, const SearchResult& r, const Search& search,
                   const Spec& spec) {
  const auto text_of = [&](const Candidate& c) {
    SearchRecord record{r.method, r.hardware.name, r.use, r.scale, c.measured, r.held_out, {}};
    if (o.max_bytes && within(c.proposal, r.limits))
      record.gates.max_bytes = static_cast<i64>(*o.max_bytes);
    return search_recipe(search.sensitivities(), c.proposal, spec, record);
  };
  if (!o.out.empty()) write_text(o.out, o.force, text_of(r.front[r.chosen]));
  if (o.all.empty()) return;
  std::filesystem::create_directories(o.all);
  for (std::size_t i = 0; i < r.front.size(); i++)
    write_text(fmt::format("{}/recipe-{:02}.toml", o.all, i + 1), o.force, text_of(r.front[i]));
}

void check_options(const SearchOptions& o) {
  if (!o.out.empty() && !o.max_bytes && !o.max_memory && !o.min_tokens_per_second && !o.max_kl)
    fail(Exit::usage, "CL-041", "-o needs a limit that the recipe is to keep to", {},
         "give --max-bytes, --max-memory, --min-tokens-per-second or --max-kl; --all writes all");
  if (o.tokens + 1 < few_tokens / 2)
    fail(Exit::usage, "CL-042", "--tokens is too small to measure anything",
         {{"found", std::to_string(o.tokens)}});
}

}  // namespace

void command_search(const SearchOptions& o, const CommonOptions& common, const Output& out) {
  check_options(o);
  const Model model = load_model(o.model, {common.tokenizer});
  Pool pool(common.threads);
  SearchResult r;
  r.axis = axis_of(o);
  r.use.batch = o.batch;
  r.use.context = o.context > 0 ? o.context : std::min<i64>(2048, model.spec.max_positions);
  r.use.prompt = std::min<i64>(512, r.use.context);
  r.use.threads = common.threads;
  r.limits = limits_of(o, r.use);
  r.hardware = o.hardware.empty() ? hardware_here(roof_here(pool, out.log))
                                  : find_hardware(known_hardware(), o.hardware);
  r.method = !o.method.empty() ? o.method : o.text.empty() ? "rtn" : "gptq";
  r.parameters = parameters(model.spec);
  const std::vector<std::int32_t> ids =
      o.text.empty() ? std::vector<std::int32_t>() : ids_of_text(model, o.text);
  const Halves text = o.text.empty() ? Halves() : halves(ids, o);
  const auto measuring = [&] {
    return o.text.empty() ? written_text(model, o.tokens, window_of(model, o), o.seed, pool)
                          : cut_text(ids, o.tokens, window_of(model, o));
  };
  const Sensitivities s = gather(model, job_of(model, o, out.log), measuring, pool, out.log);
  if (s.matrices.empty())
    fail(Exit::usage, "CH-009", "these candidates leave no recipe that changes the model");
  const Search search(s, model.spec, r.hardware, r.use);
  Texts texts;
  if (o.verify != 0) texts = texts_of(model, o, r.method, text, pool, out.log);
  r.held_out = texts.held_out_words;
  r = find(search, model, o, std::move(r), texts, pool, out.log);
  if (!o.out.empty() && r.chosen == r.front.size())
    fail(Exit::usage, "CH-010",
         "the model as it is keeps to the limits: there is no recipe to write",
         {{"found", words_of(r.base)}}, "leave out -o, or lower a limit");
  write_recipes(o, r, search, model.spec);
  print_search(o, r, search.sensitivities(), out);
}

}  // namespace pare
