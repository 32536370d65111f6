// libFuzzer target: any bytes give a value or an Error, nothing else.
#include <cstdint>

#include "file/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::Blob blob{nullptr, {reinterpret_cast<const std::byte*>(data), size}};
    (void)pare::parse_gguf(blob, "input");
  } catch (const pare::Error&) {
  }
  return 0;
}
