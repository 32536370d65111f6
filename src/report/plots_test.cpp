// Plots: ticks a person would choose, text that stays text, structure that a browser reads.
#include "report/plots.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "base/random.h"
#include "report/svg.h"
#include "report/terminal.h"

namespace pare {
namespace {

std::vector<std::string> labels(const std::vector<Tick>& ticks) {
  std::vector<std::string> out;
  for (const Tick& tick : ticks)
    if (!tick.label.empty()) out.push_back(tick.label);
  return out;
}
using Words = std::vector<std::string>;

TEST(Ticks, Linear) {
  EXPECT_EQ(labels(linear_ticks(0, 10, 5)), (Words{"0", "2", "4", "6", "8", "10"}));
  EXPECT_EQ(labels(linear_ticks(0, 1, 4)), (Words{"0", "0.25", "0.50", "0.75", "1.00"}));
  EXPECT_EQ(labels(linear_ticks(0, 8e6, 4)), (Words{"0", "2M", "4M", "6M", "8M"}));
  EXPECT_EQ(labels(linear_ticks(-1, 1, 4)), (Words{"-1.0", "-0.5", "0", "0.5", "1.0"}));
  EXPECT_TRUE(linear_ticks(1, 1, 4).empty());
  EXPECT_TRUE(linear_ticks(0, std::numeric_limits<double>::infinity(), 4).empty());
}

TEST(Ticks, Log) {
  EXPECT_EQ(labels(log_ticks(1, 1000, 4)), (Words{"1", "10", "100", "1k"}));
  EXPECT_EQ(labels(log_ticks(1, 100, 8)), (Words{"1", "2", "5", "10", "20", "50", "100"}));
  EXPECT_EQ(labels(log_ticks(1e-6, 1e6, 4)), (Words{"1e-6", "0.001", "1", "1k", "1M"}));
  EXPECT_EQ(labels(log_ticks(3.1, 3.9, 4)), (Words{"3.2", "3.4", "3.6", "3.8"}));
  EXPECT_TRUE(log_ticks(0, 10, 4).empty());
}

// Whatever the range: inside it, rising, no label twice, not more than twice what was asked for.
TEST(Ticks, AnyRange) {
  Random random(7);
  for (int round = 0; round < 4000; round++) {
    const double low = std::pow(10, -12 + 24 * random.uniform());
    const double high = low * (1.001 + std::pow(10, 9 * random.uniform() - 3));
    const int count = 2 + static_cast<int>(8 * random.uniform());
    for (bool logarithmic : {false, true}) {
      const std::vector<Tick> ticks =
          logarithmic ? log_ticks(low, high, count) : linear_ticks(low, high, count);
      const Words words = labels(ticks);
      EXPECT_LE(words.size(), static_cast<std::size_t>(2 * count + 3))
          << low << " " << high << " " << count;
      for (std::size_t i = 0; i < ticks.size(); i++) {
        EXPECT_GE(ticks[i].value, low * 0.99999);
        EXPECT_LE(ticks[i].value, high * 1.00001);
        if (i > 0) {
          EXPECT_GT(ticks[i].value, ticks[i - 1].value);
        }
      }
      const std::set<std::string> once(words.begin(), words.end());
      if (high > low * 1.01) {
        EXPECT_EQ(once.size(), words.size())
            << low << " " << high << " " << fmt::format("{}", fmt::join(words, ","));
      }
    }
  }
}

TEST(Ticks, AxisFitsItsValues) {
  const Axis log = fit_axis(Axis::Scale::log, {0, -1, 10, 1000, std::nan("")}, false, 100, 0);
  EXPECT_LT(log.low, 10);
  EXPECT_GT(log.high, 1000);
  EXPECT_LT(log.at(1000), log.at(10));  // grows upwards
  EXPECT_NEAR(log.at(100), 50, 1e-9);
  EXPECT_EQ(fit_axis(Axis::Scale::linear, {3, 9}, true, 0, 1).low, 0);
  EXPECT_GT(fit_axis(Axis::Scale::log, {}, false, 0, 1).high, 0);
}

TEST(Words, ShortNumbers) {
  for (const auto& [value, text] : std::vector<std::pair<double, std::string>>{{0, "0"},
                                                                               {3204000, "3.2M"},
                                                                               {950, "950"},
                                                                               {0.0123, "0.0123"},
                                                                               {1.2e-5, "1.2e-5"},
                                                                               {999.6, "1k"},
                                                                               {-1500, "-1.5k"},
                                                                               {0.9999, "1"},
                                                                               {1e-4, "1e-4"},
                                                                               {std::nan(""), "-"},
                                                                               {7.2e11, "720G"}})
    EXPECT_EQ(short_number(value), text) << value;
}

TEST(Words, Escaping) {
  EXPECT_EQ(escape_markup("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
  EXPECT_EQ(escape_markup("gr\xC3\xBC\xC3\x9F\xF0\x9F\x99\x82"),
            "gr\xC3\xBC\xC3\x9F\xF0\x9F\x99\x82");
  const std::string lost = "\xEF\xBF\xBD";
  for (const char* bad : {"\x01", "\x1b", "\x7f", "\xff", "\xC0", "\xE2\x80\xAE", "\xC2\x85"})
    EXPECT_NE(escape_markup(bad).find(lost), std::string::npos)
        << fmt::format("{:02x}", static_cast<unsigned char>(*bad));
  EXPECT_EQ(escape_markup("\xED\xA0\x80"), lost + lost + lost);  // a lone surrogate
  EXPECT_EQ(escape_markup("\xC0\xBC"), lost + lost);             // '<' in two bytes
  EXPECT_EQ(escape_markup("\xF4\x90\x80\x80").find('\xF4'), std::string::npos);
  EXPECT_EQ(escape_markup("x\n"), "x\n");
}

TEST(Words, FitKeepsBothEnds) {
  const std::string cut = fit_text("a-very-long-model-name-int4-g128", 12, 120);
  EXPECT_LE(text_width(cut, 12), 120);
  EXPECT_EQ(cut.front(), 'a');
  EXPECT_EQ(cut.back(), '8');
  EXPECT_EQ(fit_text("short", 12, 120), "short");
}

RooflinePlot roofline() {
  RooflinePlot plot;
  plot.hardware = "a <machine> & \"co\"";
  plot.bytes_per_second = 34e9;
  plot.ceilings = {{"f32", 380e9}, {"int8", 720e9}};
  plot.series = {"base", "w4</text><script>alert(1)</script>"};
  for (int i = 0; i < 4; i++) {
    plot.points.push_back({fmt::format("blocks.{} q", i), "decode", 0, 2e6, 2e6, 0, "f32"});
    plot.points.push_back({fmt::format("blocks.{} q", i), "decode", 1, 2e6, 0.55e6, 0, "f32"});
    plot.points.push_back({fmt::format("blocks.{} q", i), "prefill", 1, 2e9, 2e6 + i, 0, "f32"});
  }
  plot.points.push_back({"norms", "decode", 0, 0, 5, 0, ""});
  return plot;
}

TEST(Roofline, AttainedIsTheLowerLimit) {
  const RooflinePlot plot = roofline();
  EXPECT_DOUBLE_EQ(attained(plot, plot.points[0]), 34e9);  // one FLOP a byte
  EXPECT_DOUBLE_EQ(attained(plot, plot.points[2]), 380e9);
  RooflinePlot::Point given{"x", "", 0, 1, 1, 5, ""};
  EXPECT_EQ(attained(plot, given), 5);
  given = {"x", "", 0, 1e9, 1, 0, "unknown"};
  EXPECT_EQ(attained(plot, given), 720e9);
}

// Every start tag has its end, and nothing of a name became markup.
void expect_well_formed(const std::string& text) {
  std::vector<std::string> open;
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const std::size_t end = text.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = text.substr(at + 1, end - at - 1);
    const std::string name =
        tag.substr(tag[0] == '/', tag.find_first_of(" >", 1) - (tag[0] == '/'));
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ("/" + open.back(), tag);
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
    EXPECT_NE(name, "script");
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_EQ(text.find("inf"), std::string::npos);
}

TEST(Roofline, Structure) {
  const std::string svg = roofline_svg(roofline(), {"r", 760, 420});
  expect_well_formed(svg);
  EXPECT_NE(svg.find("role=\"img\""), std::string::npos);
  EXPECT_NE(svg.find("aria-labelledby=\"r-t r-d\""), std::string::npos);
  EXPECT_NE(svg.find("<title id=\"r-t\">Roofline of a &lt;machine&gt;"), std::string::npos);
  EXPECT_NE(svg.find("1 left out"), std::string::npos);
  EXPECT_NE(svg.find("memory 34 GB/s"), std::string::npos);
  EXPECT_NE(svg.find("int8 720 GFLOP/s"), std::string::npos);
  // Equal operations are one mark: one of the base, two of the model, two in the legend.
  const auto count = [&](const std::string& what) {
    std::size_t n = 0;
    for (std::size_t at = svg.find(what); at != std::string::npos; at = svg.find(what, at + 1)) n++;
    return n;
  };
  EXPECT_EQ(count("<circle"), 5u);
  EXPECT_EQ(svg, roofline_svg(roofline(), {"r", 760, 420}));
}

TEST(Pareto, FrontIsWhatNothingBeats) {
  ParetoPlot plot;
  plot.points = {
      {"a", 1, 10, 1}, {"b", 2, 20, .5}, {"c", 3, 20, .7}, {"d", 4, 30, .6}, {"e", 5, 20, .5}};
  EXPECT_EQ(front(plot), (std::vector<bool>{true, true, false, false, true}));
  plot.less_is_better = false;
  EXPECT_EQ(front(plot), (std::vector<bool>{false, true, false, true, true}));
  const std::string svg = pareto_svg(plot, {"p", 360, 300});
  expect_well_formed(svg);
  for (const char* name : {">a<", ">b<", ">c<", ">d<"})
    EXPECT_NE(svg.find(name), std::string::npos) << name;
}

TEST(Plots, EmptyAndHostileInputsDraw) {
  const double nan = std::nan(""), huge = std::numeric_limits<double>::infinity();
  RooflinePlot roof;
  expect_well_formed(roofline_svg(roof, {}));
  roof = {"",
          nan,
          {{"x", huge}, {"", -1}},
          {},
          {{"", "", 99, nan, 1, 0, ""}, {"y", "z", 12, 1, 1e-300, 0, ""}}};
  expect_well_formed(roofline_svg(roof, {}));
  expect_well_formed(pareto_svg({}, {}));
  ParetoPlot pareto;
  pareto.points = {{"a", 1, 0, 0}, {"b", 30, 1, huge}, {"c", 2, 5, 1e-12}, {"d", 2, nan, 1}};
  expect_well_formed(pareto_svg(pareto, {}));
  expect_well_formed(parts_svg({}, {}));
  expect_well_formed(parts_svg({"bytes", {"a"}, {{"m", {nan}}, {"<n>", {-1}}, {"o", {}}}}, {}));
  expect_well_formed(layer_svg({}, {}));
  expect_well_formed(layer_svg({"attn.q", 1, {{0, 0, 1e-3}, {1, nan, 0}}, 0, 0}, {}));
  expect_well_formed(prediction_svg({"x", 0.05, {}, {{"a", 1, 0, 5}, {"b", 1, 2, 2}}}, {}));
}

// No two labels of a crowded plot lie on each other.
TEST(Plots, LabelsKeepApart) {
  Svg svg("x", 700, 400, "t", "d");
  Random random(3);
  const Box bounds{0, 0, 700, 400};
  int placed = 0;
  for (int i = 0; i < 60; i++) {
    const double y = 400 * random.uniform(), x = 700 * random.uniform();
    placed += svg.label(x, y, fmt::format("label {:02}", i), "t", bounds);
  }
  EXPECT_GT(placed, 50);
  std::vector<Box> boxes;
  const std::string text = svg.done();
  for (std::size_t at = text.find("<text"); at != std::string::npos;
       at = text.find("<text", at + 1)) {
    double x = 0, y = 0;
    ASSERT_EQ(std::sscanf(text.c_str() + at, "<text class=\"t\" x=\"%lf\" y=\"%lf\"", &x, &y), 2);
    boxes.push_back({x, y - 11, text_width("label 00", 12), 14});
  }
  for (std::size_t i = 0; i < boxes.size(); i++)
    for (std::size_t k = 0; k < i; k++) EXPECT_FALSE(overlap(boxes[i], boxes[k])) << i << " " << k;
}

std::size_t longest_line(const std::string& text) {
  std::size_t longest = 0, n = 0;
  for (char c : text) {
    if (c == '\n')
      n = 0;
    else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80)
      n++;
    longest = std::max(longest, n);
  }
  return longest;
}

TEST(Terminal, FitsAndIsPlain) {
  ParetoPlot pareto;
  pareto.points = {{"int8:channel", 1, 4.7e6, 1e-3},
                   {"\x1b[31mred", 2, 3.2e6, 1e-2},
                   {"int3:g64", 3, 3.3e6, 5e-2}};
  PartsPlot parts{"bytes",
                  {"embedding", "attention", "ffn", "norms"},
                  {{"base", {1.5e6, 1.5e6, 4.7e6, 4e3}},
                   {"a name that is much too long for its place", {1, 2, 3e6, 0}}}};
  PredictionPlot prediction{
      "tokens/s", 0.05, {}, {{"base decode", 0, 100, 104}, {"w4 decode", 1, 230, 190}}};
  for (int width : {40, 72, 100, 160})
    for (bool unicode : {false, true}) {
      const TerminalStyle style{width, 12, unicode};
      for (const std::string& text :
           {roofline_text(roofline(), style), pareto_text(pareto, style), parts_text(parts, style),
            bars_text({{"base", 7.87e6, "7.87 MB"}, {"w4", 3.2e6, "3.20 MB"}}, style),
            prediction_text(prediction, style)}) {
        EXPECT_LE(longest_line(text), static_cast<std::size_t>(std::max(width, 60))) << text;
        EXPECT_EQ(text.find('\x1b'), std::string::npos);
        if (!unicode) {
          EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) {
            return static_cast<unsigned char>(c) < 0x80;
          })) << text;
        }
      }
    }
}

TEST(Terminal, Bars) {
  EXPECT_EQ(bars_text({{"base", 8, "8 MB"}, {"w4", 2, "2 MB"}, {"none", 0, "0"}}, {40, 10, false}),
            "base  8 MB  ############################\n"
            "w4    2 MB  #######\n"
            "none     0\n");
}

TEST(Terminal, ParetoMarksTheFront) {
  ParetoPlot plot;
  plot.points = {{"cheap", 1, 1e6, 1}, {"dear", 2, 1e7, 0.01}, {"bad", 3, 1e7, 0.5}};
  const std::string text = pareto_text(plot, {60, 10, false});
  EXPECT_NE(text.find("  A  cheap"), std::string::npos) << text;
  EXPECT_NE(text.find("  c  bad"), std::string::npos) << text;
  EXPECT_NE(text.find("dominated"), std::string::npos);
}

}  // namespace
}  // namespace pare
