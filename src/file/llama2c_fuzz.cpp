// libFuzzer target: any bytes give a value or an Error, nothing else.
#include <cstdint>

#include "file/llama2c.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::Blob blob{nullptr, {reinterpret_cast<const std::byte*>(data), size}};
    (void)pare::parse_llama2c(blob, "input");
  } catch (const pare::Error&) {
  }
  return 0;
}
