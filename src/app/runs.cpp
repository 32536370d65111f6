// pare runs: the ledger, listed, compared, and held against what was predicted.
#include <algorithm>
#include <filesystem>

#include "app/commands.h"
#include "app/figures.h"
#include "app/record.h"

namespace pare {
namespace {

std::filesystem::path demand_ledger() {
  const std::filesystem::path path = ledger_path();
  if (path.empty())
    fail(Exit::usage, "LG-005", "there is no ledger of runs: it is turned off, or there is no home",
         {}, "set PARE_LEDGER to a file");
  return path;
}

RunRecord demand_run(Ledger& ledger, i64 id) {
  if (std::optional<RunRecord> run = ledger.find(id)) return *run;
  fail(Exit::usage, "LG-006", fmt::format("there is no run {}", id), {}, "`pare runs` lists them");
}

const ProofRow* find_figure(const RunRecord& run, std::string_view metric) {
  for (const ProofRow& f : run.figures)
    if (f.metric == metric) return &f;
  return nullptr;
}

std::string out_of(const RunRecord& run, std::string_view metric) {
  const ProofRow* f = find_figure(run, metric);
  return f == nullptr ? "" : figure_text(f->out, f->unit);
}

std::string shortened(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  std::size_t cut = most - 3;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) cut--;
  return text.substr(0, cut) + "...";
}

void list(Ledger& ledger, const RunsOptions& o, const Output& out) {
  Json::Array rows;
  Table table(
      {"run", "time (UTC)", "command", "model", "recipe", "weights", "perplexity", "KL", "decode"});
  bool any = false;
  ledger.visit({o.limit, o.model}, [&](const RunRecord& run) {
    any = true;
    if (out.json) return rows.push_back(to_json(run));
    table.add({std::to_string(run.id), run.time, run.command, shortened(run.model, 40),
               shortened(run.recipe, 40), out_of(run, "weight_bytes"), out_of(run, "perplexity"),
               out_of(run, "kl_mean"), out_of(run, "decode_tokens_per_second")});
  });
  if (out.json)
    return out.result("runs", Json::object({{"ledger", Json(demand_ledger().string())},
                                            {"runs", Json(std::move(rows))}}));
  out.text(any ? table.text(true)
               : fmt::format("no runs{} in {}\n", o.model.empty() ? "" : " of such a model",
                             demand_ledger().string()));
}

std::string head(const RunRecord& run) {
  std::string text = fmt::format("run {}: {}, {}\n", run.id, run.command, run.time);
  const auto line = [&](const char* label, const std::string& value) {
    if (!value.empty()) text += fmt::format("  {:<9} {}\n", label, value);
  };
  const auto with = [](const std::string& path, const std::string& identity) {
    return identity.empty() ? path : fmt::format("{}  ({})", path, identity);
  };
  line("model", with(run.model, run.identity));
  line("base", with(run.base, run.base_identity));
  line("recipe", run.recipe);
  line("protocol", run.protocol);
  line("predicted", run.predictor.empty() ? "" : "by " + run.predictor);
  line("machine", fmt::format("{}, {}, {} threads; pare {}", run.machine.processor, run.machine.isa,
                              run.machine.threads, run.version));
  return text;
}

void show(Ledger& ledger, const RunsOptions& o, const Output& out) {
  const RunRecord run = demand_run(ledger, o.id);
  if (out.json) return out.result("runs show", Json::object({{"run", to_json(run)}}));
  out.text(head(run) + "\n" + figures_text(run.figures));
}

void compare(Ledger& ledger, const RunsOptions& o, const Output& out) {
  const RunRecord a = demand_run(ledger, o.id), b = demand_run(ledger, o.other);
  Json::Array rows;
  Table table({"figure", fmt::format("run {}", a.id), fmt::format("run {}", b.id), "ratio"});
  for (const ProofRow& f : a.figures) {
    const ProofRow* g = find_figure(b, f.metric);
    if (g == nullptr || !f.out || !g->out || f.metric.ends_with("_spread")) continue;
    const Json ratio = *f.out == 0 ? Json() : Json(*g->out / *f.out);
    table.add({f.metric, figure_text(f.out, f.unit), figure_text(g->out, g->unit),
               ratio.is_null() ? "-" : fmt::format("{:.3f}", ratio.as_number())});
    rows.push_back(Json::object({{"metric", Json(f.metric)},
                                 {"unit", Json(f.unit)},
                                 {"first", Json(*f.out)},
                                 {"second", Json(*g->out)},
                                 {"ratio", ratio}}));
  }
  std::vector<std::string> notes;
  const bool same_machine = a.machine.processor == b.machine.processor &&
                            a.machine.isa == b.machine.isa &&
                            a.machine.threads == b.machine.threads;
  if (!same_machine) notes.push_back("other machines or threads: speeds are not comparable");
  if (a.protocol != b.protocol) notes.push_back("other protocols: figures may not be comparable");
  if (rows.empty()) notes.push_back("the two runs have no figure in common");
  if (out.json) {
    Json::Array words;
    for (const std::string& note : notes) words.emplace_back(note);
    return out.result("runs compare", Json::object({{"first", to_json(a)},
                                                    {"second", to_json(b)},
                                                    {"rows", Json(std::move(rows))},
                                                    {"notes", Json(std::move(words))}}));
  }
  std::string text = head(a) + head(b) + "\n" + (rows.empty() ? "" : table.text());
  for (const std::string& note : notes) text += fmt::format("note: {}\n", note);
  out.text(text);
}

void errors(Ledger& ledger, const CommonOptions& common, const Output& out) {
  const Machine machine = run_here("", common.threads).machine;
  const PredictionErrors found = prediction_errors(ledger, machine);
  Json::Array rows;
  Table table({"figure", "points", "median error", "90 %", "correction"});
  for (const PredictionError& e : found.metrics) {
    table.add({e.metric, std::to_string(e.points), fmt::format("{:.1f} %", 100 * e.median),
               fmt::format("{:.1f} %", 100 * e.p90), fmt::format("x {:.3f}", e.correction)});
    rows.push_back(Json::object({{"metric", Json(e.metric)},
                                 {"points", Json(e.points)},
                                 {"median", Json(e.median)},
                                 {"p90", Json(e.p90)},
                                 {"correction", Json(e.correction)}}));
  }
  if (out.json)
    return out.result("runs errors", Json::object({{"processor", Json(machine.processor)},
                                                   {"isa", Json(machine.isa)},
                                                   {"threads", Json(machine.threads)},
                                                   {"predictor", Json(found.predictor)},
                                                   {"rows", Json(std::move(rows))}}));
  out.text(fmt::format("{}, {}, {}\n", machine.processor, machine.isa,
                       machine.threads > 0 ? fmt::format("{} threads", machine.threads)
                                           : "any number of threads") +
           (found.metrics.empty()
                ? "no run here has both a prediction and a measurement\n"
                : "\n" + table.text() +
                      fmt::format("\npredicted by {}; error: |predicted / measured - 1|; "
                                  "correction: median of measured / predicted\n",
                                  found.predictor)));
}

void remove(Ledger& ledger, const RunsOptions& o, const Output& out) {
  demand_run(ledger, o.id);
  ledger.remove(o.id);
  if (out.json) return out.result("runs remove", Json::object({{"removed", Json(o.id)}}));
  out.text(fmt::format("removed run {}\n", o.id));
}

}  // namespace

void command_runs(const RunsOptions& o, const CommonOptions& common, const Output& out) {
  Ledger ledger(demand_ledger());
  switch (o.action) {
    case RunsOptions::Action::list:
      return list(ledger, o, out);
    case RunsOptions::Action::show:
      return show(ledger, o, out);
    case RunsOptions::Action::compare:
      return compare(ledger, o, out);
    case RunsOptions::Action::errors:
      return errors(ledger, common, out);
    case RunsOptions::Action::remove:
      return remove(ledger, o, out);
    case RunsOptions::Action::to_lines:
      return ledger.visit({0, o.model},
                          [&](const RunRecord& run) { out.text(to_json(run).dump() + "\n"); });
  }
}

}  // namespace pare
