// libFuzzer target: any bytes give a value or an Error, and every tensor's bytes can be read.
//
// The mutator knows where the numbers of a file lie (counts, lengths, types, axes, offsets) and
// changes one of them, mostly to a value at which readers have failed before.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/random.h"
#include "file/gguf.h"

using namespace pare;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

struct Field {
  std::size_t at, bytes;
};

// Follows the layout as long as it makes sense.
class Walk {
 public:
  Walk(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
    take(4), take(4);
    const std::uint64_t tensors = take(8), keys = take(8);
    for (std::uint64_t k = 0; k < keys && good_; k++) {
      skip(take(8));
      value(take(4), true);
    }
    for (std::uint64_t t = 0; t < tensors && good_; t++) {
      skip(take(8));
      const std::uint64_t axes = take(4);
      for (std::uint64_t d = 0; d < axes && d < 8; d++) take(8);
      take(4), take(8);
    }
  }
  std::vector<Field> fields;

 private:
  std::uint64_t take(std::size_t bytes) {
    std::uint64_t v = 0;
    if (!good_ || size_ - at_ < bytes) {
      good_ = false;
      return 0;
    }
    std::memcpy(&v, data_ + at_, bytes);
    if (fields.size() < 4096) fields.push_back({at_, bytes});
    at_ += bytes;
    return v;
  }
  void skip(std::uint64_t bytes) {
    good_ = good_ && bytes <= size_ - at_;
    if (good_) at_ += bytes;
  }
  void value(std::uint64_t type, bool arrays) {
    static constexpr std::size_t widths[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type > 12 || (type == 9 && !arrays)) {
      good_ = false;
    } else if (type == 8) {
      skip(take(8));
    } else if (type == 9) {
      const std::uint64_t element = take(4), count = take(8);
      for (std::uint64_t i = 0; i < count && i < 256 && good_; i++) value(element, false);
    } else {
      take(widths[type]);
    }
  }

  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
  bool good_ = true;
};

std::uint64_t interesting(Random& random, std::uint64_t old, std::size_t size) {
  switch (random.below(6)) {
    case 0:
      return old + random.below(5) - 2;
    case 1:
      return std::uint64_t{1} << random.below(64);
    case 2:
      return (std::uint64_t{1} << random.below(64)) - 1;
    case 3:
      return ~std::uint64_t{0} - random.below(64);
    case 4:
      return size - random.below(64);
    default:
      return random.below(64);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Blob blob{nullptr, {reinterpret_cast<const std::byte*>(data), size}};
    const Gguf g = parse_gguf(blob, "input");
    volatile bool readable = false;  // the sanitizer watches the reads
    for (const GgufTensor& t : g.tensors) {
      // The plan computes the size on its own.
      if (GgufPlan{t.name, t.type, t.shape}.bytes() != static_cast<i64>(t.bytes.size()))
        std::abort();
      if (t.bytes.size() > 0 && t.bytes.bytes.front() == t.bytes.bytes.back()) readable = true;
    }
    (void)readable;
    for (const char* key : {"general.architecture", "n", "list"}) {
      try {
        (void)g.text(key);
        (void)g.number(key);
        (void)g.texts(key);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  Random random(seed);
  const Walk walk(data, size);
  if (walk.fields.empty() || random.below(4) == 0) return LLVMFuzzerMutate(data, size, most);
  for (std::uint64_t n = 1 + random.below(3); n > 0; n--) {
    const Field field = walk.fields[random.below(walk.fields.size())];
    std::uint64_t value = 0;
    std::memcpy(&value, data + field.at, field.bytes);
    value = interesting(random, value, size);
    std::memcpy(data + field.at, &value, field.bytes);
  }
  if (random.below(8) == 0) return random.below(size + 1);
  return size;
}
