// Taking the text form of a scheme apart. Internal to the number layer.
#pragma once

#include <charconv>
#include <string_view>
#include <vector>

#include "base/view.h"

namespace pare {

// "a:b::c" at ':' is a, b, "" and c; the views are of `text`.
inline std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> words;
  for (;;) {
    const std::size_t end = text.find(at);
    words.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return words;
    text.remove_prefix(end + 1);
  }
}

// A whole number from `least` to `most`, without a sign, and nothing else.
inline bool number(std::string_view text, i64 least, i64 most, i64& value) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc() && end == text.data() + text.size() && !text.empty() &&
         text[0] != '-' && value >= least && value <= most;
}

}  // namespace pare
