// Numbers as people read them, in decimal units.
#pragma once

#include <string>
#include <string_view>

namespace pare {

std::string human_bytes(double bytes);                             // "8.05 MB"
std::string human_count(double count);                             // "3.93 M"
std::string human_rate(double per_second, std::string_view unit);  // "35.2 GB/s"

}  // namespace pare
