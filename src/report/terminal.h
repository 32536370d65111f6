// The main plots in characters, for commands that print. Plain text without colour: the marks tell
// the series apart. Nothing is ever wider than `width` columns.
#pragma once

#include <string>
#include <vector>

#include "report/plots.h"

namespace pare {

struct TerminalStyle {
  int width = 80;       // columns, at least 40
  int height = 16;      // rows of the drawing area of a chart
  bool unicode = true;  // false: ASCII alone
};

// From the environment: columns of the terminal on stdout (80 without one), UTF-8 by LC_ALL,
// LC_CTYPE and LANG.
TerminalStyle terminal_style();

// One bar a line: name, bar, the value as given in words.
struct TextBar {
  std::string name;
  double value = 0;
  std::string label;  // "3.20 MB"
};
std::string bars_text(const std::vector<TextBar>&, const TerminalStyle&);

// Stacked: each part has its own fill; a legend names them.
std::string parts_text(const PartsPlot&, const TerminalStyle&);
// Marks: `o` the base, then A, B, ... the series. Log axes.
std::string roofline_text(const RooflinePlot&, const TerminalStyle&);
// Marks: A, B, ... for the front, a, b, ... for what is dominated; a legend with the figures.
std::string pareto_text(const ParetoPlot&, const TerminalStyle&);
// A line a point: name, predicted, measured, deviation, and where it lies in +-20 %.
std::string prediction_text(const PredictionPlot&, const TerminalStyle&);

}  // namespace pare
