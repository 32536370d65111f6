// libFuzzer target: what parses prints to something that parses to the same value, and limits hold.
//
// The mutator also splices in the tokens of the grammar at which readers have failed before.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/json.h"
#include "base/random.h"

using namespace pare;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

struct Size {
  int depth = 0;
  std::size_t values = 0;
};

void measure(const Json& value, int depth, Size& size) {
  size.values++;
  size.depth = std::max(size.depth, depth);
  if (value.is_array())
    for (const Json& item : value.as_array()) measure(item, depth + 1, size);
  if (value.is_object())
    for (const Json::Member& m : value.as_object()) measure(m.second, depth + 1, size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  Size found;
  try {
    const Json value = parse_json(text, "input");
    for (int indent : {-1, 2})
      if (!(parse_json(value.dump(indent), "output") == value)) std::abort();
    measure(value, 0, found);
    if (found.depth > JsonLimits{}.depth) std::abort();
  } catch (const Error&) {
    return 0;
  }
  // The limits are exact: the document's own size passes, one less does not.
  JsonLimits tight;
  tight.depth = found.depth;
  tight.values = found.values;
  (void)parse_json(text, "input", tight);
  tight.values--;
  try {
    (void)parse_json(text, "input", tight);
    std::abort();
  } catch (const Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const char* const tokens[] = {"{",
                                       "}",
                                       "[",
                                       "]",
                                       ",",
                                       ":",
                                       "\"",
                                       "\"a\":",
                                       "true",
                                       "false",
                                       "null",
                                       "0",
                                       "-0",
                                       "-",
                                       "1e308",
                                       "1e309",
                                       "1e-400",
                                       "0.1",
                                       "9223372036854775807",
                                       "9223372036854775808",
                                       "-9223372036854775808",
                                       "\\u0000",
                                       "\\ud800",
                                       "\\ud83d\\ude00",
                                       "\\udc00",
                                       "\\\"",
                                       "\\n",
                                       "\xc3\xa9",
                                       "\xed\xa0\x80",
                                       "\xf0\x9f\x99\x82",
                                       "\xff",
                                       "[[[[[[[[",
                                       "]]]]]]]]",
                                       "{\"a\":{\"a\":",
                                       "\"\"",
                                       "01",
                                       "1.",
                                       ".5"};
  Random random(seed);
  if (random.below(3) != 0) return LLVMFuzzerMutate(data, size, most);
  const std::string_view token = tokens[random.below(std::size(tokens))];
  std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t at = random.below(size + 1), cut = random.below(3) == 0 ? random.below(4) : 0;
  text.replace(at, std::min(cut, size - at), token);
  text.resize(std::min(text.size(), most));
  std::memcpy(data, text.data(), text.size());
  return text.size();
}
