// From logits to a token: temperature, top-k, top-p (Holtzman et al. 2020), min-p (Nguyen et al.
// 2024), draw.
//
// Candidates are ordered by logit, then id, and probabilities are summed in that order in double,
// so the same seed gives the same token everywhere.
#include "engine/sample.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace pare {

void check(const SampleOptions& o) {
  const auto refuse = [](const char* field, double found, const char* need) {
    fail(Exit::usage, "EN-010", fmt::format("the sampling {} is out of range", field),
         {{"found", fmt::format("{}", found)}, {"need", need}});
  };
  if (!(o.temperature >= 0 && o.temperature <= 100))
    refuse("temperature", o.temperature, "0 to 100");
  if (o.top_k < 0) refuse("top-k", o.top_k, "0 or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top-p", o.top_p, "above 0, at most 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) refuse("min-p", o.min_p, "0 to 1");
}

std::int32_t greedy(std::span<const float> logits) {
  PARE_CHECK(!logits.empty());
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::int32_t sample(std::span<const float> logits, const SampleOptions& o, Random& random) {
  if (o.temperature == 0) return greedy(logits);
  struct Candidate {
    float logit;
    std::int32_t id;
  };
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < all.size(); i++) all[i] = {logits[i], static_cast<std::int32_t>(i)};
  const auto higher = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const std::size_t keep =
      o.top_k > 0 ? std::min(all.size(), static_cast<std::size_t>(o.top_k)) : all.size();
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(keep), all.end(),
                    higher);
  all.resize(keep);
  std::vector<double> weight(keep);
  double total = 0;
  for (std::size_t i = 0; i < keep; i++)
    total += weight[i] =
        std::exp((static_cast<double>(all[i].logit) - all[0].logit) / o.temperature);
  std::size_t count = keep;
  double mass = 0;
  for (std::size_t i = 0; i < keep; i++) {
    if (i > 0 && (mass >= o.top_p * total || weight[i] < o.min_p * weight[0])) {
      count = i;
      break;
    }
    mass += weight[i];
  }
  double left = random.uniform() * mass;
  for (std::size_t i = 0; i < count; i++) {
    left -= weight[i];
    if (left < 0) return all[i].id;
  }
  return all[count - 1].id;
}

}  // namespace pare
