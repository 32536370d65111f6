// libFuzzer target: any text gives an index whose shard names are plain, or an Error.
#include <cstdint>
#include <cstdlib>

#include "file/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::SafetensorsIndex index =
        pare::parse_safetensors_index({reinterpret_cast<const char*>(data), size}, "input");
    if (index.shard_of.empty()) std::abort();
    for (const auto& [tensor, shard] : index.shard_of)
      if (shard.empty() || shard.find('/') != std::string::npos || shard == "..") std::abort();
  } catch (const pare::Error&) {
  }
  return 0;
}
