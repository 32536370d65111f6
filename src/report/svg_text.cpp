// What a plot says in words and numbers: escaping, ticks, the estimated width of a text, the style.
//
// Ticks are multiples of a round step, computed from integers so that no rounding error shows in a
// label. Widths are estimates: a report has no font metrics at hand, so classes of letters of the
// common sans-serif faces are taken a little too wide.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "report/svg.h"

namespace pare {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

// The code point at `at` and its length in bytes; 0xFFFFFFFF and 1 when the bytes are no UTF-8.
std::pair<std::uint32_t, std::size_t> code_point(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return {first, 1};
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + length > text.size()) return {0xFFFFFFFF, 1};
  std::uint32_t value = first & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; i++) {
    if ((byte(at + i) & 0xC0) != 0x80) return {0xFFFFFFFF, 1};
    value = (value << 6) | (byte(at + i) & 0x3Fu);
  }
  static constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool good = value >= least[length] && value <= 0x10FFFF &&
                    (value < 0xD800 || value > 0xDFFF) && (value & 0xFFFE) != 0xFFFE;
  return good ? std::pair{value, length} : std::pair{0xFFFFFFFFu, std::size_t{1}};
}

// Marks that turn the direction of what follows could make a text look like another.
bool invisible_control(std::uint32_t c) {
  return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c <= 0x9F) ||
         (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E ||
         c == 0x200F || c == 0xFFFFFFFF;
}

double letter_width(std::uint32_t c) {
  if (c >= 0x1100) return c >= 0x2000 && c < 0x2E80 ? 0.75 : 1.05;  // CJK and pictures are square
  if (c >= 0x80) return 0.68;
  constexpr std::string_view thin = "ijl.,:;'|!()[]It f/-";
  constexpr std::string_view wide = "mwMWGOQ@%&";
  const char letter = static_cast<char>(c);
  if (thin.find(letter) != std::string_view::npos) return 0.38;
  if (wide.find(letter) != std::string_view::npos) return 0.92;
  return letter >= 'A' && letter <= 'Z' ? 0.72 : 0.6;
}

// Digits behind the point that a multiple of `step` needs.
int decimals_of(double step) {
  int digits = 0;
  while (digits < 12 &&
         std::abs(step * std::pow(10, digits) - std::round(step * std::pow(10, digits))) > 1e-6)
    digits++;
  return digits;
}

// One label form for all ticks of an axis: an SI prefix where numbers are large, else plain.
std::string tick_label(double value, double step, double largest) {
  static constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  int prefix = 0;
  while (largest >= (prefix == 0 ? 1e4 : 1e3) * std::pow(1000, prefix) && prefix < 6) prefix++;
  const double unit = std::pow(1000, prefix);
  if (largest > 0 && largest < 1e-3) {
    const int power = static_cast<int>(std::floor(std::log10(largest)));
    const double one = std::pow(10, power);
    return value == 0 ? "0"
                      : fmt::format("{:.{}f}e{}", value / one, decimals_of(step / one), power);
  }
  const std::string text =
      fmt::format("{:.{}f}{}", value / unit, decimals_of(step / unit), prefixes[prefix]);
  return value == 0 ? "0" : text;
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto [c, length] = code_point(text, at);
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (invisible_control(c))
      out += replacement;
    else
      out += text.substr(at, length);
    at += length;
  }
  return out;
}

std::string short_number(double value) {
  static constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  if (!std::isfinite(value)) return "-";
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size < 1e-3) {
    std::string text = fmt::format("{:.2e}", value);  // 1.20e-05
    const std::size_t e = text.find('e');
    std::string mantissa = text.substr(0, e);
    while (mantissa.ends_with('0')) mantissa.pop_back();
    if (mantissa.ends_with('.')) mantissa.pop_back();
    return fmt::format("{}e{}", mantissa, std::stoi(text.substr(e + 1)));
  }
  int prefix = 0;
  double scaled = value;
  while (std::abs(scaled) >= 999.5 && prefix < 6) {
    scaled /= 1000;
    prefix++;
  }
  const double magnitude = std::abs(scaled);
  const int before = magnitude >= 99.95 ? 3 : magnitude >= 9.995 ? 2 : magnitude >= 0.9995 ? 1 : 0;
  const int digits =
      before > 0 ? 3 - before : 2 - static_cast<int>(std::floor(std::log10(magnitude)));
  std::string text = fmt::format("{:.{}f}", scaled, digits);
  if (text.find('.') != std::string::npos) {
    while (text.ends_with('0')) text.pop_back();
    if (text.ends_with('.')) text.pop_back();
  }
  return text + prefixes[prefix];
}

std::string with_unit(double value, std::string_view unit) {
  std::string text = short_number(value);
  const bool prefixed =
      !text.empty() && std::string_view("kMGTPE").find(text.back()) != std::string_view::npos;
  const std::string prefix = prefixed ? text.substr(text.size() - 1) : "";
  if (prefixed) text.pop_back();
  return fmt::format("{} {}{}", text, prefix, unit);
}

std::vector<Tick> linear_ticks(double low, double high, int count) {
  std::vector<Tick> ticks;
  if (!(high > low) || !std::isfinite(high - low)) return ticks;
  const double rough = (high - low) / std::max(1, count);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double factor : {1.0, 2.0, 2.5, 5.0})
    if (factor * power >= rough * 0.999) {
      step = factor * power;
      break;
    }
  const double largest = std::max(std::abs(low), std::abs(high));
  const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
  for (double k = first; k <= last; k++)
    ticks.push_back({k * step, tick_label(k * step, step, largest)});
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high, int count) {
  std::vector<Tick> ticks;
  if (!(low > 0) || !(high > low) || !std::isfinite(high)) return ticks;
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  const double decades = std::log10(high / low);
  int labels = 0;
  for (int k = first; k <= last; k++)
    for (int digit : {1, 2, 5}) {
      const double v = digit * std::pow(10, k);
      labels += v >= low * 0.999999 && v <= high * 1.000001 ? 1 : 0;
    }
  if (labels < 3) return linear_ticks(low, high, count);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / std::max(1, count))));
  int powers = 0;  // of ten within the range
  for (int k = first; k <= last; k++)
    powers += std::pow(10, k) >= low * 0.999999 && std::pow(10, k) <= high * 1.000001 ? 1 : 0;
  const bool dense = labels <= count + 1 || powers < 2;
  for (int k = first; k <= last; k++)
    for (int digit = 1; digit <= 9; digit++) {
      const double value = digit * std::pow(10, k);
      if (value < low * 0.999999 || value > high * 1.000001) continue;
      const bool labelled = digit == 1 ? k % every == 0 : dense && (digit == 2 || digit == 5);
      if (!labelled && every > 1) continue;
      ticks.push_back({value, labelled ? short_number(value) : ""});
    }
  return ticks;
}

bool overlap(const Box& a, const Box& b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

double text_width(std::string_view text, double size) {
  double sum = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto [c, length] = code_point(text, at);
    sum += letter_width(c);
    at += length;
  }
  return sum * size;
}

std::string fit_text(const std::string& text, double size, double width) {
  if (text_width(text, size) <= width) return text;
  std::vector<std::string> letters;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = code_point(text, at).second;
    letters.push_back(text.substr(at, length));
    at += length;
  }
  for (std::size_t keep = letters.size() - 1; keep > 0; keep--) {
    std::string cut;
    for (std::size_t i = 0; i < (keep + 1) / 2; i++) cut += letters[i];
    cut += "\xE2\x80\xA6";
    for (std::size_t i = letters.size() - keep / 2; i < letters.size(); i++) cut += letters[i];
    if (text_width(cut, size) <= width) return cut;
  }
  return "\xE2\x80\xA6";
}

// Every series colour has at least 4.5 to 1 against its ground in both schemes, so that words may
// stand on it in the colour of the ground; tools/check_report.py computes the ratios.
std::string palette_style() {
  const std::string light =
      "color-scheme:light;--page:#f7f8fa;--surface:#ffffff;--ink:#1a1d23;--muted:#545b68;"
      "--grid:#e3e6eb;--axis:#8a919e;--accent:#1a5fb8;--good:#0b6e4f;--bad:#a8321e;"
      "--s0:#5a6170;--s1:#2156c1;--s2:#b04f06;--s3:#0f7d55;--s4:#8a1f4e;--s5:#673197;"
      "--s6:#6c5422;--s7:#1b7088;--s8:#4d7518";
  const std::string dark =
      "color-scheme:dark;--page:#121419;--surface:#1a1d24;--ink:#eceef2;--muted:#a9b1bf;"
      "--grid:#2e333d;--axis:#767e8c;--accent:#7db8ff;--good:#5fd3a8;--bad:#ff9b87;"
      "--s0:#a6aebc;--s1:#82aeff;--s2:#ee9a66;--s3:#66eeb8;--s4:#f95c97;--s5:#b48dfa;"
      "--s6:#f2d077;--s7:#a0d5eb;--s8:#aadf66";
  return fmt::format(
      ":root{{{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n"
      "@media print{{:root{{{};--page:#ffffff}}}}\n",
      light, dark, light);
}

std::string plot_style() {
  std::string style =
      ".plot{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu "
      "Sans\",sans-serif;font-size:12px;max-width:100%;height:auto;display:block}\n"
      ".plot .t{fill:var(--ink)}.plot .muted{fill:var(--muted)}.plot .on{fill:var(--surface)}\n"
      ".plot .strong{font-weight:600}\n"
      ".plot .grid{stroke:var(--grid);stroke-width:1}.plot .grid.minor{opacity:.45}\n"
      ".plot .axis{stroke:var(--axis);stroke-width:1}.plot "
      ".leader{stroke:var(--axis);stroke-width:.8}\n"
      ".plot .solid{fill:var(--c);stroke:var(--surface);stroke-width:1.2}\n"
      ".plot .hollow{fill:var(--surface);stroke:var(--c);stroke-width:1.8}\n"
      ".plot .ring{fill:none}.plot .fill{fill:var(--c)}.plot .band{fill:var(--c);opacity:.16}\n"
      ".plot .curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}\n"
      ".plot .thin{stroke-width:1.2}.plot .dash{stroke-dasharray:5 4}.plot .word{fill:var(--c)}\n";
  for (int i = 0; i <= series_count; i++) style += fmt::format(".s{0}{{--c:var(--s{0})}}", i);
  return style + ".plot .faded{--c:var(--s0)}\n";
}

std::string standalone_svg(const std::string& svg) {
  const std::size_t end = svg.find("</desc>\n");
  if (end == std::string::npos) return svg;
  std::string out = svg;
  out.insert(end + 8, "<style>" + palette_style() + plot_style() +
                          ".plot{background:var(--surface)}</style>\n");
  return out;
}

}  // namespace pare
