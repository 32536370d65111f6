// tokenizer.json: writer.
//
// What other formats hold is written in the form whose ids are the same in Hugging Face tokenizers.
// All tokens, added ones too, go into the model's vocabulary: there an id is what the file says,
// while an added token outside of it gets the next free one. What the form cannot hold is refused.
#include <algorithm>

#include "text/formats/formats.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

[[noreturn]] void cannot_write(std::string message) {
  fail_input("TK-011", "cannot be written as tokenizer.json: " + message);
}

// The text of an id, made unique: a text that another id has already is never looked up by it.
std::string written_text(const Vocabulary& vocabulary, TokenId id) {
  if (!vocabulary.used(id)) return fmt::format("<unused-id-{}>", id);
  const std::string_view text = vocabulary.text(id);
  if (vocabulary.find(text) == id && !text.empty()) return std::string(text);
  return fmt::format("<repeated-id-{}>", id);
}

Json token_or_null(const TokenizerParts& parts, TokenId id) {
  return id == no_token ? Json() : Json(parts.vocabulary.text(id));
}

Json vocabulary_json(const Vocabulary& vocabulary) {
  Json::Object members;
  for (TokenId id = 0; id < vocabulary.size(); id++)
    if (vocabulary.used(id))
      members.emplace_back(written_text(vocabulary, id), static_cast<i64>(id));
  return members;
}

Json bpe_json(const TokenizerParts& parts, const Bpe& bpe) {
  if (!bpe.pseudo.empty()) cannot_write("it merges characters that are no tokens");
  if (!bpe.unused.empty()) cannot_write("it takes unused pieces apart again");
  std::vector<BpeMerge> merges = bpe.merges;
  std::stable_sort(merges.begin(), merges.end(),
                   [](const BpeMerge& a, const BpeMerge& b) { return a.rank < b.rank; });
  Json::Array list;
  list.reserve(merges.size());
  for (const BpeMerge& m : merges)
    list.push_back(Json::array(
        {written_text(parts.vocabulary, m.left), written_text(parts.vocabulary, m.right)}));
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return Json::object({{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", token_or_null(parts, bpe.unk)},
                       {"continuing_subword_prefix", or_null(bpe.prefix)},
                       {"end_of_word_suffix", or_null(bpe.suffix)},
                       {"fuse_unk", bpe.fuse_unk},
                       {"byte_fallback", bpe.byte_fallback},
                       {"ignore_merges", bpe.ignore_merges},
                       {"vocab", vocabulary_json(parts.vocabulary)},
                       {"merges", std::move(list)}});
}

Json unigram_json(const TokenizerParts& parts, const Unigram& unigram) {
  const Vocabulary& vocabulary = parts.vocabulary;
  const double lowest = *std::min_element(unigram.scores.begin(), unigram.scores.end()) - 1e6;
  Json::Array list;
  for (TokenId id = 0; id < vocabulary.size(); id++) {
    const auto i = static_cast<std::size_t>(id);
    const bool avoided =
        i >= unigram.scores.size() || (!unigram.unused.empty() && unigram.unused[i]);
    list.push_back(
        Json::array({written_text(vocabulary, id), avoided ? lowest : unigram.scores[i]}));
  }
  return Json::object({{"type", "Unigram"},
                       {"unk_id", unigram.unk == no_token ? Json() : Json(i64{unigram.unk})},
                       {"vocab", std::move(list)},
                       {"byte_fallback", unigram.byte_fallback}});
}

Json model_json(const TokenizerParts& parts) {
  if (const auto* bpe = std::get_if<Bpe>(&parts.model)) return bpe_json(parts, *bpe);
  if (const auto* unigram = std::get_if<Unigram>(&parts.model))
    return unigram_json(parts, *unigram);
  if (const auto* words = std::get_if<WordPiece>(&parts.model))
    return Json::object({{"type", "WordPiece"},
                         {"unk_token", token_or_null(parts, words->unk)},
                         {"continuing_subword_prefix", words->prefix},
                         {"max_input_chars_per_word", words->max_characters},
                         {"vocab", vocabulary_json(parts.vocabulary)}});
  return Json::object({{"type", "WordLevel"},
                       {"vocab", vocabulary_json(parts.vocabulary)},
                       {"unk_token", token_or_null(parts, parts.unk)}});
}

Json added_json(const TokenizerParts& parts) {
  std::vector<AddedToken> tokens = parts.added;
  tokens.insert(tokens.end(), parts.user_pieces.begin(), parts.user_pieces.end());
  std::sort(tokens.begin(), tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  Json::Array list;
  for (const AddedToken& token : tokens)
    list.push_back(Json::object({{"id", i64{token.id}},
                                 {"content", token.content},
                                 {"single_word", token.single_word},
                                 {"lstrip", token.lstrip},
                                 {"rstrip", token.rstrip},
                                 {"normalized", token.normalized},
                                 {"special", token.special}}));
  return list;
}

}  // namespace

std::string to_tokenizer_json(const Tokenizer& tokenizer) {
  const TokenizerParts& parts = tokenizer.parts();
  if (!parts.not_writable.empty()) cannot_write(parts.not_writable);
  return Json::object({{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added_json(parts)},
                       {"normalizer", parts.normalizer_json},
                       {"pre_tokenizer", parts.pre_tokenizer_json},
                       {"post_processor", parts.post_processor_json},
                       {"decoder", parts.decoder_json},
                       {"model", model_json(parts)}})
      .dump();
}

std::string to_tokenizer_config_json(const Tokenizer& tokenizer) {
  const TokenizerParts& parts = tokenizer.parts();
  Json config = Json::object(
      {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}});
  const std::pair<const char*, TokenId> names[] = {{"bos_token", parts.bos},
                                                   {"eos_token", parts.eos},
                                                   {"unk_token", parts.unk},
                                                   {"pad_token", parts.pad}};
  for (const auto& [key, id] : names)
    if (id != no_token) config.set(key, parts.vocabulary.text(id));
  return config.dump(2) + "\n";
}

}  // namespace pare
