// The build puts the files of recipes/ one after the other, each behind a line "=== NAME.toml".
#include "recipe/ready.h"

#include <algorithm>

#include "base/error.h"

namespace pare {

extern const char embedded_recipes[];

namespace {

constexpr std::string_view mark = "=== ", ending = ".toml\n";

std::vector<ReadyRecipe> split(std::string_view all) {
  std::vector<ReadyRecipe> list;
  while (!all.empty()) {
    const std::size_t end = all.find(ending);
    PARE_CHECK(all.starts_with(mark) && end != std::string_view::npos);
    const std::string_view name = all.substr(mark.size(), end - mark.size());
    all.remove_prefix(end + ending.size());
    const std::size_t next = std::min(all.find("\n=== "), all.size() - 1) + 1;
    list.push_back({name, all.substr(0, next)});
    all.remove_prefix(next);
  }
  return list;
}

}  // namespace

const std::vector<ReadyRecipe>& ready_recipes() {
  static const std::vector<ReadyRecipe> list = split(embedded_recipes);
  return list;
}

}  // namespace pare
