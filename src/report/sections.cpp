// The sections of a report, from what is known of the models.
//
// Each section answers one question and ends with the figures as a table, so that nothing is said
// by a picture alone. A figure that is missing is a no_figure, and a sentence says how to get it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "report/sections.h"
#include "report/svg.h"

namespace pare {
namespace {

// The figures of a proof as people name them.
struct Metric {
  const char* name;
  const char* heading;
};
constexpr Metric quality_metrics[] = {{"perplexity", "Perplexity"},
                                      {"kl_mean", "Mean KL, nats"},
                                      {"top1_agreement", "Same first choice"},
                                      {"decode_tokens_per_second", "Decode, tokens/s"},
                                      {"prefill_tokens_per_second", "Prefill, tokens/s"},
                                      {"memory_bytes", "Memory"},
                                      {"mbu", "MBU"},
                                      {"mfu", "MFU"}};

}  // namespace

std::string heading_of(const std::string& metric) {
  for (const Metric& m : quality_metrics)
    if (metric == m.name) return m.heading;
  if (metric == "weight_bytes") return "Weights";
  if (metric == "disk_bytes") return "On disk";
  if (metric == "decode_speedup") return "Decode speed-up";
  if (metric == "prefill_speedup") return "Prefill speed-up";
  std::string words = metric;
  std::replace(words.begin(), words.end(), '_', ' ');
  if (!words.empty() && words[0] >= 'a' && words[0] <= 'z')
    words[0] = static_cast<char>(words[0] - 'a' + 'A');
  return words;
}

std::string value_text(const std::optional<double>& value, const std::string& unit) {
  if (!value || !std::isfinite(*value)) return no_figure;
  if (unit == "bytes") return with_unit(*value, "B");
  if (unit == "share") return fmt::format("{:.1f}\u00A0%", 100 * *value);
  if (unit == "ratio") return fmt::format("{:.2f}\u00A0\u00D7", *value);
  if (unit == "tokens/s")
    return std::abs(*value) < 100000 ? fmt::format("{:.{}f}", *value, *value < 100 ? 1 : 0)
                                     : short_number(*value);
  if (unit.empty() && *value >= 1 && *value < 10000) return fmt::format("{:.3f}", *value);
  return std::abs(*value) >= 1e-3 || *value == 0 ? fmt::format("{:.4g}", *value)
                                                 : short_number(*value);
}

namespace {

const ProofRow* row_of(const ReportModel& m, std::string_view metric) {
  return m.proof ? find_row(*m.proof, metric) : nullptr;
}

std::optional<double> measured(const ReportModel& m, std::string_view metric) {
  const ProofRow* row = row_of(m, metric);
  return row != nullptr ? row->out : std::nullopt;
}

std::optional<double> base_weight_bytes(const Report& r, const ReportModel& m) {
  if (r.base) return static_cast<double>(r.base->weight_bytes);
  const ProofRow* row = row_of(m, "weight_bytes");
  return row != nullptr ? row->base : std::nullopt;
}

double bits_of(const ReportModel& m) {
  return m.parameters > 0
             ? 8.0 * static_cast<double>(m.weight_bytes) / static_cast<double>(m.parameters)
             : 0;
}

std::string base_name(const Report& r) {
  if (r.base) return r.base->name;
  for (const ReportModel& m : r.models)
    if (m.proof && !m.proof->base.empty())
      return std::filesystem::path(m.proof->base).filename().string();
  return "BASE";
}

std::string to_prove(const Report& r, const ReportModel& m) {
  std::string base = r.base ? r.base->path : "BASE";
  for (const ReportModel& other : r.models)
    if (!r.base && other.proof && !other.proof->base.empty()) base = other.proof->base;
  return fmt::format("`pare prove {} {}`", base, m.path);
}

}  // namespace

std::string proof_state(const Report& r, const ReportModel& m) {
  if (m.proof) return {};
  return m.proof_problem.empty() ? fmt::format("Not proved yet: run {}.", to_prove(r, m))
                                 : fmt::format("Its proof is not shown: {}. Run {} again.",
                                               m.proof_problem, to_prove(r, m));
}

namespace {

// ---- summary ----

std::string sentence(const Report& r, const ReportModel& m) {
  const double bytes = static_cast<double>(m.weight_bytes);
  std::string text = fmt::format("Its weights take {}", with_unit(bytes, "B"));
  if (const auto base = base_weight_bytes(r, m); base && *base > 0) {
    const double ratio = *base / bytes;
    text += ratio >= 1.005
                ? fmt::format(" instead of {}, {:.2f} times less", with_unit(*base, "B"), ratio)
            : ratio <= 0.995
                ? fmt::format(" instead of {}, {:.2f} times more", with_unit(*base, "B"), 1 / ratio)
                : ", as many as the base's";
  }
  text += fmt::format(" ({:.2f} bits each).", bits_of(m));
  if (const ProofRow* row = row_of(m, "perplexity"); row != nullptr && row->out) {
    text += row->base ? fmt::format(" Perplexity goes from {:.3f} to {:.3f}", *row->base, *row->out)
                      : fmt::format(" Perplexity is {:.3f}", *row->out);
    if (const auto kl = measured(m, "kl_mean"))
      text += fmt::format(", with a mean KL of {} nats", value_text(kl, "nats"));
    if (const auto same = measured(m, "top1_agreement"))
      text += fmt::format(" and the same first choice at {:.1f}\u00A0% of the tokens", 100 * *same);
    text += ".";
  }
  if (const ProofRow* row = row_of(m, "decode_tokens_per_second"); row != nullptr && row->out) {
    text += fmt::format(" It decodes {} tokens a second", value_text(row->out, "tokens/s"));
    if (row->base && *row->base > 0)
      text += fmt::format(", {:.2f} times the base's speed", *row->out / *row->base);
    text += ".";
  }
  return text;
}

std::string stat(const std::string& value, const std::string& name) {
  return fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape_markup(name),
                     escape_markup(value));
}

std::string stats(const Report& r, const ReportModel& m) {
  std::string out = "<dl class=\"stats\">\n";
  const auto base = base_weight_bytes(r, m);
  out += base ? stat(fmt::format("{:.2f}\u00D7", *base / static_cast<double>(m.weight_bytes)),
                     "smaller")
              : stat(with_unit(static_cast<double>(m.weight_bytes), "B"), "of weights");
  const auto kl = measured(m, "kl_mean");
  out += stat(kl ? short_number(*kl) : no_figure, "nats of KL");
  const ProofRow* speed = row_of(m, "decode_tokens_per_second");
  const bool both = speed != nullptr && speed->out && speed->base && *speed->base > 0;
  out += stat(both ? fmt::format("{:.2f}\u00D7", *speed->out / *speed->base) : no_figure,
              "decode speed");
  return out + "</dl>\n";
}

std::string gate_text(const std::string& name, double value) {
  if (name == "max_bytes") return with_unit(value, "B");
  if (name == "min_speedup") return fmt::format("{:.2f}\u00D7", value);
  return name == "max_kl" ? short_number(value) + "\u00A0nats" : short_number(value);
}

std::string gates(const ReportModel& m) {
  if (!m.proof || m.proof->gates.empty()) return {};
  std::string out = "<ul class=\"gates\">\n";
  for (const ProofGate& gate : m.proof->gates)
    out += fmt::format("<li class=\"{}\"><b>{}</b> {}: needs {}, found {}</li>\n",
                       gate.passed ? "good" : "bad", gate.passed ? "Passed" : "Failed",
                       escape_markup(gate.name), escape_markup(gate_text(gate.name, gate.need)),
                       escape_markup(gate_text(gate.name, gate.found)));
  return out + "</ul>\n";
}

ReportSection summary(const Report& r) {
  std::string html = "<div class=\"cards\">\n";
  for (std::size_t i = 0; i < r.models.size(); i++) {
    const ReportModel& m = r.models[i];
    const int series = static_cast<int>(i) + 1;
    html += fmt::format("<article class=\"card s{}\">\n<h3>{}{}</h3>\n{}{}",
                        (series - 1) % series_count + 1, series_key(series), escape_markup(m.name),
                        stats(r, m), paragraph(sentence(r, m)));
    if (const std::string state = proof_state(r, m); !state.empty())
      html += paragraph(state, "note");
    html += gates(m) + "</article>\n";
  }
  return {"summary", "Summary", html + "</div>\n"};
}

// ---- quality ----

ReportSection quality(const Report& r) {
  std::vector<Metric> shown;
  for (const Metric& metric : quality_metrics)
    for (const ReportModel& m : r.models)
      if (const ProofRow* row = row_of(m, metric.name); row != nullptr && (row->out || row->base)) {
        shown.push_back(metric);
        break;
      }
  std::vector<std::string> header = {"Model", "Weights", "Bits each"};
  for (const Metric& metric : shown) header.push_back(metric.heading);
  HtmlTable table("quality-table", "Size, quality and speed; measured figures are of the proofs",
                  header);
  const ReportModel* proved = nullptr;
  for (const ReportModel& m : r.models)
    if (m.proof && proved == nullptr) proved = &m;
  if (r.base || proved != nullptr) {
    std::vector<std::string> row = {base_name(r) + " (base)"};
    const auto bytes = r.base ? std::optional(static_cast<double>(r.base->weight_bytes))
                              : base_weight_bytes(r, *proved);
    row.push_back(value_text(bytes, "bytes"));
    row.push_back(r.base ? fmt::format("{:.2f}", bits_of(*r.base)) : no_figure);
    for (const Metric& metric : shown) {
      std::string text = no_figure;
      for (const ReportModel& m : r.models)
        if (const ProofRow* found = row_of(m, metric.name);
            found != nullptr && found->base && text == no_figure)
          text = value_text(found->base, found->unit);
      row.push_back(text);
    }
    table.add(row);
  }
  std::set<std::string> protocols;
  std::string missing;
  for (const ReportModel& m : r.models) {
    std::vector<std::string> row = {m.name, with_unit(static_cast<double>(m.weight_bytes), "B"),
                                    fmt::format("{:.2f}", bits_of(m))};
    for (const Metric& metric : shown) {
      const ProofRow* found = row_of(m, metric.name);
      row.push_back(found != nullptr ? value_text(found->out, found->unit) : no_figure);
    }
    table.add(row);
    if (m.proof)
      protocols.insert(fmt::format("{}; {}; {}, {} threads", m.proof->text, m.proof->protocol,
                                   m.proof->hardware, m.proof->threads));
    else
      missing += (missing.empty() ? "" : ", ") + m.name;
  }
  std::string html = table.html();
  if (protocols.size() == 1) html += paragraph("Measured on " + *protocols.begin() + ".", "note");
  if (protocols.size() > 1) {
    html += paragraph(
        "The proofs were made under different conditions, so their figures must not be compared "
        "with one another:");
    html += "<ul>\n";
    for (const std::string& p : protocols) html += fmt::format("<li>{}</li>\n", escape_markup(p));
    html += "</ul>\n";
  }
  if (!missing.empty())
    html += paragraph(fmt::format("Without a proof, so without measured figures: {}.", missing),
                      "note");
  return {"quality", "Quality and speed", html};
}

// ---- size ----

ReportSection size(const Report& r) {
  PartsPlot plot;
  plot.unit = "bytes";
  for (const char* part : report_parts) plot.parts.emplace_back(part);
  HtmlTable parts("size-table", "Bytes by part",
                  {"Model", "Embedding", "Attention", "FFN", "Head", "Norms", "Cache",
                   "Cache holds", "Cache scheme"});
  HtmlTable schemes("scheme-table", "Bytes by scheme",
                    {"Model and scheme", "Parameters", "Bytes", "Share"});
  const auto add = [&](const ReportModel& m, const std::string& name) {
    plot.bars.push_back({name, {m.part_bytes.begin(), m.part_bytes.end()}});
    std::vector<std::string> row = {name};
    for (double b : m.part_bytes) row.push_back(b > 0 ? with_unit(b, "B") : "0");
    row.push_back(fmt::format("{} tokens", m.cache_positions));
    row.push_back(m.kv);
    parts.add(row);
    for (const auto& s : m.schemes)
      schemes.add({fmt::format("{}, {}", name, s.scheme),
                   short_number(static_cast<double>(s.parameters)),
                   with_unit(static_cast<double>(s.bytes), "B"),
                   fmt::format("{:.1f} %", 100.0 * static_cast<double>(s.bytes) /
                                               static_cast<double>(m.weight_bytes))});
  };
  if (r.base) add(*r.base, r.base->name + " (base)");
  for (const ReportModel& m : r.models) add(m, m.name);
  std::string html = figure(
      "plot-parts",
      "Bytes of the weights by part, and of the key and value cache of one sequence at the longest "
      "context. "
      "A tied head has no bytes of its own.",
      {"", 920, 0}, {"", 350, 0}, [&](const PlotFrame& f) { return parts_svg(plot, f); },
      details("Figures by part", parts.html()) + details("Figures by scheme", schemes.html()));
  if (!r.base)
    html += paragraph("The sizes of the base are not shown: name it with --base MODEL.", "note");
  return {"size", "Size", html};
}

// ---- Pareto front ----

std::string pareto_figure(const Report& r, bool speed) {
  ParetoPlot plot;
  plot.less_is_better = !speed;
  plot.cost_name = speed ? "decode, tokens per second" : "weights, bytes";
  plot.base_name = base_name(r) + " (base)";
  HtmlTable table(
      speed ? "pareto-speed-table" : "pareto-size-table",
      plot.loss_name + " against " + plot.cost_name,
      {"Model", speed ? "Decode, tokens/s" : "Weights", "Mean KL, nats", "On the front"});
  for (std::size_t i = 0; i < r.models.size(); i++) {
    const ReportModel& m = r.models[i];
    const auto kl = measured(m, "kl_mean");
    const auto cost = speed ? measured(m, "decode_tokens_per_second")
                            : std::optional(static_cast<double>(m.weight_bytes));
    if (!kl || !cost) continue;
    plot.points.push_back({m.name, static_cast<int>(i) + 1, *cost, *kl});
    const ProofRow* row = row_of(m, "decode_tokens_per_second");
    const auto base = speed ? (row != nullptr ? row->base : std::nullopt) : base_weight_bytes(r, m);
    if (!plot.base_cost) plot.base_cost = base;
  }
  if (plot.points.size() < 2) return {};
  const std::vector<bool> on_front = front(plot);
  for (std::size_t i = 0; i < plot.points.size(); i++)
    table.add(
        {plot.points[i].name,
         speed ? value_text(plot.points[i].cost, "tokens/s") : with_unit(plot.points[i].cost, "B"),
         value_text(plot.points[i].loss, "nats"), on_front[i] ? "yes" : "no"});
  const char* caption = speed ? "Better is to the right and down. The line joins the models that "
                                "no other beats in both; the rest are grey."
                              : "Better is to the left and down. The line joins the models that no "
                                "other beats in both; the rest are grey.";
  return figure(
      speed ? "plot-pareto-speed" : "plot-pareto-size", caption, {"", 920, 400}, {"", 350, 330},
      [&](const PlotFrame& f) { return pareto_svg(plot, f); },
      details("Figures of this plot", table.html()));
}

ReportSection pareto(const Report& r) {
  std::string html = pareto_figure(r, false) + pareto_figure(r, true);
  if (html.empty())
    html = paragraph(
        "The front needs the KL of at least two models; " +
            fmt::format("proved so far: {} of {}.",
                        std::count_if(r.models.begin(), r.models.end(),
                                      [](const ReportModel& m) { return m.proof.has_value(); }),
                        r.models.size()),
        "note");
  return {"front", "Pareto front", html};
}

}  // namespace

std::string report_html(const Report& r) {
  std::vector<ReportSection> sections = {summary(r), quality(r), size(r)};
  if (r.models.size() > 1) sections.push_back(pareto(r));
  for (ReportSection& s : detail_sections(r)) sections.push_back(std::move(s));
  const std::string subtitle =
      fmt::format("{} {} made from {}", r.models.size(), r.models.size() == 1 ? "model" : "models",
                  base_name(r) == "BASE" ? "a base that no proof or flag names" : base_name(r));
  return page(r.title, subtitle, sections);
}

}  // namespace pare
