// Plans as tables, sentences, plots and JSON.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "app/hardware.h"
#include "app/plan.h"
#include "model/model.h"
#include "report/terminal.h"

namespace pare {
namespace {

std::string seconds_text(double s) {
  if (s < 1e-3) return fmt::format("{:.3g} us", s * 1e6);
  if (s < 1) return fmt::format("{:.3g} ms", s * 1e3);
  return s < 1e4 ? fmt::format("{:.3g} s", s) : fmt::format("{:.0f} s", s);
}

std::string rate_text(double r) { return r >= 999.5 ? human_count(r) : fmt::format("{:.3g}", r); }

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

std::string count_text(i64 n) { return n == 0 ? "none" : std::to_string(n); }

// "int4:g128", "int4:g128 and 2 more"
std::string schemes_text(const std::vector<SchemeShare>& schemes) {
  if (schemes.empty()) return "-";
  std::string text = to_string(schemes.front());
  if (schemes.size() > 1) text += fmt::format(" and {} more", schemes.size() - 1);
  return text;
}

double main_ridge(const Outcome& o, const Hardware& h) {
  return o.schemes.empty() ? 0
                           : ridge_batch(o.schemes.front().scheme, o.schemes.front().activation, h);
}

std::string machine_table(const std::vector<PlanCase>& cases, const MachinePlan& plan) {
  const Hardware& h = *plan.hardware;
  std::vector<std::string> head = {""};
  for (const PlanCase& c : cases) head.push_back(c.name);
  Table table(head);
  using Cell = std::function<std::string(const Outcome&, const Prediction&, std::size_t)>;
  const auto row = [&](const std::string& name, const Cell& cell) {
    std::vector<std::string> line = {name};
    for (std::size_t i = 0; i < cases.size(); i++)
      line.push_back(cell(plan.outcomes[i], plan.outcomes[i].prediction, i));
    table.add(std::move(line));
  };
  const auto figure = [&](const std::string& name,
                          const std::function<std::string(const Prediction&)>& f) {
    row(name, [&](const Outcome&, const Prediction& p, std::size_t) { return f(p); });
  };
  row("matrices",
      [](const Outcome& o, const Prediction&, std::size_t) { return schemes_text(o.schemes); });
  row("cache", [&](const Outcome&, const Prediction&, std::size_t i) {
    return to_string(kv_of(cases[i].spec, cases[i].use));
  });
  figure("bytes of weights", [](const Prediction& p) { return human_bytes(p.memory.weights); });
  figure("bytes of the cache", [](const Prediction& p) { return human_bytes(p.memory.cache); });
  figure("bytes of activations",
         [](const Prediction& p) { return human_bytes(p.memory.activations); });
  figure("of the memory", [&](const Prediction& p) {
    return percent(p.memory.total() / h.memory_bytes) + (p.fits ? "" : ", too much");
  });
  figure("cache a token", [](const Prediction& p) { return human_bytes(p.kv_bytes_per_token); });
  figure("time to first token", [](const Prediction& p) {
    return fmt::format("{} {}", seconds_text(p.ttft_seconds), to_string(p.prefill.limit));
  });
  figure("time a token", [](const Prediction& p) {
    return fmt::format("{} {}", seconds_text(p.seconds_per_token), to_string(p.decode.limit));
  });
  figure("prefill tokens/s",
         [](const Prediction& p) { return rate_text(p.prefill_tokens_per_second); });
  figure("decode tokens/s",
         [](const Prediction& p) { return rate_text(p.decode_tokens_per_second); });
  figure("MBU of decode", [](const Prediction& p) { return percent(p.mbu); });
  figure("MFU of prefill", [](const Prediction& p) { return percent(p.mfu); });
  figure("largest batch", [](const Prediction& p) { return count_text(p.largest_batch); });
  row("ridge batch", [&](const Outcome& o, const Prediction&, std::size_t) {
    return fmt::format("{:.0f}", main_ridge(o, h));
  });
  for (std::size_t j = 0; cases.size() > 1 && j < cases.size(); j++)
    row("beats " + cases[j].name, [&](const Outcome& o, const Prediction&, std::size_t i) {
      if (i == j) return std::string("-");
      const bool alike = !o.than[j].from && !plan.outcomes[j].than[i].from;
      return alike ? std::string("alike") : to_string(o.than[j]);
    });
  return table.text() + (cases.size() > 1 ? "(beats: batches at which the products with its "
                                            "matrices are faster; caches do not count)\n"
                                          : "");
}

std::string nature_of(const Hardware& h) {
  if (h.engine != nullptr) return "measured rates of this engine";
  return h.measured ? "measured limits: no forecast" : "limits by the data sheet: no forecast";
}

// Sentences, one a line, for the cases they hold for.
std::string sentences(const std::vector<PlanCase>& cases, const MachinePlan& plan, bool here) {
  std::string text;
  std::set<std::string> said;
  for (std::size_t i = 0; i < cases.size(); i++)
    for (const Advice& a : plan.outcomes[i].advice) {
      if (a.here != here || !said.insert(a.text).second) continue;
      std::string names;
      for (std::size_t j = i; j < cases.size(); j++)
        for (const Advice& b : plan.outcomes[j].advice)
          if (b.text == a.text) names += (names.empty() ? "" : ", ") + cases[j].name;
      text += fmt::format("  {}{}\n", cases.size() > 1 ? names + ": " : "", a.text);
    }
  return text;
}

// Operations of a pass by section, as points of a roofline.
void add_points(RooflinePlot& plot, const StepTime& step, const char* kind, int series) {
  for (const auto& [section, mix, name] : {std::tuple{Section::attention, false, "projections"},
                                           {Section::attention, true, "attention"},
                                           {Section::ffn, false, "ffn"},
                                           {Section::head, false, "head"}}) {
    RooflinePlot::Point point;
    point.name = name;
    point.kind = kind;
    point.series = series;
    double seconds = 0;
    for (const OperationTime& t : step.operations) {
      if (t.operation.section != section || t.operation.product == mix) continue;
      point.flops += t.operation.flops;
      point.bytes += t.operation.bytes();
      point.code = t.code;
      seconds += t.seconds;
    }
    if (point.flops <= 0 || seconds <= 0) continue;
    point.flops_per_second = point.flops / seconds;
    plot.points.push_back(std::move(point));
  }
}

RooflinePlot roofline_of(const std::vector<PlanCase>& cases, const MachinePlan& plan) {
  RooflinePlot plot;
  plot.hardware = plan.hardware->name;
  plot.bytes_per_second = plan.hardware->bytes_per_second;
  for (std::size_t i = 0; i < cases.size(); i++) {
    plot.series.push_back(cases[i].name);
    add_points(plot, plan.outcomes[i].prediction.decode, "decode", static_cast<int>(i));
    add_points(plot, plan.outcomes[i].prediction.prefill, "prefill", static_cast<int>(i));
  }
  std::set<std::string> codes;
  for (const RooflinePlot::Point& point : plot.points) codes.insert(point.code);
  for (const std::string& code : codes)
    plot.ceilings.push_back({code, *plan.hardware->rate_of(code)});
  return plot;
}

PartsPlot parts_of(const std::vector<PlanCase>& cases, const MachinePlan& plan) {
  PartsPlot plot;
  plot.parts = {"attention", "ffn", "embedding, head", "cache"};
  for (std::size_t i = 0; i < cases.size(); i++) {
    const Spec& spec = cases[i].spec;
    std::vector<double> bytes(4, 0);
    for (const auto& [name, l] : linears(spec)) {
      if (name == "head") continue;
      const std::size_t part = name.find(".ffn.") != std::string::npos ? 1 : 0;
      bytes[part] += static_cast<double>(stored_bytes(l->scheme, l->out, l->in));
    }
    const Memory& m = plan.outcomes[i].prediction.memory;
    bytes[2] = std::max(0.0, m.weights - bytes[0] - bytes[1]);
    bytes[3] = m.cache;
    plot.bars.push_back({cases[i].name, std::move(bytes)});
  }
  return plot;
}

Json faster_json(const Faster& f) {
  return Json::object({{"from_batch", f.from ? Json(*f.from) : Json()},
                       {"until_batch", f.until ? Json(*f.until) : Json()}});
}

Json schemes_json(const Outcome& o, const Hardware& h) {
  Json::Array list;
  for (const SchemeShare& s : o.schemes)
    list.push_back(Json::object({{"weights", Json(to_string(s.scheme))},
                                 {"activations", Json(to_string(s.activation))},
                                 {"share", Json(s.share)},
                                 {"executed_code", Json(executed_code(s.scheme, s.activation, h))},
                                 {"ridge_batch", Json(ridge_batch(s.scheme, s.activation, h))}}));
  return Json(std::move(list));
}

Json outcome_json(const std::vector<PlanCase>& cases, std::size_t i, const MachinePlan& plan) {
  const Outcome& o = plan.outcomes[i];
  const Prediction& p = o.prediction;
  Json than = Json::object();
  Json::Array advice;
  for (std::size_t j = 0; j < cases.size(); j++)
    if (j != i) than.set(cases[j].name, faster_json(o.than[j]));
  for (const Advice& a : o.advice)
    advice.push_back(Json::object({{"topic", Json(a.topic)}, {"text", Json(a.text)}}));
  return Json::object({{"name", Json(cases[i].name)},
                       {"schemes", schemes_json(o, *plan.hardware)},
                       {"kv", Json(to_string(kv_of(cases[i].spec, cases[i].use)))},
                       {"weight_bytes", Json(p.memory.weights)},
                       {"cache_bytes", Json(p.memory.cache)},
                       {"activation_bytes", Json(p.memory.activations)},
                       {"fits", Json(p.fits)},
                       {"largest_batch", Json(p.largest_batch)},
                       {"largest_context", Json(o.largest_context)},
                       {"kv_bytes_per_token", Json(p.kv_bytes_per_token)},
                       {"ttft_seconds", Json(p.ttft_seconds)},
                       {"ttft_limit", Json(to_string(p.prefill.limit))},
                       {"seconds_per_token", Json(p.seconds_per_token)},
                       {"token_limit", Json(to_string(p.decode.limit))},
                       {"prefill_tokens_per_second", Json(p.prefill_tokens_per_second)},
                       {"decode_tokens_per_second", Json(p.decode_tokens_per_second)},
                       {"decode_flops", Json(p.decode.count.flops)},
                       {"decode_bytes", Json(p.decode.count.bytes())},
                       {"prefill_flops", Json(p.prefill.count.flops)},
                       {"prefill_bytes", Json(p.prefill.count.bytes())},
                       {"mbu", Json(p.mbu)},
                       {"mfu", Json(p.mfu)},
                       {"faster_than", std::move(than)},
                       {"advice", Json(std::move(advice))}});
}

}  // namespace

std::string plan_text(const std::vector<PlanCase>& cases, const std::vector<MachinePlan>& plans) {
  std::string text;
  for (const MachinePlan& plan : plans) {
    const Hardware& h = *plan.hardware;
    text += fmt::format("{}: {}\n({})\n\n{}", h.name, hardware_line(h), nature_of(h),
                        machine_table(cases, plan));
    const std::string advice = sentences(cases, plan, true);
    if (!advice.empty()) text += "\n" + advice;
    text += "\n";
  }
  const std::string common = plans.empty() ? "" : sentences(cases, plans.front(), false);
  if (!common.empty()) text += "On any machine\n" + common + "\n";
  text.pop_back();
  return text;
}

std::string fit_text(const std::vector<PlanCase>& cases, const std::vector<MachinePlan>& plans) {
  Table table({"hardware", "plan", "fits", "needs", "of", "largest context", "largest batch"});
  for (const MachinePlan& plan : plans)
    for (std::size_t i = 0; i < cases.size(); i++) {
      const Outcome& o = plan.outcomes[i];
      table.add({plan.hardware->name, cases[i].name, o.prediction.fits ? "yes" : "no",
                 human_bytes(o.prediction.memory.total()),
                 human_bytes(usable_memory * plan.hardware->memory_bytes),
                 fmt::format("{}{}", count_text(o.largest_context),
                             o.largest_context == cases[i].spec.max_positions ? " (all)" : ""),
                 count_text(o.prediction.largest_batch)});
    }
  return table.text() + fmt::format(
                            "\nThe largest context is that of {} at once, the largest batch "
                            "that of contexts of {}; {:.0f} % of a memory can be used.\n",
                            cases.front().use.batch == 1
                                ? "one sequence"
                                : fmt::format("{} sequences", cases.front().use.batch),
                            cases.front().use.context, 100 * usable_memory);
}

std::string plan_plots(const std::vector<PlanCase>& cases, const std::vector<MachinePlan>& plans) {
  const TerminalStyle style = terminal_style();
  std::string text = parts_text(parts_of(cases, plans.front()), style);
  for (const MachinePlan& plan : plans) {
    std::vector<TextBar> bars;
    for (std::size_t i = 0; i < cases.size(); i++) {
      const double seconds = plan.outcomes[i].prediction.seconds_per_token;
      bars.push_back({cases[i].name, seconds, seconds_text(seconds)});
    }
    text += fmt::format("\n{}: time a token\n{}\n{}", plan.hardware->name, bars_text(bars, style),
                        roofline_text(roofline_of(cases, plan), style));
  }
  return text;
}

Json plan_json(const std::vector<PlanCase>& cases, const std::vector<MachinePlan>& plans) {
  Json::Array list;
  for (const MachinePlan& plan : plans) {
    Json::Array outcomes;
    for (std::size_t i = 0; i < cases.size(); i++) outcomes.push_back(outcome_json(cases, i, plan));
    list.push_back(Json::object(
        {{"hardware", hardware_json(*plan.hardware)}, {"cases", Json(std::move(outcomes))}}));
  }
  return Json(std::move(list));
}

}  // namespace pare
