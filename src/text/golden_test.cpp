// Golden ids made by the original implementations, id for id, and back to the text.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "file/io.h"
#include "support.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

using Ids = std::vector<std::int32_t>;

std::string read(const std::filesystem::path& path) {
  return read_text_file(path, std::size_t{1} << 30);
}

Ids golden_ids(const Json& list) {
  Ids ids;
  for (const Json& id : list.as_array()) ids.push_back(static_cast<std::int32_t>(id.as_int()));
  return ids;
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = text.find(separator, begin);
    if (end == std::string::npos) break;
    parts.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

Ids numbers(const std::string& line) {
  Ids ids;
  std::int32_t value = -1;
  for (char c : line + " ") {
    if (c >= '0' && c <= '9') {
      value = (value < 0 ? 0 : value * 10) + (c - '0');
    } else if (value >= 0) {
      ids.push_back(value);
      value = -1;
    }
  }
  return ids;
}

// The 47 texts of llama.cpp's vocabulary tests with their ids, against one tokenizer.
void check_vocabulary(const Tokenizer& tokenizer, const std::filesystem::path& stem) {
  std::vector<std::string> texts = split(read(stem.string() + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = split(read(stem.string() + ".out"), "\n");
  ASSERT_GE(texts.size(), 46u);
  ASSERT_GE(lines.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); i++) {
    const Ids ids = tokenizer.encode(texts[i], false);
    EXPECT_EQ(ids, numbers(lines[i])) << stem << " text " << i << ": " << texts[i];
    EXPECT_EQ(tokenizer.decode(ids), texts[i]) << stem << " text " << i;
  }
}

class GgufGolden : public testing::TestWithParam<const char*> {};

TEST_P(GgufGolden, MatchesIdForIdAndDecodesBack) {
  const auto path =
      shared_data(std::string("tokenizers/llama.cpp/ggml-vocab-") + GetParam() + ".gguf");
  PARE_SKIP_WITHOUT(path);
  check_vocabulary(load_tokenizer(path), path);
}

// The same vocabulary written as tokenizer.json and read again.
TEST_P(GgufGolden, SurvivesTokenizerJson) {
  const auto path =
      shared_data(std::string("tokenizers/llama.cpp/ggml-vocab-") + GetParam() + ".gguf");
  PARE_SKIP_WITHOUT(path);
  const Tokenizer original = load_tokenizer(path);
  const Tokenizer again = tokenizer_from_json(to_tokenizer_json(original), "again");
  EXPECT_EQ(again.vocab_size(), original.vocab_size());
  check_vocabulary(again, path);
}

INSTANTIATE_TEST_SUITE_P(All, GgufGolden,
                         testing::Values("deepseek-coder", "falcon", "gpt-2", "llama-spm", "phi-3",
                                         "starcoder"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::erase(name, '-');
                           return name;
                         });

// Other files of vocabularies whose goldens are there.
TEST(Golden, FalconTokenizerJsonMatchesLlamaCppIds) {
  const auto folder = shared_data("tokenizers/falcon-tokenizer");
  PARE_SKIP_WITHOUT(folder);
  check_vocabulary(load_tokenizer(folder),
                   shared_data("tokenizers/llama.cpp/ggml-vocab-falcon.gguf"));
}

TEST(Golden, Gpt2FilesMatchLlamaCppIds) {
  const auto folder = shared_data("tokenizers/gpt2");
  PARE_SKIP_WITHOUT(folder);
  check_vocabulary(load_tokenizer(folder),
                   shared_data("tokenizers/llama.cpp/ggml-vocab-gpt-2.gguf"));
}

TEST(Golden, LlamaInEveryFormMatchesLlamaCppIds) {
  const auto folder = shared_data("tokenizers/llama2");
  PARE_SKIP_WITHOUT(folder);
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"}) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = load_tokenizer(folder / name, 32000);
    EXPECT_EQ(tokenizer.vocab_size(), 32000);
    check_vocabulary(tokenizer, shared_data("tokenizers/llama.cpp/ggml-vocab-llama-spm.gguf"));
    const Tokenizer again = tokenizer_from_json(to_tokenizer_json(tokenizer), "again");
    check_vocabulary(again, shared_data("tokenizers/llama.cpp/ggml-vocab-llama-spm.gguf"));
  }
}

class ExpectedEncodings : public testing::TestWithParam<const char*> {};

TEST_P(ExpectedEncodings, MatchIdForIdAndDecodeBack) {
  const auto folder = shared_data(std::string("tokenizers/") + GetParam());
  PARE_SKIP_WITHOUT(folder);
  const Tokenizer tokenizer = load_tokenizer(folder);
  const std::string document = read(folder / "expected-encodings.json");
  const Json json = parse_json(document, "expected-encodings.json");
  for (const Json& item : json.at("cases").as_array()) {
    const std::string& text = item.at("text").as_string();
    const Ids ids = tokenizer.encode(text);
    EXPECT_EQ(ids, golden_ids(item.at("ids"))) << text;
    Ids body = ids;
    if (json.at("bos").as_bool()) {
      ASSERT_FALSE(body.empty());
      EXPECT_EQ(body[0], tokenizer.bos());
      body.erase(body.begin());
    }
    // A marker that takes the line break after it along gives less back.
    if (text.find("<|user|>\n") == std::string::npos) {
      EXPECT_EQ(tokenizer.decode(body), text);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExpectedEncodings,
                         testing::Values("llama2", "phi-2", "phi-3", "added-tokens"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Golden, TiktokenTestPlans) {
  const auto path = shared_data("tokenizers/tiktoken/TestPlans.txt");
  PARE_SKIP_WITHOUT(path);
  const std::string plans = read(path);
  int checked = 0;
  for (const char* name : {"r50k_base", "cl100k_base"}) {
    const Tokenizer tokenizer =
        load_tokenizer(shared_data(std::string("tokenizers/tiktoken/") + name + ".tiktoken"));
    for (const std::string& block : split(plans, "EncodingName: ")) {
      if (!block.starts_with(std::string(name) + "\n")) continue;
      const std::size_t begin = block.find("\nSample: ") + 9, end = block.find("\nEncoded: [");
      ASSERT_NE(end, std::string::npos);
      const std::string sample = block.substr(begin, end - begin);
      const Ids expected = numbers(block.substr(end + 11));
      const Ids ids = tokenizer.encode(sample, EncodeOptions{false, false});
      EXPECT_EQ(ids, expected) << name << ": " << sample;
      EXPECT_EQ(tokenizer.decode(ids), sample);
      checked++;
    }
  }
  EXPECT_EQ(checked, 128);
}

// Ids that went into the reference losses of the two small models.
void check_references(const Tokenizer& tokenizer, const std::filesystem::path& path, bool trims) {
  int texts = 0;
  for (const std::string& line : split(read(path), "\n")) {
    if (line.empty()) continue;
    const Json json = parse_json(line, "reference.jsonl");
    if (json.at("kind").as_string() != "text") continue;
    Ids ids = tokenizer.encode(json.at("text").as_string());
    Ids expected = golden_ids(json.at("ids"));
    // llama2.c, which made these ids, knows nothing of the normalizer of a .model file, which drops
    // a space at the end of the text.
    if (trims && json.at("text").as_string().ends_with(' ')) expected.pop_back();
    if (!trims) {
      Ids body(ids.begin() + 1, ids.end());
      EXPECT_EQ(tokenizer.decode(body), json.at("text").as_string());
    }
    ASSERT_GE(ids.size(), expected.size());
    ids.resize(expected.size());
    EXPECT_EQ(ids, expected);
    texts++;
  }
  EXPECT_GT(texts, 0);
}

TEST(Golden, Stories260kReferenceIds) {
  const auto folder = shared_data("models/stories260K");
  PARE_SKIP_WITHOUT(folder);
  const Tokenizer tokenizer = load_tokenizer(folder / "tok512.bin", 512);
  EXPECT_EQ(tokenizer.vocab_size(), 512);
  check_references(tokenizer, folder / "reference.jsonl", false);
  const Tokenizer again = tokenizer_from_json(to_tokenizer_json(tokenizer), "again");
  check_references(again, folder / "reference.jsonl", false);
}

TEST(Golden, BabyllamaReferenceIds) {
  const auto folder = shared_data("models/babyllama-tok105");
  PARE_SKIP_WITHOUT(folder);
  const Tokenizer tokenizer = load_tokenizer(folder / "tok105.model");
  EXPECT_EQ(tokenizer.vocab_size(), 105);
  check_references(tokenizer, folder / "reference.jsonl", true);
  const Tokenizer again = tokenizer_from_json(to_tokenizer_json(tokenizer), "again");
  check_references(again, folder / "reference.jsonl", true);
}

TEST(Golden, SentencePieceUnigramRoundTrip) {
  const auto folder = shared_data("tokenizers/sentencepiece");
  PARE_SKIP_WITHOUT(folder);
  const Tokenizer tokenizer = load_tokenizer(folder / "test_model.model");
  int lines = 0;
  for (std::string line : split(read(folder / "botchan.txt"), "\n")) {
    const Ids ids = tokenizer.encode(line, false);
    if (std::find(ids.begin(), ids.end(), tokenizer.unk()) != ids.end()) continue;
    const std::string back = tokenizer.decode(ids);
    // The normalizer trims and collapses spaces; what it makes encodes to the same ids.
    EXPECT_EQ(tokenizer.encode(back, false), ids) << line;
    if (line.find("  ") == std::string::npos && !line.empty() && line.front() != ' ' &&
        line.back() != ' ' && line.find('\t') == std::string::npos) {
      EXPECT_EQ(back, line);
      lines++;
    }
  }
  EXPECT_GT(lines, 4000);
}

}  // namespace
}  // namespace pare
