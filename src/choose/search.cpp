// The knapsack's items from sensitivities and the cost model, and its answers as recipes.
//
// Each activation is a search of its own, because it changes the seconds of every matrix. The cache
// is one more item: its bytes, the seconds of attention, its loss. Seconds of a matrix are those
// that the cost model gives when all matrices have its scheme; where a machine's rates depend on
// what else is in its caches, a recipe as a whole takes a little more or less, so each answer is
// predicted again and the limits of the items are corrected until the whole keeps to them.
#include "choose/search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "choose/select.h"

namespace pare {
namespace {

constexpr double ticks = 1e12;  // of a second, for costs as integers
constexpr int corrections = 5;
constexpr int bisections = 30;
constexpr std::size_t oversampling = 4;  // budgets tried for each recipe of a front

enum Cost : std::size_t { weight, memory, time, costs };

bool in_blocks(const std::string& name) { return name.starts_with("blocks."); }

// Sets one matrix as the pass would; its own scheme: it is left as it is.
void put(Spec& spec, const std::string& name, const Scheme& scheme, const Activation& activation) {
  if (name == "embed") {
    spec.embed = scheme;
    if (spec.tied) spec.head.scheme = scheme;
    return;
  }
  for (auto& [found, linear] : linears(spec)) {
    if (found != name || linear->scheme == scheme) continue;
    linear->scheme = scheme;
    linear->activation = in_blocks(name) ? activation : Activation{};
  }
}

Scheme own_scheme(const Spec& spec, const std::string& name) {
  for (const auto& [found, linear] : linears(spec))
    if (found == name) return linear->scheme;
  PARE_CHECK(name == "embed");
  return spec.embed;
}

i64 in_ticks(double seconds) { return static_cast<i64>(std::ceil(seconds * ticks)); }

// Seconds of a decode step by the name of the operation; "attention" all that reads the cache.
struct Seconds {
  std::map<std::string, double, std::less<>> of;
  double total = 0;
  double matrix(const Spec& spec, const std::string& name) const {
    double sum = at(name);
    if (name == "embed" && spec.tied) sum += at("head");
    return sum;
  }
  double at(const std::string& name) const {
    const auto it = of.find(name);
    return it == of.end() ? 0 : it->second;
  }
};

}  // namespace

// One activation: items with options, in the order of the sensitivities, the cache behind them.
struct Branch {
  Activation activation;
  double loss = 0;
  std::vector<std::vector<SelectOption>> items;
};

struct Search::Impl {
  Sensitivities s;
  Spec base;
  Hardware hardware;
  Use use;
  std::vector<std::vector<Scheme>> schemes;     // options of each matrix, its own first
  std::vector<std::optional<KvScheme>> caches;  // options; none first
  std::vector<Branch> branches;
  std::array<double, costs> fixed{};  // bytes, bytes and seconds of what is not chosen

  Seconds decode(const Spec& spec, const std::optional<KvScheme>& kv) const;
  void list_options();
  void add_branch(const Activation&, double loss);
  Proposal proposal(const Branch&, const std::vector<std::size_t>& picks) const;
  std::optional<Proposal> best_of(const Branch&, const Limits&) const;
  double least_cost(Axis) const;
};

Seconds Search::Impl::decode(const Spec& spec, const std::optional<KvScheme>& kv) const {
  Load load;
  load.batch = use.batch;
  load.context = use.context;
  load.kv = kv ? *kv : kv_of(base, use);
  const StepTime step = predict_pass(spec, hardware, load, use.threads);
  Seconds seconds;
  seconds.total = step.seconds;
  for (const OperationTime& t : step.operations) {
    const bool attends = !t.operation.product && t.operation.flops > 0;
    seconds.of[attends ? "attention" : t.operation.name] += t.seconds;
  }
  return seconds;
}

void Search::Impl::list_options() {
  for (const MatrixLosses& m : s.matrices) {
    schemes.push_back({own_scheme(base, m.name)});
    for (const SchemeLoss& o : m.options)
      if (o.scheme != schemes.back().front()) schemes.back().push_back(o.scheme);
  }
  caches.push_back(std::nullopt);
  for (const CacheLoss& c : s.caches)
    if (c.scheme != kv_of(base, use)) caches.emplace_back(c.scheme);
  const Seconds now = decode(base, std::nullopt);
  fixed[weight] = real(weight_bytes(base));
  fixed[memory] = predict(base, hardware, use).memory.total();
  fixed[time] = now.total - now.at("attention");
  for (std::size_t i = 0; i < s.matrices.size(); i++) {
    const MatrixLosses& m = s.matrices[i];
    const double bytes = real(stored_bytes(schemes[i].front(), m.rows, m.cols));
    fixed[weight] -= bytes;
    fixed[memory] -= bytes;
    fixed[time] -= now.matrix(base, m.name);
  }
  fixed[memory] -= real(use.batch) * kv_cache_bytes(base, kv_of(base, use), use.context);
}

void Search::Impl::add_branch(const Activation& activation, double loss) {
  Branch branch{activation, loss, {}};
  std::map<std::string, Seconds> by_scheme;  // all matrices in one scheme
  const Seconds now = decode(base, std::nullopt);
  for (std::size_t i = 0; i < s.matrices.size(); i++) {
    const MatrixLosses& m = s.matrices[i];
    branch.items.emplace_back();
    for (const Scheme& scheme : schemes[i]) {
      const bool kept = scheme == schemes[i].front();
      const std::string word = to_string(scheme);
      if (!kept && !by_scheme.contains(word)) {
        Spec spec = base;
        for (const MatrixLosses& each : s.matrices) put(spec, each.name, scheme, activation);
        by_scheme[word] = decode(spec, std::nullopt);
      }
      const Seconds& seconds = kept ? now : by_scheme[word];
      double kl = 0;
      for (const SchemeLoss& o : m.options)
        if (!kept && o.scheme == scheme) kl = o.kl;
      const i64 bytes = stored_bytes(scheme, m.rows, m.cols);
      branch.items.back().push_back({kl, {bytes, bytes, in_ticks(seconds.matrix(base, m.name))}});
    }
  }
  branch.items.emplace_back();
  for (const auto& kv : caches) {
    double kl = 0;
    for (const CacheLoss& c : s.caches)
      if (kv && c.scheme == *kv) kl = c.kl;
    const double bytes =
        real(use.batch) * kv_cache_bytes(base, kv ? *kv : kv_of(base, use), use.context);
    branch.items.back().push_back(
        {kl, {0, static_cast<i64>(std::ceil(bytes)), in_ticks(decode(base, kv).at("attention"))}});
  }
  branches.push_back(std::move(branch));
}

Proposal Search::Impl::proposal(const Branch& branch, const std::vector<std::size_t>& picks) const {
  Proposal p;
  p.loss = 0;
  bool quantized = false;
  for (std::size_t i = 0; i < schemes.size(); i++) {
    p.schemes.push_back(schemes[i][picks[i]]);
    p.loss += branch.items[i][picks[i]].loss;
    quantized = quantized || (picks[i] > 0 && in_blocks(s.matrices[i].name));
  }
  p.kv = caches[picks.back()];
  p.loss += branch.items.back()[picks.back()].loss;
  if (quantized) {
    p.activation = branch.activation;
    p.loss += branch.loss;
  }
  const Spec spec = planned(base, s, p);
  Use now = use;
  if (p.kv) now.kv = p.kv;
  const Prediction predicted = predict(spec, hardware, now);
  p.weight_bytes = weight_bytes(spec);
  p.memory_bytes = predicted.memory.total();
  p.seconds_per_token = predicted.seconds_per_token;
  p.tokens_per_second = predicted.decode_tokens_per_second;
  p.prefill_tokens_per_second = predicted.prefill_tokens_per_second;
  return p;
}

std::optional<Proposal> Search::Impl::best_of(const Branch& branch, const Limits& limits) const {
  const std::array<std::optional<double>, costs> wanted = {limits.bytes, limits.memory,
                                                           limits.seconds_per_token};
  std::array<double, costs> asked{};
  for (std::size_t k = 0; k < costs; k++) asked[k] = wanted[k].value_or(0);
  for (int i = 0; i < corrections; i++) {
    std::vector<i64> room(costs, no_limit);
    for (std::size_t k = 0; k < costs; k++)
      if (wanted[k])
        room[k] = static_cast<i64>(
            std::floor(std::clamp((asked[k] - fixed[k]) * (k == time ? ticks : 1), -1.0, 4e18)));
    const auto s_ = select(branch.items, room);
    if (!s_) return std::nullopt;
    Proposal p = proposal(branch, s_->picks);
    if (within(p, limits)) return p;
    const std::array<double, costs> found = {real(p.weight_bytes), p.memory_bytes,
                                             p.seconds_per_token};
    for (std::size_t k = 0; k < costs; k++)
      if (wanted[k] && found[k] > *wanted[k])
        asked[k] -= 1.1 * (found[k] - *wanted[k]) + 1e-6 * *wanted[k];
  }
  return std::nullopt;
}

// No recipe costs less.
double Search::Impl::least_cost(Axis axis) const {
  const std::size_t k = static_cast<std::size_t>(axis);
  double least = std::numeric_limits<double>::infinity();
  for (const Branch& branch : branches) {
    double sum = 0;
    for (const auto& options : branch.items) {
      i64 cheapest = options.front().costs[k];
      for (const SelectOption& o : options) cheapest = std::min(cheapest, o.costs[k]);
      sum += real(cheapest);
    }
    least = std::min(least, fixed[k] + (k == time ? sum / ticks : sum));
  }
  return least;
}

Search::Search(Sensitivities s, Spec base, Hardware hardware, Use use)
    : impl_(std::make_unique<Impl>()) {
  impl_->s = std::move(s);
  impl_->base = std::move(base);
  impl_->hardware = std::move(hardware);
  impl_->use = std::move(use);
  impl_->list_options();
  impl_->add_branch({}, 0);
  for (const ActivationLoss& a : impl_->s.activations)
    if (a.activation.per != Activation::Per::none) impl_->add_branch(a.activation, a.kl);
}

Search::~Search() = default;

const Sensitivities& Search::sensitivities() const { return impl_->s; }

Proposal Search::as_it_is() const {
  return impl_->proposal(impl_->branches.front(),
                         std::vector<std::size_t>(impl_->schemes.size() + 1, 0));
}

std::optional<Proposal> Search::best(const Limits& limits) const {
  std::optional<Proposal> best;
  for (const Branch& branch : impl_->branches) {
    auto p = impl_->best_of(branch, limits);
    if (p && (!best || p->loss < best->loss)) best = std::move(p);
  }
  return best;
}

namespace {

Limits with(Limits limits, Axis axis, double most) {
  std::optional<double>& limit = axis == Axis::bytes    ? limits.bytes
                                 : axis == Axis::memory ? limits.memory
                                                        : limits.seconds_per_token;
  limit = limit ? std::min(*limit, most) : most;
  return limits;
}

// `points` of them, spread evenly over the logarithms of cost and loss together.
std::vector<Proposal> thinned(std::vector<Proposal> all, Axis axis, std::size_t points) {
  if (all.size() <= points || points < 2) return all;
  const auto span = [&](double a, double b) { return std::abs(std::log(a / b)); };
  const double width = span(cost_of(all.back(), axis), cost_of(all.front(), axis));
  const double height = span(all.back().loss, all.front().loss);
  std::vector<double> along = {0};
  for (std::size_t i = 1; i < all.size(); i++)
    along.push_back(along.back() +
                    std::hypot(span(cost_of(all[i], axis), cost_of(all[i - 1], axis)) / width,
                               span(all[i].loss, all[i - 1].loss) / height));
  std::vector<Proposal> kept;
  std::size_t next = 0;
  for (std::size_t k = 0; k < points; k++) {
    const double target =
        along.back() * real(static_cast<i64>(k)) / real(static_cast<i64>(points - 1));
    const std::size_t last = all.size() - (points - k);  // the rest must find room
    std::size_t best = next;
    for (std::size_t i = next; i <= last; i++)
      if (std::abs(along[i] - target) < std::abs(along[best] - target)) best = i;
    kept.push_back(std::move(all[best]));
    next = best + 1;
  }
  return kept;
}

}  // namespace

std::optional<Proposal> Search::cheapest(Axis axis, double loss, const Limits& limits) const {
  std::optional<Proposal> found;
  double low = impl_->least_cost(axis), high = cost_of(as_it_is(), axis);
  if (const auto top = best(limits); top && top->loss <= loss) {
    found = top;
    high = cost_of(*top, axis);
  }
  for (int i = 0; i < bisections && high > low * (1 + 1e-6); i++) {
    const double middle = std::sqrt(low * high);
    auto p = best(with(limits, axis, middle));
    if (p && p->loss <= loss) {
      high = cost_of(*p, axis);
      found = std::move(p);
    } else {
      low = middle;
    }
  }
  return found;
}

std::vector<Proposal> Search::front(Axis axis, const Limits& limits, double most_loss,
                                    std::size_t points) const {
  const auto top = best(limits);
  if (!top) return {};
  const double low = impl_->least_cost(axis), high = cost_of(*top, axis);
  std::vector<Proposal> all;
  const std::size_t steps = oversampling * points;
  for (std::size_t i = 0; i <= steps; i++) {
    const double budget =
        i == steps
            ? high
            : low * std::pow(high / low, real(static_cast<i64>(i)) / real(static_cast<i64>(steps)));
    auto p = best(with(limits, axis, budget * (1 + 1e-9)));
    if (p && p->loss > least_loss && p->loss <= most_loss) all.push_back(std::move(*p));
  }
  std::stable_sort(all.begin(), all.end(), [&](const Proposal& a, const Proposal& b) {
    const double x = cost_of(a, axis), y = cost_of(b, axis);
    return x != y ? x < y : a.loss < b.loss;
  });
  std::vector<Proposal> kept;
  for (Proposal& p : all)
    if (kept.empty() || p.loss < kept.back().loss) kept.push_back(std::move(p));
  return thinned(std::move(kept), axis, points);
}

Search::Nearest Search::nearest(const Limits& limits) const {
  const auto excess_of = [&](const Proposal& p) {
    double excess = 0;
    const auto add = [&](const std::optional<double>& limit, double found) {
      if (limit) excess = std::max(excess, found / *limit - 1);
    };
    add(limits.bytes, real(p.weight_bytes));
    add(limits.memory, p.memory_bytes);
    add(limits.seconds_per_token, p.seconds_per_token);
    return excess;
  };
  Nearest nearest{as_it_is(), 0};
  nearest.excess = excess_of(nearest.proposal);
  double low = 0;
  for (int i = 0; i < bisections && nearest.excess - low > 1e-4 * (1 + nearest.excess); i++) {
    const double middle = (low + nearest.excess) / 2;
    Limits wider = limits;
    for (std::optional<double>* limit : {&wider.bytes, &wider.memory, &wider.seconds_per_token})
      if (*limit) **limit *= 1 + middle;
    if (auto p = best(wider))
      nearest = {*p, excess_of(*p)};
    else
      low = middle;
  }
  return nearest;
}

double cost_of(const Proposal& p, Axis axis) {
  if (axis == Axis::bytes) return real(p.weight_bytes);
  return axis == Axis::memory ? p.memory_bytes : p.seconds_per_token;
}

bool within(const Proposal& p, const Limits& limits) {
  return (!limits.bytes || real(p.weight_bytes) <= *limits.bytes) &&
         (!limits.memory || p.memory_bytes <= *limits.memory) &&
         (!limits.seconds_per_token || p.seconds_per_token <= *limits.seconds_per_token);
}

Spec planned(Spec spec, const Sensitivities& s, const Proposal& p) {
  PARE_CHECK(p.schemes.size() == s.matrices.size());
  for (std::size_t i = 0; i < p.schemes.size(); i++)
    put(spec, s.matrices[i].name, p.schemes[i], p.activation);
  if (p.kv) spec.kv = p.kv;
  return spec;
}

}  // namespace pare
