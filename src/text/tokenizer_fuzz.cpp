// libFuzzer target: any bytes give a tokenizer or an Error; a tokenizer gives ids of its own and
// valid text back; what it writes as tokenizer.json reads again, and a BPE then gives the same ids.
//
// The first byte says which reader gets the rest: j tokenizer.json, s SentencePiece, t tiktoken,
// l llama2.c, g GGUF, m vocab.json and merges.txt with a zero byte between. The mutator splices in
// names of components, which random changes of letters would hardly meet.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>

#include "base/random.h"
#include "file/gguf.h"
#include "text/parts.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

using namespace pare;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

Tokenizer read(char form, std::string_view text) {
  const std::span<const std::byte> bytes{reinterpret_cast<const std::byte*>(text.data()),
                                         text.size()};
  switch (form) {
    case 's':
      return tokenizer_from_sentencepiece(bytes, "input");
    case 't':
      return tokenizer_from_tiktoken(text, "cl100k_base.tiktoken");
    case 'l':
      return tokenizer_from_llama2c(bytes, "input");
    case 'g':
      return tokenizer_from_gguf(parse_gguf({nullptr, bytes}, "input"), "input");
    case 'm': {
      const std::size_t cut = std::min(text.find('\0'), text.size());
      return tokenizer_from_merges(text.substr(0, cut), text.substr(std::min(cut + 1, text.size())),
                                   "input");
    }
    default:
      return tokenizer_from_json(text, "input");
  }
}

// Nothing if the vocabulary cannot express the text or its pattern is too expensive for it.
std::optional<std::vector<std::int32_t>> encoded(const Tokenizer& tokenizer,
                                                 std::string_view text) {
  try {
    return tokenizer.encode(text);
  } catch (const Error&) {
    return {};
  }
}

void check_ids(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  for (std::int32_t id : ids)
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
  for (bool skip : {false, true})
    if (!valid_utf8(tokenizer.decode(ids, skip))) std::abort();
}

std::optional<Tokenizer> written_and_read(const Tokenizer& tokenizer) {
  std::string json;
  try {
    json = to_tokenizer_json(tokenizer);
  } catch (const Error&) {
    return {};
  }
  return tokenizer_from_json(json, "output");  // an Error here is a finding
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = read(all[0], all.substr(1));
  } catch (const Error&) {
    return 0;
  }
  const std::optional<Tokenizer> again = written_and_read(*tokenizer);
  const bool bpe = std::holds_alternative<Bpe>(tokenizer->parts().model);
  static constexpr std::string_view fixed =
      " The old  boat's\n\n1234 <s>\xe2\x96\x81 caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac "
      "\xf0\x9f\x99\x82\xff e\xcc\x81[MASK]aaaaaaaaaaaa";
  for (std::string_view text : {fixed, all.substr(all.size() - std::min<std::size_t>(size, 80))}) {
    const auto ids = encoded(*tokenizer, text);
    if (!ids) continue;
    check_ids(*tokenizer, *ids);
    if (again && bpe && encoded(*again, text) != ids) std::abort();
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const char* const snippets[] = {
      "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
      "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
      "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\"}",
      "{\"type\":\"Whitespace\"}",
      "{\"type\":\"BertPreTokenizer\"}",
      "{\"type\":\"Punctuation\",\"behavior\":\"MergedWithNext\"}",
      "{\"type\":\"Digits\",\"individual_digits\":true}",
      "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|b)*c\"},\"behavior\":\"Removed\","
      "\"invert\":true}",
      "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Contiguous\","
      "\"invert\":false}",
      "{\"type\":\"NFKC\"}",
      "{\"type\":\"NFD\"}",
      "{\"type\":\"Lowercase\"}",
      "{\"type\":\"StripAccents\"}",
      "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}",
      "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}",
      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}",
      "{\"type\":\"ByteFallback\"}",
      "{\"type\":\"Fuse\"}",
      "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}",
      "\"BPE\"",
      "\"Unigram\"",
      "\"WordPiece\"",
      "\"byte_fallback\":true,",
      "\"ignore_merges\":true,",
      "\"fuse_unk\":true,",
      "\"unk_token\":\"a\",",
      "\"unk_id\":0,",
      "\"dropout\":null,",
      "\"end_of_word_suffix\":\"</w>\",",
      "\"continuing_subword_prefix\":\"##\",",
      "{\"id\":2,\"content\":\"a\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true,"
      "\"normalized\":true,\"special\":false},",
      "<0x0A>",
      "null",
      "-1",
      "2147483648",
      "\xe2\x96\x81",
      "\xc4\xa0"};
  Random random(seed);
  if (random.below(3) != 0) return LLVMFuzzerMutate(data, size, most);
  const std::string_view snippet = snippets[random.below(std::size(snippets))];
  std::string text(reinterpret_cast<const char*>(data), size);
  // Mostly where a value stands: behind a colon.
  std::size_t at = random.below(size + 1), cut = 0;
  if (const std::size_t colon = text.find(':', at);
      colon != std::string::npos && random.below(4) != 0) {
    at = colon + 1;
    const std::size_t end = text.find_first_of(",}]", at);
    cut = end == std::string::npos ? 0 : end - at;
  }
  text.replace(at, cut, snippet);
  text.resize(std::min(text.size(), most));
  std::memcpy(data, text.data(), text.size());
  return text.size();
}
