// Figures as text.
#include "app/figures.h"

#include <algorithm>
#include <cmath>

#include "app/output.h"

namespace pare {

std::string figure_text(const std::optional<double>& value, const std::string& unit) {
  if (!value) return {};
  const double x = *value;
  if (unit == "bytes") return human_bytes(x);
  if (unit == "share") return fmt::format("{:.1f} %", 100 * x);
  if (unit == "ratio") return fmt::format("{:.2f} x", x);
  if (unit == "nats") return fmt::format("{:.5f}", x);
  if (unit == "tokens/s") return fmt::format("{:.{}f}", x, x >= 1000 ? 0 : x >= 10 ? 1 : 2);
  const std::string text = fmt::format("{:.4f}", x);
  return unit.empty() ? text : text + " " + unit;
}

std::string error_of_prediction(const std::optional<double>& measured,
                                const std::optional<double>& predicted) {
  if (!measured || !predicted || *measured == 0) return {};
  return fmt::format("{:+.1f} %", 100 * (*predicted / *measured - 1));
}

namespace {

constexpr std::string_view spread_suffix = "_spread";

const ProofRow* find(const std::vector<ProofRow>& rows, const std::string& metric) {
  for (const ProofRow& r : rows)
    if (r.metric == metric) return &r;
  return nullptr;
}

bool is_spread(const std::vector<ProofRow>& rows, const ProofRow& r) {
  return r.metric.ends_with(spread_suffix) &&
         find(rows, r.metric.substr(0, r.metric.size() - spread_suffix.size())) != nullptr;
}

std::string with_spread(const std::string& text, const std::optional<double>& spread) {
  return spread && !text.empty() ? fmt::format("{} +- {:.0f} %", text, 100 * *spread) : text;
}

}  // namespace

std::string figures_text(const std::vector<ProofRow>& rows) {
  const auto any = [&](auto member) {
    return std::any_of(rows.begin(), rows.end(),
                       [&](const ProofRow& r) { return bool(r.*member); });
  };
  const bool base = any(&ProofRow::base);
  const bool predicted = any(&ProofRow::predicted_base) || any(&ProofRow::predicted_out);
  std::vector<std::string> header = {"figure"};
  if (base) header.emplace_back("base");
  header.emplace_back(base ? "out" : "measured");
  if (predicted && base)
    header.insert(header.end(), {"base predicted", "error", "out predicted", "error"});
  else if (predicted)
    header.insert(header.end(), {"predicted", "error"});
  Table table(header);
  const ProofRow none;
  for (const ProofRow& r : rows) {
    if (is_spread(rows, r)) continue;
    const ProofRow* found = find(rows, r.metric + std::string(spread_suffix));
    const ProofRow& spread = found != nullptr ? *found : none;
    std::vector<std::string> line = {r.metric};
    if (base) line.push_back(with_spread(figure_text(r.base, r.unit), spread.base));
    line.push_back(with_spread(figure_text(r.out, r.unit), spread.out));
    if (predicted && base) {
      line.push_back(figure_text(r.predicted_base, r.unit));
      line.push_back(error_of_prediction(r.base, r.predicted_base));
    }
    if (predicted) {
      line.push_back(figure_text(r.predicted_out, r.unit));
      line.push_back(error_of_prediction(r.out, r.predicted_out));
    }
    table.add(line);
  }
  return table.text();
}

}  // namespace pare
