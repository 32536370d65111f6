// Parts of the pipeline against slow and simple versions of themselves.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "base/random.h"
#include "support.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/parts.h"
#include "text/split.h"
#include "text/split_check.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/unigram.h"

namespace pare {
namespace {

using Ids = std::vector<std::int32_t>;

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += unit;
  return out;
}

// --- UTF-8 ---------------------------------------------------------------------------------------

// Well-formed as the table of Unicode 3.9 says, by decoding to a value first.
bool slow_valid(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto b = [&](std::size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const int n = b(0) < 0x80       ? 1
                  : b(0) >> 5 == 6  ? 2
                  : b(0) >> 4 == 14 ? 3
                  : b(0) >> 3 == 30 ? 4
                                    : 0;
    if (n == 0 || i + static_cast<std::size_t>(n) > text.size()) return false;
    std::uint32_t value = n == 1 ? b(0) : b(0) & (0x7fu >> n);
    for (int k = 1; k < n; k++) {
      if (b(static_cast<std::size_t>(k)) >> 6 != 2) return false;
      value = value << 6 | (b(static_cast<std::size_t>(k)) & 0x3f);
    }
    const std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[n] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return false;
    i += static_cast<std::size_t>(n);
  }
  return true;
}

TEST(Unicode, ValidityAgreesWithTheTableOnRandomBytes) {
  Random random(11);
  for (int round = 0; round < 20000; round++) {
    std::string text = repeated("a", random.below(12));
    for (std::uint64_t n = random.below(8); n > 0; n--) {
      const int leads[] = {0xc0, 0xc2, 0xe0, 0xe4, 0xed, 0xf0, 0xf4, 0xf5, 0x80, 0xbf, 0x41};
      text += static_cast<char>(random.below(3) == 0 ? random.below(256) : leads[random.below(11)]);
    }
    EXPECT_EQ(valid_utf8(text), slow_valid(text)) << "seed 11, round " << round;
    EXPECT_TRUE(slow_valid(lossy_utf8(text)));
    EXPECT_TRUE(slow_valid(lossy_utf8(text, true)));
    if (slow_valid(text)) {
      EXPECT_EQ(lossy_utf8(text), text);
    }
  }
}

TEST(Unicode, ReplacesMaximalSubparts) {
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(lossy_utf8("a\xff"
                       "b"),
            "a" + r + "b");
  EXPECT_EQ(lossy_utf8("\xe4\xbd"), r);              // cut character: one
  EXPECT_EQ(lossy_utf8("\xe4\xbd", true), r + r);    // SentencePiece: one a byte
  EXPECT_EQ(lossy_utf8("\xed\xa0\x80"), r + r + r);  // a surrogate is no character at all
  EXPECT_EQ(lossy_utf8("\xf0\x9f\x98x"), r + "x");
  EXPECT_EQ(lossy_utf8("\xc0\xaf"), r + r);
}

TEST(Unicode, ByteAlphabetIsGpt2s) {
  const ByteAlphabet& a = byte_alphabet();
  EXPECT_EQ(a.to_char[0x00], 0x100u);
  EXPECT_EQ(a.to_char[0x0a], 0x10au);
  EXPECT_EQ(a.to_char[0x20], 0x120u);
  EXPECT_EQ(a.to_char[0x7f], 0x121u);
  EXPECT_EQ(a.to_char[0xa0], 0x142u);
  EXPECT_EQ(a.to_char[0xad], 0x143u);
  std::string all, back;
  for (int b = 0; b < 256; b++) all += static_cast<char>(b);
  ASSERT_TRUE(alphabet_to_bytes(bytes_to_alphabet(all), back));
  EXPECT_EQ(back, all);
}

TEST(Unicode, ClassesOfKnownCharacters) {
  const CharClasses classes;
  EXPECT_EQ(classes[U'a'], char_letter | char_lower);
  EXPECT_EQ(classes[U'\u0414'], char_letter | char_upper);
  EXPECT_EQ(classes[U'\u4f60'], char_letter | char_upper | char_lower);
  EXPECT_EQ(classes[U'\u0301'], char_mark | char_upper | char_lower);
  EXPECT_EQ(classes[U'\u00bd'], char_number);
  EXPECT_EQ(classes[U'\u3000'], char_space);
  EXPECT_EQ(classes[U'\u180e'], 0);  // white space once, in Unicode 6.2
  EXPECT_EQ(classes[U'\n'], char_space | char_newline);
  EXPECT_TRUE(is_word_char(U'_') && is_word_char(U'\u0301') && is_word_char(U'\u24b6'));
  EXPECT_FALSE(is_word_char(U'-') || is_word_char(U'\u00b2'));
}

// --- patterns ------------------------------------------------------------------------------------

TEST(Split, HandWrittenSplittersEqualPcre2) {
  Random random(12);
  const std::string_view pieces[] = {"'s",     "'S",
                                     "'ll",    "'LL",
                                     "'re",    "'\u017f",
                                     "'",      "a",
                                     "B",      "Zz",
                                     " ",      "  ",
                                     "\t",     "\n",
                                     "\r\n",   "\u00a0",
                                     "\u3000", "\u2028",
                                     "1",      "234",
                                     "\u00bd", "\u0663",
                                     "\u4f60", "\u30ab",
                                     "\u00e9", "\u0301",
                                     "\u01c5", "\u02b0",
                                     "!",      "...",
                                     "/",      "//\n",
                                     "-",      "\xf0\x9f\x98\x80",
                                     "\u200d", "_"};
  const SplitCheck check;
  for (int round = 0; round < 3000; round++) {
    std::string text;
    for (std::uint64_t n = random.below(30); n > 0; n--)
      text += pieces[random.below(std::size(pieces))];
    EXPECT_EQ(check.difference(text), "") << "seed 12, round " << round;
  }
}

TEST(Split, KnowsEachPatternByItsText) {
  for (const KnownPattern& k : known_patterns())
    EXPECT_EQ(Pattern::expression(std::string(k.pattern)).known, k.next) << k.name;
  EXPECT_EQ(Pattern::expression("\\p{L}+").known, nullptr);
}

std::vector<std::string> pieces_of(const Pattern& pattern, std::string_view text) {
  std::vector<Match> matches;
  Finder(pattern).find_all(text, matches);
  std::vector<std::string> out;
  for (const Match& m : matches)
    out.push_back((m.matched ? "+" : "-") + std::string(text.substr(m.begin, m.end - m.begin)));
  return out;
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  using Strings = std::vector<std::string>;
  // \s is White_Space: not U+180E. \w takes marks and connectors. \h is a hexadecimal digit.
  EXPECT_EQ(pieces_of(Pattern::expression("\\s+"), "a\u180e \u3000"),
            (Strings{"-a\u180e", "+ \u3000"}));
  EXPECT_EQ(pieces_of(Pattern::expression("[^\\s]+"), "a\u180e b"),
            (Strings{"+a\u180e", "- ", "+b"}));
  EXPECT_EQ(pieces_of(Pattern::expression("\\w+"), "e\u0301\u203f-"),
            (Strings{"+e\u0301\u203f", "--"}));
  EXPECT_EQ(pieces_of(Pattern::expression("\\h+"), "fg \t"), (Strings{"+f", "-g \t"}));
  EXPECT_EQ(pieces_of(Pattern::expression("^b|b$"), "b\nab\nb"),
            (Strings{"+b", "-\na", "+b", "-\n", "+b"}));
  // An empty match cuts, and the search goes on.
  EXPECT_EQ(pieces_of(Pattern::expression("(?=\\d)"), "a1b"), (Strings{"-a", "+", "-1b"}));
  EXPECT_EQ(pieces_of(Pattern::literal("ab"), "abxab"), (Strings{"+ab", "-x", "+ab"}));
}

// --- BPE -----------------------------------------------------------------------------------------

struct RandomBpe {
  Vocabulary vocabulary;
  Bpe bpe;
  std::map<std::pair<TokenId, TokenId>, std::pair<std::uint32_t, TokenId>> table;
};

// Three letters, and merges of tokens made before; with `shared_ranks` many have the same rank.
RandomBpe random_bpe(std::uint64_t seed, bool shared_ranks) {
  Random random(seed);
  RandomBpe r;
  for (const char* letter : {"a", "b", "c"}) r.vocabulary.add(r.vocabulary.size(), letter);
  for (int i = 0; i < 60; i++) {
    const auto left =
        static_cast<TokenId>(random.below(static_cast<std::uint64_t>(r.vocabulary.size())));
    const auto right =
        static_cast<TokenId>(random.below(static_cast<std::uint64_t>(r.vocabulary.size())));
    if (r.table.contains({left, right})) continue;
    const std::string text =
        std::string(r.vocabulary.text(left)) + std::string(r.vocabulary.text(right));
    TokenId id = r.vocabulary.find(text);
    if (id == no_token) {
      id = static_cast<TokenId>(r.vocabulary.size());
      r.vocabulary.add(id, text);
    }
    const auto rank =
        static_cast<std::uint32_t>(shared_ranks ? random.below(5) : random.below(1000));
    r.bpe.merges.push_back({left, right, id, rank});
    r.table[{left, right}] = {rank, id};
  }
  prepare(r.bpe, r.vocabulary);
  return r;
}

// The definition: merge the pair of lowest rank, leftmost first, until there is none.
Ids slow_bpe(const RandomBpe& r, std::string_view text) {
  Ids ids;
  for (char c : text) ids.push_back(c - 'a');
  while (true) {
    std::size_t best = ids.size();
    for (std::size_t i = 0; i + 1 < ids.size(); i++) {
      const auto it = r.table.find({ids[i], ids[i + 1]});
      if (it == r.table.end()) continue;
      if (best == ids.size() || it->second.first < r.table.at({ids[best], ids[best + 1]}).first)
        best = i;
    }
    if (best == ids.size()) return ids;
    ids[best] = r.table.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, ShortAndLongPiecesEqualTheDefinition) {
  for (std::uint64_t seed = 1; seed <= 60; seed++) {
    const RandomBpe r = random_bpe(seed, seed % 2 == 0);
    Random random(seed, 1);
    BpeScratch scratch;
    for (int round = 0; round < 20; round++) {
      std::string text;
      for (std::uint64_t n = random.below(round % 2 == 0 ? 30 : 150); n > 0; n--)
        text += static_cast<char>('a' + random.below(seed % 3 == 0 ? 2 : 3));
      Ids ids;
      encode_bpe(r.bpe, r.vocabulary, text, scratch, ids);
      EXPECT_EQ(ids, slow_bpe(r, text)) << "seed " << seed << ": " << text;
    }
  }
}

TEST(Bpe, StepsGrowInProportionToThePiece) {
  for (std::uint64_t seed : {1, 2, 3, 4}) {
    const RandomBpe r = random_bpe(seed, seed % 2 == 0);
    for (const char* unit : {"a", "ab", "abc", "aabbc"}) {
      BpeScratch scratch;
      Ids ids;
      const std::string text = repeated(unit, 200000);
      encode_bpe(r.bpe, r.vocabulary, text, scratch, ids);
      // Each of the n-1 pairs at the start and two for each of at most n-1 merges.
      EXPECT_LE(scratch.steps, 3 * static_cast<i64>(text.size()));
    }
  }
}

// --- Unigram -------------------------------------------------------------------------------------

TEST(Unigram, TakesTheMostLikelyCut) {
  const std::pair<const char*, double> tokens[] = {{"<unk>", 0}, {"a", 0},   {"b", 0},
                                                   {"c", 0},     {"d", 0},   {"cd", 1},
                                                   {"ab", 2},    {"abc", 5}, {"abcd", 10}};
  Vocabulary vocabulary;
  Unigram model;
  for (const auto& [text, score] : tokens) {
    vocabulary.add(vocabulary.size(), text);
    model.scores.push_back(score);
  }
  model.unk = 0;
  prepare(model, vocabulary, {});
  UnigramScratch scratch;
  Ids ids;
  encode_unigram(model, "abcdacdxx", scratch, ids);
  EXPECT_EQ(ids, (Ids{8, 1, 5, 0}));
}

// --- normalizers ---------------------------------------------------------------------------------

TEST(Normalize, FormsAndLongRunsOfMarks) {
  const std::vector<Normalizer> nfc = {normal::Form{true, false}},
                                nfkc = {normal::Form{true, true}};
  const std::vector<Normalizer> nfd = {normal::Form{false, false}};
  EXPECT_EQ(normalize(nfc, "e\u0301"), "\u00e9");
  EXPECT_EQ(normalize(nfd, "\u00e9"), "e\u0301");
  EXPECT_EQ(normalize(nfkc, "\ufb01\u00b2"), "fi2");
  EXPECT_EQ(normalize(nfd, "a\u0301\u0327"), "a\u0327\u0301");  // by combining class
  // Marks of two classes in turn: sorting them one by one would take a day.
  const std::string marks = "a" + repeated("\u0301\u0327", 1 << 20);
  EXPECT_EQ(normalize(nfd, marks).size(), marks.size());
  EXPECT_EQ(normalize({normal::Lowercase{}}, "\u0130\u00c9A"), "i\u0307\u00e9a");
}

TEST(Normalize, StopsATextThatGrowsWithoutMeasure) {
  const std::vector<Normalizer> steps = {
      normal::Replace{Pattern::literal("a"), repeated("b", 60000)}};
  EXPECT_EQ(normalize(steps, "aa").size(), 120000u);
  EXPECT_THROW(normalize(steps, repeated("a", 200)), Error);
}

// --- the whole
// ------------------------------------------------------------------------------------

Tokenizer byte_level() { return load_tokenizer(fixture("tokenizers/byte-gpt4")); }

TEST(Tokenizer, EveryCodePointComesBack) {
  for (const char* name :
       {"byte-gpt4", "byte-o200k", "byte-tekken", "byte-deepseek3", "byte-regex"}) {
    const Tokenizer tokenizer = load_tokenizer(fixture("tokenizers") / name);
    std::string all;
    for (char32_t c = 0; c < 0x110000; c++)
      if (c < 0xd800 || c > 0xdfff) append_char(all, c);
    const Ids ids = tokenizer.encode(all, false);
    EXPECT_TRUE(tokenizer.decode(ids) == all) << name;
  }
}

TEST(Tokenizer, InvalidUtf8BecomesReplacementCharacters) {
  const Tokenizer tokenizer = byte_level();
  const std::string bad = "a\xff\xe4\xbd b\xed\xa0\x80";
  EXPECT_EQ(tokenizer.encode(bad, false), tokenizer.encode(lossy_utf8(bad), false));
  const Tokenizer spm = load_tokenizer(fixture("tokenizers/spm-bpe"));
  EXPECT_EQ(spm.encode(bad, false), spm.encode(lossy_utf8(bad, true), false));
}

TEST(Tokenizer, SpecialTextIsATokenOnlyWhenAsked) {
  const Tokenizer tokenizer = byte_level();
  const std::string text = "a<|end|>b";
  const Ids parsed = tokenizer.encode(text, EncodeOptions{false, true});
  const Ids plain = tokenizer.encode(text, EncodeOptions{false, false});
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), 1), 1);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 1), 0);
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_EQ(tokenizer.decode(parsed, true), "ab");
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_FALSE(tokenizer.is_special(2));
}

TEST(Tokenizer, IdsOutsideTheVocabularyDecodeToNothing) {
  const Tokenizer tokenizer = byte_level();
  Ids ids = tokenizer.encode("abc", false);
  ids.insert(ids.begin(), {-1, -2147483647 - 1, 2147483647});
  ids.push_back(static_cast<std::int32_t>(tokenizer.vocab_size()));
  EXPECT_EQ(tokenizer.decode(ids), "abc");
  EXPECT_EQ(tokenizer.token(-1), "");
  EXPECT_EQ(tokenizer.token(1 << 30), "");
  EXPECT_EQ(tokenizer.find("no such token"), std::nullopt);
}

// Time that is not linear shows as minutes, not as a factor of two; the bound is for slow machines
// under sanitizers.
TEST(Tokenizer, AMegabyteOfAnythingTakesModerateTime) {
  const std::string units[] = {
      "a", " ", "\n",   "\u4f60", "\u0301",           "aA",     "1",
      ".", "'", "\xff", " \n",    "\xf0\x9f\x98\x80", "\u2581", std::string(1, '\0')};
  for (const char* name : {"byte-gpt4", "byte-o200k", "byte-qwen2", "byte-deepseek3", "llama",
                           "bert", "spm-unigram", "spm-bpe", "unigram"}) {
    const Tokenizer tokenizer = load_tokenizer(fixture("tokenizers") / name);
    for (const std::string& unit : units) {
      const std::string text = repeated(unit, std::size_t{1} << 20);
      const auto start = std::chrono::steady_clock::now();
      tokenizer.encode(text);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 10.0) << name << " on " << json_quote(unit);
    }
  }
}

TEST(Tokenizer, ThreadsShareOne) {
  const Tokenizer tokenizer = byte_level();
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  Random random(13);
  for (int i = 0; i < 200; i++) {
    std::string text;
    for (int k = 0; k < 40; k++) text += static_cast<char>(' ' + random.below(95));
    texts.push_back(text);
    expected.push_back(byte_level().encode(text));
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < texts.size(); i++) {
        const std::size_t k = (i + static_cast<std::size_t>(t) * 50) % texts.size();
        wrong += tokenizer.encode(texts[k]) != expected[k];
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(StreamDecoder, HoldsBackUntilACharacterIsComplete) {
  const Tokenizer tokenizer = byte_level();
  const std::string text = "\xf0\x9f\xa6\x99!";  // no token holds it: byte by byte
  const Ids ids = tokenizer.encode(text, false);
  ASSERT_EQ(ids.size(), 5u);
  StreamDecoder decoder(tokenizer);
  for (int i = 0; i < 3; i++) EXPECT_EQ(decoder.push(ids[static_cast<std::size_t>(i)]), "");
  EXPECT_EQ(decoder.push(ids[3]), "\xf0\x9f\xa6\x99");
  EXPECT_EQ(decoder.push(ids[4]), "!");
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, LetsGoOfEndlessRubbish) {
  const Tokenizer tokenizer = byte_level();
  const std::int32_t half = *tokenizer.find(bytes_to_alphabet("\xa6"));
  StreamDecoder decoder(tokenizer);
  std::size_t shown = 0;
  for (int i = 0; i < 2000; i++) shown += decoder.push(half).size();
  EXPECT_GT(shown, 1000u);
}

}  // namespace
}  // namespace pare
