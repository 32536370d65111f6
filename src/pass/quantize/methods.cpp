// Methods, as combinations of scales and solvers.
//
//   method        scales               a matrix
//   rtn           -                    nearest, ranges weighted by E[x^2]
//   gptq          -                    GPTQ
//   awq           AWQ                  AWQ's clipping, then nearest
//   smoothquant   SmoothQuant          nearest
//   llm-int8      -                    outlier columns taken out, then nearest
//   hqq           -                    HQQ
//   auto          AWQ                  GPTQ or clipping and nearest, whichever errs less
#include "pass/quantize/methods.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "pass/quantize/awq.h"
#include "pass/quantize/smoothquant.h"

namespace pare {
namespace {

constexpr const char* words[] = {"rtn", "gptq", "awq", "smoothquant", "llm-int8", "hqq", "auto"};

Solution clip_and_round(const MatrixTask& task, Pool& pool) {
  Clipped clipped = awq_clip(task, AwqOptions(), pool);
  MatrixTask narrow = task;
  narrow.weights = {clipped.weights.data(), task.weights.rows, task.weights.cols};
  Solution solution = solve_rtn(narrow, pool);
  if (clipped.groups > 0)
    solution.notes.push_back(fmt::format("{} groups clipped", clipped.groups));
  return solution;
}

Solution better_of_both(const MatrixTask& task, const MethodOptions& options, Pool& pool) {
  Solution gptq = solve_gptq(task, options.gptq, pool);
  Solution nearest = options.clip ? clip_and_round(task, pool) : solve_rtn(task, pool);
  const bool first =
      output_loss(task, gptq.tensor, pool) <= output_loss(task, nearest.tensor, pool);
  Solution& chosen = first ? gptq : nearest;
  chosen.notes.push_back(first ? "gptq" : "nearest");
  return std::move(chosen);
}

}  // namespace

Method parse_method(const std::string& text) {
  for (std::size_t i = 0; i < std::size(words); i++)
    if (text == words[i]) return static_cast<Method>(i);
  const std::string best = nearest(text, {std::begin(words), std::end(words)});
  fail(Exit::usage, "QU-020", fmt::format("there is no method {}", pare::quoted(text)),
       {{"need", fmt::format("{}", fmt::join(words, ", "))}},
       best.empty() ? "" : fmt::format("did you mean {}?", best));
}

std::string to_string(Method method) { return words[static_cast<int>(method)]; }

bool needs_data(Method method) { return method != Method::rtn && method != Method::hqq; }

std::string describe(const MethodOptions& o) {
  std::string line = " method=" + to_string(o.method);
  if (o.method == Method::gptq || o.method == Method::automatic)
    line += fmt::format(" damping={} act-order={} polish={}", o.gptq.damping,
                        to_string(o.gptq.order), o.gptq.polish);
  if (o.method == Method::awq && !o.clip) line += " clip=off";
  if (o.method == Method::smoothquant)
    line += o.alpha < 0 ? std::string(" alpha=searched") : fmt::format(" alpha={}", o.alpha);
  if (o.method == Method::llm_int8) line += fmt::format(" threshold={}", o.outlier_threshold);
  if (o.data != nullptr) line += " data=" + o.data->source;
  return line;
}

bool moves_scales(Method m) {
  return m == Method::awq || m == Method::smoothquant || m == Method::automatic;
}

bool needs_gram(Method m) {
  return m == Method::gptq || m == Method::awq || m == Method::automatic ||
         m == Method::smoothquant;
}

std::vector<std::string> move_scales(BlockValues& values, Spec& spec, i64 block,
                                     Statistics& statistics, const std::vector<Target>& targets,
                                     const MethodOptions& options, Pool& pool) {
  MatrixTargets by_name;
  for (const Target& t : targets) by_name[t.name] = {t.scheme, t.activation, t.fit};
  std::vector<ScaleChoice> choices;
  if (options.method == Method::smoothquant) {
    SmoothQuantOptions smooth;
    smooth.alpha = options.alpha;
    choices = smoothquant_scales(values, spec, block, statistics, by_name, smooth, pool);
  } else {
    AwqOptions awq;
    awq.stored = false;
    choices = awq_scales(values, spec, block, statistics, by_name, awq, pool);
  }
  apply_choices(choices, block, values, spec, statistics);
  std::vector<std::string> notes;
  for (const ScaleChoice& c : choices)
    notes.push_back(fmt::format("scale of {}: {}", c.group.input, c.note));
  return notes;
}

Solution solve_matrix(const MatrixTask& task, const MethodOptions& options, Pool& pool) {
  switch (options.method) {
    case Method::gptq:
      return solve_gptq(task, options.gptq, pool);
    case Method::awq:
      return options.clip ? clip_and_round(task, pool) : solve_rtn(task, pool);
    case Method::hqq:
      return solve_hqq(task, options.hqq, pool);
    case Method::automatic:
      return better_of_both(task, options, pool);
    case Method::rtn:
    case Method::smoothquant:
    case Method::llm_int8:
      return solve_rtn(task, pool);
  }
  PARE_CHECK(false);
}

KvRanges::KvRanges(const Spec& spec, BlockRange range) {
  for (i64 b = range.first; b < range.first + range.count; b++) {
    const Attention& a = spec.blocks[static_cast<std::size_t>(b)].attn;
    if (a.mla() || !a.k.present()) continue;
    KvStatistics s;
    s.k_min.assign(static_cast<std::size_t>(a.k.out), HUGE_VALF);
    s.k_max.assign(s.k_min.size(), -HUGE_VALF);
    s.v_min.assign(static_cast<std::size_t>(a.v.out), HUGE_VALF);
    s.v_max.assign(s.v_min.size(), -HUGE_VALF);
    list_.emplace_back(b, std::move(s));
  }
  for (auto& [block, s] : list_) {
    by_stage_[fmt::format("blocks.{}.attn.k", block)] = &s;
    by_stage_[fmt::format("blocks.{}.attn.v", block)] = &s;
  }
}

Tap KvRanges::tap() {
  Tap tap;
  tap.stage = [this](const std::string& stage, Matrix<const float> x) {
    const auto it = by_stage_.find(stage);
    if (it == by_stage_.end()) return;
    const bool keys = stage.back() == 'k';
    std::vector<float>& low = keys ? it->second->k_min : it->second->v_min;
    std::vector<float>& high = keys ? it->second->k_max : it->second->v_max;
    for (i64 r = 0; r < x.rows; r++)
      for (std::size_t k = 0; k < low.size(); k++) {
        low[k] = std::min(low[k], x.row(r)[k]);
        high[k] = std::max(high[k], x.row(r)[k]);
      }
  };
  return tap;
}

std::vector<std::pair<i64, KvStatistics>> KvRanges::finish() { return std::move(list_); }

}  // namespace pare
