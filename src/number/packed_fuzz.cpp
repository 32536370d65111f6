// libFuzzer target: what bitsandbytes states and group indices of hostile files say is refused or
// usable.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "number/bitsandbytes.h"
#include "number/gptq.h"

namespace {

// A state that parses has a scheme whose planes can be asked for; none are there.
void fuzz_state(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint8_t> text(data, data + size);
  const pare::RawPlane plane{"weight.quant_state.bitsandbytes__nf4",
                             "U8",
                             {static_cast<pare::i64>(size)},
                             pare::blob_of(std::move(text))};
  const pare::Bnb4State state = pare::parse_bnb4_state(plane);
  const pare::Scheme scheme = pare::bnb4_scheme(state);
  if (state.cols % scheme.cols != 0 || state.block % scheme.cols != 0) std::abort();
  pare::from_bnb4({plane}, state);
}

// An order that is accepted names every column once, group by group.
void fuzz_order(const std::uint8_t* data, std::size_t size, pare::i64 group) {
  std::vector<std::int32_t> index(size / 4);
  if (index.empty()) return;
  std::memcpy(index.data(), data, index.size() * 4);
  const std::vector<std::int32_t> order = pare::group_order(index, group);
  for (std::size_t i = 0; i < order.size(); i++)
    if (index[static_cast<std::size_t>(order[i])] !=
        static_cast<std::int32_t>(static_cast<pare::i64>(i) / group))
      std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    if (data[0] % 2 == 0)
      fuzz_state(data + 1, size - 1);
    else
      fuzz_order(data + 1, size - 1, data[0] / 2 % 8 + 1);
  } catch (const pare::Error&) {
  }
  return 0;
}
