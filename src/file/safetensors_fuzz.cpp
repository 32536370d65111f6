// libFuzzer target: any bytes give a value or an Error, and what was read can be written and is
// read again as the same.
//
// Plain mutation mostly breaks the length field or the JSON, so the mutator also edits the header's
// text and puts the right length in front, or makes a sound file with one number changed.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/random.h"
#include "file/safetensors.h"

using namespace pare;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_round_trip(const Safetensors& s) {
  std::vector<TensorPlan> plan;
  std::size_t total = 0;
  volatile bool readable = false;  // the sanitizer watches the reads
  for (const StoredTensor& t : s.tensors) {
    plan.push_back({t.name, t.dtype, t.shape});
    require(plan.back().bytes() == static_cast<i64>(t.bytes.size()));
    total += t.bytes.size();
    if (t.bytes.size() > 0 && t.bytes.bytes.front() == t.bytes.bytes.back()) readable = true;
  }
  (void)readable;
  std::string file = safetensors_header(plan, s.metadata);
  file.resize(file.size() + total);
  const Blob blob{nullptr, std::as_bytes(std::span(file))};
  const Safetensors again = parse_safetensors(blob, "output");
  require(again.metadata == s.metadata && again.tensors.size() == s.tensors.size());
  std::vector<std::string> before, after;
  for (const StoredTensor& t : s.tensors) before.push_back(t.name);
  for (const StoredTensor& t : again.tensors) after.push_back(t.name);
  std::sort(before.begin(), before.end());
  std::sort(after.begin(), after.end());
  require(before == after);
}

std::string with_length(const std::string& header, const std::string& data) {
  const std::uint64_t n = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &n, 8);
  return file + header + data;
}

std::string number(Random& random) {
  static const char* const odd[] = {"-1",
                                    "1.0",
                                    "1e3",
                                    "4194305",
                                    "211106198978564",
                                    "2147483648",
                                    "9223372036854775807",
                                    "9223372036854775808",
                                    "18446744073709551615",
                                    "\"1\"",
                                    "null",
                                    "[]",
                                    "4294967296"};
  if (random.below(16) == 0) return odd[random.below(std::size(odd))];
  return std::to_string(random.below(5));
}

// A file that tiles, but for one number in eight or so.
std::string generated(Random& random) {
  std::string header = random.below(4) == 0 ? R"({"__metadata__":{"format":"pt"})" : "{";
  i64 at = 0;
  for (std::uint64_t i = 0, n = random.below(5); i < n; i++) {
    const Dtype dtype = static_cast<Dtype>(random.below(22));
    i64 bits = dtype_bits(dtype);
    std::string shape;
    for (std::uint64_t k = 0, axes = random.below(4); k < axes; k++) {
      const std::string d = number(random);
      shape += (k > 0 ? "," : "") + d;
      bits *= d.size() == 1 ? d[0] - '0' : 1;
    }
    const i64 end = at + bits / 8;
    const std::string begin_text = random.below(16) == 0 ? number(random) : std::to_string(at),
                      end_text = random.below(16) == 0 ? number(random) : std::to_string(end);
    header += fmt::format(R"({}"t{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", random.below(8) == 0 ? 0 : i,
                          dtype_name(dtype), shape, begin_text, end_text);
    at = end;
  }
  return with_length(header + "}", std::string(static_cast<std::size_t>(at), 'x'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Blob blob{nullptr, {reinterpret_cast<const std::byte*>(data), size}};
    check_round_trip(parse_safetensors(blob, "input"));
  } catch (const Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  Random random(seed);
  const std::uint64_t mode = random.below(8);
  std::uint64_t length = 0;
  if (size >= 8) std::memcpy(&length, data, 8);
  std::string file;
  if (mode == 0) {
    file = generated(random);
  } else if (mode < 6 && size > 8 && length <= size - 8) {
    std::string header(reinterpret_cast<const char*>(data) + 8, length);
    const std::string rest(reinterpret_cast<const char*>(data) + 8 + length, size - 8 - length);
    const std::size_t room = header.size() + 64;
    header.resize(room);
    header.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(header.data()), length, room));
    file = with_length(header, rest);
  } else {
    return LLVMFuzzerMutate(data, size, most);
  }
  file.resize(std::min(file.size(), most));
  std::memcpy(data, file.data(), file.size());
  return file.size();
}
