// Drawing.
//
// An SVG here is a string to which elements are added; there is no tree. Numbers are written with
// at most one decimal: a tenth of a pixel is not visible, and the files stay small and the same.
// Labels are placed greedily: places around the point are tried in a fixed order, nearest first,
// and what was drawn before is an obstacle. That is not the best arrangement, but a stable one.
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace pare {
namespace {

std::string number(double value) {
  if (!std::isfinite(value)) value = 0;
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

// A shape per series, as a path around (0, 0) of radius one.
using Shape = std::vector<std::pair<double, double>>;
const Shape& shape_of(int series) {
  static const std::array<Shape, 7> shapes = {{
      {{-.88, -.88}, {.88, -.88}, {.88, .88}, {-.88, .88}},  // square
      {{0, -1.25}, {1.25, 0}, {0, 1.25}, {-1.25, 0}},        // diamond
      {{0, -1.15}, {1.15, .9}, {-1.15, .9}},                 // triangle
      {{0, 1.15}, {1.15, -.9}, {-1.15, -.9}},                // triangle, down
      {{-.4, -1.15},
       {.4, -1.15},
       {.4, -.4},
       {1.15, -.4},
       {1.15, .4},
       {.4, .4},  // plus
       {.4, 1.15},
       {-.4, 1.15},
       {-.4, .4},
       {-1.15, .4},
       {-1.15, -.4},
       {-.4, -.4}},
      {{-.55, -1}, {.55, -1}, {1.1, 0}, {.55, 1}, {-.55, 1}, {-1.1, 0}},  // hexagon
      {{-1, -1.1}, {1, -1.1}, {0, 0}, {1, 1.1}, {-1, 1.1}, {0, 0}},       // hourglass
  }};
  return shapes[static_cast<std::size_t>(series - 2) % shapes.size()];
}

// The end of an element, with what a pointer that rests on it shows.
std::string with_tip(std::string_view tip, std::string_view element) {
  if (tip.empty()) return "/>\n";
  return fmt::format("><title>{}</title></{}>\n", escape_markup(tip), element);
}

std::string series_class(int series) {
  return fmt::format("s{}", series == 0 ? 0 : (series - 1) % series_count + 1);
}

}  // namespace

double Axis::at(double value) const {
  const bool logarithmic = scale == Scale::log;
  value = std::clamp(value, low, high);
  const double a = logarithmic ? std::log(low) : low, b = logarithmic ? std::log(high) : high;
  const double v = logarithmic ? std::log(value) : value;
  return from + (to - from) * (b > a ? (v - a) / (b - a) : 0.5);
}

std::vector<Tick> Axis::ticks(int count) const {
  return scale == Scale::log ? log_ticks(low, high, count) : linear_ticks(low, high, count);
}

Axis fit_axis(Axis::Scale scale, const std::vector<double>& values, bool zero, double from,
              double to) {
  const bool logarithmic = scale == Axis::Scale::log;
  Axis axis{scale, logarithmic ? 1.0 : 0.0, logarithmic ? 10.0 : 1.0, from, to};
  bool any = false;
  for (double v : values) {
    if (!std::isfinite(v) || (logarithmic && v <= 0)) continue;
    axis.low = any ? std::min(axis.low, v) : v;
    axis.high = any ? std::max(axis.high, v) : v;
    any = true;
  }
  if (!any) return axis;
  if (logarithmic) {
    const double air = std::max(std::pow(axis.high / axis.low, 0.08), 1.15);
    axis.low /= air;
    axis.high *= air;
    return axis;
  }
  if (zero) axis.low = std::min(axis.low, 0.0);
  if (zero) axis.high = std::max(axis.high, 0.0);
  const double span = axis.high > axis.low ? axis.high - axis.low : std::max(1e-9, axis.high);
  if (!zero || axis.low < 0) axis.low -= 0.06 * span;
  axis.high += 0.06 * span;
  return axis;
}

Svg::Svg(std::string id, double width, double height, std::string_view title,
         std::string_view description)
    : id_(std::move(id)),
      title_(escape_markup(title)),
      description_(escape_markup(description)),
      width_(width),
      height_(height) {
  for (char c : id_) PARE_CHECK((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-');
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view classes) {
  body_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n",
                       escape_markup(classes), number(x1), number(y1), number(x2), number(y2));
}

void Svg::path(const std::vector<std::pair<double, double>>& points, std::string_view classes,
               bool closed) {
  std::string d;
  for (const auto& [x, y] : points)
    d += fmt::format("{}{} {}", d.empty() ? "M" : "L", number(x), number(y));
  body_ += fmt::format("<path class=\"{}\" d=\"{}{}\"/>\n", escape_markup(classes), d,
                       closed ? "Z" : "");
}

void Svg::rect(const Box& b, std::string_view classes, std::string_view tip) {
  body_ += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
                       escape_markup(classes), number(b.x), number(b.y), number(b.width),
                       number(b.height));
  body_ += with_tip(tip, "rect");
}

std::string marker_svg(int series, double x, double y, double radius, Look look,
                       std::string_view tip) {
  static constexpr const char* looks[] = {"solid", "hollow", "hollow ring", "solid faded"};
  const std::string classes =
      fmt::format("{} {}", series_class(series), looks[static_cast<int>(look)]);
  if (series <= 1)
    return fmt::format("<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"{}\"", classes, number(x),
                       number(y), number(radius)) +
           with_tip(tip, "circle");
  std::string d;
  for (const auto& [dx, dy] : shape_of(series))
    d += fmt::format("{}{} {}", d.empty() ? "M" : "L", number(x + radius * dx),
                     number(y + radius * dy));
  return fmt::format("<path class=\"{}\" d=\"{}Z\"", classes, d) + with_tip(tip, "path");
}

void Svg::marker(int series, double x, double y, double radius, Look look, std::string_view tip) {
  keep_free({x - radius, y - radius, 2 * radius, 2 * radius});
  body_ += marker_svg(series, x, y, radius, look, tip);
}

void Svg::text(double x, double y, Anchor anchor, std::string_view classes, std::string_view text,
               double turned) {
  static constexpr const char* anchors[] = {"start", "middle", "end"};
  const std::string turn = turned == 0 ? ""
                                       : fmt::format(" transform=\"rotate({} {} {})\"",
                                                     number(turned), number(x), number(y));
  body_ += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n",
                       escape_markup(classes), number(x), number(y),
                       anchors[static_cast<int>(anchor)], turn, escape_markup(text));
}

void Svg::axes(const Axis& x, const Axis& y, std::string_view x_title, std::string_view y_title,
               double tick_width) {
  const double left = std::min(x.from, x.to), right = std::max(x.from, x.to);
  const double top = std::min(y.from, y.to), bottom = std::max(y.from, y.to);
  for (const Tick& tick : y.ticks(std::max(2, static_cast<int>((bottom - top) / 42)))) {
    const double at = y.at(tick.value);
    line(left, at, right, at, tick.label.empty() ? "grid minor" : "grid");
    if (!tick.label.empty()) text(left - 7, at + 4, Anchor::end, "t muted", tick.label);
  }
  double last = -1e9;
  for (const Tick& tick : x.ticks(std::max(2, static_cast<int>((right - left) / tick_width)))) {
    const double at = x.at(tick.value);
    line(at, top, at, bottom, tick.label.empty() ? "grid minor" : "grid");
    const double half = text_width(tick.label, text_size) / 2;
    if (tick.label.empty() || at - half < last + 4) continue;
    text(at, bottom + 17, Anchor::middle, "t muted", tick.label);
    last = at + half;
  }
  line(left, bottom, right, bottom, "axis");
  text((left + right) / 2, bottom + 36, Anchor::middle, "t", x_title);
  // The title of the upright axis lies above it: turned text is hard to read.
  text(0, top - 12, Anchor::start, "t", y_title);
}

bool Svg::is_free(const Box& box) const {
  return std::none_of(taken_.begin(), taken_.end(),
                      [&](const Box& other) { return overlap(box, other); });
}

void Svg::keep_free_along(const std::vector<std::pair<double, double>>& points) {
  for (std::size_t i = 1; i < points.size(); i++) {
    const auto [x1, y1] = points[i - 1];
    const auto [x2, y2] = points[i];
    const int pieces = 1 + static_cast<int>(std::hypot(x2 - x1, y2 - y1) / 12);
    for (int k = 0; k < pieces; k++) {  // a slanting line is a row of small boxes
      const double a = static_cast<double>(k) / pieces, b = static_cast<double>(k + 1) / pieces;
      const double xa = x1 + a * (x2 - x1), xb = x1 + b * (x2 - x1);
      const double ya = y1 + a * (y2 - y1), yb = y1 + b * (y2 - y1);
      keep_free({std::min(xa, xb) - 1, std::min(ya, yb) - 1, std::abs(xb - xa) + 2,
                 std::abs(yb - ya) + 2});
    }
  }
}

bool Svg::label(double x, double y, std::string_view words, std::string_view classes,
                const Box& bounds) {
  const double w = text_width(words, text_size) + 2, h = text_size + 3;
  for (double far : {9.0, 18.0, 30.0, 46.0, 64.0}) {
    const Box places[] = {{x + far, y - h / 2, w, h},
                          {x - far - w, y - h / 2, w, h},
                          {x - w / 2, y - far - h, w, h},
                          {x - w / 2, y + far, w, h},
                          {x + far * 0.7, y - far - h / 2, w, h},
                          {x + far * 0.7, y + far - h / 2, w, h},
                          {x - far * 0.7 - w, y - far - h / 2, w, h},
                          {x - far * 0.7 - w, y + far - h / 2, w, h}};
    for (const Box& place : places) {
      const bool inside = place.x >= bounds.x && place.y >= bounds.y &&
                          place.x + w <= bounds.x + bounds.width &&
                          place.y + h <= bounds.y + bounds.height;
      if (!inside || !is_free(place)) continue;
      if (far > 10)
        line(x, y, std::clamp(x, place.x, place.x + w), std::clamp(y, place.y, place.y + h),
             "leader");
      text(place.x + 1, place.y + h - 4, Anchor::start, classes, words);
      taken_.push_back(place);
      return true;
    }
  }
  return false;
}

std::string Svg::done() const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" viewBox=\"0 0 {0} "
      "{1}\" "
      "width=\"{0}\" height=\"{1}\" aria-labelledby=\"{2}-t {2}-d\">\n"
      "<title id=\"{2}-t\">{3}</title>\n<desc id=\"{2}-d\">{4}</desc>\n{5}</svg>\n",
      number(width_), number(height_), id_, title_, description_, body_);
}

namespace {

constexpr double legend_row = 20, legend_mark = 20, legend_gap = 16;

// Calls place(entry, x, y) for each; the height used.
template <class Place>
double arrange(const std::vector<LegendEntry>& entries, double width, Place place) {
  double x = 0, y = 0;
  for (const LegendEntry& entry : entries) {
    const std::string words = fit_text(entry.text, text_size, width - legend_mark);
    const double need = legend_mark + text_width(words, text_size);
    if (x > 0 && x + need > width) {
      x = 0;
      y += legend_row;
    }
    place(entry, words, x, y);
    x += need + legend_gap;
  }
  return entries.empty() ? 0 : y + legend_row;
}

}  // namespace

double legend_height(const std::vector<LegendEntry>& entries, double width) {
  return arrange(entries, width, [](const LegendEntry&, const std::string&, double, double) {});
}

void draw_legend(Svg& svg, const std::vector<LegendEntry>& entries, double x, double y,
                 double width) {
  arrange(entries, width,
          [&](const LegendEntry& e, const std::string& words, double dx, double dy) {
            const double middle = y + dy + legend_row / 2;
            const std::string series = series_class(e.series);
            switch (e.mark) {
              case LegendEntry::Mark::marker:
                svg.marker(e.series, x + dx + 7, middle, 4.5, e.look);
                break;
              case LegendEntry::Mark::swatch:
                svg.rect({x + dx + 1, middle - 6, 12, 12}, series + " fill");
                break;
              case LegendEntry::Mark::line:
              case LegendEntry::Mark::dash:
                svg.line(x + dx, middle, x + dx + 14, middle,
                         series + (e.mark == LegendEntry::Mark::dash ? " curve dash" : " curve"));
                break;
            }
            svg.text(x + dx + legend_mark, middle + 4, Anchor::start, "t", words);
          });
}

}  // namespace pare
