// Three digits and a decimal prefix.
#include "base/human.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace pare {
namespace {

std::string scaled(double value, std::string_view unit) {
  static constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  std::size_t k = 0;
  while (std::abs(value) >= 999.5 && k + 1 < std::size(prefixes)) {
    value /= 1000;
    k++;
  }
  const int digits = k == 0 ? 0 : value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f} {}{}", value, digits, prefixes[k], unit);
}

}  // namespace

std::string human_bytes(double bytes) { return scaled(bytes, "B"); }
std::string human_count(double count) {
  std::string text = scaled(count, "");
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}
std::string human_rate(double per_second, std::string_view unit) {
  return scaled(per_second, unit) + "/s";
}

}  // namespace pare
