// tokenizer.json: reader.
//
// The file of Hugging Face tokenizers: five components and a model. The one surprise: an added
// token whose text the model's vocabulary has gets that id, whatever the file says. Otherwise the
// stored id counts if it is free, else the next free one is taken (the original always takes the
// next free one: in files without gaps that is the same). Merges may be pairs or, in old files, "a
// b".
#include <algorithm>

#include "text/formats/formats.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

void check_count(std::string_view what, std::size_t found, i64 limit) {
  if (static_cast<i64>(found) > limit)
    fail_input("TK-004", fmt::format("too many {}", what),
               {{"found", fmt::format("{}", found)}, {"need", fmt::format("at most {}", limit)}});
}

// A token that looks like a byte but is none would decode to something else than it says.
void check_byte_form(std::string_view text) {
  if (text.size() < 5 || text.size() > 7 || text.substr(0, 3) != "<0x" || text.back() != '>')
    return;
  if (byte_of_token(text) < 0)
    fail_input("TK-007", "a byte token is not <0x00> to <0xFF>", {{"token", quoted(text)}});
}

void read_vocabulary(const Json& vocab, bool byte_fallback, Vocabulary& vocabulary) {
  const Json::Object& members = vocab.as_object();
  check_count("tokens", members.size(), max_tokens);
  for (const auto& [token, id] : members) {
    if (byte_fallback) check_byte_form(token);
    vocabulary.add(id.as_int(), token);
  }
}

TokenId merge_part(const Vocabulary& vocabulary, std::string_view text, std::size_t index) {
  const TokenId id = vocabulary.find(text);
  if (id == no_token)
    fail_input("TK-006", "a merge names a token that is not in the vocabulary",
               {{"token", quoted(text)}, {"merge", fmt::format("{}", index)}});
  return id;
}

// "left right". When tokens themselves hold spaces (files in which U+00A0 was turned into a space
// are about), the one cut that makes two tokens of a third counts; without exactly one it is an
// error.
void split_legacy_merge(std::string_view line, std::size_t index, const Vocabulary& vocabulary,
                        std::string_view& left, std::string_view& right) {
  std::size_t space = line.find(' ');
  if (space != std::string_view::npos && line.find(' ', space + 1) != std::string_view::npos) {
    std::size_t only = std::string_view::npos;
    int cuts = 0;
    // A token is short; a long line cannot be a merge and must not cost its square.
    for (std::size_t i = space; line.size() <= 4096 && i < line.size(); i++) {
      if (line[i] != ' ' || vocabulary.find(line.substr(0, i)) == no_token ||
          vocabulary.find(line.substr(i + 1)) == no_token)
        continue;
      const std::string joined = std::string(line.substr(0, i)) + std::string(line.substr(i + 1));
      if (vocabulary.find(joined) == no_token) continue;
      only = i;
      cuts++;
    }
    space = cuts == 1 ? only : std::string_view::npos;
  }
  if (space == std::string_view::npos)
    fail_input("TK-006", "a merge is not two tokens with one space between",
               {{"found", quoted(line)}, {"merge", fmt::format("{}", index)}});
  left = line.substr(0, space);
  right = line.substr(space + 1);
}

}  // namespace

void add_merge(std::string_view left, std::string_view right, std::size_t index,
               const Vocabulary& vocabulary, Bpe& bpe) {
  const TokenId a = merge_part(vocabulary, left, index), b = merge_part(vocabulary, right, index);
  if (right.size() < bpe.prefix.size())
    fail_input("TK-006", "the second half of a merge is shorter than the prefix of its tokens",
               {{"token", quoted(right)}, {"merge", fmt::format("{}", index)}});
  const std::string joined = std::string(left) + std::string(right.substr(bpe.prefix.size()));
  bpe.merges.push_back(
      {a, b, merge_part(vocabulary, joined, index), static_cast<std::uint32_t>(index)});
}

namespace {

void read_merges(const Json& json, const Vocabulary& vocabulary, Bpe& bpe) {
  // An empty object stands for an empty list in files of other writers.
  if (json.is_object() && json.as_object().empty()) return;
  const Json::Array& merges = json.as_array();
  check_count("merges", merges.size(), max_merges);
  bpe.merges.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); i++) {
    std::string_view left, right;
    if (merges[i].is_string()) {
      const std::string& line = merges[i].as_string();
      if (line.starts_with("#version")) continue;
      split_legacy_merge(line, i, vocabulary, left, right);
    } else {
      const Json::Array& pair = merges[i].as_array();
      if (pair.size() != 2)
        fail_input("TK-006", "a merge is not a pair of tokens", {{"merge", fmt::format("{}", i)}});
      left = pair[0].as_string();
      right = pair[1].as_string();
    }
    add_merge(left, right, i, vocabulary, bpe);
  }
}

void read_bpe(const Json& model, TokenizerParts& parts) {
  Bpe bpe;
  bpe.prefix = text_or(model, "continuing_subword_prefix", "");
  bpe.suffix = text_or(model, "end_of_word_suffix", "");
  bpe.fuse_unk = flag_or(model, "fuse_unk", false);
  bpe.byte_fallback = flag_or(model, "byte_fallback", false);
  bpe.ignore_merges = flag_or(model, "ignore_merges", false);
  read_vocabulary(model.at("vocab"), bpe.byte_fallback, parts.vocabulary);
  read_merges(model.at("merges"), parts.vocabulary, bpe);
  if (const std::string unk = text_or(model, "unk_token", ""); !unk.empty()) {
    bpe.unk = parts.unk = parts.vocabulary.find(unk);
    bpe.unk_missing = bpe.unk == no_token;
  }
  parts.model = std::move(bpe);
}

void read_unigram(const Json& model, TokenizerParts& parts) {
  Unigram unigram;
  unigram.byte_fallback = flag_or(model, "byte_fallback", false);
  const Json::Array& vocab = model.at("vocab").as_array();
  check_count("tokens", vocab.size(), max_tokens);
  for (std::size_t i = 0; i < vocab.size(); i++) {
    const Json::Array& entry = vocab[i].as_array();
    if (entry.size() != 2)
      fail_input("TK-002", "an entry of the vocabulary is not a token and a score",
                 {{"id", fmt::format("{}", i)}});
    if (unigram.byte_fallback) check_byte_form(entry[0].as_string());
    parts.vocabulary.add(static_cast<i64>(i), entry[0].as_string());
    unigram.scores.push_back(entry[1].as_number());
  }
  if (const Json* unk = model.find("unk_id"); unk != nullptr && !unk->is_null()) {
    if (unk->as_int() < 0 || unk->as_int() >= static_cast<i64>(vocab.size()))
      fail_input("TK-005", "the unknown token is not in the vocabulary",
                 {{"found", fmt::format("{}", unk->as_int())},
                  {"need", fmt::format("below {}", vocab.size())}});
    unigram.unk = parts.unk = static_cast<TokenId>(unk->as_int());
  }
  prepare(unigram, parts.vocabulary, {});
  parts.model = std::move(unigram);
}

void read_words(const Json& model, bool pieces, TokenizerParts& parts) {
  read_vocabulary(model.at("vocab"), false, parts.vocabulary);
  const TokenId unk = parts.vocabulary.find(model.at("unk_token").as_string());
  parts.unk = unk;
  if (!pieces) {
    parts.model = WordLevel{unk};
    return;
  }
  WordPiece words;
  words.unk = unk;
  words.prefix = model.at("continuing_subword_prefix").as_string();
  words.max_characters = model.at("max_input_chars_per_word").as_int();
  parts.model = std::move(words);
}

std::string model_type(const Json& model) {
  if (const Json* type = model.find("type")) return type->as_string();
  // Old files leave the type out; the shape tells.
  if (model.find("merges") != nullptr) return "BPE";
  if (model.find("continuing_subword_prefix") != nullptr) return "WordPiece";
  const Json* vocab = model.find("vocab");
  return vocab != nullptr && vocab->is_array() ? "Unigram" : "WordLevel";
}

void read_model(const Json& model, TokenizerParts& parts) {
  const std::string type = model_type(model);
  if (type == "BPE")
    read_bpe(model, parts);
  else if (type == "Unigram")
    read_unigram(model, parts);
  else if (type == "WordPiece" || type == "WordLevel")
    read_words(model, type == "WordPiece", parts);
  else
    fail_input("TK-003", "a model of this type is not supported", {{"type", pare::quoted(type)}});
  parts.kind =
      type == "BPE" && std::get<Bpe>(parts.model).byte_fallback ? "SentencePiece BPE" : type;
}

void read_added(const Json& list, TokenizerParts& parts) {
  const Json::Array& items = list.as_array();
  check_count("added tokens", items.size(), max_tokens);
  // Texts that were there before: add_token's own search for repetitions would be quadratic.
  std::vector<std::int32_t> index_of;
  for (const Json& item : items) {
    if (item.at("id").as_int() < 0 || item.at("id").as_int() >= max_tokens)
      fail_input("TK-005", "the id of an added token is out of range",
                 {{"token", pare::quoted(item.at("content").as_string())},
                  {"found", fmt::format("{}", item.at("id").as_int())}});
    AddedToken token;
    token.content = item.at("content").as_string();
    token.single_word = item.at("single_word").as_bool();
    token.lstrip = item.at("lstrip").as_bool();
    token.rstrip = item.at("rstrip").as_bool();
    token.normalized = item.at("normalized").as_bool();
    token.special = item.at("special").as_bool();
    if (token.content.empty()) continue;
    token.id = parts.vocabulary.find(token.content);
    if (token.id == no_token) {
      const i64 stored = item.at("id").as_int();
      const bool taken = parts.vocabulary.used(static_cast<TokenId>(stored));
      token.id = static_cast<TokenId>(taken ? parts.vocabulary.size() : stored);
      parts.vocabulary.add(token.id, token.content);
    }
    index_of.resize(static_cast<std::size_t>(parts.vocabulary.size()), -1);
    std::int32_t& index = index_of[static_cast<std::size_t>(token.id)];
    if (index >= 0) {
      parts.added[static_cast<std::size_t>(index)] = std::move(token);
    } else {
      index = static_cast<std::int32_t>(parts.added.size());
      parts.added.push_back(std::move(token));
    }
  }
}

}  // namespace

TokenizerParts parts_from_json(std::string_view text, std::string_view name) {
  const Json json = parse_json(text, name);
  const Json* version = json.find("version");
  if (version != nullptr && (!version->is_string() || version->as_string() != "1.0"))
    fail_input("TK-002", "a tokenizer.json of another version than \"1.0\"");
  const auto part = [&](std::string_view key) {
    const Json* value = json.find(key);
    return value == nullptr ? Json() : *value;
  };
  TokenizerParts parts;
  read_model(json.at("model"), parts);
  parts.model_tokens = parts.vocabulary.size();
  if (const Json* added = json.find("added_tokens"); added != nullptr && !added->is_null())
    read_added(*added, parts);
  set_normalizer(parts, part("normalizer"));
  set_pre_tokenizer(parts, part("pre_tokenizer"));
  set_post_processor(parts, part("post_processor"));
  set_decoder(parts, part("decoder"));
  // A BPE behind a final ByteLevel works on bytes: the same ids, without the detour.
  if (auto* bpe = std::get_if<Bpe>(&parts.model);
      bpe != nullptr && !parts.pre_tokenizer.empty() &&
      std::holds_alternative<pre::ByteLevel>(parts.pre_tokenizer.back()) && bpe->prefix.empty() &&
      bpe->suffix.empty() && !bpe->byte_fallback) {
    bpe->byte_level = true;
    parts.kind = "byte-level BPE";
  }
  return parts;
}

Tokenizer tokenizer_from_json(std::string_view text, std::string_view name) {
  try {
    return Tokenizer(parts_from_json(text, name));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
