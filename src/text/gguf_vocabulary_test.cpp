// Tokenizers into GGUF's keys and back: the same ids, or a refusal in words.
#include "text/gguf_vocabulary.h"

#include <gtest/gtest.h>

#include "file/io.h"
#include "support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Tokenizer through(const Tokenizer& t, i64 rows = 0) {
  GgufVocabularyOptions options;
  options.rows = rows > 0 ? rows : t.vocab_size();
  Gguf file;
  for (const auto& [key, value] : to_gguf_vocabulary(t, options)) file.metadata[key] = value;
  return tokenizer_from_gguf(file, "test");
}

std::string refusal(const Tokenizer& t, i64 rows) {
  try {
    through(t, rows);
  } catch (const Error& e) {
    return e.code + " " + e.message;
  }
  return {};
}

fs::path embedded() { return source_path("models/pare-tales"); }

TEST(GgufVocabulary, TheEmbeddedOneComesBack) {
  const Tokenizer a = load_tokenizer(embedded()), b = through(a);
  const std::string text = read_text_file(source_path("models/heldout.txt"), 1 << 26);
  EXPECT_EQ(a.encode(text), b.encode(text));
  EXPECT_EQ(a.encode("one<|endoftext|>two"), b.encode("one<|endoftext|>two"));
  EXPECT_EQ(a.eos(), b.eos());
}

TEST(GgufVocabulary, IdsWithoutATokenGetStandIns) {
  const Tokenizer a = load_tokenizer(embedded()), b = through(a, a.vocab_size() + 5);
  EXPECT_EQ(b.vocab_size(), a.vocab_size() + 5);
  EXPECT_EQ(b.token(static_cast<std::int32_t>(a.vocab_size())),
            fmt::format("[PAD{}]", a.vocab_size()));
  EXPECT_EQ(refusal(a, 100).substr(0, 6), "TK-012");
}

// What llama.cpp's own converter wrote for these, read and written again.
class GgufAgain : public ::testing::TestWithParam<const char*> {};
TEST_P(GgufAgain, SameIds) {
  const fs::path path =
      shared_data(std::string("tokenizers/llama.cpp/ggml-vocab-") + GetParam() + ".gguf");
  PARE_SKIP_WITHOUT(path);
  const Tokenizer a = load_tokenizer(path), b = through(a);
  const std::string text =
      read_text_file(source_path("models/heldout.txt"), 1 << 26).substr(0, 20000);
  EXPECT_EQ(a.encode(text), b.encode(text));
  EXPECT_EQ(a.bos(), b.bos());
  EXPECT_EQ(a.eos(), b.eos());
}
INSTANTIATE_TEST_SUITE_P(All, GgufAgain,
                         ::testing::Values("llama-spm", "llama-bpe", "gpt-2", "qwen2", "falcon",
                                           "starcoder", "phi-3"),
                         [](const auto& row) {
                           std::string name = row.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// Vocabularies made to be awkward: whatever GGUF cannot say is an error with its own code.
TEST(GgufVocabulary, AwkwardOnesAreWrittenOrRefusedInWords) {
  int refused = 0;
  for (const auto& entry : fs::directory_iterator(fixture("tokenizers"))) {
    SCOPED_TRACE(entry.path().filename().string());
    const Tokenizer t = load_tokenizer(entry.path());
    const std::string why = refusal(t, t.vocab_size());
    if (why.empty()) continue;
    refused++;
    EXPECT_EQ(why.substr(0, 6), "TK-012") << why;
  }
  EXPECT_GE(refused, 10);
}

}  // namespace
}  // namespace pare
