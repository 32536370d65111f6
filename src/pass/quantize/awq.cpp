// AWQ: a search over one number a group of matrices.
//
// Candidates are the published ones: with a = mean|x| of each input and ratios r on a grid of 20,
//   plain  s = max(a^r, 1e-4)
//   duo    s = a^r / (w^(1-r) + 1e-4), w the mean over all rows of |W| / (its group's largest)
// divided by sqrt(max s min s) (AutoAWQ and llm-awq). r = 0 of the plain form is no scale, so a
// group never loses.
//
// What is minimized differs. The published search runs the surrounding module on a sample of tokens
// for each candidate and compares its outputs. Here the error is that of the products themselves
// over all calibration tokens, sum over the group's matrices of
//   E|(W - Q(W diag(s)) diag(1/s)) x|^2 = tr(E G E^T),  G the mean of x x^T.
// It needs no forward pass and no tokens kept, depends on nothing outside the group (so groups and
// blocks may come in any order), and is exact where a sample is not. What it cannot see is that an
// error of q or k passes a softmax; published inspections of the whole attention can.
//
// Large matrices are tried on an even sample of rows. The winner is then held against no scale on
// all rows, so sampling may miss the best candidate but never chooses a bad one.
//
// An input that was zero on all tokens says nothing about its scale: it keeps 1 and stays out of
// the normalization. The published formula gives it 1e-4, which erases its column and multiplies
// the input by ten thousand should it ever come.
#include "pass/quantize/awq.h"

#include <algorithm>
#include <cmath>

namespace pare {
namespace {

std::size_t at(i64 k) { return static_cast<std::size_t>(k); }

bool spans_rows(const Scheme& s) {
  return s.grouping == Grouping::tensor || s.grouping == Grouping::block;
}

i64 group_width(const Scheme& s, i64 cols) {
  return s.grouping == Grouping::group || s.grouping == Grouping::block ? std::min(s.cols, cols)
                                                                        : cols;
}

// A matrix of the group, or some of its rows.
struct Member {
  Matrix<const float> rows;  // (n, in)
  MatrixTarget target;
  std::vector<float> kept;  // the rows, unless they are those of the block
};

class Group {
 public:
  Group(const InputStatistics& in, std::vector<Member> members, const OutputNorm& norm, Pool& pool)
      : in_(in), members_(std::move(members)), norm_(norm), pool_(pool) {
    for (const Member& m : members_) power_ += norm_.total(m.rows, &pool_);
  }

  // tr(E G E^T) / tr(W G W^T) over the members; s empty: ones.
  double error(std::span<const float> s) const {
    double sum = 0;
    for (const Member& m : members_) sum += error_of(m, s);
    return power_ > 0 ? sum / power_ : sum > 0 ? HUGE_VAL : sum;
  }

 private:
  // In pieces of rows, so that a large matrix is not held four times over.
  double error_of(const Member& m, std::span<const float> s) const {
    const Scheme& scheme = m.target.scheme;
    const bool whole =
        scheme.grouping == Grouping::tensor || (scheme.second_level && scheme.super_count == 0);
    const i64 unit = scheme.grouping == Grouping::block ? scheme.rows : 1;
    const i64 piece = whole ? m.rows.rows : std::max<i64>(1, 1024 / unit) * unit;
    const std::vector<float> importance = importances(&in_, s);
    double sum = 0;
    for (i64 r = 0; r < m.rows.rows; r += piece)
      sum += error_of({m.rows.row(r), std::min(piece, m.rows.rows - r), m.rows.cols}, m.target, s,
                      importance);
    return sum;
  }

  double error_of(Matrix<const float> w, const MatrixTarget& target, std::span<const float> s,
                  std::span<const float> importance) const {
    std::vector<float> scaled(w.data, w.data + w.rows * w.cols);
    for (std::size_t i = 0; i < scaled.size() && !s.empty(); i++) scaled[i] *= s[i % s.size()];
    std::vector<float> e =
        round_trip({scaled.data(), w.rows, w.cols}, target.scheme, target.fit, importance, pool_);
    for (std::size_t i = 0; i < e.size(); i++)
      e[i] = w.data[i] - (s.empty() ? e[i] : e[i] / s[i % s.size()]);
    return norm_.total({e.data(), w.rows, w.cols}, &pool_);
  }

  const InputStatistics& in_;
  std::vector<Member> members_;
  const OutputNorm& norm_;
  Pool& pool_;
  double power_ = 0;
};

// Mean over the rows of all matrices of |W| / (largest magnitude of its group).
std::vector<double> mean_magnitude(const std::vector<const Values*>& matrices,
                                   const std::vector<MatrixTarget>& targets) {
  std::vector<double> sum(at(matrices.front()->matrix().cols));
  double rows = 0;
  for (std::size_t m = 0; m < matrices.size(); m++) {
    const Matrix<const float> w = matrices[m]->matrix();
    const i64 width = group_width(targets[m].scheme, w.cols);
    rows += static_cast<double>(w.rows);
    for (i64 r = 0; r < w.rows; r++)
      for (i64 c = 0; c < w.cols; c += width) {
        const i64 end = std::min(w.cols, c + width);
        float top = 0;
        for (i64 k = c; k < end; k++) top = std::max(top, std::abs(w.row(r)[k]));
        for (i64 k = c; k < end; k++) sum[at(k)] += std::abs(w.row(r)[k]) / (top + 1e-6);
      }
  }
  for (double& x : sum) x /= rows;
  return sum;
}

// One candidate before it is made shareable. `w` empty: plain.
std::vector<float> candidate(const InputStatistics& in, const std::vector<double>& w,
                             double ratio) {
  std::vector<float> s(at(in.size()), 1.0f);
  double least = HUGE_VAL, most = 0;
  for (i64 k = 0; k < in.size(); k++) {
    const double a = in.mean_abs(k);
    if (a == 0) continue;
    const double under = w.empty() ? 1.0 : std::pow(w[at(k)], 1 - ratio) + 1e-4;
    const double value = std::max(std::pow(a, ratio) / under, 1e-4);
    s[at(k)] = static_cast<float>(value);
    if (!std::isfinite(value)) continue;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  const double middle = std::sqrt(most * least);
  for (i64 k = 0; k < in.size(); k++)
    if (in.mean_abs(k) != 0) s[at(k)] = static_cast<float>(s[at(k)] / middle);
  return s;
}

struct Found {
  std::vector<float> scale;
  double error = 0;
  std::string how = "no scale is better";
};

Found search(const Group& trial, const InputStatistics& in, const std::vector<double>& w,
             const AwqOptions& o,
             const std::function<std::vector<float>(std::vector<float>)>& share) {
  Found best;
  best.error = trial.error({});
  for (bool duo : {false, true}) {
    if (duo ? !o.duo : !o.plain) continue;
    for (int i = duo ? 0 : 1; i < o.points; i++) {
      const double ratio = static_cast<double>(i) / o.points;
      std::vector<float> s = share(candidate(in, duo ? w : std::vector<double>(), ratio));
      const double error = trial.error(s);
      if (!(error < best.error)) continue;
      best = {std::move(s), error, fmt::format("ratio {:.2f}{}", ratio, duo ? ", duo" : "")};
    }
  }
  return best;
}

// Why no scale may be tried; empty when one may.
std::string obstacle(const ScaleGroup& group, const Statistics& statistics,
                     const MatrixTargets& targets, const AwqOptions& o) {
  const bool any = std::any_of(group.matrices.begin(), group.matrices.end(), [&](const auto& m) {
    const auto it = targets.find(m);
    return it != targets.end() && rounds(it->second);
  });
  if (!any) return "nothing is quantized";
  if (group.absorb == ScaleGroup::Absorb::stored && !o.stored)
    return "nothing before it can absorb a scale";
  const auto in = statistics.inputs.find(group.input);
  if (in == statistics.inputs.end() || in->second.tokens == 0) return "no statistics";
  const bool rows =
      group.absorb == ScaleGroup::Absorb::rows || group.absorb == ScaleGroup::Absorb::heads;
  const auto source = targets.find(group.source);
  if (rows && source != targets.end() && spans_rows(source->second.scheme))
    return fmt::format("rows of {} share scales", group.source);
  return {};
}

ScaleChoice choose(ScaleChoice choice, const BlockValues& values, const Spec& spec, i64 block,
                   const InputStatistics& in, const MatrixTargets& targets, const AwqOptions& o,
                   Pool& pool) {
  std::vector<const Values*> matrices;
  std::vector<MatrixTarget> kept;
  std::vector<Member> some, all;
  bool sampled = false;
  for (const std::string& name : choice.group.matrices) {
    const auto target = targets.find(name);
    if (target == targets.end() || !rounds(target->second)) continue;
    const Values& v = values.find(name + ".weight")->second;
    PARE_CHECK(v.shape.back() == in.size());
    matrices.push_back(&v);
    kept.push_back(target->second);
    Member& m = some.emplace_back();
    m.kept = even_rows(v.matrix(), target->second.scheme, o.sample_rows);
    m.rows = {m.kept.data(), static_cast<i64>(m.kept.size()) / in.size(), in.size()};
    m.target = target->second;
    all.push_back({v.matrix(), target->second, {}});
    sampled = sampled || m.kept.size() < v.data.size();
  }
  const OutputNorm norm(in, pool);
  const Group trial(in, std::move(some), norm, pool);
  Found found = search(trial, in, mean_magnitude(matrices, kept), o, [&](std::vector<float> s) {
    return shareable(spec, choice.group, block, std::move(s));
  });
  choice.note = found.how;
  choice.before = trial.error({});
  choice.after = found.error;
  if (sampled) {
    const Group whole(in, std::move(all), norm, pool);
    choice.before = choice.after = whole.error({});
    const double with = found.scale.empty() ? choice.before : whole.error(found.scale);
    if (with < choice.before) {
      choice.after = with;
    } else if (!found.scale.empty()) {
      found.scale.clear();
      choice.note = "no scale is better on all rows";
    }
  }
  if (!std::isfinite(choice.before)) choice.note = "statistics are not finite";
  choice.scale = std::move(found.scale);
  return choice;
}

}  // namespace

std::vector<ScaleChoice> awq_scales(const BlockValues& values, const Spec& spec, i64 block,
                                    const Statistics& statistics, const MatrixTargets& targets,
                                    const AwqOptions& o, Pool& pool) {
  std::vector<ScaleChoice> choices;
  for (ScaleGroup& group : scale_groups(spec, block)) {
    ScaleChoice choice;
    choice.note = obstacle(group, statistics, targets, o);
    choice.group = std::move(group);
    if (choice.note.empty()) {
      const InputStatistics& in = statistics.inputs.find(choice.group.input)->second;
      choice = choose(std::move(choice), values, spec, block, in, targets, o, pool);
    }
    choices.push_back(std::move(choice));
  }
  return choices;
}

}  // namespace pare
