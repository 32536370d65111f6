// Plots in characters.
//
// A chart is a grid of cells with an axis at the left and one below; log scales as in the SVG ones,
// and the same ticks. Cells hold one character; where two marks meet the later wins, except that a
// mark is never overwritten by a line. Names come from outside: control characters are replaced,
// and what is too long is cut.
#include "report/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "report/svg.h"

namespace pare {
namespace {

// Letters of a text, one cell each: what moves the cursor becomes '?'; without unicode so does all
// beyond ASCII.
std::vector<std::string> cells_of(std::string_view text, bool unicode) {
  std::vector<std::string> cells;
  for (std::size_t at = 0; at < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[at]);
    std::size_t length = 1;
    while (c >= 0xC0 && at + length < text.size() && length < 4 &&
           (static_cast<unsigned char>(text[at + length]) & 0xC0) == 0x80)
      length++;
    const std::string letter(text.substr(at, length));
    const bool plain = c >= 0x20 && c < 0x7F;
    // escape_markup knows what is no character; what it keeps may be printed.
    const bool good = plain || (unicode && c >= 0xC2 && escape_markup(letter) == letter);
    cells.push_back(good ? letter : "?");
    at += length;
  }
  return cells;
}

std::string join(const std::vector<std::string>& cells) {
  std::string text;
  for (const std::string& cell : cells) text += cell;
  return text;
}

// Exactly `width` cells, cut or filled up.
std::string fitted(std::string_view text, int width, const TerminalStyle& style,
                   bool right = false) {
  std::vector<std::string> cells = cells_of(text, style.unicode);
  const std::size_t size = static_cast<std::size_t>(std::max(width, 0));
  if (cells.size() > size) {
    cells.resize(size);
    if (size > 0) cells.back() = style.unicode ? "\xE2\x80\xA6" : "~";
  }
  const std::string pad(size - cells.size(), ' ');
  return right ? pad + join(cells) : join(cells) + pad;
}

int length_of(std::string_view text) { return static_cast<int>(cells_of(text, true).size()); }

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

int columns(const TerminalStyle& style) { return std::max(style.width, 40); }

// A bar of `length` cells in eighths (ASCII: whole cells).
std::string bar_of(double length, const TerminalStyle& style) {
  if (!style.unicode) return std::string(static_cast<std::size_t>(std::lround(length)), '#');
  static constexpr const char* eighths[] = {"",       "\u258F", "\u258E", "\u258D",
                                            "\u258C", "\u258B", "\u258A", "\u2589"};
  const int parts = static_cast<int>(std::lround(length * 8));
  std::string bar;
  for (int i = 0; i < parts / 8; i++) bar += "\u2588";
  return bar + eighths[parts % 8];
}

class Chart {
 public:
  Chart(const Axis& x, const Axis& y, const TerminalStyle& style, std::string x_title,
        std::string y_title)
      : x_(x), y_(y), style_(style), x_title_(std::move(x_title)), y_title_(std::move(y_title)) {
    for (const Tick& tick : y_.ticks(std::max(2, style.height / 4)))
      margin_ = std::max(margin_, length_of(tick.label) + 1);
    width_ = std::max(8, columns(style) - margin_ - 1);
    height_ = std::max(4, style.height);
    x_.from = 0, x_.to = width_ - 1;
    y_.from = height_ - 1, y_.to = 0;
    cells_.assign(static_cast<std::size_t>(width_ * height_), " ");
    mark_.assign(cells_.size(), false);
  }

  bool inside(double x, double y) const {
    return x >= x_.low && x <= x_.high && y >= y_.low && y <= y_.high;
  }
  void mark(double x, double y, const std::string& letter) { put(x, y, letter, true); }
  void dot(double x, double y, const std::string& letter) {
    if (inside(x, y)) put(x, y, letter, false);
  }
  // Behind the place, else a row above or below it; nowhere when marks are in the way.
  void word(double x, double y, std::string_view text) {
    const std::vector<std::string> cells = cells_of(text, style_.unicode);
    const int length = static_cast<int>(cells.size());
    const int column = std::min(static_cast<int>(std::lround(x_.at(x))) + 2, width_ - length);
    const int middle = static_cast<int>(std::lround(y_.at(y)));
    for (int row : {middle, middle - 1, middle + 1}) {
      if (column < 0 || row < 0 || row >= height_) continue;
      bool free = true;
      for (int i = 0; i < length; i++) free = free && !mark_[index(column + i, row)];
      if (!free) continue;
      for (int i = 0; i < length; i++)
        set(column + i, row, cells[static_cast<std::size_t>(i)], true);
      return;
    }
  }
  double x_value(int column) const {  // the value at the middle of a column
    const double share = static_cast<double>(column) / (width_ - 1);
    return x_.scale == Axis::Scale::log ? x_.low * std::pow(x_.high / x_.low, share)
                                        : x_.low + share * (x_.high - x_.low);
  }
  int width() const { return width_; }

  std::string text() const {
    std::string out = trimmed(fitted(y_title_, columns(style_), style_));
    std::vector<std::string> labels(static_cast<std::size_t>(height_));
    for (const Tick& tick : y_.ticks(std::max(2, height_ / 4)))
      if (!tick.label.empty())
        labels[static_cast<std::size_t>(std::lround(y_.at(tick.value)))] = tick.label;
    for (int row = 0; row < height_; row++) {
      const std::string& label = labels[static_cast<std::size_t>(row)];
      std::string line = fitted(label, margin_ - 1, style_, true);
      line +=
          style_.unicode ? (label.empty() ? " \u2502" : " \u2524") : (label.empty() ? " |" : " +");
      for (int column = 0; column < width_; column++) line += cells_[index(column, row)];
      out += trimmed(line);
    }
    return out + foot();
  }

 private:
  std::size_t index(int column, int row) const {
    return static_cast<std::size_t>(row * width_ + column);
  }
  void set(int column, int row, const std::string& letter, bool is_mark) {
    if (mark_[index(column, row)] && !is_mark) return;
    cells_[index(column, row)] = letter;
    if (is_mark) mark_[index(column, row)] = true;
  }
  void put(double x, double y, const std::string& letter, bool is_mark) {
    set(static_cast<int>(std::lround(x_.at(x))), static_cast<int>(std::lround(y_.at(y))), letter,
        is_mark);
  }

  // The lower axis, its labels and its title.
  std::string foot() const {
    std::string axis(static_cast<std::size_t>(margin_), ' ');
    std::vector<std::string> line(static_cast<std::size_t>(width_),
                                  style_.unicode ? "\u2500" : "-");
    std::string words(static_cast<std::size_t>(width_), ' ');
    int free = 0;
    for (const Tick& tick : x_.ticks(std::max(2, width_ / 12))) {
      if (tick.label.empty()) continue;
      const int at = static_cast<int>(std::lround(x_.at(tick.value)));
      const int length = static_cast<int>(tick.label.size());
      const int begin = std::clamp(at - length / 2, 0, width_ - length);
      line[static_cast<std::size_t>(at)] = style_.unicode ? "\u252C" : "+";
      if (begin < free) continue;
      words.replace(static_cast<std::size_t>(begin), static_cast<std::size_t>(length), tick.label);
      free = begin + length + 1;
    }
    const std::string indent(static_cast<std::size_t>(margin_ + 1), ' ');
    return axis + (style_.unicode ? "\u2514" : "+") + join(line) + "\n" + trimmed(indent + words) +
           trimmed(fitted(indent + x_title_, columns(style_), style_));
  }

  Axis x_, y_;
  TerminalStyle style_;
  std::string x_title_, y_title_;
  int margin_ = 2, width_ = 0, height_ = 0;
  std::vector<std::string> cells_;
  std::vector<bool> mark_;
};

std::string series_mark(int series) {
  return series == 0 ? "o" : std::string(1, static_cast<char>('A' + (series - 1) % 26));
}

}  // namespace

TerminalStyle terminal_style() {
  TerminalStyle style;
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    style.width = std::clamp<int>(size.ws_col, 40, 160);
  style.unicode = false;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == 0) continue;
    const std::string_view locale(value);
    style.unicode = locale.find("UTF-8") != std::string_view::npos ||
                    locale.find("utf8") != std::string_view::npos ||
                    locale.find("utf-8") != std::string_view::npos;
    break;
  }
  return style;
}

std::string bars_text(const std::vector<TextBar>& bars, const TerminalStyle& style) {
  int name = 0, label = 0;
  double largest = 0;
  for (const TextBar& bar : bars) {
    name = std::max(name, length_of(bar.name));
    label = std::max(label, length_of(bar.label));
    if (std::isfinite(bar.value)) largest = std::max(largest, bar.value);
  }
  name = std::min(name, columns(style) / 3);
  label = std::min(label, columns(style) / 3);
  const int room = columns(style) - name - label - 4;
  std::string out;
  for (const TextBar& bar : bars) {
    const double share =
        largest > 0 && std::isfinite(bar.value) ? std::max(bar.value, 0.0) / largest : 0;
    out += trimmed(fitted(bar.name, name, style) + "  " + fitted(bar.label, label, style, true) +
                   "  " + bar_of(share * room, style));
  }
  return out;
}

std::string parts_text(const PartsPlot& plot, const TerminalStyle& style) {
  static const std::vector<std::string> fills = {"\u2588", "\u2593", "\u2592", "\u2591",
                                                 "=",      ":",      "+",      "."};
  static const std::vector<std::string> plain = {"#", "%", "*", "=", "-", ":", "+", "."};
  const auto fill = [&](std::size_t part) { return (style.unicode ? fills : plain)[part % 8]; };
  int name = 0;
  double largest = 0;
  for (const PartsPlot::Bar& bar : plot.bars) {
    name = std::max(name, length_of(bar.name));
    double total = 0;
    for (double v : bar.parts) total += v;
    largest = std::max(largest, total);
  }
  name = std::min(name, columns(style) / 3);
  const int room = columns(style) - name - 10;
  std::string out;
  for (const PartsPlot::Bar& bar : plot.bars) {
    std::string line = fitted(bar.name, name, style) + "  ";
    double sum = 0;
    long drawn = 0;
    for (std::size_t p = 0; p < bar.parts.size(); p++) {
      sum += bar.parts[p];
      const long end = largest > 0 ? std::lround(sum / largest * room) : 0;
      for (; drawn < end; drawn++) line += fill(p);
    }
    out += trimmed(line + " " + short_number(sum));
  }
  std::string legend = std::string(static_cast<std::size_t>(name + 2), ' ');
  const int indent = length_of(legend);
  int used = indent;
  for (std::size_t p = 0; p < plot.parts.size(); p++) {
    const int need = length_of(plot.parts[p]) + 4;
    if (used > indent && used + need > columns(style)) {
      out += trimmed(legend);
      legend.assign(static_cast<std::size_t>(indent), ' ');
      used = indent;
    }
    legend += fill(p) + " " + fitted(plot.parts[p], need - 4, style) + "  ";
    used += need;
  }
  return out + trimmed(legend);
}

std::string roofline_text(const RooflinePlot& plot, const TerminalStyle& style) {
  std::vector<double> xs, ys;
  double peak = 0;
  for (const auto& c : plot.ceilings)
    peak = std::max(peak, c.flops_per_second), ys.push_back(c.flops_per_second);
  if (plot.bytes_per_second > 0 && peak > 0) xs.push_back(2 * peak / plot.bytes_per_second);
  for (const auto& p : plot.points) {
    if (!(p.flops > 0) || !(p.bytes > 0)) continue;
    xs.push_back(p.flops / p.bytes);
    ys.push_back(attained(plot, p));
  }
  Chart chart(fit_axis(Axis::Scale::log, xs, false, 0, 1),
              fit_axis(Axis::Scale::log, ys, false, 0, 1), style, "FLOP per byte",
              "FLOP/s on " + plot.hardware);
  for (int column = 0; column < chart.width(); column++) {
    const double x = chart.x_value(column), slope = x * plot.bytes_per_second;
    if (slope <= peak) chart.dot(x, slope, style.unicode ? "\u00B7" : ".");
    for (const auto& c : plot.ceilings)
      if (slope >= c.flops_per_second)
        chart.dot(x, c.flops_per_second, style.unicode ? "\u2500" : "-");
  }
  for (const auto& p : plot.points)
    if (p.flops > 0 && p.bytes > 0)
      chart.mark(p.flops / p.bytes, attained(plot, p), series_mark(p.series));
  for (const auto& c : plot.ceilings)
    chart.word(1e300, c.flops_per_second,
               fmt::format("{} {}", c.code, short_number(c.flops_per_second)));
  std::string out = chart.text();
  for (std::size_t s = 0; s < plot.series.size(); s++)
    out += trimmed(fitted("  " + series_mark(static_cast<int>(s)) + "  " + plot.series[s],
                          columns(style), style));
  return out;
}

std::string pareto_text(const ParetoPlot& plot, const TerminalStyle& style) {
  std::vector<double> xs, ys;
  for (const auto& p : plot.points)
    if (p.cost > 0 && p.loss > 0) xs.push_back(p.cost), ys.push_back(p.loss);
  if (plot.base_cost) xs.push_back(*plot.base_cost);
  const std::vector<bool> on_front = front(plot);
  Chart chart(fit_axis(Axis::Scale::log, xs, false, 0, 1),
              fit_axis(Axis::Scale::log, ys, false, 0, 1), style, plot.cost_name, plot.loss_name);
  std::string legend;
  int name = 0;
  for (const auto& p : plot.points) name = std::max(name, length_of(p.name));
  name = std::min(name, columns(style) - 36);
  for (std::size_t i = 0; i < plot.points.size(); i++) {
    const auto& p = plot.points[i];
    const char letter = static_cast<char>((on_front[i] ? 'A' : 'a') + static_cast<int>(i) % 26);
    if (p.cost > 0 && p.loss > 0) chart.mark(p.cost, p.loss, std::string(1, letter));
    legend += trimmed(fmt::format("  {}  {}  {:>8}  {:>8}  {}", letter, fitted(p.name, name, style),
                                  short_number(p.cost), short_number(p.loss),
                                  on_front[i] ? "front" : "dominated"));
  }
  return chart.text() + legend;
}

std::string prediction_text(const PredictionPlot& plot, const TerminalStyle& style) {
  constexpr int half = 8;  // cells for 20 %
  int name = 0;
  for (const auto& p : plot.points) name = std::max(name, length_of(p.name));
  name = std::min(name, std::max(8, columns(style) - 50));
  std::string out = trimmed(fmt::format("{}  {:>9} {:>9} {:>8}  {}",
                                        std::string(static_cast<std::size_t>(name), ' '),
                                        "predicted", "measured", "error", "-20 %       +20 %"));
  for (const auto& p : plot.points) {
    if (!(p.measured > 0) || !std::isfinite(p.predicted)) continue;
    const double error = p.predicted / p.measured - 1;
    std::vector<std::string> scale(2 * half + 1, style.unicode ? "\u00B7" : ".");
    const int band = static_cast<int>(std::lround(plot.band / 0.2 * half));
    for (int i = -band; i <= band; i++)
      scale[static_cast<std::size_t>(half + i)] = style.unicode ? "\u2500" : "-";
    scale[half] = style.unicode ? "\u2502" : "|";
    const long at = std::lround(std::clamp(error / 0.2, -1.0, 1.0) * half);
    scale[static_cast<std::size_t>(half + at)] = series_mark(p.series);
    out += trimmed(fmt::format("{}  {:>9} {:>9} {:>+7.1f}%  {}", fitted(p.name, name, style),
                               short_number(p.predicted), short_number(p.measured), 100 * error,
                               join(scale)));
  }
  return out;
}

}  // namespace pare
