// Bytes by part, errors of layers, predictions: plots of rows.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/plots.h"
#include "report/svg.h"

namespace pare {
namespace {

double total_of(const PartsPlot::Bar& bar) {
  double total = 0;
  for (double v : bar.parts) total += std::isfinite(v) && v > 0 ? v : 0;
  return total;
}

// One bar: its segments, the share written inside where it fits, the sum behind it.
void draw_bar(Svg& svg, const PartsPlot& plot, const PartsPlot::Bar& bar, const Axis& x, double y,
              double height) {
  double sum = 0;
  const double total = total_of(bar);
  for (std::size_t p = 0; p < bar.parts.size() && p < plot.parts.size(); p++) {
    const double value = std::isfinite(bar.parts[p]) && bar.parts[p] > 0 ? bar.parts[p] : 0;
    const double begin = x.at(sum), end = x.at(sum + value);
    sum += value;
    if (value <= 0) continue;
    const double gap = end - begin > 3 ? 1 : 0;
    svg.rect({begin, y, std::max(end - begin - gap, 0.5), height},
             fmt::format("s{} fill", p % series_count + 1),
             fmt::format("{}, {}: {} {}", bar.name, plot.parts[p], short_number(value), plot.unit));
    const std::string words = fmt::format("{:.0f} %", 100 * value / total);
    if (text_width(words, text_size) + 8 < end - begin)
      svg.text((begin + end) / 2, y + height / 2 + 4, Anchor::middle, "on", words);
  }
  svg.text(x.at(sum) + 6, y + height / 2 + 4, Anchor::start, "t strong", short_number(total));
}

}  // namespace

std::string parts_svg(const PartsPlot& plot, const PlotFrame& frame) {
  const bool narrow = frame.width < 500;  // names stand above their bars
  double largest = 0, name_width = 0;
  for (const auto& bar : plot.bars) {
    largest = std::max(largest, total_of(bar));
    name_width = std::max(name_width, text_width(bar.name, text_size));
  }
  const double left = narrow ? 0 : std::min(name_width, frame.width * 0.3) + 10;
  const double thickness = 24, step = narrow ? 52 : 36;
  std::vector<LegendEntry> legend;
  for (std::size_t p = 0; p < plot.parts.size(); p++)
    legend.push_back(
        {static_cast<int>(p) + 1, Look::solid, LegendEntry::Mark::swatch, plot.parts[p]});
  const double head = legend_height(legend, frame.width) + 10;
  const double height = head + step * static_cast<double>(plot.bars.size()) + 4;
  Svg svg(frame.id, frame.width, height, fmt::format("{} by part", plot.unit),
          fmt::format("{} models, a bar each, divided into {} parts. The table has the figures.",
                      plot.bars.size(), plot.parts.size()));
  draw_legend(svg, legend, 0, 0, frame.width);
  const Axis x{Axis::Scale::linear, 0, largest > 0 ? largest : 1, left, frame.width - 48};
  double y = head;
  for (const auto& bar : plot.bars) {
    if (narrow)
      svg.text(0, y + 13, Anchor::start, "t", fit_text(bar.name, text_size, frame.width));
    else
      svg.text(left - 10, y + thickness / 2 + 4, Anchor::end, "t",
               fit_text(bar.name, text_size, left - 10));
    draw_bar(svg, plot, bar, x, narrow ? y + 19 : y, thickness);
    y += step;
  }
  return svg.done();
}

std::string layer_svg(const LayerPlot& plot, const PlotFrame& frame) {
  std::vector<double> xs, ys;
  for (const auto& row : plot.rows) {
    xs.push_back(row.block);
    ys.push_back(row.nearest);
    ys.push_back(row.solved);
  }
  if (plot.low > 0 && plot.high > plot.low) ys = {plot.low, plot.high};
  const Box box{46, 30, frame.width - 46 - 12, frame.height - 30 - 44};
  Axis x = fit_axis(Axis::Scale::linear, xs, false, box.x, box.x + box.width);
  const Axis y = fit_axis(Axis::Scale::log, ys, false, box.y + box.height, box.y);
  Svg svg(frame.id, frame.width, frame.height, "Relative output error of " + plot.kind,
          fmt::format("{} blocks; hollow marks and the dashed line: rounded to nearest, filled "
                      "marks: as solved. The "
                      "table has the figures.",
                      plot.rows.size()));
  // Blocks are whole numbers: ticks between them would say nothing.
  const double last = xs.empty() ? 0 : *std::max_element(xs.begin(), xs.end());
  x.low = std::min(x.low, -0.3);
  svg.axes(Axis{x.scale, x.low, std::max(x.high, last + 0.3), x.from, x.to}, y, "block", plot.kind,
           40);
  x.high = std::max(x.high, last + 0.3);
  std::vector<std::pair<double, double>> nearest, solved;
  for (const auto& row : plot.rows) {
    if (row.nearest > 0) nearest.emplace_back(x.at(row.block), y.at(row.nearest));
    if (row.solved > 0) solved.emplace_back(x.at(row.block), y.at(row.solved));
  }
  svg.path(nearest, "s0 curve thin dash");
  svg.path(solved, fmt::format("s{} curve", (plot.series - 1) % series_count + 1));
  const double radius = plot.rows.size() > 40 ? 2.5 : 4;
  for (const auto& row : plot.rows) {
    const std::string tip = fmt::format("block {:.0f}: nearest {}, solved {}", row.block,
                                        short_number(row.nearest), short_number(row.solved));
    if (row.nearest > 0)
      svg.marker(0, x.at(row.block), y.at(row.nearest), radius, Look::hollow, tip);
    if (row.solved > 0)
      svg.marker(plot.series, x.at(row.block), y.at(row.solved), radius, Look::solid, tip);
  }
  return svg.done();
}

std::string prediction_svg(const PredictionPlot& plot, const PlotFrame& frame) {
  std::vector<double> values;
  for (const auto& p : plot.points)
    if (p.predicted > 0 && p.measured > 0)
      values.push_back(p.predicted), values.push_back(p.measured);
  const std::size_t drawn = values.size() / 2;
  const Box box{52, 34, frame.width - 52 - 16, frame.height - 34 - 46};
  // One scale for both axes; the band must not be thinner than it looks on a wide one.
  Axis x = fit_axis(Axis::Scale::log, values, false, box.x, box.x + box.width);
  Axis y = x;
  y.from = box.y + box.height, y.to = box.y;
  std::size_t within = 0;
  for (const auto& p : plot.points)
    within += p.measured > 0 && std::abs(p.predicted / p.measured - 1) <= plot.band ? 1 : 0;
  Svg svg(frame.id, frame.width, frame.height, "Predicted against measured: " + plot.quantity,
          fmt::format("{} points, {} of them within {:.0f} per cent of the measurement; axes are "
                      "logarithmic. The table "
                      "has the figures.",
                      drawn, within, 100 * plot.band));
  svg.axes(x, y, "measured, " + plot.quantity, "predicted", 60);
  const auto at = [&](double a, double b) { return std::pair{x.at(a), y.at(b)}; };
  const double up = 1 + plot.band, down = 1 - plot.band;
  svg.path({at(x.low, x.low), at(x.low, x.low * up), at(x.high / up, x.high), at(x.high, x.high),
            at(x.high, x.high * down), at(x.low / down, x.low)},
           "s0 band", true);
  svg.path({at(x.low, x.low), at(x.high, x.high)}, "s0 curve thin");
  for (const auto& p : plot.points)
    if (p.predicted > 0 && p.measured > 0)
      svg.marker(p.series, x.at(p.measured), y.at(p.predicted), 5,
                 p.series == 0 ? Look::hollow : Look::solid,
                 fmt::format("{}: predicted {}, measured {} ({:+.1f} %)", p.name,
                             short_number(p.predicted), short_number(p.measured),
                             100 * (p.predicted / p.measured - 1)));
  svg.keep_free_along({at(x.low, x.low), at(x.high, x.high)});
  // Only what missed the band is named: the others are where they should be.
  for (const auto& p : plot.points)
    if (p.predicted > 0 && p.measured > 0 && std::abs(p.predicted / p.measured - 1) > plot.band)
      svg.label(x.at(p.measured), y.at(p.predicted), fit_text(p.name, text_size, box.width / 1.6),
                "t muted", box);
  return svg.done();
}

}  // namespace pare
