// What a roofline shows of models: their operations on a machine, by the cost model.
//
// The blocks of a model are mostly equal, and equal operations have one place on a roofline, so
// they are one row with the blocks it stands for. What computes nothing (lookups) has no place.
#include <algorithm>
#include <map>
#include <tuple>

#include "cost/predict.h"
#include "report/report.h"

namespace pare {
namespace {

// "blocks.3.attn.q" -> "attn.q"
std::string kind_of(const Operation& op) {
  const std::string front = fmt::format("blocks.{}.", op.block);
  return op.block >= 0 && op.name.starts_with(front) ? op.name.substr(front.size()) : op.name;
}

// "0-3, 7" of ascending numbers.
std::string ranges(const std::vector<i64>& numbers) {
  std::string text;
  for (std::size_t begin = 0; begin < numbers.size();) {
    std::size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) end++;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", numbers[begin]);
    if (end - begin > 1) text += fmt::format("-{}", numbers[end - 1]);
    begin = end;
  }
  return text;
}

void add_pass(ReportMachine& machine, const StepTime& step, const char* kind, int series) {
  using Key = std::tuple<std::string, double, double, double, std::string>;
  std::map<Key, std::size_t> rows;
  std::vector<std::vector<i64>> blocks;
  const std::size_t first = machine.operations.size();
  for (const OperationTime& t : step.operations) {
    const Operation& op = t.operation;
    if (!(op.flops > 0)) continue;
    const Key key{kind_of(op), op.flops, op.bytes(), t.seconds, t.code};
    const auto [it, fresh] = rows.try_emplace(key, blocks.size());
    if (fresh) {
      machine.operations.push_back({kind_of(op), kind, t.code, std::string(to_string(t.limit)),
                                    series, op.flops, op.bytes(), t.seconds, ""});
      blocks.emplace_back();
    }
    if (op.block >= 0) blocks[it->second].push_back(op.block);
  }
  for (std::size_t i = 0; i < blocks.size(); i++)
    if (!blocks[i].empty()) machine.operations[first + i].blocks = ranges(blocks[i]);
}

}  // namespace

ReportMachine machine_of(const Hardware& hardware, const Report& report) {
  ReportMachine machine;
  machine.name = hardware.name;
  machine.bytes_per_second = hardware.bytes_per_second;
  for (const auto& [code, rate] : hardware.rate) machine.ceilings.push_back({code, rate});
  i64 longest = 2048;
  std::vector<std::pair<const ReportModel*, int>> models;
  if (report.base) models.emplace_back(&*report.base, 0);
  for (std::size_t i = 0; i < report.models.size(); i++)
    models.emplace_back(&report.models[i], static_cast<int>(i) + 1);
  for (const auto& [m, series] : models)
    if (m->spec.max_positions > 1) longest = std::min(longest, m->spec.max_positions - 1);
  Load decode, prefill;
  decode.context = longest;
  prefill.tokens = std::min<i64>(512, longest);
  machine.use = fmt::format("one sequence, decode behind {} positions, prefill of {} tokens",
                            decode.context, prefill.tokens);
  for (const auto& [m, series] : models) {
    decode.kv = prefill.kv = default_kv(m->spec);
    add_pass(machine, predict_pass(m->spec, hardware, decode, 0), "decode", series);
    add_pass(machine, predict_pass(m->spec, hardware, prefill, 0), "prefill", series);
  }
  return machine;
}

}  // namespace pare
