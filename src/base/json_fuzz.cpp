// libFuzzer target: what parses prints to something that parses to the same value.
#include <cstdint>
#include <cstdlib>

#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::Json value = pare::parse_json({reinterpret_cast<const char*>(data), size}, "input");
    if (!(pare::parse_json(value.dump(), "output") == value)) std::abort();
  } catch (const pare::Error&) {
  }
  return 0;
}
