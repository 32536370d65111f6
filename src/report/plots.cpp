// Roofline and Pareto front, the two plots that say what a change buys.
//
// Both have log axes: operations differ by orders of magnitude in intensity, recipes in loss.
// A change of scheme moves an operation to the right on the roofline (fewer bytes for the same
// FLOPs), and a thin line leads from where it was.
#include "report/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "report/svg.h"

namespace pare {
namespace {

constexpr double left_margin = 52, right_margin = 14, top_margin = 34, bottom_margin = 46;

struct Area {
  Axis x, y;
  Box box;
  double legend_y = 0;
};

// The frame inside margins, with room for a legend of that height at the foot.
Box drawing_box(const PlotFrame& frame, double legend) {
  return {left_margin, top_margin, frame.width - left_margin - right_margin,
          frame.height - top_margin - bottom_margin - legend};
}

bool usable(const RooflinePlot::Point& p) {
  return p.flops > 0 && p.bytes > 0 && std::isfinite(p.flops) && std::isfinite(p.bytes);
}

double peak_of(const RooflinePlot& plot) {
  double peak = 0;
  for (const auto& c : plot.ceilings) peak = std::max(peak, c.flops_per_second);
  return peak;
}

std::vector<LegendEntry> legend_of(const std::vector<std::string>& names) {
  std::vector<LegendEntry> legend;
  for (std::size_t s = 0; s < names.size(); s++)
    if (!names[s].empty())
      legend.push_back({static_cast<int>(s), s == 0 ? Look::hollow : Look::solid,
                        LegendEntry::Mark::marker, names[s]});
  return legend;
}

// The levels of the units, highest first; units of one rate share a level.
std::vector<RooflinePlot::Ceiling> levels_of(const RooflinePlot& plot) {
  std::vector<RooflinePlot::Ceiling> levels;
  for (const auto& c : plot.ceilings)
    if (c.flops_per_second > 0) levels.push_back(c);
  std::sort(levels.begin(), levels.end(), [](const auto& a, const auto& b) {
    return a.flops_per_second > b.flops_per_second ||
           (a.flops_per_second == b.flops_per_second && a.code < b.code);
  });
  for (std::size_t i = 1; i < levels.size();) {
    if (levels[i].flops_per_second != levels[i - 1].flops_per_second) {
      i++;
      continue;
    }
    levels[i - 1].code += ", " + levels[i].code;
    levels.erase(levels.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return levels;
}

// Where the level of a unit begins: at the slope of the memory.
double begin_of(const RooflinePlot& plot, const RooflinePlot::Ceiling& c, const Area& area) {
  const double ridge =
      plot.bytes_per_second > 0 ? c.flops_per_second / plot.bytes_per_second : area.x.low;
  return area.x.at(ridge);
}

// The slope of the memory and the level of each unit.
void draw_ceilings(Svg& svg, const RooflinePlot& plot, const Area& area) {
  const double peak = peak_of(plot), bandwidth = plot.bytes_per_second;
  const auto at = [&](double x, double y) { return std::pair{area.x.at(x), area.y.at(y)}; };
  if (bandwidth > 0) {
    // Where the slope enters and leaves the drawing area.
    const double begin = std::max(area.x.low, area.y.low / bandwidth);
    const double end = std::min(area.x.high, (peak > 0 ? peak : area.y.high) / bandwidth);
    const std::vector slope = {at(begin, begin * bandwidth), at(end, end * bandwidth)};
    if (end > begin) svg.path(slope, "s0 curve");
    if (end > begin) svg.keep_free_along(slope);
  }
  for (const auto& c : levels_of(plot)) {
    const double x = begin_of(plot, c, area), y = area.y.at(c.flops_per_second);
    if (x >= area.x.to) continue;
    svg.line(x, y, area.x.to, y, c.flops_per_second == peak ? "s0 curve" : "s0 curve thin dash");
    svg.keep_free_along({{x, y}, {area.x.to, y}});
  }
}

// Their names, after the marks: each where its line has room, from the right end on.
void name_ceilings(Svg& svg, const RooflinePlot& plot, const Area& area) {
  for (const auto& c : levels_of(plot)) {
    const double begin = begin_of(plot, c, area), y = area.y.at(c.flops_per_second);
    const std::string words = c.code + " " + with_unit(c.flops_per_second, "FLOP/s");
    const double w = text_width(words, text_size);
    bool placed = false;
    for (double right = area.x.to; !placed && right - w >= std::min(begin, area.x.to - w);
         right -= 24)
      for (const double top : {y - 17, y + 3}) {
        const Box box{right - w, top, w, 14};
        if (placed || !svg.is_free(box)) continue;
        svg.text(right, top + 11, Anchor::end, "t muted", words);
        svg.keep_free(box);
        placed = true;
      }
    if (!placed) svg.label(area.x.to - w / 2, y, words, "t muted", area.box);
  }
  if (plot.bytes_per_second <= 0) return;
  const double x = std::max(area.x.low, area.y.low / plot.bytes_per_second);
  svg.label(area.x.at(1.3 * x), area.y.at(1.3 * x * plot.bytes_per_second),
            "memory " + with_unit(plot.bytes_per_second, "B/s"), "t muted", area.box);
}

std::string point_tip(const RooflinePlot& plot, const RooflinePlot::Point& p) {
  const std::size_t s = static_cast<std::size_t>(p.series);
  return fmt::format("{}{}, {}: {} FLOP per byte, {}FLOP/s",
                     s < plot.series.size() ? plot.series[s] + ": " : "", p.name, p.kind,
                     short_number(p.flops / p.bytes), short_number(attained(plot, p)));
}

// From an operation of the base to the same one of each model.
void draw_moves(Svg& svg, const RooflinePlot& plot, const Area& area) {
  std::map<std::pair<std::string, std::string>, const RooflinePlot::Point*> base;
  for (const auto& p : plot.points)
    if (p.series == 0 && usable(p)) base[{p.kind, p.name}] = &p;
  std::set<std::string> drawn;  // the same line once
  for (const auto& p : plot.points) {
    const auto it = base.find({p.kind, p.name});
    if (p.series == 0 || !usable(p) || it == base.end()) continue;
    const auto& from = *it->second;
    const double x1 = area.x.at(from.flops / from.bytes), y1 = area.y.at(attained(plot, from));
    const double x2 = area.x.at(p.flops / p.bytes), y2 = area.y.at(attained(plot, p));
    if (!drawn.insert(fmt::format("{:.0f} {:.0f} {:.0f} {:.0f}", x1, y1, x2, y2)).second) continue;
    if (std::hypot(x2 - x1, y2 - y1) > 3)
      svg.line(x1, y1, x2, y2, fmt::format("s{} curve thin", (p.series - 1) % series_count + 1));
  }
}

void draw_points(Svg& svg, const RooflinePlot& plot, const Area& area) {
  std::set<std::string> drawn;
  std::map<std::string, std::pair<double, double>> words;  // the highest mark of each kind
  std::vector<RooflinePlot::Point> points = plot.points;
  // The base last, as a ring around what it shares its place with.
  std::stable_partition(points.begin(), points.end(), [](const auto& p) { return p.series != 0; });
  for (const auto& p : points) {
    if (!usable(p)) continue;
    const double x = area.x.at(p.flops / p.bytes), y = area.y.at(attained(plot, p));
    if (!drawn.insert(fmt::format("{} {:.1f} {:.1f}", p.series, x, y)).second) continue;
    svg.marker(p.series, x, y, p.series == 0 ? 6.5 : 5, p.series == 0 ? Look::ring : Look::solid,
               point_tip(plot, p));
    const auto it = words.try_emplace(p.kind, x, y).first;
    if (y < it->second.second) it->second = {x, y};
  }
  for (const auto& [kind, at] : words) svg.label(at.first, at.second, kind, "t strong", area.box);
}

}  // namespace

double attained(const RooflinePlot& plot, const RooflinePlot::Point& p) {
  if (p.flops_per_second > 0) return p.flops_per_second;
  double level = 0;
  for (const auto& c : plot.ceilings)
    if (c.code == p.code) level = c.flops_per_second;
  if (level <= 0) level = peak_of(plot);
  const double slope = p.bytes > 0 ? plot.bytes_per_second * p.flops / p.bytes : 0;
  if (level <= 0) return slope;
  return slope > 0 ? std::min(level, slope) : level;
}

std::string roofline_svg(const RooflinePlot& plot, const PlotFrame& frame) {
  std::vector<double> xs, ys;
  std::size_t left_out = 0;
  for (const auto& p : plot.points) {
    if (!usable(p)) {
      left_out++;
      continue;
    }
    xs.push_back(p.flops / p.bytes);
    ys.push_back(attained(plot, p));
  }
  for (const auto& c : plot.ceilings) {
    ys.push_back(c.flops_per_second);
    if (plot.bytes_per_second > 0) xs.push_back(1.6 * c.flops_per_second / plot.bytes_per_second);
  }
  const std::vector<LegendEntry> legend = legend_of(plot.series);
  const double foot = legend_height(legend, frame.width - left_margin - right_margin);
  Area area;
  area.box = drawing_box(frame, foot);
  area.x = fit_axis(Axis::Scale::log, xs, false, area.box.x, area.box.x + area.box.width);
  area.y = fit_axis(Axis::Scale::log, ys, false, area.box.y + area.box.height, area.box.y);
  Svg svg(frame.id, frame.width, frame.height, "Roofline of " + plot.hardware,
          fmt::format(
              "Attainable FLOP per second over FLOP per byte, both axes logarithmic; {} operations "
              "of {} "
              "models under {} ceilings; {} left out. The table below the plot has the figures.",
              xs.size() - (plot.bytes_per_second > 0 ? plot.ceilings.size() : 0),
              plot.series.size(), plot.ceilings.size(), left_out));
  svg.axes(area.x, area.y, "FLOP per byte", "FLOP/s");
  draw_ceilings(svg, plot, area);
  draw_moves(svg, plot, area);
  draw_points(svg, plot, area);
  name_ceilings(svg, plot, area);
  draw_legend(svg, legend, left_margin, frame.height - foot,
              frame.width - left_margin - right_margin);
  return svg.done();
}

std::vector<bool> front(const ParetoPlot& plot) {
  const auto better = [&](double a, double b) { return plot.less_is_better ? a < b : a > b; };
  std::vector<bool> result(plot.points.size());
  for (std::size_t i = 0; i < plot.points.size(); i++) {
    const auto& p = plot.points[i];
    result[i] =
        std::isfinite(p.cost) && std::isfinite(p.loss) &&
        std::none_of(plot.points.begin(), plot.points.end(), [&](const ParetoPlot::Point& q) {
          const bool worse = better(p.cost, q.cost) || p.loss < q.loss;
          return !worse && (better(q.cost, p.cost) || q.loss < p.loss);
        });
  }
  return result;
}

namespace {

// Steps through the points of the front: what is reached at each cost.
void draw_front(Svg& svg, const ParetoPlot& plot, const std::vector<bool>& on_front,
                const Area& area) {
  std::vector<const ParetoPlot::Point*> line;
  for (std::size_t i = 0; i < plot.points.size(); i++)
    if (on_front[i] && plot.points[i].cost > 0 && plot.points[i].loss > 0)
      line.push_back(&plot.points[i]);
  std::stable_sort(line.begin(), line.end(),
                   [](const auto* a, const auto* b) { return a->cost < b->cost; });
  std::vector<std::pair<double, double>> steps;
  for (const auto* p : line) {
    const double x = area.x.at(p->cost), y = area.y.at(p->loss);
    // The loss of a point holds towards dearer costs.
    if (!steps.empty()) {
      if (plot.less_is_better)
        steps.emplace_back(x, steps.back().second);
      else
        steps.emplace_back(steps.back().first, y);
    }
    steps.emplace_back(x, y);
  }
  if (steps.size() < 2) return;
  svg.path(steps, "s0 curve");
  svg.keep_free_along(steps);
}

}  // namespace

std::string pareto_svg(const ParetoPlot& plot, const PlotFrame& frame) {
  const std::vector<bool> on_front = front(plot);
  std::vector<double> xs, ys;
  for (const auto& p : plot.points)
    if (p.cost > 0 && p.loss > 0) xs.push_back(p.cost), ys.push_back(p.loss);
  const std::size_t drawn = xs.size();
  if (plot.base_cost) xs.push_back(*plot.base_cost);
  Area area;
  area.box = drawing_box(frame, 0);
  area.x = fit_axis(Axis::Scale::log, xs, false, area.box.x, area.box.x + area.box.width);
  area.y = fit_axis(Axis::Scale::log, ys, false, area.box.y + area.box.height, area.box.y);
  Svg svg(
      frame.id, frame.width, frame.height,
      fmt::format("{} against {}", plot.loss_name, plot.cost_name),
      fmt::format("{} of {} models have both figures; {} are on the front, where nothing else is "
                  "better in both. "
                  "Both axes are logarithmic. The table has the figures.",
                  drawn, plot.points.size(), std::count(on_front.begin(), on_front.end(), true)));
  svg.axes(area.x, area.y, plot.cost_name, plot.loss_name);
  if (plot.base_cost && *plot.base_cost > 0) {
    const double x = area.x.at(*plot.base_cost);
    svg.line(x, area.box.y, x, area.box.y + area.box.height, "s0 curve thin dash");
    const std::string words = fit_text(plot.base_name, text_size, area.box.width / 2);
    const bool before = x > area.box.x + area.box.width / 2;
    const double w = text_width(words, text_size);
    svg.text(before ? x - 6 : x + 6, area.box.y + 14, before ? Anchor::end : Anchor::start,
             "t muted", words);
    svg.keep_free({before ? x - 6 - w : x + 6, area.box.y + 2, w, 15});
  }
  draw_front(svg, plot, on_front, area);
  for (std::size_t i = 0; i < plot.points.size(); i++) {
    const auto& p = plot.points[i];
    if (!(p.cost > 0) || !(p.loss > 0)) continue;
    svg.marker(p.series, area.x.at(p.cost), area.y.at(p.loss), 5.5,
               on_front[i] ? Look::solid : Look::faded,
               fmt::format("{}: {} {}, {} {}", p.name, plot.cost_name, short_number(p.cost),
                           plot.loss_name, short_number(p.loss)));
  }
  for (std::size_t i = 0; i < plot.points.size(); i++) {
    const auto& p = plot.points[i];
    if (p.cost > 0 && p.loss > 0)
      svg.label(area.x.at(p.cost), area.y.at(p.loss),
                fit_text(p.name, text_size, area.box.width / 2.5), on_front[i] ? "t" : "t muted",
                area.box);
  }
  return svg.done();
}

}  // namespace pare
