// The style sheet of the page, without palette and plots (report/svg.h).
#pragma once

#include <string>

namespace pare {

std::string page_style();

}  // namespace pare
