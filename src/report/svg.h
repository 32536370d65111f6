// A small kit for plots as SVG text: axes with round ticks, marks, labels that keep out of each
// other's way, a legend.
//
// Colours are CSS classes, not values: the series classes s0 (the base, neutral) and s1 to s8 and
// the text classes are defined by plot_style(), for light, dark and print. The same text always
// gives the same bytes. Lengths are user units (CSS pixels at the natural size). Whatever comes
// from outside is escaped here, by every function that takes text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pare {

// Text for the content and the attributes of XML and HTML: the five special characters become
// references; what XML forbids (control characters, invalid UTF-8, surrogates) becomes U+FFFD.
std::string escape_markup(std::string_view text);

// Three significant digits with an SI prefix: "3.2M", "950", "0.012", "1e-5".
std::string short_number(double value);
std::string with_unit(double value, std::string_view unit);  // "3.2 MB"

struct Tick {
  double value = 0;
  std::string label;  // empty: a minor tick
};
// Multiples of 1, 2, 2.5 or 5 times a power of ten within [low, high], about `count` of them.
std::vector<Tick> linear_ticks(double low, double high, int count);
// Powers of ten, with 2 and 5 where few fit, as linear_ticks where not even those do; 2 to 9
// between the labelled decades are minor. 0 < low < high.
std::vector<Tick> log_ticks(double low, double high, int count);

// One dimension of a plot: values to user units.
struct Axis {
  enum class Scale { linear, log } scale = Scale::linear;
  double low = 0, high = 1;       // of the values
  double from = 0, to = 1;        // of the user units; from > to for an axis that grows upwards
  double at(double value) const;  // clamped to the ends
  std::vector<Tick> ticks(int count) const;
};
// The axis over all of `values` with some air: a log axis takes only the positive ones, a linear
// one begins at zero when `zero`. Without a usable value it is [1, 10] or [0, 1].
Axis fit_axis(Axis::Scale scale, const std::vector<double>& values, bool zero, double from,
              double to);

struct Box {
  double x = 0, y = 0, width = 0, height = 0;  // from the upper left corner
};
bool overlap(const Box&, const Box&);

// An upper estimate of the width of a text in a common sans-serif face.
double text_width(std::string_view text, double size);
// Cut to at most `width` with an ellipsis in the middle, so that both ends can be told apart.
std::string fit_text(const std::string& text, double size, double width);

constexpr int series_count = 8;
constexpr double text_size = 12;

enum class Anchor { start, middle, end };
enum class Look {
  solid,
  hollow,
  ring,   // hollow, and what lies below shows through
  faded,  // the shape of the series in the neutral colour
};

class Svg {
 public:
  // `id` is unique in the document and of [a-z0-9-]; title and description are read aloud instead
  // of the picture.
  Svg(std::string id, double width, double height, std::string_view title,
      std::string_view description);

  void line(double x1, double y1, double x2, double y2, std::string_view classes);
  void path(const std::vector<std::pair<double, double>>& points, std::string_view classes,
            bool closed = false);
  void rect(const Box&, std::string_view classes, std::string_view tip = {});
  // The shape belongs to the series, so that colour is never the only difference.
  void marker(int series, double x, double y, double radius, Look look, std::string_view tip = {});
  void text(double x, double y, Anchor, std::string_view classes, std::string_view text,
            double turned = 0);

  // Grid, ticks, tick labels and titles of both axes.
  // `tick_width`: room of a label of the lower axis.
  void axes(const Axis& x, const Axis& y, std::string_view x_title, std::string_view y_title,
            double tick_width = 80);

  // Obstacles and labels: a label goes to the first free place around its point, farther ones with
  // a leader line; false when there is none inside `bounds`, and nothing is drawn then.
  void keep_free(const Box& box) { taken_.push_back(box); }
  bool is_free(const Box& box) const;
  void keep_free_along(const std::vector<std::pair<double, double>>& points);
  bool label(double x, double y, std::string_view text, std::string_view classes,
             const Box& bounds);

  std::string done() const;
  double width() const { return width_; }
  double height() const { return height_; }

 private:
  std::string id_, title_, description_, body_;
  double width_, height_;
  std::vector<Box> taken_;
};

// The element of Svg::marker alone.
std::string marker_svg(int series, double x, double y, double radius, Look look,
                       std::string_view tip = {});

struct LegendEntry {
  int series = 0;
  Look look = Look::solid;
  enum class Mark { marker, swatch, line, dash } mark = Mark::marker;
  std::string text;
};
// Rows of entries from (x, y) downwards, wrapped at `width`; the height they take.
double legend_height(const std::vector<LegendEntry>&, double width);
void draw_legend(Svg&, const std::vector<LegendEntry>&, double x, double y, double width);

// The style of all plots: variables of the palette and rules for the classes.
std::string palette_style();  // :root { --... } for light, dark and print
std::string plot_style();     // rules that use them
// A plot as a file of its own.
std::string standalone_svg(const std::string& svg);

}  // namespace pare
