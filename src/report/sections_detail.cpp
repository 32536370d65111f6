// The sections for those who ask why: where time goes, which matrices lost what, whether the
// predictions held, and how the models came to be.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/sections.h"
#include "report/svg.h"

namespace pare {
namespace {

// ---- roofline ----

ReportSection roofline(const Report& r) {
  if (!r.machine || r.machine->operations.empty())
    return {
        "roofline", "Roofline",
        paragraph(
            "No machine is known: measure this one with `pare roof`, or name one with --hardware.",
            "note")};
  RooflinePlot plot;
  plot.hardware = r.machine->name;
  plot.bytes_per_second = r.machine->bytes_per_second;
  plot.ceilings = r.machine->ceilings;
  plot.series.push_back(r.base ? r.base->name + " (base)" : "");
  for (const ReportModel& m : r.models) plot.series.push_back(m.name);
  HtmlTable table(
      "roofline-table", "Operations of one pass",
      {"Operation", "Pass", "Model", "FLOP", "Bytes", "FLOP per byte", "Time", "Limit", "Runs as"});
  for (const ReportOperation& o : r.machine->operations) {
    const double speed = o.seconds > 0 ? o.flops / o.seconds : 0;
    const std::string name =
        o.blocks.empty() ? o.name : fmt::format("{} of blocks {}", o.name, o.blocks);
    plot.points.push_back({name, o.kind, o.series, o.flops, o.bytes, speed, o.code});
    table.add({name, o.kind, plot.series[static_cast<std::size_t>(o.series)], short_number(o.flops),
               with_unit(o.bytes, "B"), o.bytes > 0 ? short_number(o.flops / o.bytes) : no_figure,
               with_unit(o.seconds, "s"), o.limit, o.code});
  }
  const std::string caption = fmt::format(
      "Each mark is an operation where the cost model expects it to run on {}; {}. Left of the "
      "bend memory is the limit, right of it "
      "arithmetic. Fewer bits move an operation to the right; a line leads from the base's mark to "
      "the model's.",
      r.machine->name, r.machine->use);
  return {"roofline", "Roofline",
          figure(
              "plot-roofline", caption, {"", 920, 470}, {"", 350, 400},
              [&](const PlotFrame& f) { return roofline_svg(plot, f); },
              details("Figures of this plot", table.html()))};
}

// ---- errors of the matrices ----

struct LayerRow {
  i64 block = 0;
  std::string kind;
  double nearest = 0, solved = 0;
};

// "blocks.12.attn.q" -> 12, "attn.q"
std::optional<std::pair<i64, std::string>> site_of(const std::string& site) {
  if (!site.starts_with("blocks.")) return std::nullopt;
  const std::size_t dot = site.find('.', 7);
  if (dot == std::string::npos || dot == 7 || dot > 16) return std::nullopt;
  i64 block = 0;
  for (std::size_t i = 7; i < dot; i++) {
    if (site[i] < '0' || site[i] > '9') return std::nullopt;
    block = 10 * block + (site[i] - '0');
  }
  return std::pair{block, site.substr(dot + 1)};
}

std::vector<LayerRow> layer_rows(const ReportModel& m) {
  std::vector<LayerRow> rows;
  for (const Evidence& e : m.evidence)
    if (e.metric == "relative output error")
      if (const auto site = site_of(e.site))
        rows.push_back({site->first, site->second, e.before, e.after});
  return rows;
}

std::string layer_figures(const ReportModel& m, const std::vector<LayerRow>& rows,
                          std::size_t index) {
  constexpr std::size_t most_plots = 16;  // kinds: more than any family has
  std::vector<LayerPlot> plots;  // in the order of the evidence, which is that of the block
  double low = 0, high = 0;
  HtmlTable table(fmt::format("layers-table-{}", index),
                  fmt::format("{}: relative output error", m.name),
                  {"Matrix", "To nearest", "As solved", "Of it left"});
  for (const LayerRow& row : rows) {
    auto it = std::find_if(plots.begin(), plots.end(),
                           [&](const LayerPlot& p) { return p.kind == row.kind; });
    if (it == plots.end())
      it = plots.insert(plots.end(), {row.kind, static_cast<int>(index) + 1, {}, 0, 0});
    it->rows.push_back({static_cast<double>(row.block), row.nearest, row.solved});
    for (double v : {row.nearest, row.solved}) {
      if (!(v > 0) || !std::isfinite(v)) continue;
      low = low > 0 ? std::min(low, v) : v;
      high = std::max(high, v);
    }
    table.add(
        {fmt::format("blocks.{}.{}", row.block, row.kind), value_text(row.nearest, ""),
         value_text(row.solved, ""),
         row.nearest > 0 ? fmt::format("{:.0f} %", 100 * row.solved / row.nearest) : no_figure});
  }
  std::vector<std::string> svgs;
  for (std::size_t k = 0; k < plots.size() && k < most_plots; k++) {
    plots[k].low = low, plots[k].high = high;
    svgs.push_back(layer_svg(plots[k], {fmt::format("plot-layers-{}-{}", index, k), 230, 200}));
  }
  return figure_grid(
      "Relative error of each matrix's outputs on the calibration data, by block. Dashed with "
      "hollow marks: the weights rounded to nearest; "
      "filled: as the method solved them. All plots share one scale.",
      svgs, details("Figures of these plots", table.html()));
}

ReportSection layers(const Report& r) {
  std::string html, without;
  for (std::size_t i = 0; i < r.models.size(); i++) {
    const std::vector<LayerRow> rows = layer_rows(r.models[i]);
    if (rows.empty()) {
      without += (without.empty() ? "" : ", ") + r.models[i].name;
      continue;
    }
    const std::string figures = layer_figures(r.models[i], rows, i);
    // Seven plots a model are many: of several models the first is open.
    html +=
        r.models.size() == 1 ? figures : framed_details(r.models[i].name, figures, html.empty());
  }
  if (!without.empty())
    html += paragraph(
        fmt::format(
            "No errors are noted in {}: rounding to nearest needs no data, so it measures none.",
            without),
        "note");
  return {"layers", "Error of each matrix", html};
}

// ---- predictions ----

struct Predicted {
  std::string model, metric, unit;
  int series = 0;
  double predicted = 0, measured = 0;
};

std::string base_of(const Report& r) { return r.base ? r.base->name + " (base)" : "base"; }

// "Decode, tokens/s" -> "decode": the unit is the plot's.
std::string short_heading(const std::string& metric) {
  std::string words = heading_of(metric);
  words = words.substr(0, words.find(','));
  if (words.size() > 1 && words[1] >= 'a' && words[0] <= 'Z')
    words[0] = static_cast<char>(words[0] - 'A' + 'a');
  return words;
}

std::vector<Predicted> predictions(const Report& r) {
  std::vector<Predicted> list;
  for (std::size_t i = 0; i < r.models.size(); i++) {
    const ReportModel& m = r.models[i];
    if (!m.proof) continue;
    for (const ProofRow& row : m.proof->rows) {
      if (row.predicted_base && row.base)
        list.push_back({base_of(r) + ", before " + m.name, row.metric, row.unit, 0,
                        *row.predicted_base, *row.base});
      if (row.predicted_out && row.out)
        list.push_back(
            {m.name, row.metric, row.unit, static_cast<int>(i) + 1, *row.predicted_out, *row.out});
    }
  }
  return list;
}

ReportSection predicted(const Report& r) {
  const std::vector<Predicted> list = predictions(r);
  if (list.empty())
    return {"predicted", "Predicted and measured",
            paragraph("No proof here holds a prediction: `pare prove` makes them on a machine that "
                      "`pare roof` has measured.",
                      "note")};
  HtmlTable table("predicted-table", "Predictions and what was measured",
                  {"Model", "Figure", "Predicted", "Measured", "Error"});
  std::map<std::string, PredictionPlot> plots;  // by unit
  for (const Predicted& p : list) {
    const double error = p.measured != 0 ? p.predicted / p.measured - 1 : 0;
    table.add({p.model, heading_of(p.metric), value_text(p.predicted, p.unit),
               value_text(p.measured, p.unit),
               p.measured != 0 ? fmt::format("{:+.1f} %", 100 * error) : no_figure});
    PredictionPlot& plot = plots[p.unit];
    plot.quantity = p.unit;
    plot.points.push_back(
        {fmt::format("{} {}", p.series == 0 ? "base" : p.model, short_heading(p.metric)), p.series,
         p.predicted, p.measured});
  }
  std::vector<std::string> svgs;
  const bool large = plots.size() < 4;
  for (auto& [unit, plot] : plots)
    svgs.push_back(prediction_svg(plot, {fmt::format("plot-predicted-{}", svgs.size()),
                                         large ? 300.0 : 240.0, large ? 290.0 : 245.0}));
  std::vector<double> errors;
  for (const Predicted& p : list)
    if (p.measured != 0 && p.metric != "weight_bytes")
      errors.push_back(std::abs(p.predicted / p.measured - 1));
  std::sort(errors.begin(), errors.end());
  std::string html;
  if (!errors.empty())
    html = paragraph(
        fmt::format("Of {} predictions, bytes of weights apart, {} lie within 5\u00A0% of the "
                    "measurement; the median error is "
                    "{:.1f}\u00A0%, the largest {:.1f}\u00A0%.",
                    errors.size(),
                    std::count_if(errors.begin(), errors.end(), [](double e) { return e <= 0.05; }),
                    100 * errors[errors.size() / 2], 100 * errors.back()));
  std::vector<std::string> names = {base_of(r)};
  for (const ReportModel& m : r.models) names.push_back(m.proof ? m.name : "");
  html += series_legend(names);
  html += figure_grid(
      "A mark on the line is a prediction that held; the band is 5\u00A0% to both sides, and what "
      "lies outside is named. One plot for each unit.",
      svgs, table.rows() > 8 ? details("Figures of these plots", table.html()) : table.html(),
      large);
  return {"predicted", "Predicted and measured", html};
}

// ---- provenance ----

std::string provenance_of(const Report& r, const ReportModel& m, std::size_t index) {
  std::vector<std::pair<std::string, std::string>> facts = {{"Path", m.path}, {"Family", m.family}};
  if (!m.identity.empty()) facts.emplace_back("Identity of weights", m.identity);
  for (std::size_t i = 0; i < m.history.size(); i++)
    facts.emplace_back(fmt::format("Step {}", i + 1), m.history[i]);
  if (m.history.empty()) facts.emplace_back("Steps", "none noted: Pare has not made this model");
  for (const ReportModel::Recipe& recipe : m.recipes) {
    facts.emplace_back("Recipe", recipe.text.empty()
                                     ? "not noted"
                                     : recipe.text + (recipe.text.ends_with('\n') ? "" : "\n"));
    if (!recipe.base.empty()) facts.emplace_back("Applied to", recipe.base);
    if (!recipe.data.empty()) facts.emplace_back("Learnt from", recipe.data);
    facts.emplace_back("Seed", recipe.seed);
    facts.emplace_back("Applied by", "Pare " + recipe.version);
  }
  if (m.proof) {
    const Proof& p = *m.proof;
    facts.insert(facts.end(),
                 {{"Proved", fmt::format("{} by Pare {}", p.time, p.version)},
                  {"Against",
                   p.base + (p.base_identity.empty() ? "" : fmt::format(" ({})", p.base_identity))},
                  {"Proved on", fmt::format("{}, {} threads", p.hardware, p.threads)},
                  {"Text", p.text},
                  {"Protocol", p.protocol}});
    if (m.recipes.empty() && !p.recipe.empty())
      facts.emplace_back("Recipe of the proof", p.recipe + "\n");
  } else {
    facts.emplace_back("Proof", proof_state(r, m));
  }
  std::string html = definitions(facts);
  if (m.files.empty())
    return html + paragraph("The folder has no manifest, so no hashes are known.", "note");
  HtmlTable files(fmt::format("files-table-{}", index),
                  "Files as the manifest recorded them; `pare verify` compares",
                  {"File", "Bytes", "SHA-256"});
  for (const auto& file : m.files) files.add({file.name, std::to_string(file.bytes), file.sha256});
  return html + details(fmt::format("Hashes of {} files", m.files.size()), files.html());
}

ReportSection provenance(const Report& r) {
  std::string html;
  if (r.base) {
    std::vector<std::pair<std::string, std::string>> facts = {{"Path", r.base->path},
                                                              {"Family", r.base->family}};
    if (!r.base->identity.empty()) facts.emplace_back("Identity of weights", r.base->identity);
    for (const std::string& line : r.base->history) facts.emplace_back("Step", line);
    html += fmt::format("<h3>{} (base)</h3>\n", escape_markup(r.base->name)) + definitions(facts);
  }
  for (std::size_t i = 0; i < r.models.size(); i++)
    html += r.models.size() > 1 ? framed_details(r.models[i].name, provenance_of(r, r.models[i], i))
                                : fmt::format("<h3>{}</h3>\n", escape_markup(r.models[i].name)) +
                                      provenance_of(r, r.models[i], i);
  return {"provenance", "Provenance", html};
}

}  // namespace

std::vector<ReportSection> detail_sections(const Report& r) {
  return {roofline(r), layers(r), predicted(r), provenance(r)};
}

}  // namespace pare
