// SmoothQuant: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), w_j over all matrices that read x_j.
//
// alpha 0 makes the largest weight of every column alike, alpha 1 the largest input. 0.5 is the
// published default; larger models were published with 0.8 to 0.9, which their authors found by
// trying. The search tries too, but knows sooner: for each alpha it rounds the scaled weights and a
// sample of real tokens divided by the scale, multiplies, and compares with the products of the
// floats. That takes in what a bound from maxima cannot: how large the other inputs of a token are
// beside its largest, which is all that per-token scales are about.
//
// As published, scales and column maxima are at least 1e-5. An input that was zero on all tokens
// keeps scale 1 (the formula gives it 1e-5 and would multiply it by 100000 should it ever come).
#include "pass/quantize/smoothquant.h"

#include <algorithm>
#include <cmath>

#include "pass/quantize/outliers.h"

namespace pare {
namespace {

using Absorb = ScaleGroup::Absorb;

Tensor view_of(Matrix<const float> m) {
  Tensor t;
  t.shape = {m.rows, m.cols};
  t.codes = {nullptr, std::as_bytes(std::span(m.data, static_cast<std::size_t>(m.rows * m.cols)))};
  return t;
}

// W x^T for all tokens: the small factor is packed, the rows of W are its batch. (out, tokens)
std::vector<float> product(Matrix<const float> w, Matrix<const float> x, Pool& pool) {
  std::vector<float> y(static_cast<std::size_t>(w.rows * x.rows));
  PackedLinear(view_of(x), {}, 0, isa_here(), pool).apply(w, {y.data(), w.rows, x.rows}, pool);
  return y;
}

class Simulation {
 public:
  Simulation(const InputStatistics& in, Pool& pool) : in_(in), pool_(pool) {}

  void add(Matrix<const float> weights, const MatrixTarget& target, i64 limit) {
    Member m{even_rows(weights, target.scheme, limit), {}, target};
    m.outputs = product(view(m), in_.sample_view(), pool_);
    for (float y : m.outputs) power_ += static_cast<double>(y) * y;
    members_.push_back(std::move(m));
  }

  // Relative error of the products with scale s; empty: ones.
  double error(const std::vector<float>& s) const {
    double sum = 0;
    for (const Member& m : members_) {
      const std::vector<float> y = simulated(m, s);
      for (std::size_t i = 0; i < y.size(); i++) {
        const double e = static_cast<double>(y[i]) - m.outputs[i];
        sum += e * e;
      }
    }
    return power_ > 0 ? sum / power_ : sum;
  }

 private:
  struct Member {
    std::vector<float> weights, outputs;  // (some rows, in), (some rows, tokens)
    MatrixTarget target;
  };
  Matrix<const float> view(const Member& m) const {
    return {m.weights.data(), static_cast<i64>(m.weights.size()) / in_.size(), in_.size()};
  }

  std::vector<float> simulated(const Member& m, const std::vector<float>& s) const {
    const std::size_t n = static_cast<std::size_t>(in_.size());
    std::vector<float> w = m.weights, x = in_.sample;
    InputStatistics scaled;
    scaled.max_abs = in_.max_abs;
    for (std::size_t i = 0; i < w.size() && !s.empty(); i++) w[i] *= s[i % n];
    for (std::size_t i = 0; i < x.size() && !s.empty(); i++) x[i] /= s[i % n];
    for (std::size_t i = 0; i < n && !s.empty(); i++) scaled.max_abs[i] /= s[i];
    const Matrix<float> tokens{x.data(), in_.sample_view().rows, in_.size()};
    const Activation& a = m.target.activation;
    if (a.per != Activation::Per::none)
      simulate_activations(tokens, a, a.is_static ? static_activation_scale(scaled, a) : 0, tokens);
    if (rounds(m.target))
      w = round_trip({w.data(), view(m).rows, in_.size()}, m.target.scheme, m.target.fit,
                     importances(&in_, s), pool_);
    return product({w.data(), view(m).rows, in_.size()}, tokens, pool_);
  }

  const InputStatistics& in_;
  Pool& pool_;
  std::vector<Member> members_;
  double power_ = 0;
};

std::vector<float> column_maxima(const std::vector<const Values*>& matrices) {
  std::vector<float> top(static_cast<std::size_t>(matrices.front()->matrix().cols));
  for (const Values* v : matrices)
    for (std::size_t i = 0; i < v->data.size(); i++)
      top[i % top.size()] = std::max(top[i % top.size()], std::abs(v->data[i]));
  return top;
}

std::vector<float> candidate(const InputStatistics& in, const std::vector<float>& weights,
                             double alpha) {
  std::vector<float> s(in.max_abs.size(), 1.0f);
  for (std::size_t k = 0; k < s.size(); k++) {
    const double x = in.max_abs[k], w = std::max<double>(weights[k], 1e-5);
    if (x != 0)
      s[k] = static_cast<float>(std::max(std::pow(x, alpha) / std::pow(w, 1 - alpha), 1e-5));
  }
  return s;
}

// Why a group is left alone; empty when it is not.
std::string obstacle(const ScaleGroup& group, const Statistics& statistics,
                     const MatrixTargets& targets, const SmoothQuantOptions& o) {
  const bool any = std::any_of(group.matrices.begin(), group.matrices.end(), [&](const auto& m) {
    const auto it = targets.find(m);
    return it != targets.end() && it->second.activation.per != Activation::Per::none;
  });
  if (!any) return "its inputs are not quantized";
  if (group.absorb == Absorb::stored) return "nothing before it can absorb a scale";
  if (group.absorb != Absorb::norm && !o.all) return "no norm stands before it";
  const auto in = statistics.inputs.find(group.input);
  if (in == statistics.inputs.end() || in->second.tokens == 0) return "no statistics";
  return {};
}

void choose(ScaleChoice& choice, const BlockValues& values, const Spec& spec, i64 block,
            const InputStatistics& in, const MatrixTargets& targets, const SmoothQuantOptions& o,
            Pool& pool) {
  std::vector<const Values*> matrices;
  Simulation simulation(in, pool);
  const bool sampled = in.sample_view().rows > 0;
  for (const std::string& name : choice.group.matrices) {
    const Values& v = values.find(name + ".weight")->second;
    PARE_CHECK(v.shape.back() == in.size());
    matrices.push_back(&v);
    const auto target = targets.find(name);
    if (sampled && target != targets.end())
      simulation.add(v.matrix(), target->second, o.sample_rows);
  }
  const std::vector<float> weights = column_maxima(matrices);
  const auto at = [&](double alpha) {
    return shareable(spec, choice.group, block, candidate(in, weights, alpha));
  };
  const bool search = o.alpha < 0 && sampled;
  choice.before = sampled ? simulation.error({}) : 0;
  if (!search) {
    const double alpha = o.alpha < 0 ? 0.5 : o.alpha;
    choice.scale = at(alpha);
    choice.after = sampled ? simulation.error(choice.scale) : 0;
    choice.note = fmt::format("alpha {:.2f}{}", alpha,
                              o.alpha < 0 ? ": the statistics hold no tokens to search with" : "");
    return;
  }
  choice.after = choice.before;
  choice.note = "no scale is better";
  for (int i = 0; i <= o.points; i++) {
    const double alpha = static_cast<double>(i) / o.points;
    std::vector<float> s = at(alpha);
    const double error = simulation.error(s);
    if (!(error < choice.after)) continue;
    choice.after = error;
    choice.scale = std::move(s);
    choice.note = fmt::format("alpha {:.2f}, searched", alpha);
  }
}

}  // namespace

std::vector<ScaleChoice> smoothquant_scales(const BlockValues& values, const Spec& spec, i64 block,
                                            const Statistics& statistics,
                                            const MatrixTargets& targets,
                                            const SmoothQuantOptions& o, Pool& pool) {
  std::vector<ScaleChoice> choices;
  for (ScaleGroup& group : scale_groups(spec, block)) {
    ScaleChoice choice;
    choice.note = obstacle(group, statistics, targets, o);
    choice.group = std::move(group);
    if (choice.note.empty())
      choose(choice, values, spec, block, statistics.inputs.find(choice.group.input)->second,
             targets, o, pool);
    choices.push_back(std::move(choice));
  }
  return choices;
}

}  // namespace pare
