// From logits to one token.
//
// The filters need the candidates in descending order, but rarely many of them: they are popped
// from a heap (O(n) to build, O(log n) each) until the filters are content. With no filter on, no
// order is needed and the draw walks the vocabulary as it lies.
//
// The exponential is computed here with additions and multiplications only, so that a seed gives
// the same token whatever the machine's mathematical library.
//
// top-p: Holtzman et al. 2020, nucleus sampling. min-p: Nguyen et al. 2024, arXiv 2407.01082.
#include "engine/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace pare {
namespace {

// exp(x) for x <= 0: 2^k exp(r), |r| <= ln(2) / 2, and 14 terms of the series (error below 1e-16).
double exp_of(double x) {
  if (!(x > -700)) return 0;
  constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
  const double k = std::floor(x * 1.4426950408889634074 + 0.5);
  const double r = (x - k * ln2_high) - k * ln2_low;
  double sum = 1;
  for (int n = 14; n >= 1; n--) sum = 1 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

// A NaN is never the best and never drawn.
float cleaned(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

struct Candidate {
  float logit;
  std::int32_t id;
  double weight;
};
// Heap order: the largest logit first, the lowest id of equals.
bool below(const Candidate& a, const Candidate& b) {
  return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

// The place where the running sum of weights passes a uniform fraction of all of them.
template <class Weight>
std::size_t draw(std::size_t count, double total, Random& random, const Weight& weight) {
  double left = random.uniform() * total;
  std::size_t last = 0;
  for (std::size_t i = 0; i < count; i++) {
    const double w = weight(i);
    if (w > 0) last = i;
    left -= w;
    if (left < 0) return i;
  }
  return last;  // rounding ate the end
}

// The candidates that top-k, top-p and min-p leave, best first; each filter works on what the one
// before it left. `total` is the weight of all.
template <class Weight>
std::vector<Candidate> filter(std::span<const float> logits, const SampleOptions& o, double total,
                              const Weight& weight) {
  std::vector<Candidate> heap(logits.size());
  for (std::size_t i = 0; i < heap.size(); i++)
    heap[i] = {cleaned(logits[i]), static_cast<std::int32_t>(i), 0};
  std::make_heap(heap.begin(), heap.end(), below);
  auto end = heap.end();
  std::vector<Candidate> kept;
  const auto pop = [&] {
    std::pop_heap(heap.begin(), end, below);
    kept.push_back(*--end);
    kept.back().weight = weight(kept.back().logit);
  };
  std::size_t most = heap.size();
  if (o.top_k > 0 && static_cast<std::size_t>(o.top_k) < most) {
    most = static_cast<std::size_t>(o.top_k);
    total = 0;
    while (kept.size() < most) {
      pop();
      total += kept.back().weight;
    }
  }
  double mass = 0;
  for (std::size_t i = 0; i < most; i++) {
    if (i == kept.size()) pop();
    const bool enough = i > 0 && ((o.top_p < 1 && mass >= o.top_p * total) ||
                                  kept[i].weight < o.min_p);  // the best has weight 1
    if (enough) {
      kept.resize(i);
      break;
    }
    mass += kept[i].weight;
  }
  return kept;
}

void require(bool good, const char* what, double found, const char* need) {
  if (!good)
    fail(Exit::usage, "EN-010", fmt::format("the sampling {} is out of range", what),
         {{"found", fmt::format("{}", found)}, {"need", need}});
}

}  // namespace

void check(const SampleOptions& o) {
  require(o.temperature >= 0 && o.temperature <= 100, "temperature", o.temperature, "0 to 100");
  require(o.top_k >= 0, "top-k", o.top_k, "0 or more");
  require(o.top_p > 0 && o.top_p <= 1, "top-p", o.top_p, "above 0, at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "min-p", o.min_p, "0 to 1");
}

std::int32_t greedy(std::span<const float> logits) {
  PARE_CHECK(!logits.empty());
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits.size(); i++)
    if (cleaned(logits[i]) > cleaned(logits[best])) best = i;
  return static_cast<std::int32_t>(best);
}

std::int32_t sample(std::span<const float> logits, const SampleOptions& o, Random& random) {
  const std::int32_t best = greedy(logits);
  const float top = cleaned(logits[static_cast<std::size_t>(best)]);
  if (o.temperature == 0 || !std::isfinite(top)) return best;
  const auto weight = [&](float logit) {
    return exp_of((static_cast<double>(cleaned(logit)) - top) / o.temperature);
  };
  double total = 0;
  for (float logit : logits) total += weight(logit);
  if (o.top_k == 0 && o.top_p == 1 && o.min_p == 0)
    return static_cast<std::int32_t>(
        draw(logits.size(), total, random, [&](std::size_t i) { return weight(logits[i]); }));
  const std::vector<Candidate> kept = filter(logits, o, total, weight);
  double mass = 0;
  for (const Candidate& c : kept) mass += c.weight;
  return kept[draw(kept.size(), mass, random, [&](std::size_t i) { return kept[i].weight; })].id;
}

}  // namespace pare
