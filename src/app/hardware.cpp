// pare hardware: what machines can do, and where each figure is from.
#include "app/hardware.h"

#include <algorithm>
#include <array>

#include "app/commands.h"
#include "app/roofline.h"
#include "file/io.h"

namespace pare {
namespace {

constexpr auto codes =
    std::to_array<std::string_view>({"f32", "bf16", "fp8", "int8", "int4", "fp4"});

std::string tera(double rate) {
  return fmt::format("{:.{}f}", rate / 1e12, rate < 9.995e12 ? 2 : rate < 99.95e12 ? 1 : 0);
}

std::string watts_text(const Hardware& h) {
  return h.watts > 0 ? fmt::format("{:.0f}", h.watts) : "-";
}

// All rows: a rate with its ridge behind it.
std::string list_text(const std::vector<Hardware>& rows) {
  std::vector<std::string> head = {"name", "kind", "memory", "bandwidth"};
  for (std::string_view code : codes) head.emplace_back(code);
  head.emplace_back("watts");
  Table table(head);
  for (const Hardware& h : rows) {
    std::vector<std::string> row = {h.name, h.kind, human_bytes(h.memory_bytes),
                                    human_rate(h.bytes_per_second, "B")};
    for (std::string_view code : codes) {
      const std::optional<double> rate = h.rate_of(code);
      row.push_back(rate ? fmt::format("{} ({:.0f})", tera(*rate), ridge(h, code)) : "-");
    }
    row.push_back(watts_text(h));
    table.add(std::move(row));
  }
  return table.text() +
         "\nrates in TFLOP/s, dense; behind each its ridge: FLOP a byte at which memory and "
         "arithmetic take equally long\n";
}

// One row: every figure with its source.
std::string sheet_text(const Hardware& h) {
  Table table({"figure", "value", "ridge", "source"});
  const auto source = [&](const std::string& key) {
    const auto it = h.sources.find(key);
    return it != h.sources.end() ? it->second : "";
  };
  table.add({"memory", human_bytes(h.memory_bytes), "", source("memory_gb")});
  table.add({"bandwidth", human_rate(h.bytes_per_second, "B"), "", source("bandwidth_gbs")});
  for (std::string_view code : codes)
    if (const std::optional<double> rate = h.rate_of(code))
      table.add({std::string(code), human_rate(*rate, "FLOP"),
                 fmt::format("{:.0f} FLOP/B", ridge(h, code)), source(std::string(code))});
  if (h.link_bytes_per_second > 0)
    table.add({"link, one way", human_rate(h.link_bytes_per_second, "B"), "", source("link_gbs")});
  if (h.watts > 0) table.add({"power", fmt::format("{:.0f} W", h.watts), "", source("watts")});
  if (h.cache_bytes > 0)
    table.add({"last-level cache", human_bytes(h.cache_bytes), "", "the system (read)"});
  std::string names;
  for (const std::string& alias : h.aliases) names += (names.empty() ? "" : ", ") + alias;
  return fmt::format("{} ({}){}\n\n{}{}", h.name, h.kind, names.empty() ? "" : ", also " + names,
                     table.text(true), h.note.empty() ? "" : "\nnote: " + h.note + "\n");
}

// Several rows side by side, each figure with its ratio to the first.
std::string comparison_text(const std::vector<const Hardware*>& rows) {
  std::vector<std::string> head = {"figure"};
  for (const Hardware* h : rows) head.push_back(h->name);
  Table table(head);
  const auto line = [&](std::string name, const auto& value, const auto& text) {
    const double first = value(*rows.front());
    std::vector<std::string> row = {std::move(name)};
    bool any = false;
    for (const Hardware* h : rows) {
      const double v = value(*h);
      any = any || v > 0;
      std::string cell = v > 0 ? text(v) : "-";
      if (h != rows.front() && v > 0 && first > 0) cell += fmt::format(" ({:.2f} x)", v / first);
      row.push_back(std::move(cell));
    }
    if (any) table.add(std::move(row));
  };
  const auto bytes = [](double v) { return human_bytes(v); };
  const auto rate = [](double v) { return human_rate(v, "B"); };
  line(
      "memory", [](const Hardware& h) { return h.memory_bytes; }, bytes);
  line(
      "bandwidth", [](const Hardware& h) { return h.bytes_per_second; }, rate);
  for (std::string_view code : codes)
    line(
        std::string(code), [&](const Hardware& h) { return h.rate_of(code).value_or(0); },
        [](double v) { return human_rate(v, "FLOP"); });
  for (std::string_view code : codes)
    line(
        fmt::format("ridge of {}", code), [&](const Hardware& h) { return ridge(h, code); },
        [](double v) { return fmt::format("{:.0f} FLOP/B", v); });
  line(
      "link, one way", [](const Hardware& h) { return h.link_bytes_per_second; }, rate);
  line(
      "power", [](const Hardware& h) { return h.watts; },
      [](double v) { return fmt::format("{:.0f} W", v); });
  line(
      "bytes a joule",
      [](const Hardware& h) { return h.watts > 0 ? h.bytes_per_second / h.watts : 0; }, bytes);
  std::string text = table.text();
  for (const Hardware* h : rows)
    if (!h->note.empty()) text += fmt::format("\n{}: {}", h->name, h->note);
  return text + (text.back() == '\n' ? "" : "\n");
}

}  // namespace

std::vector<Hardware> hardware_rows(const std::string& file, int threads) {
  std::vector<Hardware> rows;
  if (const std::optional<Roof> roof = remembered_roof(threads))
    rows.push_back(hardware_here(*roof));
  if (!file.empty())
    for (Hardware& h : parse_hardware(read_text_file(file, std::size_t{4} << 20), file))
      rows.push_back(std::move(h));
  const std::vector<Hardware>& known = known_hardware();
  rows.insert(rows.end(), known.begin(), known.end());
  return rows;
}

const Hardware& choose_hardware(const std::vector<Hardware>& rows, const std::string& name) {
  const bool here = name == "here" || name == "this machine";
  if (here && std::none_of(rows.begin(), rows.end(), [](const Hardware& h) { return h.measured; }))
    fail(Exit::usage, "HW-007", "this machine has not been measured yet", {},
         "`pare roof` measures and remembers it");
  return find_hardware(rows, name);
}

Json hardware_json(const Hardware& h) {
  Json rates = Json::object(), ridges = Json::object(), sources = Json::object();
  for (const auto& [code, rate] : h.rate) {
    rates.set(code, rate);
    ridges.set(code, ridge(h, code));
  }
  for (const auto& [figure, source] : h.sources) sources.set(figure, source);
  Json::Array aliases;
  for (const std::string& alias : h.aliases) aliases.emplace_back(alias);
  const auto known = [](double value) { return value > 0 ? Json(value) : Json(); };
  return Json::object({{"name", Json(h.name)},
                       {"aliases", Json(std::move(aliases))},
                       {"kind", Json(h.kind)},
                       {"measured", Json(h.measured)},
                       {"memory_bytes", Json(h.memory_bytes)},
                       {"bytes_per_second", Json(h.bytes_per_second)},
                       {"link_bytes_per_second", known(h.link_bytes_per_second)},
                       {"watts", known(h.watts)},
                       {"cache_bytes", known(h.cache_bytes)},
                       {"flops_per_second", std::move(rates)},
                       {"ridge_flops_per_byte", std::move(ridges)},
                       {"sources", std::move(sources)},
                       {"note", h.note.empty() ? Json() : Json(h.note)}});
}

std::string hardware_line(const Hardware& h) {
  std::string rates;
  for (std::string_view code : codes)
    if (const std::optional<double> rate = h.rate_of(code))
      rates += fmt::format(", {} {}", code, tera(*rate));
  return fmt::format("{}, {}{} TFLOP/s", human_bytes(h.memory_bytes),
                     human_rate(h.bytes_per_second, "B"), rates);
}

void command_hardware(const HardwareCommand& o, const CommonOptions& common, const Output& out) {
  const std::vector<Hardware> rows = hardware_rows(o.file, common.threads);
  std::vector<const Hardware*> chosen;
  for (const std::string& name : o.names) chosen.push_back(&choose_hardware(rows, name));
  if (out.json) {
    Json::Array list;
    if (chosen.empty())
      for (const Hardware& h : rows) list.push_back(hardware_json(h));
    for (const Hardware* h : chosen) list.push_back(hardware_json(*h));
    return out.result("hardware", Json::object({{"hardware", Json(std::move(list))}}));
  }
  out.text(chosen.empty()       ? list_text(rows)
           : chosen.size() == 1 ? sheet_text(*chosen.front())
                                : comparison_text(chosen));
}

}  // namespace pare
