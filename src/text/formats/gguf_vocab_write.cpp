// Vocabularies for GGUF files.
//
// llama.cpp rebuilds a tokenizer from less than tokenizer.json says: split patterns by name, merges
// as strings or as scores, added tokens as types. So the parts are matched against what those names
// mean, and what was written is read back and tried on texts that take every path (words, digits,
// spaces, other scripts, bytes, special tokens); different ids are an error, not a surprise.
#include <algorithm>
#include <set>

#include "text/formats/formats.h"
#include "text/gguf_vocabulary.h"
#include "text/unicode.h"

namespace pare {
namespace {

[[noreturn]] void cannot_say(std::string message, std::string hint = {}) {
  fail_input("TK-012", "the tokenizer cannot be written into a GGUF file: " + message, {},
             std::move(hint));
}

// ---- the split pattern's name ----

// The patterns a byte-level pre-tokenizer applies in order.
std::vector<Pattern> patterns_of(const TokenizerParts& parts) {
  std::vector<Pattern> list;
  bool bytes = false;
  for (const PreTokenizer& step : parts.pre_tokenizer) {
    if (bytes) cannot_say("a step follows the one that turns text to bytes");
    if (const auto* split = std::get_if<pre::Split>(&step)) {
      if (split->behavior != Delimiter::isolated || split->invert)
        cannot_say("a split does not keep its matches as pieces");
      list.push_back(split->pattern);
    } else if (const auto* digits = std::get_if<pre::Digits>(&step)) {
      if (!digits->individual) cannot_say("runs of digits are pieces");
      list.push_back(Pattern::expression("\\p{N}"));
    } else if (const auto* level = std::get_if<pre::ByteLevel>(&step)) {
      if (level->add_prefix_space) cannot_say("a space is put in front of every text");
      if (level->use_regex)
        list.push_back(Pattern::expression(std::string(known_pattern("gpt2").pattern)));
      bytes = true;
    } else {
      cannot_say("a step of its pre-tokenizer has no name there");
    }
  }
  if (!bytes) cannot_say("its pieces are not bytes");
  return list;
}

Pattern pattern_named(const std::string& text) {
  for (const KnownPattern& known : known_patterns())
    if (known.name == text) return Pattern::expression(std::string(known.pattern));
  return Pattern::expression(text);
}

bool same_pattern(const Pattern& a, const Pattern& b) {
  if (a.known != nullptr || b.known != nullptr) return a.known == b.known;
  return a.is_expression == b.is_expression && a.text == b.text;
}

// The usual name first where several mean the same.
std::string pre_name(const TokenizerParts& parts, const Bpe& bpe) {
  const std::vector<Pattern> wanted = patterns_of(parts);
  std::vector<std::string_view> names = {"llama-bpe", "gpt-2", "qwen2", "tekken", "starcoder"};
  for (const GgufPreTokenizer& p : gguf_pre_tokenizers()) names.push_back(p.name);
  for (const std::string_view name : names)
    for (const GgufPreTokenizer& p : gguf_pre_tokenizers()) {
      if (p.name != name || p.ignore_merges != bpe.ignore_merges ||
          p.patterns.size() != wanted.size())
        continue;
      if (std::equal(wanted.begin(), wanted.end(), p.patterns.begin(),
                     [](const Pattern& a, const std::string& b) {
                       return same_pattern(a, pattern_named(b));
                     }))
        return std::string(name);
    }
  cannot_say("the way it splits text has no name there",
             "llama.cpp knows splits by name only (tokenizer.ggml.pre)");
}

// ---- tokens ----

std::string token_text(const Vocabulary& vocabulary, TokenId id) {
  if (vocabulary.used(id) && !vocabulary.text(id).empty() &&
      vocabulary.find(vocabulary.text(id)) == id)
    return std::string(vocabulary.text(id));
  return fmt::format("[PAD{}]", id);
}

struct TokenTable {
  std::vector<std::string> texts;
  std::vector<i64> types;
};

TokenTable tokens_of(const TokenizerParts& parts, bool byte_tokens, i64 rows) {
  const Vocabulary& vocabulary = parts.vocabulary;
  if (vocabulary.size() > rows)
    cannot_say(
        fmt::format("it has {} ids, but the embedding has {} rows", vocabulary.size(), rows));
  const auto type = [](PieceType t) { return static_cast<i64>(t); };
  TokenTable t;
  for (TokenId id = 0; id < rows; id++) {
    t.texts.push_back(token_text(vocabulary, id));
    const bool stand_in = !vocabulary.used(id) || t.texts.back() != vocabulary.text(id);
    const bool byte = byte_tokens && byte_of_token(t.texts.back()) >= 0;
    t.types.push_back(type(stand_in ? PieceType::unused
                           : byte   ? PieceType::byte
                                    : PieceType::normal));
  }
  for (const std::vector<AddedToken>* list : {&parts.added, &parts.user_pieces})
    for (const AddedToken& token : *list)
      t.types[static_cast<std::size_t>(token.id)] =
          type(token.special ? PieceType::control : PieceType::user);
  if (byte_tokens && parts.unk != no_token)
    t.types[static_cast<std::size_t>(parts.unk)] = type(PieceType::unknown);
  return t;
}

std::string symbol_text(const TokenizerParts& parts, const Bpe& bpe, TokenId id) {
  if (id < bpe.first_pseudo || bpe.pseudo.empty()) return std::string(parts.vocabulary.text(id));
  std::string out;
  append_char(out, bpe.pseudo[static_cast<std::size_t>(id - bpe.first_pseudo)]);
  return out;
}

std::vector<BpeMerge> ranked(const Bpe& bpe) {
  std::vector<BpeMerge> merges = bpe.merges;
  std::stable_sort(merges.begin(), merges.end(),
                   [](const BpeMerge& a, const BpeMerge& b) { return a.rank < b.rank; });
  return merges;
}

std::vector<std::string> merge_lines(const TokenizerParts& parts, const Bpe& bpe) {
  std::vector<std::string> lines;
  for (const BpeMerge& m : ranked(bpe)) {
    const std::string left = symbol_text(parts, bpe, m.left);
    if (left.find(' ') != std::string::npos) cannot_say("a merge holds a space");
    lines.push_back(left + " " + symbol_text(parts, bpe, m.right));
  }
  return lines;
}

// SentencePiece merges whatever makes a token, best score first: the score that gives the order of
// a merge list is the negative place of a token's first merge. The list must hold every such pair.
std::vector<double> scores_of(const TokenizerParts& parts, const Bpe& bpe,
                              const TokenTable& tokens) {
  std::vector<double> scores(tokens.texts.size(), 0.0);
  std::vector<bool> made(tokens.texts.size());
  const std::vector<BpeMerge> merges = ranked(bpe);
  for (const BpeMerge& m : merges) {
    const auto i = static_cast<std::size_t>(m.result);
    if (i >= made.size() || made[i]) continue;
    made[i] = true;
    scores[i] = -1.0 - static_cast<double>(m.rank);
  }
  std::vector<float> given;
  std::vector<PieceType> types;
  for (std::size_t i = 0; i < tokens.texts.size(); i++) {
    given.push_back(static_cast<float>(scores[i]));
    types.push_back(static_cast<PieceType>(tokens.types[i]));
  }
  Bpe back;
  std::vector<std::uint32_t> ranks = ranks_from_scores(given, types);
  ranks.resize(static_cast<std::size_t>(parts.vocabulary.size()));
  merges_from_ranks(back, parts.vocabulary, ranks);
  back.first_pseudo = static_cast<TokenId>(parts.vocabulary.size());
  const auto pairs = [&](const Bpe& b) {
    std::set<std::pair<std::string, std::string>> set;
    for (const BpeMerge& m : b.merges)
      set.emplace(symbol_text(parts, b, m.left), symbol_text(parts, b, m.right));
    return set;
  };
  if (pairs(bpe) != pairs(back))
    cannot_say("its merge list is not the one that scores of tokens would give",
               "byte-level vocabularies can be written, and SentencePiece ones");
  return scores;
}

// ---- what stands around a text ----

// Begin and end ids of the template, which GGUF can only switch on or off.
void put_template(const TokenizerParts& parts, TokenId bos, TokenId eos, GgufMetadata& out) {
  bool begin = false, end = false, text = false, other = false;
  for (const TemplatePart& part : parts.single) {
    if (part.text) text = true;
    for (TokenId id : part.ids)
      if (!text && id == bos && !begin)
        begin = true;
      else if (text && id == eos && !end)
        end = true;
      else
        other = true;
  }
  if (other) cannot_say("it adds other ids to a text than one at the begin and one at the end");
  out.emplace_back(gguf_prefix + "add_bos_token", begin);
  out.emplace_back(gguf_prefix + "add_eos_token", end);
}

// Whether a mark is put in front; refuses normalizers that do more than SentencePiece's marks.
bool space_prefix(const TokenizerParts& parts) {
  bool front = false, marks = false;
  for (const Normalizer& n : parts.normalizer) {
    if (const auto* prepend = std::get_if<normal::Prepend>(&n)) {
      front = prepend->text == meta_space || prepend->text == " ";
    } else if (const auto* replace = std::get_if<normal::Replace>(&n)) {
      if (replace->pattern.text != " " || replace->content != meta_space)
        cannot_say("its normalizer replaces text");
      marks = true;
    } else if (const auto* spm = std::get_if<normal::Sentencepiece>(&n)) {
      if (spm->map != nullptr || spm->remove_extra_whitespaces || spm->whitespace_as_suffix ||
          !spm->escape_whitespaces)
        cannot_say("its normalizer changes text");
      front = spm->add_dummy_prefix, marks = true;
    } else {
      cannot_say("its normalizer changes text");
    }
  }
  for (const PreTokenizer& step : parts.pre_tokenizer) {
    const auto* space = std::get_if<pre::Metaspace>(&step);
    if (space == nullptr || space->replacement != meta_space || space->split)
      cannot_say("it splits text before merging");
    front = space->prepend != pre::Metaspace::Prepend::never, marks = true;
  }
  if (!marks) cannot_say("it does not mark spaces");
  return front;
}

void put_ids(const TokenizerParts& parts, TokenId bos, TokenId eos, GgufMetadata& out) {
  const std::pair<const char*, TokenId> ids[] = {{"bos_token_id", bos},
                                                 {"eos_token_id", eos},
                                                 {"unknown_token_id", parts.unk},
                                                 {"padding_token_id", parts.pad}};
  for (const auto& [name, id] : ids)
    if (id != no_token) out.emplace_back(gguf_prefix + name, static_cast<i64>(id));
}

void put_byte_level(const TokenizerParts& parts, const Bpe& bpe, const TokenTable& tokens,
                    const GgufVocabularyOptions& options, GgufMetadata& out) {
  for (const Normalizer& n : parts.normalizer) {
    const auto* form = std::get_if<normal::Form>(&n);
    if (form == nullptr || !form->compose || form->compatibility)
      cannot_say("its normalizer changes text");
    if (options.notes != nullptr)
      options.notes->push_back(
          "llama.cpp does not compose characters (NFC) as this tokenizer does; text that is not "
          "composed gets other ids there");
  }
  out.emplace_back(gguf_prefix + "model", std::string("gpt2"));
  out.emplace_back(gguf_prefix + "pre", pre_name(parts, bpe));
  out.emplace_back(gguf_prefix + "tokens", tokens.texts);
  out.emplace_back(gguf_prefix + "token_type", tokens.types);
  out.emplace_back(gguf_prefix + "merges", merge_lines(parts, bpe));
}

void put_sentencepiece(const TokenizerParts& parts, const Bpe& bpe, const TokenTable& tokens,
                       GgufMetadata& out) {
  if (!bpe.byte_fallback) cannot_say("it has no byte tokens");
  const bool front = space_prefix(parts);
  out.emplace_back(gguf_prefix + "model", std::string("llama"));
  out.emplace_back(gguf_prefix + "pre", std::string("default"));
  out.emplace_back(gguf_prefix + "tokens", tokens.texts);
  out.emplace_back(gguf_prefix + "scores", scores_of(parts, bpe, tokens));
  out.emplace_back(gguf_prefix + "token_type", tokens.types);
  out.emplace_back(gguf_prefix + "add_space_prefix", front);
}

// ---- the probe ----

std::vector<std::string> probes(const TokenizerParts& parts) {
  std::vector<std::string> texts = {
      "Hello world, it's 3.14159 or 1,000,000; don't you think?\n\n  Indented\tline\r\nCAPS LOCK",
      " leading and trailing ",
      "naïve café — “quotes” … 中文字符 日本語 한국어 Ελληνικά русский "
      "🙂🙃 "
      "\xc2\xa0 "
      "x",
      "def f(x):\n    return {'a': [1, 2], \"b\": x**2}  # 50% #tag @user http://a.b/c?d=e",
      "\n\n\n   \n a  b   c    d",
      ""};
  std::string all;
  for (TokenId id = 0; id < parts.vocabulary.size() && all.size() < 20000;
       id += static_cast<TokenId>(std::max<i64>(1, parts.vocabulary.size() / 1500)))
    all += parts.vocabulary.text(id);
  texts.push_back(std::move(all));
  std::string special;
  for (std::size_t i = 0; i < parts.added.size() && i < 20; i++)
    special += "word" + parts.added[i].content + "end.";
  texts.push_back(std::move(special));
  return texts;
}

void try_out(const Tokenizer& tokenizer, const GgufMetadata& metadata, const std::string& name) {
  Gguf file;
  for (const auto& [key, value] : metadata) file.metadata.emplace(key, value);
  file.metadata.emplace("general.name", name);
  const Tokenizer back = tokenizer_from_gguf(file, "the GGUF vocabulary");
  for (const std::string& text : probes(tokenizer.parts()))
    if (tokenizer.encode(text) != back.encode(text))
      cannot_say(fmt::format("{} gets other ids there", pare::quoted(text.substr(0, 40))));
}

}  // namespace

GgufMetadata to_gguf_vocabulary(const Tokenizer& tokenizer, const GgufVocabularyOptions& options) {
  const TokenizerParts& parts = tokenizer.parts();
  const Bpe* bpe = std::get_if<Bpe>(&parts.model);
  if (bpe == nullptr)
    cannot_say(fmt::format("it is a {} one", tokenizer.kind()),
               "byte-level BPE and SentencePiece BPE can be written");
  if (!bpe->prefix.empty() || !bpe->suffix.empty())
    cannot_say("its tokens mark begins or ends of words");
  GgufMetadata out;
  const TokenTable tokens = tokens_of(parts, !bpe->byte_level, options.rows);
  if (bpe->byte_level)
    put_byte_level(parts, *bpe, tokens, options, out);
  else
    put_sentencepiece(parts, *bpe, tokens, out);
  const TokenId bos = parts.bos != no_token ? parts.bos : options.bos,
                eos = parts.eos != no_token ? parts.eos : options.eos;
  put_ids(parts, bos, eos, out);
  put_template(parts, bos, eos, out);
  if (options.notes != nullptr)
    for (const AddedToken& t : parts.added)
      if (t.lstrip || t.rstrip) {
        options.notes->push_back(fmt::format(
            "{} takes the white space beside it along; in a GGUF file only Phi-3's tokens do",
            pare::quoted(t.content)));
        break;
      }
  try_out(tokenizer, out, options.model_name);
  return out;
}

}  // namespace pare
