// The walk over the blocks.
//
// A range of blocks (one, but for those that share caches) is taken as floats; scales are chosen
// and moved within it; its matrices are solved in the order in which it computes, each on the
// inputs that the codes before it make; then it is committed to the work folder and its floats are
// dropped. So memory holds the hidden states of the calibration, one range, and the Gram matrices
// of one input (those of a block, where scales are chosen).
//
// What an unquantized part of the block is stored as is settled before anything is solved: the
// inputs of later matrices are made by what the file will hold.
#include "pass/quantize/calibrated.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>

#include "file/io.h"
#include "pass/quantize/block.h"
#include "pass/quantize/flow.h"
#include "pass/quantize/methods.h"
#include "pass/quantize/outliers.h"
#include "pass/quantize/scales.h"
#include "pass/work.h"

namespace pare {
namespace {

Linear& linear_of(Spec& spec, const std::string& name) {
  for (auto& [n, linear] : linears(spec))
    if (n == name) return *linear;
  PARE_CHECK(false);
}

Weight in_memory(Tensor t) {
  Weight w;
  w.scheme = t.scheme;
  w.shape = t.shape;
  w.load = [t = std::move(t)] { return t; };
  return w;
}

i64 block_of(const std::string& slot) {
  return slot.starts_with("blocks.") ? std::stoll(slot.substr(7)) : -1;
}

// Something stands between the input of a Linear and its matrix.
bool conditions(const Linear& l) {
  return l.input_scaled || l.permuted || l.rotation > 0 || l.outliers > 0;
}

// Statistics of what the matrix itself multiplies (engine/net.h says in which order it is made).
InputStatistics condition(InputStatistics s, const Linear& l, const std::string& name,
                          const BlockValues& values) {
  if (l.rotation > 0)
    fail_input(
        "QU-025",
        "the inputs of a matrix are rotated; methods that learn from data need them as they are",
        {{"matrix", name}}, "leave it out with --skip, or use --method rtn without data");
  if (l.input_scaled) scale_statistics(s, values.at(name + ".input_scale").data);
  const auto n = static_cast<std::size_t>(s.size());
  std::vector<std::size_t> from(n);
  for (std::size_t k = 0; k < n; k++) from[k] = k;
  if (l.permuted) {
    const std::vector<float>& order = values.at(name + ".permutation").data;
    for (std::size_t k = 0; k < n; k++) from[k] = static_cast<std::size_t>(order[k]);
  }
  std::vector<float> keep(n, 1.0f);
  if (l.outliers > 0)
    for (float k : values.at(name + ".outlier_index").data) keep[static_cast<std::size_t>(k)] = 0;
  InputStatistics out = s;
  for (std::size_t k = 0; k < n; k++) {
    out.sum_abs[k] = s.sum_abs[from[k]] * double{keep[k]};
    out.sum_square[k] = s.sum_square[from[k]] * double{keep[k]};
    out.max_abs[k] = s.max_abs[from[k]] * keep[k];
  }
  for (std::vector<float> InputStatistics::*matrix :
       {&InputStatistics::gram, &InputStatistics::sample}) {
    const bool square = matrix == &InputStatistics::gram;
    for (std::size_t r = 0; r < (s.*matrix).size() / n; r++)
      for (std::size_t k = 0; k < n; k++)
        (out.*matrix)[r * n + k] =
            (s.*matrix)[(square ? from[r] : r) * n + from[k]] * keep[k] * (square ? keep[r] : 1.0f);
  }
  return out;
}

// As the journal keeps it, so that a run that goes on reports those of the run before.
Json json_of(const MatrixReport& m) {
  Json::Array notes(m.notes.begin(), m.notes.end());
  return Json::array({Json(m.name), Json(m.scheme), Json(m.nearest_error), Json(m.error),
                      Json(m.seconds), Json(std::move(notes))});
}
MatrixReport matrix_of(const Json& row) {
  const Json::Array& m = row.as_array();
  MatrixReport report{m.at(0).as_string(), m.at(1).as_string(), m.at(2).as_number(),
                      m.at(3).as_number(), m.at(4).as_number(), {}};
  for (const Json& note : m.at(5).as_array()) report.notes.push_back(note.as_string());
  return report;
}

class Walk {
 public:
  Walk(Model model, const Spec& planned, const std::vector<Target>& targets,
       const MethodOptions& options, Context& context)
      : model_(std::move(model)),
        planned_(planned),
        targets_(targets),
        options_(options),
        context_(context),
        progress_(context.log, "quantize", static_cast<double>(targets.size()), "matrices") {}

  Model run() {
    const std::vector<BlockRange> ranges = block_ranges(planned_);
    ranges_ = ranges.size();
    const std::size_t done = resume(ranges);
    const bool flows = options_.data != nullptr && options_.data->statistics == nullptr;
    if (flows && (done == 0 || needs_hidden(done - 1))) start_flow(done);
    for (std::size_t i = done; i < ranges.size(); i++) {
      stop_if_interrupted();
      range(i, ranges[i]);
    }
    if (done <= ranges.size() && target_of("head") != nullptr) head(ranges.size());
    model_.spec = planned_;
    return std::move(model_);
  }

 private:
  // ---- one range ----

  void range(std::size_t index, BlockRange where) {
    const std::vector<InputSlot> wanted = wanted_in(where);
    const std::size_t first_evidence = model_.evidence.size();
    work_ = Model();
    work_.spec = model_.spec;
    work_.weights = model_.weights;
    work_.family = model_.family;
    values_.clear();
    for (i64 b = where.first; b < where.first + where.count; b++)
      values_.merge(block_values(model_, b));
    const BlockValues original = values_;
    show_floats(where, original);
    choose_scales(where, wanted);
    settle(where, original);
    show_floats(where, original);
    solve(index, where, wanted);
    Weights changed;
    for (const Slot& slot : slots(planned_)) {
      if (slot.block < where.first || slot.block >= where.first + where.count) continue;
      const auto value = values_.find(slot.name);
      const auto before = original.find(slot.name);
      const bool target = solved_.contains(slot.name);
      const bool same = !target && value != values_.end() && before != original.end() &&
                        value->second.data == before->second.data;
      if (!same) changed.emplace(slot.name, final_weight(slot));
    }
    commit(index, changed, first_evidence);
    planned_are(where);
  }

  std::vector<InputSlot> wanted_in(BlockRange where) const {
    std::vector<InputSlot> wanted;
    for (const InputSlot& input : input_slots(planned_)) {
      const i64 block = block_of(input.name);
      if (block < where.first || block >= where.first + where.count) continue;
      if (std::any_of(input.members.begin(), input.members.end(),
                      [&](const std::string& m) { return target_of(m) != nullptr; }))
        wanted.push_back(input);
    }
    return wanted;
  }

  const Target* target_of(const std::string& name) const {
    const auto it = std::find_if(targets_.begin(), targets_.end(),
                                 [&](const Target& t) { return t.name == name; });
    return it == targets_.end() ? nullptr : &*it;
  }

  // The work model's weights of the range are the floats in values_. What an earlier step has
  // quantized, and nothing here has touched, stays as it is stored, with its activations.
  void show_floats(BlockRange where, const BlockValues& original) {
    std::set<std::string> left_out;
    for (auto& [name, linear] : linears(work_.spec)) {
      const i64 block = block_of(name);
      if (block < where.first || block >= where.first + where.count) continue;
      const std::string slot = name + ".weight";
      if (!linear->scheme.plain() && target_of(name) == nullptr &&
          values_.at(slot).data == original.at(slot).data) {
        left_out.insert(slot);
        continue;
      }
      linear->scheme = Scheme{};
      linear->activation = Activation{};
      work_.weights.erase(name + ".static_scale");
      left_out.insert(name + ".static_scale");
    }
    for (const auto& [name, value] : values_) {
      if (left_out.contains(name)) continue;
      Weight w;
      w.shape = value.shape;
      w.load = [&v = value] { return plain_tensor(v.data, v.shape); };
      work_.weights.insert_or_assign(name, std::move(w));
    }
  }

  void choose_scales(BlockRange where, const std::vector<InputSlot>& wanted) {
    if (wanted.empty() || !moves_scales(options_.method)) return;
    Statistics statistics;
    if (flow_) {
      Segment segment = flow_->segment(work_, where);
      statistics.inputs = flow_->observe(segment, where, wanted, true);
      statistics.tokens = flow_->tokens();
    } else {
      for (const InputSlot& input : wanted)
        statistics.inputs.emplace(input.name, options_.data->statistics->read(input.name));
      statistics.tokens = options_.data->statistics->tokens();
    }
    for (i64 b = where.first; b < where.first + where.count; b++) {
      const std::vector<std::string> notes =
          move_scales(values_, work_.spec, b, statistics, targets_, options_, context_.pool);
      for (const std::string& note : notes)
        model_.evidence.push_back({"quantize", fmt::format("blocks.{}", b), note, 0, 0});
    }
    if (!flow_) scaled_ = std::move(statistics);
  }

  // Parts that stay floats are rounded to how they will be stored.
  void settle(BlockRange where, const BlockValues& original) {
    for (const Slot& slot : slots(planned_)) {
      if (slot.block < where.first || slot.block >= where.first + where.count) continue;
      if (slot.vector || slot.linear == nullptr || !slot.name.ends_with(".weight")) continue;
      const std::string name = slot.name.substr(0, slot.name.size() - 7);
      const auto it = values_.find(slot.name);
      if (it == values_.end() || target_of(name) != nullptr) continue;
      if (it->second.data == original.at(slot.name).data) continue;
      it->second.data =
          decode(quantize(std::as_const(it->second).matrix(), slot.scheme, {}, {}, &context_.pool));
    }
  }

  void solve(std::size_t index, BlockRange where, const std::vector<InputSlot>& wanted) {
    const auto members = [&](const InputSlot& input, const InputStatistics& statistics,
                             Segment* segment) {
      for (const std::string& name : input.members)
        if (const Target* target = target_of(name)) one(*target, input, &statistics, segment);
    };
    if (flow_) {
      Segment segment = flow_->segment(work_, where);
      const auto one_input = [&](const InputSlot& input, InputStatistics statistics) {
        members(input, statistics, &segment);
      };
      const bool gram = needs_gram(options_.method);
      if (needs_hidden(index))
        flow_->advance(segment, where, wanted, gram, one_input);
      else
        flow_->finish(segment, where, wanted, gram, one_input);
      return;
    }
    for (const InputSlot& input : wanted) {
      const bool data = options_.data != nullptr;
      if (!data)
        for (const std::string& name : input.members) {
          if (const Target* target = target_of(name)) one(*target, input, nullptr, nullptr);
        }
      else if (const auto it = scaled_.inputs.find(input.name); it != scaled_.inputs.end())
        members(input, it->second, nullptr);
      else
        members(input, options_.data->statistics->read(input.name), nullptr);
    }
    scaled_ = Statistics();
  }

  // ---- one matrix ----

  void one(const Target& target, const InputSlot& input, const InputStatistics* statistics,
           Segment* segment) {
    stop_if_interrupted();
    const auto start = std::chrono::steady_clock::now();
    const std::string slot = target.name + ".weight";
    const Linear& spec = linear_of(work_.spec, target.name);
    std::optional<InputStatistics> conditioned;
    if (statistics != nullptr && conditions(spec)) {
      conditioned = condition(*statistics, spec, target.name, values_);
      statistics = &*conditioned;
    }
    const MatrixTask task{target.name, std::as_const(values_.at(slot)).matrix(), target.scheme,
                          target.fit, statistics};
    Code outlier_code = Code::f16;
    if (const auto it = options_.outliers.find(input.name); it != options_.outliers.end())
      outlier_code = split_outliers(values_, target.name, it->second);
    const double power = output_power(task, context_.pool);
    const auto error = [&](const Tensor& stored) {
      return relative_loss(output_loss(task, stored, context_.pool), power);
    };
    const double before = error(quantize(task.weights, task.scheme, task.fit, {}, &context_.pool));
    Solution solution = solve_matrix(task, options_, context_.pool);
    const double after = error(solution.tensor);
    if (solution.degraded && options_.strict)
      fail(Exit::failed, "QU-021", "a matrix could not be solved by the method asked for",
           {{"matrix", target.name}, {"found", fmt::format("{}", fmt::join(solution.notes, "; "))}},
           "without --strict it is rounded to nearest");
    if (solution.degraded)
      context_.log.warning(fmt::format("{}: {}", target.name, fmt::join(solution.notes, "; ")));
    install(target, std::move(solution.tensor), outlier_code, statistics);
    if (segment != nullptr) segment->repack(target.name);
    model_.evidence.push_back({"quantize", target.name, "relative output error", before, after});
    for (const std::string& note : solution.notes)
      model_.evidence.push_back({"quantize", target.name, note, 0, solution.degraded ? 1.0 : 0.0});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    solved_matrices_.push_back({target.name, to_string(target.scheme), before, after,
                                seconds.count(), std::move(solution.notes)});
    progress_.add(1, target.name);
  }

  // Stores what was solved where the rest of the block's pass will find it.
  void install(const Target& target, Tensor tensor, Code outlier_code,
               const InputStatistics* statistics) {
    Linear& linear = linear_of(work_.spec, target.name);
    linear.scheme = target.scheme;
    linear.activation = target.activation;
    const auto put = [&](const std::string& suffix, Tensor t) {
      work_.weights.insert_or_assign(target.name + suffix, in_memory(std::move(t)));
      solved_.insert(target.name + suffix);
    };
    put(".weight", std::move(tensor));
    const auto outlier = values_.find(target.name + ".outlier_weight");
    if (outlier != values_.end() && !options_.outliers.empty()) {
      const Values& index = values_.at(target.name + ".outlier_index");
      linear.outliers = outlier->second.shape[1];
      put(".outlier_weight",
          plain_tensor(outlier->second.data, outlier->second.shape, outlier_code));
      put(".outlier_index", plain_tensor(index.data, index.shape));
    }
    if (linear.activation.is_static) {
      PARE_CHECK(statistics != nullptr);
      const float scale = static_activation_scale(*statistics, linear.activation);
      put(".static_scale", plain_tensor({&scale, 1}, {1}));
    }
  }

  Weight final_weight(const Slot& slot) {
    if (solved_.contains(slot.name)) return work_.weights.find(slot.name)->second;
    const Values& v = values_.at(slot.name);
    if (slot.vector || slot.linear == nullptr) return in_memory(plain_tensor(v.data, v.shape));
    return in_memory(quantize(v.matrix(), slot.scheme, {}, {}, &context_.pool));
  }

  // ---- head ----

  void head(std::size_t index) {
    const Target& target = *target_of("head");
    const std::size_t first_evidence = model_.evidence.size();
    const bool tied = !model_.weights.contains("head.weight");
    work_ = Model();
    work_.spec = model_.spec;
    work_.weights = model_.weights;
    values_.clear();
    const Tensor from = model_.weights.find(tied ? "embed.weight" : "head.weight")->second.load();
    values_["head.weight"] = {from.shape, decode(from)};
    std::optional<InputStatistics> statistics;
    if (flow_) {
      Ends ends(model_, context_.pool);
      InputSum sum(planned_.dim, needs_gram(options_.method));
      ends.normed(flow_->hidden(), [&](Matrix<const float> x) { sum.add(x, context_.pool); });
      statistics = sum.finish(context_.pool);
    } else if (options_.data != nullptr) {
      statistics = options_.data->statistics->read("head");
    }
    const InputSlot input{"head", planned_.dim, {"head"}};
    one(target, input, statistics ? &*statistics : nullptr, nullptr);
    Weights changed;
    for (const std::string& name : solved_) changed.emplace(name, work_.weights.find(name)->second);
    commit(index, changed, first_evidence);
  }

  // ---- progress on disk ----

  void report(MatrixReport matrix) {
    if (context_.report != nullptr) context_.report->push_back(std::move(matrix));
  }

  // Whether anything is made from the hidden states behind a piece.
  bool needs_hidden(std::size_t i) const {
    return i + 1 < ranges_ || (i + 1 == ranges_ && target_of("head") != nullptr);
  }

  static std::string block_file(std::size_t i) { return fmt::format("block-{:04}.safetensors", i); }
  static std::string hidden_file(std::size_t i) { return fmt::format("hidden-{:04}.f32", i); }

  // Pieces are the ranges in order, then the head.
  std::size_t resume(const std::vector<BlockRange>& ranges) {
    if (context_.work == nullptr) return 0;
    const std::vector<Json> pieces = context_.work->pieces();
    for (std::size_t i = 0; i < pieces.size(); i++) {
      take(read_slots(context_.work->file(block_file(i)), planned_));
      if (i < ranges.size()) planned_are(ranges[i]);
      for (const Json& row : pieces[i].at("matrices").as_array()) report(matrix_of(row));
      for (const Json& row : pieces[i].at("evidence").as_array()) {
        const Json::Array& e = row.as_array();
        model_.evidence.push_back({e.at(0).as_string(), e.at(1).as_string(), e.at(2).as_string(),
                                   e.at(3).as_number(), e.at(4).as_number()});
      }
    }
    if (!pieces.empty())
      context_.log.info(fmt::format("going on behind {} finished blocks",
                                    std::min(pieces.size(), ranges.size())));
    return pieces.size();
  }

  void start_flow(std::size_t done) {
    flow_.emplace(model_, options_.data->sequences, context_.ram_bytes, context_.pool);
    if (done == 0) return;
    const std::filesystem::path path = context_.work->file(hidden_file(done - 1));
    const Blob bytes = map_file(path);
    const Matrix<float> hidden = flow_->hidden();
    if (static_cast<i64>(bytes.size()) !=
        hidden.rows * hidden.cols * static_cast<i64>(sizeof(float)))
      fail_input("WK-002", "a file of unfinished work has the wrong size",
                 {{"file", path.string()}}, "start again with --restart");
    std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<std::byte*>(hidden.data));
  }

  void take(const Weights& weights) {
    for (const auto& [name, weight] : weights) model_.weights.insert_or_assign(name, weight);
  }

  // The range is what it was meant to become. What an earlier step left and this one has no slot
  // for (the scale of static activations) goes.
  void planned_are(BlockRange where) {
    std::copy_n(planned_.blocks.begin() + where.first, where.count,
                model_.spec.blocks.begin() + where.first);
    std::set<std::string, std::less<>> needed;
    for (const Slot& slot : slots(planned_)) needed.insert(slot.name);
    std::erase_if(model_.weights, [&](const auto& item) {
      const i64 block = block_of(item.first);
      return block >= where.first && block < where.first + where.count &&
             !needed.contains(item.first);
    });
  }

  void commit(std::size_t i, const Weights& changed, std::size_t first_evidence) {
    solved_.clear();
    Json::Array matrices;
    for (MatrixReport& one : solved_matrices_) {
      matrices.push_back(json_of(one));
      report(std::move(one));
    }
    solved_matrices_.clear();
    if (context_.work == nullptr) return take(changed);
    const std::filesystem::path path = context_.work->file(block_file(i));
    write_slots(path, changed);
    Json::Array files = {Json(block_file(i))}, rows;
    if (flow_ && needs_hidden(i)) {
      const Matrix<float> h = flow_->hidden();
      const auto size = static_cast<std::size_t>(h.rows * h.cols) * sizeof(float);
      write_file(context_.work->file(hidden_file(i)),
                 {reinterpret_cast<const char*>(h.data), size});
      files.emplace_back(hidden_file(i));
    }
    for (std::size_t k = first_evidence; k < model_.evidence.size(); k++) {
      const Evidence& e = model_.evidence[k];
      rows.push_back(
          Json::array({Json(e.pass), Json(e.site), Json(e.metric), Json(e.before), Json(e.after)}));
    }
    std::vector<std::string> unneeded;
    if (i > 0) unneeded.push_back(hidden_file(i - 1));
    context_.work->commit(Json::object({{"files", Json(std::move(files))},
                                        {"evidence", Json(std::move(rows))},
                                        {"matrices", Json(std::move(matrices))}}),
                          unneeded);
    take(read_slots(path, planned_));
  }

  Model model_;  // finished blocks have their final weights, the others the original ones
  const Spec& planned_;
  const std::vector<Target>& targets_;
  const MethodOptions& options_;
  Context& context_;
  Progress progress_;
  std::optional<Flow> flow_;
  std::size_t ranges_ = 0;
  // Of the range in hand.
  Model work_;
  BlockValues values_;
  Statistics scaled_;             // from a file, of inputs whose scales were moved
  std::set<std::string> solved_;  // slots whose weights are in work_
  std::vector<MatrixReport> solved_matrices_;
};

}  // namespace

void collect_statistics(const Model& model, const Calibration& data, bool gram, Context& context,
                        const std::function<void(const std::string&, InputStatistics)>& visit,
                        const std::function<void(i64, KvStatistics)>& kv) {
  Flow flow(model, data.sequences, context.ram_bytes, context.pool);
  Progress progress(context.log, "calibrate", static_cast<double>(model.spec.blocks.size()),
                    "blocks");
  for (const BlockRange& where : block_ranges(model.spec)) {
    std::vector<InputSlot> inputs;
    for (const InputSlot& input : input_slots(model.spec))
      if (const i64 b = block_of(input.name); b >= where.first && b < where.first + where.count)
        inputs.push_back(input);
    KvRanges ranges(model.spec, where);
    const Tap tap = ranges.tap();
    Segment segment = flow.segment(model, where);
    flow.advance(
        segment, where, inputs, gram,
        [&](const InputSlot& input, InputStatistics s) { visit(input.name, std::move(s)); }, &tap);
    if (kv)
      for (auto& [block, statistics] : ranges.finish()) kv(block, std::move(statistics));
    progress.add(static_cast<double>(where.count));
  }
  Ends ends(model, context.pool);
  InputSum sum(model.spec.dim, gram);
  ends.normed(flow.hidden(), [&](Matrix<const float> x) { sum.add(x, context.pool); });
  visit("head", sum.finish(context.pool));
}

Model quantize_calibrated(Model model, const Spec& planned, const std::vector<Target>& targets,
                          const MethodOptions& options, Context& context) {
  return Walk(std::move(model), planned, targets, options, context).run();
}

}  // namespace pare
