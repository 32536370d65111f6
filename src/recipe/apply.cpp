// Steps one after the other, each from what the work folder has of it.
//
// A run that goes on walks through all steps again: a step whose pieces are all there costs the
// opening of its files. What a step has to know before it can plan, the outlier columns of
// LLM.int8(), is a piece of its own.
#include "recipe/apply.h"

#include <algorithm>
#include <optional>

#include "file/io.h"
#include "file/publish.h"
#include "kernel/isa.h"
#include "pass/quantize/outliers.h"
#include "pass/work.h"
#include "recipe/quality.h"

namespace pare {
namespace {

using Outliers = decltype(MethodOptions::outliers);

constexpr const char* outlier_file = "columns.json";

// Whether the step learns from what it is given. `spec` is what it changes.
bool learns(const Step& step, const Spec& spec, bool given) {
  const auto* o = std::get_if<QuantizeOptions>(&step.options);
  if (o == nullptr) return false;
  const Method m = o->method.method;
  if (!needs_data(m) && !(given && m != Method::hqq)) return false;
  const std::vector<Choice> choices = choose_matrices(spec, *o);
  return std::any_of(choices.begin(), choices.end(),
                     [](const Choice& c) { return c.name != "embed"; });
}

// Rounding alone streams from the input to the output: there is nothing to lose. Methods solve for
// each matrix, with data or (hqq) without.
bool solves(const Recipe& recipe) {
  return std::any_of(recipe.steps.begin(), recipe.steps.end(), [](const Step& step) {
    const auto* o = std::get_if<QuantizeOptions>(&step.options);
    return o != nullptr && o->method.method != Method::rtn;
  });
}

// ---- outliers ----

Outliers find_outliers(const Model& model, const MethodOptions& method, Context& context) {
  Outliers found;
  const auto visit = [&](const std::string& input, const InputStatistics& s) {
    if (input == "head") return;
    std::vector<std::int32_t> columns =
        outlier_columns(s, static_cast<float>(method.outlier_threshold));
    if (!columns.empty()) found[input] = std::move(columns);
  };
  if (method.data->statistics != nullptr) {
    for (const InputSlot& input : input_slots(model.spec))
      visit(input.name, method.data->statistics->read(input.name));
  } else {
    collect_statistics(model, *method.data, false, context, visit);
  }
  return found;
}

std::string text_of(const Outliers& outliers) {
  Json all = Json::object();
  for (const auto& [input, columns] : outliers) {
    Json::Array list;
    for (std::int32_t c : columns) list.emplace_back(c);
    all.set(input, Json(std::move(list)));
  }
  return all.dump() + "\n";
}

// Columns that do not ascend within their input would be read out of bounds.
Outliers read_outliers(const std::filesystem::path& file, const Spec& spec) {
  Outliers outliers;
  const Json all = parse_json(read_text_file(file, std::size_t{1} << 28), file.string());
  for (const InputSlot& input : input_slots(spec)) {
    const Json* list = all.find(input.name);
    if (list == nullptr) continue;
    i64 last = -1;
    for (const Json& column : list->as_array()) {
      const i64 c = column.as_int();
      if (c <= last || c >= input.size)
        fail_input("WK-002", "a file of unfinished work is damaged", {{"file", file.string()}},
                   "start again with --restart");
      outliers[input.name].push_back(static_cast<std::int32_t>(c));
      last = c;
    }
  }
  return outliers;
}

Outliers outliers_once(const Model& model, const MethodOptions& method, const std::string& part,
                       Context& context) {
  WorkFolder& work = *context.work;
  work.enter(part);
  const std::filesystem::path file = work.file(outlier_file);
  if (work.pieces().empty()) {
    write_file(file, text_of(find_outliers(model, method, context)));
    work.commit(Json::object({{"files", Json::array({Json(outlier_file)})}}));
  }
  return read_outliers(file, model.spec);
}

// ---- what is known before any work ----

// Which steps learn; planned in passing, so what is wrong with any step is said here.
std::vector<bool> learners(const Recipe& recipe, const Spec& base, const DataSource& data) {
  std::vector<bool> out;
  Spec spec = base;
  const std::vector<Pass> all = passes(recipe);
  for (std::size_t i = 0; i < all.size(); i++) {
    const Spec planned = all[i].plan(spec);
    const bool learner = learns(recipe.steps[i], spec, data.given());
    if (const auto* o = std::get_if<QuantizeOptions>(&recipe.steps[i].options); o && !learner)
      require_data_for_static(spec, *o);
    if (learner && !data.statistics.empty() && std::count(out.begin(), out.end(), true) > 0)
      fail(Exit::usage, "QU-023", "statistics are of the model as it was before the first step",
           {{"recipe", recipe.source}, {"line", std::to_string(recipe.steps[i].line)}},
           "give --text or --ids: they are run through every step's model");
    out.push_back(learner);
    spec = planned;
  }
  return out;
}

// What is given and looked at by nothing is a mistake.
void refuse_idle(const Recipe& recipe, const ApplyOptions& o, bool learning) {
  const bool works = learning || solves(recipe);
  if (!learning && o.data.given())
    fail(Exit::usage, "QU-024", "no step learns from data", {},
         "leave out --text, --ids and --stats");
  const bool flows = learning && o.data.statistics.empty();
  const bool own_measure = recipe.gates.max_kl && !o.eval_text && !(learning && o.data.text);
  const bool own_text = (flows && !o.data.given()) || own_measure;
  const char* data = "a method that learns from data, or --text or --ids";
  const struct {
    const char* name;
    bool given, used;
    const char* need;
  } all[] = {
      {"--strict", o.strict, learning, data},
      {"--restart", o.restart, works, "a step that does more than round to nearest"},
      {"--ram", o.ram_bytes > 0, flows, data},
      {"--tokens", o.data.wish.tokens.has_value(), flows || own_measure, data},
      {"--length", o.data.wish.length.has_value(), flows || own_measure, data},
      {"--data-seed", o.data.wish.seed.has_value(), own_text, "text that the model writes"},
      {"[data]", recipe.data != DataWish(), flows || own_measure, data},
  };
  for (const auto& item : all)
    if (item.given && !item.used)
      fail(Exit::usage, "CL-035", fmt::format("{} has no effect here", item.name),
           {{"need", item.need}});
}

DataSource with_wishes(DataSource data, const DataWish& recipe) {
  if (!data.wish.tokens) data.wish.tokens = recipe.tokens;
  if (!data.wish.length) data.wish.length = recipe.length;
  if (!data.wish.seed) data.wish.seed = recipe.seed;
  return data;
}

std::string line_of(const Recipe& recipe) {
  std::string line;
  for (const Pass& pass : passes(recipe)) line += (line.empty() ? "" : "; ") + pass.line;
  return line;
}

class Application {
 public:
  Application(const Model& base, const Recipe& recipe, const ApplyOptions& options, Pool& pool,
              const Log& log)
      : base_(base), recipe_(recipe), options_(options), pool_(pool), log_(log) {
    options_.data = with_wishes(options_.data, recipe_.data);
    context_.seed = options_.data.seed();
    context_.ram_bytes = options_.ram_bytes;
  }

  Applied run(const std::filesystem::path& out, const std::vector<bool>& learning) {
    const bool any = std::count(learning.begin(), learning.end(), true) > 0;
    Provenance provenance{recipe_.text, identity(base_, log_), {}, PARE_VERSION, 0};
    const double keep = any && recipe_.gates.max_kl && !options_.eval_text ? 0.1 : 0;
    if (any) {
      provenance.data = identity(options_.data, base_.spec);
      provenance.seed = options_.data.seed();
    }
    std::optional<WorkFolder> work;
    if (any || solves(recipe_)) {
      work.emplace(out, signature(provenance, keep), options_.restart);
      context_.work = &*work;
    }
    if (any)
      data_ = make_calibration(base_, options_.data, keep, rest_, pool_, log_, context_.work);
    Applied applied;
    context_.report = &applied.matrices;
    applied.bytes_before = weight_bytes(base_.spec);
    applied.model = base_;
    for (std::size_t i = 0; i < recipe_.steps.size(); i++) step(applied.model, i, learning[i]);
    applied.line = line_of(recipe_);
    finish(applied, std::move(provenance));
    applied.saved = save_model(applied.model, out, options_.force, log_);
    if (work) work->remove();
    return applied;
  }

 private:
  // All that decides the bytes of unfinished work.
  std::vector<std::string> signature(const Provenance& p, double keep) const {
    std::vector<std::string> lines = {std::string("pare ") + PARE_VERSION,
                                      "arithmetic " + isa_name(isa_here()), line_of(recipe_),
                                      "input " + p.base};
    if (!p.data.empty())
      lines.push_back(fmt::format("data {}, {} of it kept for measuring", p.data, keep));
    return lines;
  }

  // The step is bound to its data in recipe_, which is ours.
  void step(Model& model, std::size_t i, bool learning) {
    const std::string part = fmt::format("step-{}", i);
    if (auto* o = std::get_if<QuantizeOptions>(&recipe_.steps[i].options); o && learning) {
      o->method.data = data_;
      o->method.strict = options_.strict;
      if (o->method.method == Method::llm_int8)
        o->method.outliers = outliers_once(model, o->method, part + "-outliers", context_);
    }
    if (context_.work != nullptr) context_.work->enter(part);
    const Pass pass = passes(recipe_)[i];
    const Spec planned = pass.plan(model.spec);
    model = pass.run(std::move(model), context_);
    PARE_CHECK(model.spec == planned);
  }

  void finish(Applied& applied, Provenance provenance) {
    enforce_bytes(recipe_, applied.model.spec);
    applied.quality =
        measure_quality(base_, applied.model, recipe_, options_, std::move(rest_), pool_, log_);
    enforce_kl(recipe_, applied.quality);
    for (Evidence& e : evidence_of(applied.quality)) applied.model.evidence.push_back(std::move(e));
    applied.model.provenance.push_back(std::move(provenance));
  }

  const Model& base_;
  Recipe recipe_;
  ApplyOptions options_;
  Pool& pool_;
  const Log& log_;
  Context context_{pool_, log_};
  std::shared_ptr<const Calibration> data_;
  std::vector<std::int32_t> rest_;
};

}  // namespace

Applied apply(const Model& base, const Recipe& recipe, const ApplyOptions& options,
              const std::filesystem::path& out, Pool& pool, const Log& log) {
  const std::vector<bool> learning = learners(recipe, base.spec, options.data);
  refuse_idle(recipe, options, std::count(learning.begin(), learning.end(), true) > 0);
  const Spec planned = plan(recipe, base.spec);
  enforce_bytes(recipe, planned);
  {
    Publisher check(out, options.force, Publisher::Kind::folder, base.path, weight_bytes(planned));
  }
  return Application(base, recipe, options, pool, log).run(out, learning);
}

Spec plan(const Recipe& recipe, Spec spec) {
  for (const Pass& pass : passes(recipe)) spec = pass.plan(std::move(spec));
  return spec;
}

}  // namespace pare
