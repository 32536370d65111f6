// Where formats cross.
//
// Times of a step grow piecewise linearly with the batch, so two of them may cross more than once;
// a grid of batches finds the first interval in which one is faster, and bisection its ends.
#include "cost/compare.h"

#include <algorithm>
#include <cmath>

#include "cost/rates.h"

namespace pare {
namespace {

constexpr double margin = 1e-3, largest = 65536;

bool same_product(const Operation& a, const Operation& b) {
  return a.in == b.in && a.out == b.out && a.scheme == b.scheme && a.activation == b.activation &&
         a.weight_bytes == b.weight_bytes && a.flops == b.flops;
}

}  // namespace

std::vector<SchemeShare> block_schemes(const Spec& spec) {
  std::vector<SchemeShare> list;
  double all = 0;
  for (const auto& [name, linear] : linears(spec)) {
    if (name == "head") continue;
    const double weights = static_cast<double>(linear->in) * static_cast<double>(linear->out);
    const auto it = std::find_if(list.begin(), list.end(), [l = linear](const SchemeShare& s) {
      return s.scheme == l->scheme && s.activation == l->activation;
    });
    if (it != list.end())
      it->share += weights;
    else
      list.push_back({linear->scheme, linear->activation, weights});
    all += weights;
  }
  for (SchemeShare& s : list) s.share /= std::max(1.0, all);
  std::stable_sort(list.begin(), list.end(),
                   [](const SchemeShare& a, const SchemeShare& b) { return a.share > b.share; });
  return list;
}

std::string to_string(const SchemeShare& s) {
  if (s.activation.per == Activation::Per::none) return to_string(s.scheme);
  return to_string(s.scheme) + " x " + to_string(s.activation);
}

StepProducts step_products(const Spec& spec, const Hardware& h) {
  StepProducts products;
  Load load;
  load.packed = h.measured;
  for (Operation& op : operations(spec, load)) {
    products.pass_bytes += op.weight_bytes;
    if (!op.product) continue;
    std::size_t i = 0;
    while (i < products.operations.size() && !same_product(products.operations[i], op)) i++;
    if (i == products.operations.size()) {
      products.rates.push_back(executed_rate(op.scheme, op.activation, h));
      products.operations.push_back(std::move(op));
      products.counts.push_back(0);
    }
    products.counts[i]++;
  }
  return products;
}

double products_seconds(const StepProducts& products, const Hardware& h, double batch,
                        int threads) {
  double seconds = 0;
  for (std::size_t i = 0; i < products.operations.size(); i++) {
    const Operation& op = products.operations[i];
    double one =
        std::max(op.weight_bytes / h.bytes_per_second, op.flops * batch / products.rates[i]);
    if (h.engine != nullptr) {
      Operation many = op;
      many.rows = std::llround(batch);
      many.flops *= batch;
      one = operation_seconds(*h.engine, h.engine->team(threads), many, products.pass_bytes);
    }
    seconds += products.counts[i] * one;
  }
  return seconds;
}

Faster faster(const StepProducts& first, const StepProducts& second, const Hardware& h,
              int threads) {
  const auto wins = [&](double batch) {
    return products_seconds(first, h, batch, threads) <
           (1 - margin) * products_seconds(second, h, batch, threads);
  };
  const auto edge = [&](double low, double high) {  // wins(low) != wins(high)
    const bool before = wins(low);
    while (high - low > 1e-3 * low) {
      const double middle = (low + high) / 2;
      (wins(middle) == before ? low : high) = middle;
    }
    return high;
  };
  Faster result;
  double last = 1;
  if (wins(1)) result.from = 1;
  for (double batch = 1.25; batch <= largest; batch *= 1.25) {
    if (!result.from && wins(batch)) {
      result.from = edge(last, batch);
    } else if (result.from && !wins(batch)) {
      result.until = edge(last, batch);
      break;
    }
    last = batch;
  }
  return result;
}

std::string to_string(const Faster& f) {
  if (!f.from) return "never";
  const double from = std::ceil(*f.from);
  if (!f.until) return from <= 1 ? "always" : fmt::format("from batch {:.0f}", from);
  const double until = std::max(from, std::floor(*f.until));
  if (from <= 1) return fmt::format("to batch {:.0f}", until);
  return fmt::format("batch {:.0f} to {:.0f}", from, until);
}

}  // namespace pare
