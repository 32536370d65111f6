// libFuzzer target: any bytes give a value or an Error, and the tensors of a value tile the file
// but for the header and the rotary tables.
//
// Random numbers never fit the size of the file, so the mutator chooses small numbers and gives the
// file the size that they ask for.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/random.h"
#include "file/llama2c.h"

using namespace pare;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Blob blob{nullptr, {reinterpret_cast<const std::byte*>(data), size}};
    const Llama2c m = parse_llama2c(blob, "input");
    std::size_t total = 28 + 4 * static_cast<std::size_t>(m.positions * (m.dim / m.heads));
    for (const Llama2c::Tensor& t : m.tensors) {
      std::size_t floats = 1;
      for (i64 d : t.shape) floats *= static_cast<std::size_t>(d);
      if (4 * floats != t.bytes.size()) std::abort();
      total += t.bytes.size();
    }
    if (total != size) std::abort();
  } catch (const Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  Random random(seed);
  if (size < 28 || random.below(4) == 0) return LLVMFuzzerMutate(data, size, most);
  const std::int64_t kv = 1 + static_cast<std::int64_t>(random.below(2)),
                     heads = kv * (1 + static_cast<std::int64_t>(random.below(2))),
                     dim = heads * 2 * (1 + static_cast<std::int64_t>(random.below(2))),
                     hidden = 1 + static_cast<std::int64_t>(random.below(5)),
                     layers = 1 + static_cast<std::int64_t>(random.below(3)),
                     vocab = 1 + static_cast<std::int64_t>(random.below(6)),
                     positions = 1 + static_cast<std::int64_t>(random.below(4));
  const bool tied = random.below(2) == 0;
  const std::int32_t header[7] = {
      static_cast<std::int32_t>(dim),      static_cast<std::int32_t>(hidden),
      static_cast<std::int32_t>(layers),   static_cast<std::int32_t>(heads),
      static_cast<std::int32_t>(kv),       static_cast<std::int32_t>(tied ? vocab : -vocab),
      static_cast<std::int32_t>(positions)};
  const std::int64_t head = dim / heads, floats = vocab * dim * (tied ? 1 : 2) + dim +
                                                  positions * head +
                                                  layers * (2 * dim + 2 * dim * dim +
                                                            2 * kv * head * dim + 3 * hidden * dim);
  const std::size_t want = static_cast<std::size_t>(28 + 4 * floats);
  if (want > most) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(data, header, sizeof header);
  if (want > size) std::memset(data + size, 0, want - size);
  if (random.below(4) == 0) {  // one number is wrong
    const std::int32_t odd[] = {0, -1, INT32_MIN, INT32_MAX, 3, 1 << 30};
    std::memcpy(data + 4 * random.below(7), &odd[random.below(6)], 4);
  }
  return want;
}
