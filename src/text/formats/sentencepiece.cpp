// SentencePiece .model files.
//
// A protocol buffer (sentencepiece_model.proto): the pieces with score and type, how it was
// trained, how it normalizes. Encoding follows the library itself, not its usual conversions: user
// pieces are kept whole by the normalizer and the model, scores add in float, unused pieces are
// avoided (Unigram) or taken apart (BPE). Control pieces are matched in the text, as every runtime
// for language models does; the library itself never would.
#include <algorithm>
#include <numeric>

#include "text/formats/formats.h"
#include "text/formats/protobuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

struct Model {
  std::vector<std::string_view> pieces;
  std::vector<float> scores;
  std::vector<PieceType> types;
  std::uint64_t model_type = 1;  // 1 Unigram, 2 BPE, 3 word, 4 character
  bool byte_fallback = false, whitespace_as_suffix = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  i64 unk = 0, bos = 1, eos = 2, pad = -1;
  std::string_view charsmap;
  std::string unk_surface = " \xe2\x81\x87 ";
};

void read_piece(ProtobufReader message, Model& model) {
  if (static_cast<i64>(model.pieces.size()) >= max_tokens)
    fail_input("TK-004", "too many pieces", {{"need", fmt::format("at most {}", max_tokens)}});
  std::string_view piece;
  float score = 0;
  std::uint64_t type = 1;
  while (message.next()) {
    if (message.field() == 1) piece = message.text();
    if (message.field() == 2) score = message.real();
    if (message.field() == 3) type = message.number();
  }
  const std::string id = fmt::format("{}", model.pieces.size());
  if (piece.empty() || piece.find('\0') != std::string_view::npos || !valid_utf8(piece))
    fail_input("TK-002", "a piece is empty or not text", {{"id", id}});
  if (type < 1 || type > 6)
    fail_input("TK-002", "a piece has an unknown type",
               {{"id", id}, {"found", fmt::format("{}", type)}});
  if (score != score) fail_input("TK-002", "the score of a piece is not a number", {{"id", id}});
  model.pieces.push_back(piece);
  model.scores.push_back(score);
  model.types.push_back(static_cast<PieceType>(type));
}

void read_trainer(ProtobufReader message, Model& model) {
  const auto id = [&] { return static_cast<i64>(static_cast<std::int32_t>(message.number())); };
  while (message.next()) {
    switch (message.field()) {
      case 3:
        model.model_type = message.number();
        break;
      case 24:
        model.whitespace_as_suffix = message.number() != 0;
        break;
      case 35:
        model.byte_fallback = message.number() != 0;
        break;
      case 40:
        model.unk = id();
        break;
      case 41:
        model.bos = id();
        break;
      case 42:
        model.eos = id();
        break;
      case 43:
        model.pad = id();
        break;
      case 44:
        model.unk_surface = std::string(message.text());
        break;
      default:
        break;
    }
  }
}

void read_normalizer_spec(ProtobufReader message, Model& model) {
  while (message.next()) {
    switch (message.field()) {
      case 2:
        model.charsmap = message.text();
        break;
      case 3:
        model.add_dummy_prefix = message.number() != 0;
        break;
      case 4:
        model.remove_extra_whitespaces = message.number() != 0;
        break;
      case 5:
        model.escape_whitespaces = message.number() != 0;
        break;
      default:
        break;
    }
  }
}

Model read_model(std::string_view bytes) {
  Model model;
  ProtobufReader file(bytes);
  while (file.next()) {
    if (file.field() == 1) read_piece(file.message(), model);
    if (file.field() == 2) read_trainer(file.message(), model);
    if (file.field() == 3) read_normalizer_spec(file.message(), model);
  }
  if (model.pieces.empty()) fail_input("TK-002", "not a SentencePiece model: it has no pieces");
  if (model.model_type < 1 || model.model_type > 4)
    fail_input("TK-003", "a SentencePiece model of unknown type",
               {{"found", fmt::format("{}", model.model_type)}});
  if (model.model_type == 3 || model.model_type == 4)
    fail_input("TK-003", "a SentencePiece model of whole words or characters is not supported");
  return model;
}

bool in_text(PieceType t) {
  return t == PieceType::normal || t == PieceType::user || t == PieceType::unused;
}

void fill_vocabulary(const Model& model, TokenizerParts& parts) {
  i64 unknowns = 0;
  for (std::size_t i = 0; i < model.pieces.size(); i++) {
    const bool fresh = parts.vocabulary.add(static_cast<i64>(i), model.pieces[i]);
    if (!fresh) {
      const auto first = static_cast<std::size_t>(parts.vocabulary.find(model.pieces[i]));
      if (in_text(model.types[first]) == in_text(model.types[i]))
        fail_input("TK-005", "a piece occurs twice",
                   {{"piece", quoted(model.pieces[i])},
                    {"found", fmt::format("ids {} and {}", first, i)}});
    }
    unknowns += model.types[i] == PieceType::unknown;
    if (model.types[i] == PieceType::byte && !model.byte_fallback)
      fail_input("TK-007", "a byte piece in a model without byte fallback",
                 {{"piece", quoted(model.pieces[i])}});
  }
  if (unknowns != 1)
    fail_input("TK-005", "a SentencePiece model has exactly one unknown piece",
               {{"found", fmt::format("{}", unknowns)}});
  check_byte_pieces(parts.vocabulary, model.types, model.byte_fallback);
}

// With `prefix_once` the dummy space is left to the pre-tokenizer: user pieces are cut out of the
// text there, and only what stands at its begin gets the space.
Json sentencepiece_normalizer_json(const Model& model, bool prefix_once) {
  Json::Array steps;
  const auto replace = [](Json pattern, std::string_view content) {
    return Json::object(
        {{"type", "Replace"}, {"pattern", std::move(pattern)}, {"content", content}});
  };
  if (!model.charsmap.empty()) {
    steps.push_back(Json::object(
        {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(model.charsmap)}}));
  }
  if (model.remove_extra_whitespaces) {
    // Not Strip: that takes every kind of white space. A mark at the end goes as a space does.
    steps.push_back(replace(Json::object({{"Regex", "\\A +|[ \u2581]+\\z"}}), ""));
    steps.push_back(replace(Json::object({{"Regex", " {2,}"}}), " "));
  }
  const std::string_view space = model.escape_whitespaces ? meta_space : std::string_view(" ");
  if (model.add_dummy_prefix && !prefix_once)
    steps.push_back(Json::object({{"type", "Prepend"}, {"prepend", space}}));
  if (model.escape_whitespaces)
    steps.push_back(replace(Json::object({{"String", " "}}), meta_space));
  return Json::object({{"type", "Sequence"}, {"normalizers", std::move(steps)}});
}

// A piece of the user as an added token, for writing. The library looks for it in the text with
// spaces escaped: one with a plain space is never found, one with a mark is an added token of the
// normalized text, if the normalizer does not change it.
void add_user_piece(const Model& model, TokenId id, TokenizerParts& parts) {
  const std::string_view piece = model.pieces[static_cast<std::size_t>(id)];
  const bool has_mark = piece.find(meta_space) != std::string_view::npos;
  if (model.escape_whitespaces && piece.find(' ') != std::string_view::npos) return;
  if (has_mark && (model.add_dummy_prefix || model.remove_extra_whitespaces))
    parts.not_writable = "a piece of the user holds a space";
  AddedToken token;
  token.id = id;
  token.content = std::string(piece);
  token.normalized = has_mark;
  parts.user_pieces.push_back(std::move(token));
}

void set_text_rules(const Model& model, TokenizerParts& parts) {
  std::shared_ptr<Trie> user;
  for (std::size_t i = 0; i < model.pieces.size(); i++) {
    if (model.types[i] != PieceType::user) continue;
    if (user == nullptr) user = std::make_shared<Trie>();
    user->add(model.pieces[i], static_cast<std::int32_t>(i));
    add_user_piece(model, static_cast<TokenId>(i), parts);
  }
  if (model.whitespace_as_suffix) parts.not_writable = "it puts the dummy space behind the text";
  std::shared_ptr<const Charsmap> map;
  if (!model.charsmap.empty()) map = std::make_shared<const Charsmap>(model.charsmap);
  const bool prefix_once = user != nullptr && model.add_dummy_prefix && model.escape_whitespaces;
  parts.normalizer_json = sentencepiece_normalizer_json(model, prefix_once);
  if (prefix_once)
    parts.pre_tokenizer_json = Json::object({{"type", "Metaspace"},
                                             {"replacement", meta_space},
                                             {"prepend_scheme", "first"},
                                             {"split", false}});
  parts.normalizer = {normal::Sentencepiece{map, user, model.add_dummy_prefix,
                                            model.remove_extra_whitespaces,
                                            model.escape_whitespaces, model.whitespace_as_suffix}};
  set_decoder(parts, space_marks_decoder_json(model.add_dummy_prefix));
  parts.decoder = {post::Sentencepiece{model.add_dummy_prefix || model.remove_extra_whitespaces,
                                       model.remove_extra_whitespaces}};
  if (auto* bpe = std::get_if<Bpe>(&parts.model)) bpe->frozen = user;
}

void set_model(const Model& model, TokenizerParts& parts) {
  const auto flags = [&](PieceType wanted) {
    std::vector<bool> out;
    if (std::find(model.types.begin(), model.types.end(), wanted) == model.types.end()) return out;
    for (PieceType t : model.types) out.push_back(t == wanted);
    return out;
  };
  if (model.model_type == 2) {
    Bpe bpe;
    bpe.byte_fallback = model.byte_fallback;
    bpe.fuse_unk = true;
    bpe.unk = parts.unk;
    bpe.unused = flags(PieceType::unused);
    merges_from_ranks(bpe, parts.vocabulary, ranks_from_scores(model.scores, model.types));
    parts.model = std::move(bpe);
    parts.kind = "SentencePiece BPE";
  } else {
    Unigram unigram;
    unigram.single_precision = true;
    unigram.scores.assign(model.scores.begin(), model.scores.end());
    unigram.unused = flags(PieceType::unused);
    unigram.user = flags(PieceType::user);
    unigram.unk = parts.unk;
    unigram.byte_fallback = model.byte_fallback;
    std::vector<bool> searchable;
    for (PieceType t : model.types) searchable.push_back(in_text(t));
    prepare(unigram, parts.vocabulary, searchable);
    parts.model = std::move(unigram);
    parts.kind = "Unigram";
  }
}

}  // namespace

void check_byte_pieces(const Vocabulary& vocabulary, const std::vector<PieceType>& types,
                       bool need_all) {
  std::array<bool, 256> seen{};
  for (std::size_t i = 0; i < types.size(); i++) {
    if (types[i] != PieceType::byte) continue;
    const std::string_view text = vocabulary.text(static_cast<TokenId>(i));
    const int byte = byte_of_token(text);
    if (byte < 0)
      fail_input("TK-007", "a byte token is not <0x00> to <0xFF>",
                 {{"token", quoted(text)}, {"id", fmt::format("{}", i)}});
    if (vocabulary.find(text) != static_cast<TokenId>(i))
      fail_input("TK-007", "a byte token occurs twice", {{"token", quoted(text)}});
    seen[static_cast<std::size_t>(byte)] = true;
  }
  for (int b = 0; need_all && b < 256; b++)
    if (!seen[static_cast<std::size_t>(b)])
      fail_input("TK-007", "the vocabulary falls back to bytes but lacks one",
                 {{"token", token_of_byte(b)}});
}

std::vector<std::uint32_t> ranks_from_scores(const std::vector<float>& scores,
                                             const std::vector<PieceType>& types) {
  std::vector<std::uint32_t> order;
  // Pieces of the user are atoms of their own: no merge makes or takes one.
  for (std::size_t i = 0; i < scores.size(); i++)
    if (types[i] == PieceType::normal || types[i] == PieceType::unused)
      order.push_back(static_cast<std::uint32_t>(i));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
  std::vector<std::uint32_t> ranks(scores.size(), PairTable::no_rank);
  std::uint32_t rank = 0;
  for (std::size_t k = 0; k < order.size(); k++) {
    if (k > 0 && scores[order[k]] < scores[order[k - 1]]) rank++;
    ranks[order[k]] = rank;
  }
  return ranks;
}

TokenizerParts parts_from_sentencepiece(std::span<const std::byte> bytes) {
  const Model model = read_model({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  TokenizerParts parts;
  fill_vocabulary(model, parts);
  const auto known = [&](i64 id) {
    return id >= 0 && id < parts.vocabulary.size() ? static_cast<TokenId>(id) : no_token;
  };
  parts.model_tokens = parts.vocabulary.size();
  parts.bos = known(model.bos);
  parts.eos = known(model.eos);
  parts.pad = known(model.pad);
  const auto unknown = std::find(model.types.begin(), model.types.end(), PieceType::unknown);
  parts.unk = static_cast<TokenId>(unknown - model.types.begin());
  parts.unk_surface = model.unk_surface;
  parts.each_bad_byte = true;
  set_model(model, parts);
  set_text_rules(model, parts);
  for (std::size_t i = 0; i < model.types.size(); i++) {
    if (model.types[i] != PieceType::control && model.types[i] != PieceType::unknown) continue;
    AddedToken token;
    token.id = static_cast<TokenId>(i);
    token.content = std::string(model.pieces[i]);
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  // Llama's convention, and the library's `add_bos`: one begin token, no end token.
  if (parts.bos != no_token)
    set_post_processor(parts, template_json(parts.vocabulary, {parts.bos}, {}));
  return parts;
}

Tokenizer tokenizer_from_sentencepiece(std::span<const std::byte> bytes, std::string_view name) {
  try {
    return Tokenizer(parts_from_sentencepiece(bytes));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
