// Vocabularies inside GGUF files.
//
// Two kinds are read: "llama" is a SentencePiece BPE with scores and types, "gpt2" a byte-level BPE
// with merges, whose split pattern is only named (`tokenizer.ggml.pre`). The patterns for each name
// are data of llama.cpp (llama-vocab.cpp); a name without an entry is refused, since a wrong split
// gives ids that are quietly wrong. Control, unknown and user tokens are found in the text.
#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "file/gguf.h"
#include "text/formats/formats.h"
#include "text/tokenizer.h"

namespace pare {
const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers() {
  static const std::string digits = "\\p{N}", three_digits = "[0-9][0-9][0-9]";
  static const std::string deepseek_words =
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
      "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
  static const std::string poro = " ?[^(\\s|.,!?…。，、।۔،)]+";
  static const std::vector<GgufPreTokenizer> table = {
      {"llama3", {"cl100k"}, true, true},
      {"llama-v3", {"cl100k"}, true, true},
      {"llama-bpe", {"cl100k"}, true, true},
      {"falcon3", {"cl100k"}, true, true},
      {"falcon-h1", {"cl100k"}, true, true},
      {"pixtral", {"cl100k"}, true, true},
      {"lfm2", {"cl100k"}, true, true},
      {"dbrx", {"cl100k"}},
      {"smaug-bpe", {"cl100k"}},
      {"chatglm-bpe", {"cl100k"}},
      {"glm4", {"cl100k"}},
      {"qwen2", {"qwen2"}},
      {"deepseek-r1-qwen", {"qwen2"}},
      {"stablelm2", {"qwen2"}},
      {"hunyuan", {"qwen2"}},
      {"megrez", {"qwen2"}},
      {"grok-2", {"qwen2"}},
      {"solar-open", {"qwen2"}},
      {"gpt-4o", {"o200k"}},
      {"llama4", {"o200k"}},
      {"tekken", {"tekken"}, true, true},
      {"gpt-2", {"gpt2"}},
      {"phi-2", {"gpt2"}},
      {"mpt", {"gpt2"}},
      {"olmo", {"gpt2"}},
      {"jais", {"gpt2"}},
      {"trillion", {"gpt2"}},
      {"exaone4", {"gpt2"}},
      {"gigachat", {"gpt2"}},
      {"mellum", {"gpt2"}},
      {"granite-docling", {"gpt2"}},
      {"starcoder", {digits, "gpt2"}},
      {"refact", {digits, "gpt2"}},
      {"command-r", {digits, "gpt2"}},
      {"smollm", {digits, "gpt2"}},
      {"codeshell", {digits, "gpt2"}},
      {"exaone", {digits, "gpt2"}},
      {"minerva-7b", {digits, "gpt2"}},
      {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", "gpt2", three_digits}},
      {"deepseek-coder",
       {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", digits}},
      {"deepseek-v3", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", deepseek_words}},
      {"hunyuan-dense", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", deepseek_words}},
      {"poro-chat", {poro}},
      {"bloom", {poro}},
      {"gpt3-finnish", {poro}},
      {"viking", {poro, digits}},
      {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", "gpt2", "\\p{N}+", three_digits}},
  };
  return table;
}

namespace {

const GgufPreTokenizer& pre_tokenizer_of(const std::string* name) {
  const std::string_view wanted = name == nullptr ? "default" : std::string_view(*name);
  for (const GgufPreTokenizer& p : gguf_pre_tokenizers())
    if (p.name == wanted) return p;
  fail_input("TK-003", "the way this vocabulary splits text is not known",
             {{"key", gguf_prefix + "pre"}, {"found", quoted(wanted)}},
             "give the model's tokenizer.json instead");
}

std::vector<PieceType> read_types(const Gguf& file, std::size_t count) {
  std::vector<PieceType> types(count, PieceType::normal);
  const std::vector<i64>* stored = file.integers(gguf_prefix + "token_type");
  if (stored == nullptr) return types;
  if (stored->size() < count)
    fail_input("TK-002", "there are fewer token types than tokens",
               {{"key", gguf_prefix + "token_type"},
                {"found", fmt::format("{}", stored->size())},
                {"need", fmt::format("{}", count)}});
  for (std::size_t i = 0; i < count; i++)
    if ((*stored)[i] >= 1 && (*stored)[i] <= 6) types[i] = static_cast<PieceType>((*stored)[i]);
  return types;
}

std::vector<float> read_scores(const Gguf& file, std::size_t count) {
  const std::vector<double>* stored = file.numbers(gguf_prefix + "scores");
  if (stored == nullptr || stored->size() < count)
    fail_input("TK-002", "a SentencePiece vocabulary needs a score for each token",
               {{"key", gguf_prefix + "scores"},
                {"found", fmt::format("{}", stored == nullptr ? 0 : stored->size())},
                {"need", fmt::format("{}", count)}});
  std::vector<float> scores;
  for (std::size_t i = 0; i < count; i++) {
    if (std::isnan((*stored)[i]))
      fail_input("TK-002", "the score of a token is not a number",
                 {{"key", gguf_prefix + "scores"}, {"id", fmt::format("{}", i)}});
    scores.push_back(static_cast<float>((*stored)[i]));
  }
  return scores;
}

TokenId read_special(const Gguf& file, const char* name, i64 otherwise, i64 size) {
  const std::optional<i64> stored = file.integer(gguf_prefix + name);
  if (!stored) return otherwise < size ? static_cast<TokenId>(otherwise) : no_token;
  if (*stored == 0xffffffff) return no_token;
  if (*stored < 0 || *stored >= size)
    fail_input("TK-005", "a special token is not in the vocabulary",
               {{"key", gguf_prefix + name},
                {"found", fmt::format("{}", *stored)},
                {"need", fmt::format("below {}", size)}});
  return static_cast<TokenId>(*stored);
}

// "left right", cut at the first space that is not the first character.
void read_merges(const Gguf& file, const Vocabulary& vocabulary, Bpe& bpe) {
  const std::vector<std::string>* lines = file.texts(gguf_prefix + "merges");
  if (lines == nullptr)
    fail_input("TK-002", "a byte-level vocabulary without merges",
               {{"key", gguf_prefix + "merges"}});
  if (static_cast<i64>(lines->size()) > max_merges)
    fail_input("TK-004", "too many merges",
               {{"found", fmt::format("{}", lines->size())},
                {"need", fmt::format("at most {}", max_merges)}});
  std::unordered_set<std::uint64_t> seen;  // of a pair given twice the first counts here
  for (std::size_t i = 0; i < lines->size(); i++) {
    const std::string_view line = (*lines)[i];
    const std::size_t space = line.find(' ', 1);
    if (space == std::string_view::npos)
      fail_input("TK-006", "a merge is not two tokens with a space between",
                 {{"merge", fmt::format("{}", i)}, {"found", quoted(line)}});
    add_merge(line.substr(0, space), line.substr(space + 1), i, vocabulary, bpe);
    const BpeMerge& m = bpe.merges.back();
    if (!seen.insert(static_cast<std::uint64_t>(m.left) << 32 | static_cast<std::uint32_t>(m.right))
             .second)
      bpe.merges.pop_back();
  }
}

// Phi-3's markers take the white space after them along (llama.cpp knows this by the model's name).
bool strips_right(const Gguf& file, std::string_view token) {
  const std::string* name = file.text("general.name");
  if (name == nullptr) return false;
  std::string lower;
  for (char c : *name) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (lower.find("phi-3") == std::string::npos && lower.find("phi3") == std::string::npos)
    return false;
  return token != "<unk>" && token != "<s>" && token != "<|endoftext|>";
}

void read_added(const Gguf& file, const std::vector<PieceType>& types, TokenizerParts& parts) {
  for (std::size_t i = 0; i < types.size(); i++) {
    const PieceType t = types[i];
    if (t != PieceType::control && t != PieceType::user && t != PieceType::unknown) continue;
    AddedToken token;
    token.id = static_cast<TokenId>(i);
    token.content = std::string(parts.vocabulary.text(token.id));
    token.special = t != PieceType::user;
    token.rstrip = strips_right(file, token.content);
    parts.added.push_back(std::move(token));
  }
}

void read_template(const Gguf& file, bool add_bos, bool add_eos, TokenizerParts& parts) {
  add_bos = file.boolean(gguf_prefix + "add_bos_token").value_or(add_bos);
  add_eos = file.boolean(gguf_prefix + "add_eos_token").value_or(add_eos);
  std::vector<TokenId> before, after;
  if (add_bos && parts.bos != no_token) before.push_back(parts.bos);
  if (add_eos && parts.eos != no_token) after.push_back(parts.eos);
  if (!before.empty() || !after.empty())
    set_post_processor(parts, template_json(parts.vocabulary, before, after));
}

void read_sentencepiece(const Gguf& file, const std::vector<PieceType>& types,
                        TokenizerParts& parts) {
  const i64 size = parts.vocabulary.size();
  parts.kind = "SentencePiece BPE";
  parts.bos = read_special(file, "bos_token_id", 1, size);
  parts.eos = read_special(file, "eos_token_id", 2, size);
  parts.unk = read_special(file, "unknown_token_id", 0, size);
  check_byte_pieces(parts.vocabulary, types, false);
  Bpe bpe;
  bpe.byte_fallback = std::find(types.begin(), types.end(), PieceType::byte) != types.end();
  bpe.fuse_unk = true;
  bpe.unk = parts.unk;
  merges_from_ranks(bpe, parts.vocabulary,
                    ranks_from_scores(read_scores(file, types.size()), types));
  parts.model = std::move(bpe);
  read_added(file, types, parts);
  set_space_marks(parts, file.boolean(gguf_prefix + "add_space_prefix").value_or(true));
  read_template(file, true, false, parts);
}

void read_byte_level(const Gguf& file, const std::vector<PieceType>& types, TokenizerParts& parts) {
  const GgufPreTokenizer& pre = pre_tokenizer_of(file.text(gguf_prefix + "pre"));
  const i64 size = parts.vocabulary.size();
  parts.kind = "byte-level BPE";
  parts.bos = read_special(file, "bos_token_id", no_token, size);
  parts.eos = read_special(file, "eos_token_id", no_token, size);
  parts.unk = read_special(file, "unknown_token_id", no_token, size);
  Bpe bpe;
  bpe.byte_level = true;
  bpe.ignore_merges = pre.ignore_merges;
  read_merges(file, parts.vocabulary, bpe);
  parts.model = std::move(bpe);
  read_added(file, types, parts);
  std::vector<std::string> patterns;
  for (const std::string& p : pre.patterns) {
    patterns.push_back(p);
    for (const KnownPattern& known : known_patterns())
      if (known.name == p) {
        patterns.back() = std::string(known.pattern);
        break;
      }
  }
  set_byte_level(parts, patterns);
  read_template(file, pre.add_bos, false, parts);
}

}  // namespace

TokenizerParts parts_from_gguf(const Gguf& file) {
  const std::string* model = file.text(gguf_prefix + "model");
  if (model == nullptr)
    fail_input("TK-001", "the file has no vocabulary", {{"key", gguf_prefix + "model"}});
  if (*model != "llama" && *model != "gpt2")
    fail_input("TK-003", "a vocabulary of this kind is not supported",
               {{"key", gguf_prefix + "model"}, {"found", pare::quoted(*model)}},
               "give the model's tokenizer.json instead");
  const std::vector<std::string>* tokens = file.texts(gguf_prefix + "tokens");
  if (tokens == nullptr)
    fail_input("TK-002", "the vocabulary has no tokens", {{"key", gguf_prefix + "tokens"}});
  if (static_cast<i64>(tokens->size()) > max_tokens)
    fail_input("TK-004", "too many tokens",
               {{"found", fmt::format("{}", tokens->size())},
                {"need", fmt::format("at most {}", max_tokens)}});
  TokenizerParts parts;
  for (std::size_t i = 0; i < tokens->size(); i++)
    if (!parts.vocabulary.add(static_cast<i64>(i), (*tokens)[i]))
      fail_input("TK-005", "a token occurs twice",
                 {{"token", pare::quoted((*tokens)[i])}, {"id", fmt::format("{}", i)}});
  parts.model_tokens = parts.vocabulary.size();
  const std::vector<PieceType> types = read_types(file, tokens->size());
  if (*model == "llama")
    read_sentencepiece(file, types, parts);
  else
    read_byte_level(file, types, parts);
  parts.pad = read_special(file, "padding_token_id", no_token, parts.vocabulary.size());
  return parts;
}

Tokenizer tokenizer_from_gguf(const Gguf& file, std::string_view name) {
  try {
    return Tokenizer(parts_from_gguf(file));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
