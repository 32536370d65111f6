// libFuzzer target: on any text the hand-written splitters cut where PCRE2 cuts.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "text/split_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const pare::SplitCheck check;
  std::string text(reinterpret_cast<const char*>(data), size);
  if (!pare::valid_utf8(text)) text = pare::lossy_utf8(text, false);
  const std::string difference = check.difference(text);
  if (!difference.empty()) {
    std::fprintf(stderr, "%s\n", difference.c_str());
    std::abort();
  }
  return 0;
}
