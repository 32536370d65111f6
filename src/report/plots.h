// The plots of a report: plain structs in, SVG out. report/terminal.h draws the main ones in
// characters from the same structs.
//
// Everywhere series 0 is the base (neutral, hollow marks) and series 1, 2, ... are the models made
// from it, in the same order and so in the same colour and shape in every plot. Numbers that are
// not finite, and those that a log axis has no place for, are left out; the description that a
// screen reader gets says how many.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace pare {

// Size of a plot, and what its ids begin with ([a-z0-9-], unique in the document).
struct PlotFrame {
  std::string id = "plot";
  double width = 760, height = 420;
};

// Ceilings over arithmetic intensity. An operation's place is where it would run at best, or where
// `flops_per_second` says that it runs.
struct RooflinePlot {
  struct Ceiling {
    std::string code;  // what is multiplied: "f32", "int8"
    double flops_per_second = 0;
  };
  struct Point {
    std::string name;  // "blocks.0-3 q"
    std::string kind;  // of pass: "decode", "prefill"; a word beside the first of its kind
    int series = 0;
    double flops = 0, bytes = 0;  // of one pass
    double flops_per_second = 0;  // predicted or measured; 0: the best that the ceilings allow
    std::string code;             // of the ceiling that holds for it; empty: the highest
  };
  std::string hardware;
  double bytes_per_second = 0;
  std::vector<Ceiling> ceilings;
  std::vector<std::string> series;  // names; [0] is the base, empty: there is none
  std::vector<Point> points;
};
// FLOP/s of a point after its own figure or the ceilings.
double attained(const RooflinePlot&, const RooflinePlot::Point&);

// What a model costs against what it lost.
struct ParetoPlot {
  struct Point {
    std::string name;
    int series = 1;
    double cost = 0, loss = 0;
  };
  std::string cost_name = "weights, bytes", loss_name = "mean KL to the base, nats";
  bool less_is_better = true;       // of the cost; false: tokens per second and the like
  std::optional<double> base_cost;  // drawn as an upright line: the base has no loss
  std::string base_name;
  std::vector<Point> points;
};
// Whether nothing else costs no more and loses no more. Equal points are both on the front.
std::vector<bool> front(const ParetoPlot&);

// Bytes by part, a bar a model.
struct PartsPlot {
  struct Bar {
    std::string name;
    std::vector<double> parts;  // as many as `parts`
  };
  std::string unit = "bytes";
  std::vector<std::string> parts;
  std::vector<Bar> bars;
};

// Relative output error of the matrices of one kind over the blocks: rounded to nearest, and as the
// method solved it.
struct LayerPlot {
  struct Row {
    double block = 0, nearest = 0, solved = 0;
  };
  std::string kind;  // "attn.q"
  int series = 1;
  std::vector<Row> rows;
  double low = 0, high = 0;  // of the error axis, so that several plots share it; 0: fitted
};

// Predicted against measured, all of one unit.
struct PredictionPlot {
  struct Point {
    std::string name;
    int series = 0;
    double predicted = 0, measured = 0;
  };
  std::string quantity;  // "tokens per second"
  double band = 0.05;    // the share of deviation that is drawn around the diagonal
  std::vector<std::string> series;
  std::vector<Point> points;
};

std::string roofline_svg(const RooflinePlot&, const PlotFrame&);
std::string pareto_svg(const ParetoPlot&, const PlotFrame&);
std::string parts_svg(const PartsPlot&, const PlotFrame&);  // the height follows from the bars
std::string layer_svg(const LayerPlot&, const PlotFrame&);
std::string prediction_svg(const PredictionPlot&, const PlotFrame&);

}  // namespace pare
