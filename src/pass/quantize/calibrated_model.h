// The embedded model, calibrated on half of a text it has not seen, measured on the other half:
// what the tests of the calibrated methods share.
#pragma once

#include <map>

#include "engine/testing.h"
#include "file/io.h"
#include "pass/quantize/scales.h"
#include "pass/quantize/testing.h"
#include "text/tokenizer.h"

namespace pare::testing {

constexpr i64 window = 256;

inline Ids heldout_ids() {
  const Tokenizer tokenizer = load_tokenizer(source_path("models/pare-tales"));
  return tokenizer.encode(read_text_file(source_path("models/heldout.txt"), 1 << 20), false);
}

// What the inputs of all matrices are like on `ids`, window by window.
inline Statistics calibrate(const Model& model, std::span<const std::int32_t> ids, Pool& pool) {
  std::map<std::string, InputSum, std::less<>> sums;
  for (const InputSlot& slot : input_slots(model.spec))
    sums.emplace(slot.name, InputSum(slot.size, true));
  Tap tap;
  tap.input = [&](const std::string& name, Matrix<const float> x) {
    const auto it = sums.find(name);
    if (it != sums.end()) it->second.add(x, pool);
  };
  Engine engine(model, pool, options_with(isa_here(), Code::f32));
  for (std::size_t at = 0; at < ids.size(); at += static_cast<std::size_t>(window)) {
    KvCache cache = engine.make_cache(window);
    const Input input{&cache, ids.subspan(at, std::min<std::size_t>(window, ids.size() - at))};
    engine.step({&input, 1}, Want::all, &tap);
  }
  Statistics s;
  for (auto& [name, sum] : sums) s.inputs[name] = sum.finish(pool);
  return s;
}

struct Calibrated {
  Model model;  // in f32
  Statistics statistics;
  Ids rest;  // not calibrated on
};
inline const Calibrated& tales() {
  static const Calibrated c = [] {
    Pool pool(2);
    Calibrated made;
    made.model = in_floats(load_model(source_path("models/pare-tales").string()));
    const Ids ids = heldout_ids();
    const std::size_t half = ids.size() / 2;
    made.statistics = calibrate(made.model, std::span(ids).first(half), pool);
    made.rest.assign(ids.begin() + static_cast<std::ptrdiff_t>(half), ids.end());
    return made;
  }();
  return c;
}

// Mean KL(p || q) in nats over all positions of `ids`, window by window.
inline double divergence(const Model& p, const Model& q, const Ids& ids, Pool& pool) {
  Engine first(p, pool, options_with(isa_here(), Code::f32)),
      second(q, pool, options_with(isa_here(), Code::f32));
  const auto vocab = static_cast<std::size_t>(p.spec.vocab);
  double sum = 0;
  std::size_t positions = 0;
  for (std::size_t at = 0; at < ids.size(); at += static_cast<std::size_t>(window)) {
    const Ids some(ids.begin() + static_cast<std::ptrdiff_t>(at),
                   ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), at + window)));
    const std::vector<float> a = logits_of(first, some), b = logits_of(second, some);
    for (std::size_t t = 0; t < some.size(); t++) {
      const auto log_sum = [&](const std::vector<float>& x) {
        double top = -HUGE_VAL, total = 0;
        for (std::size_t i = 0; i < vocab; i++) top = std::max(top, double{x[t * vocab + i]});
        for (std::size_t i = 0; i < vocab; i++) total += std::exp(x[t * vocab + i] - top);
        return top + std::log(total);
      };
      const double la = log_sum(a), lb = log_sum(b);
      for (std::size_t i = 0; i < vocab; i++) {
        const double lp = a[t * vocab + i] - la, lq = b[t * vocab + i] - lb;
        sum += std::exp(lp) * (lp - lq);
      }
    }
    positions += some.size();
  }
  return sum / static_cast<double>(positions);
}

// The same target for every matrix of the blocks.
inline MatrixTargets targets_of(const Spec& spec, const std::string& scheme,
                                const std::string& activation = "none",
                                const FitOptions& fit = {}) {
  MatrixTargets targets;
  for (const auto& [name, linear] : linears(spec))
    if (name != "head") targets[name] = {parse_scheme(scheme), parse_activation(activation), fit};
  return targets;
}

// sum over the rows of e^T G e by its definition, in double.
inline double output_square(Matrix<const float> e, const InputStatistics& in) {
  double sum = 0;
  for (i64 r = 0; r < e.rows; r++)
    for (i64 i = 0; i < e.cols; i++) {
      double ge = 0;
      for (i64 k = 0; k < e.cols; k++) ge += double{in.gram_view().row(i)[k]} * e.row(r)[k];
      sum += ge * e.row(r)[i];
    }
  return sum;
}

}  // namespace pare::testing
