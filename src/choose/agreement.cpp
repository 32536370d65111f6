// Kendall's rank correlation, and the one factor by which predictions are off.
#include "choose/agreement.h"

#include <algorithm>
#include <cmath>

namespace pare {

Agreement agreement(const std::vector<LossPair>& list) {
  Agreement a;
  std::vector<double> logs;
  for (std::size_t i = 0; i < list.size(); i++) {
    if (list[i].predicted > 0 && list[i].measured > 0)
      logs.push_back(std::log(list[i].measured / list[i].predicted));
    for (std::size_t j = 0; j < i; j++) {
      const double order =
          (list[i].predicted - list[j].predicted) * (list[i].measured - list[j].measured);
      a.pairs += order != 0;
      a.inverted += order < 0;
    }
  }
  if (a.pairs > 0) a.tau = 1 - 2 * static_cast<double>(a.inverted) / static_cast<double>(a.pairs);
  if (logs.empty()) return a;
  const double n = static_cast<double>(logs.size());
  double mean = 0, square = 0;
  for (double x : logs) mean += x / n;
  for (double x : logs) square += (x - mean) * (x - mean);
  a.scale = std::exp(mean);
  a.low = std::exp(*std::min_element(logs.begin(), logs.end()));
  a.high = std::exp(*std::max_element(logs.begin(), logs.end()));
  a.systematic = logs.size() >= 3 && std::abs(mean) > 2 * std::sqrt(square / (n - 1) / n);
  return a;
}

}  // namespace pare
