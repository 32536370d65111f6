// Small tokenizers of every kind with ids from the original implementations
// (tools/make_tokenizer_fixtures.py): these need no shared data.
#include <gtest/gtest.h>

#include <fstream>

#include "base/json.h"
#include "support.h"
#include "text/parts.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

using Ids = std::vector<std::int32_t>;

struct Case {
  std::string text, decoded;
  Ids ids, special;
};

Ids ids_of(const Json& list) {
  Ids ids;
  for (const Json& id : list.as_array()) ids.push_back(static_cast<std::int32_t>(id.as_int()));
  return ids;
}

std::vector<Case> read_cases(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    const Json json = parse_json(line, path.string());
    cases.push_back({json.at("text").as_string(), json.at("decoded").as_string(),
                     ids_of(json.at("ids")), ids_of(json.at("special"))});
  }
  return cases;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer, false);
  std::string text;
  for (std::int32_t id : ids) {
    const std::string piece = decoder.push(id);
    text += piece;
  }
  return text + decoder.finish();
}

class Fixture : public testing::TestWithParam<const char*> {};

TEST_P(Fixture, GivesTheIdsOfTheOriginal) {
  const auto folder = fixture("tokenizers") / GetParam();
  const Tokenizer tokenizer = load_tokenizer(folder);
  const std::vector<Case> cases = read_cases(folder / "cases.jsonl");
  ASSERT_GT(cases.size(), 40u);
  for (const Case& c : cases) {
    const Ids ids = tokenizer.encode(c.text, false);
    EXPECT_EQ(ids, c.ids) << json_quote(c.text);
    EXPECT_EQ(tokenizer.encode(c.text), c.special) << json_quote(c.text);
    const std::string text = tokenizer.decode(ids);
    EXPECT_EQ(text, c.decoded) << json_quote(c.text);
    EXPECT_EQ(streamed(tokenizer, ids), text) << json_quote(c.text);
    for (std::int32_t id : ids) EXPECT_EQ(tokenizer.find(tokenizer.token(id)), id);
  }
}

// Written as tokenizer.json and read again the ids stay the same.
TEST_P(Fixture, SurvivesTokenizerJson) {
  const auto folder = fixture("tokenizers") / GetParam();
  const Tokenizer tokenizer = load_tokenizer(folder);
  if (!tokenizer.parts().not_writable.empty()) {
    EXPECT_THROW(to_tokenizer_json(tokenizer), Error);
    return;
  }
  const Tokenizer again = tokenizer_from_json(to_tokenizer_json(tokenizer), "again");
  EXPECT_EQ(again.vocab_size(), tokenizer.vocab_size());
  // Hugging Face's Unigram finds byte tokens spelled out in the text, SentencePiece does not.
  const bool spelled = GetParam() == std::string("spm-unigram");
  for (const Case& c : read_cases(folder / "cases.jsonl")) {
    if (spelled && c.text.find("<0x") != std::string::npos) continue;
    EXPECT_EQ(again.encode(c.text), c.special) << json_quote(c.text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Fixture,
                         testing::Values("bert", "byte-added", "byte-deepseek3", "byte-gpt4",
                                         "byte-o200k", "byte-qwen2", "byte-regex", "byte-tekken",
                                         "clip", "cuts", "gemma", "inverted", "llama",
                                         "metaspace-first", "metaspace-split", "spm-bpe",
                                         "spm-bpe-user", "spm-suffix", "spm-unigram",
                                         "spm-unigram-user", "unigram", "words"),
                         [](const auto& param) {
                           std::string name = param.param;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

}  // namespace
}  // namespace pare
