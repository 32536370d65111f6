// The pipeline: text to ids and back.
//
// The order of steps and what each sees is that of Hugging Face tokenizers: added tokens that want
// raw text are cut out first; each stretch between them is normalized, cut at the other added
// tokens, pre-tokenized and given to the model piece by piece, alone. Two short cuts keep the ids
// the same:
//   - A byte-level vocabulary with a hand-written splitter runs on the text in place, without lists
//     of pieces or the byte alphabet.
//   - A SentencePiece BPE without pre-tokenizer sees the whole text as one piece; if no token holds
//   a
//     space mark after another character, no merge can cross the begin of a word, so words are
//     merged alone.
// Either way a cache answers for pieces seen before. Caches are kept in a pool that belongs to the
// tokenizer: many short calls profit from them as one long call does.
#include "text/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "text/parts.h"
#include "text/piece_cache.h"
#include "text/unicode.h"

namespace pare {

namespace {

struct Scratch {
  PieceCache cache;
  BpeScratch bpe;
  UnigramScratch unigram;
  Pieces pieces;
  std::vector<AddedMatcher::Found> raw, normalized;
  std::string text;
};

}  // namespace

struct Tokenizer::State {
  TokenizerParts parts;

  // Derived.
  AddedMatcher raw, normalized;
  std::vector<bool> special;           // (vocab)
  std::vector<std::string> decoded;    // (added) what an added token decodes to
  std::vector<std::int32_t> added_at;  // (vocab) index into parts.added, or -1; empty: none
  SplitFunction direct = nullptr;      // the whole pre-tokenizer, when it is one known pattern
  std::size_t pre_steps = 0;           // of the pre-tokenizer to run
  bool keep_bytes = false;             // the last of them is a ByteLevel and the model takes bytes
  bool plain_bytes = false;            // decoding is the ByteLevel step alone

  // Scratch not in use; the only thing that changes after construction.
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Scratch>> idle;
};

namespace {

bool is_isolated(const PreTokenizer& step) {
  const auto* split = std::get_if<pre::Split>(&step);
  return split != nullptr && split->behavior == Delimiter::isolated && !split->invert &&
         split->pattern.known != nullptr;
}

// A pre-tokenizer that is one known pattern and then bytes: that pattern's function.
SplitFunction direct_splitter(const std::vector<PreTokenizer>& steps) {
  const auto* last = steps.empty() ? nullptr : std::get_if<pre::ByteLevel>(&steps.back());
  if (last == nullptr || last->add_prefix_space) return nullptr;
  if (steps.size() == 1 && last->use_regex) return known_pattern("gpt2").next;
  if (steps.size() == 2 && !last->use_regex && is_isolated(steps[0]))
    return std::get<pre::Split>(steps[0]).pattern.known;
  return nullptr;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts) {
  auto state = std::make_shared<State>();
  state->parts = std::move(parts);
  TokenizerParts& p = state->parts;
  const auto size = static_cast<std::size_t>(p.vocabulary.size());
  state->special.assign(size, false);
  if (!p.added.empty()) state->added_at.assign(size, -1);
  for (std::size_t i = 0; i < p.added.size(); i++) {
    const AddedToken& token = p.added[i];
    const std::string content =
        token.normalized ? pare::normalize(p.normalizer, token.content) : token.content;
    (token.normalized ? state->normalized : state->raw).add(content, static_cast<std::int32_t>(i));
    state->special[static_cast<std::size_t>(token.id)] = token.special;
    state->added_at[static_cast<std::size_t>(token.id)] = static_cast<std::int32_t>(i);
    state->decoded.push_back(content);  // the normalized form comes back, as in the original
  }
  // An added token is text as it stands, also where its letters could be the alphabet's for bytes.
  for (const Decoder& step : p.decoder)
    if (std::holds_alternative<post::ByteLevel>(step))
      for (std::string& text : state->decoded) text = bytes_to_alphabet(text);
  state->pre_steps = p.pre_tokenizer.size();
  if (auto* bpe = std::get_if<Bpe>(&p.model)) {
    prepare(*bpe, p.vocabulary);
    state->keep_bytes = bpe->byte_level;
    if (bpe->byte_level) state->direct = direct_splitter(p.pre_tokenizer);
  } else if (auto* words = std::get_if<WordPiece>(&p.model)) {
    prepare(*words, p.vocabulary);
  }
  state->plain_bytes =
      p.decoder.size() == 1 && std::holds_alternative<post::ByteLevel>(p.decoder[0]);
  state_ = std::move(state);
}

namespace {

// Scratch from the pool for the time of one call.
template <class S>
class Lease {
 public:
  explicit Lease(const S& state) : state_(state) {
    {
      const std::lock_guard lock(state.mutex);
      if (!state.idle.empty()) {
        scratch_ = std::move(state.idle.back());
        state.idle.pop_back();
      }
    }
    if (scratch_ == nullptr) scratch_ = std::make_unique<Scratch>();
  }
  ~Lease() {
    const std::lock_guard lock(state_.mutex);
    state_.idle.push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch& operator*() { return *scratch_; }

 private:
  const S& state_;
  std::unique_ptr<Scratch> scratch_;
};

// One encoding: the state, scratch and output that every step needs.
template <class S>
struct Encoder {
  const S& state;
  Scratch& scratch;
  EncodeOptions options;
  std::vector<TokenId>& out;

  void model(std::string_view piece) {
    const TokenizerParts& p = state.parts;
    if (const auto* bpe = std::get_if<Bpe>(&p.model))
      encode_bpe(*bpe, p.vocabulary, piece, scratch.bpe, out);
    else if (const auto* unigram = std::get_if<Unigram>(&p.model))
      encode_unigram(*unigram, piece, scratch.unigram, out);
    else if (const auto* words = std::get_if<WordPiece>(&p.model))
      encode_words(*words, p.vocabulary, piece, out);
    else
      encode_words(std::get<WordLevel>(p.model), p.vocabulary, piece, out);
  }

  // `end`: of the memory that may be read beyond the piece.
  void piece(std::string_view piece, const char* end) {
    if (piece.size() > PieceCache::max_bytes) return model(piece);
    bool hit = false;
    PieceCache::Slot& slot = scratch.cache.look(piece.data(), piece.size(),
                                                static_cast<std::size_t>(end - piece.data()), hit);
    if (hit) {
      out.insert(out.end(), slot.ids, slot.ids + slot.count);
      return;
    }
    const std::size_t before = out.size();
    model(piece);
    PieceCache::set(slot, out.data() + before, out.size() - before);
  }

  // A piece of a SentencePiece BPE, word by word.
  void words(std::string_view text) {
    const char* const end = text.data() + text.size();
    std::size_t begin = 0;
    for (std::size_t i = text.find(meta_space); i != std::string_view::npos;
         i = text.find(meta_space, i + meta_space.size())) {
      const bool after_mark = i >= meta_space.size() &&
                              text.substr(i - meta_space.size(), meta_space.size()) == meta_space;
      if (i == begin || after_mark) continue;
      piece(text.substr(begin, i - begin), end);
      begin = i;
    }
    if (begin < text.size()) piece(text.substr(begin), end);
  }

  // Normalized text without added tokens.
  void plain(std::string_view text, bool at_start) {
    const char* const end = text.data() + text.size();
    if (state.direct != nullptr) {
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t next = state.direct(text, at);
        piece(text.substr(at, next - at), end);
        at = next;
      }
      return;
    }
    Pieces& pieces = scratch.pieces;
    pieces.reset(text, at_start);
    pre_tokenize(state.parts.pre_tokenizer, state.pre_steps, state.keep_bytes, pieces);
    const auto* bpe = std::get_if<Bpe>(&state.parts.model);
    const bool by_word = bpe != nullptr && bpe->cut_before_space;
    const char* const pieces_end = pieces.text.data() + pieces.text.size();
    for (std::size_t i = 0; i < pieces.pieces.size(); i++) {
      if (by_word)
        words(pieces[i]);
      else
        piece(pieces[i], pieces_end);
    }
  }

  // Raw text without the added tokens that want it raw.
  void segment(std::string_view text, bool at_start) {
    const TokenizerParts& p = state.parts;
    if (!p.normalizer.empty()) {
      scratch.text = normalize(p.normalizer, text);
      text = scratch.text;
    }
    if (state.normalized.empty()) return plain(text, at_start);
    state.normalized.cut(text, p.added, !options.parse_special, scratch.normalized);
    for (const AddedMatcher::Found& f : scratch.normalized) {
      if (f.token >= 0)
        out.push_back(p.added[static_cast<std::size_t>(f.token)].id);
      else
        plain(text.substr(f.begin, f.end - f.begin), at_start && f.begin == 0);
    }
  }

  void whole(std::string_view text) {
    const TokenizerParts& p = state.parts;
    if (state.raw.empty()) return segment(text, true);
    state.raw.cut(text, p.added, !options.parse_special, scratch.raw);
    for (const AddedMatcher::Found& f : scratch.raw) {
      if (f.token >= 0)
        out.push_back(p.added[static_cast<std::size_t>(f.token)].id);
      else
        segment(text.substr(f.begin, f.end - f.begin), f.begin == 0);
    }
  }
};

}  // namespace

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  return encode(text, EncodeOptions{.add_special = add_special, .parse_special = true});
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const State& state = *state_;
  std::string repaired;
  if (!valid_utf8(text)) {
    repaired = lossy_utf8(text, state.parts.each_bad_byte);
    text = repaired;
  }
  Lease lease(state);
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 8);
  Encoder<State> encoder{state, *lease, options, ids};
  if (!options.add_special || state.parts.single.empty()) {
    encoder.whole(text);
    return ids;
  }
  for (const TemplatePart& part : state.parts.single) {
    if (!part.text) {
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
      continue;
    }
    encoder.whole(text);
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  const State& state = *state_;
  const TokenizerParts& p = state.parts;
  std::vector<std::string> tokens;
  std::string bytes, all;
  for (TokenId id : ids) {
    if (!p.vocabulary.used(id)) continue;
    const auto i = static_cast<std::size_t>(id);
    if (skip_special && state.special[i]) continue;
    const std::int32_t added = state.added_at.empty() ? -1 : state.added_at[i];
    std::string_view text = p.vocabulary.text(id);
    if (added >= 0) text = state.decoded[static_cast<std::size_t>(added)];
    if (id == p.unk && !p.unk_surface.empty()) text = p.unk_surface;
    if (state.plain_bytes)
      all += alphabet_to_bytes(text, bytes) ? std::string_view(bytes) : text;
    else
      tokens.emplace_back(text);
  }
  if (!state.plain_bytes) all = decode_tokens(p.decoder, std::move(tokens));
  return valid_utf8(all) ? all : lossy_utf8(all);
}

i64 Tokenizer::vocab_size() const { return state_->parts.vocabulary.size(); }
std::string_view Tokenizer::token(std::int32_t id) const {
  return state_->parts.vocabulary.text(id);
}
std::optional<std::int32_t> Tokenizer::find(std::string_view token) const {
  const TokenId id = state_->parts.vocabulary.find(token);
  return id == no_token ? std::nullopt : std::optional(id);
}
bool Tokenizer::is_special(std::int32_t id) const {
  return state_->parts.vocabulary.used(id) && state_->special[static_cast<std::size_t>(id)];
}
std::int32_t Tokenizer::bos() const { return state_->parts.bos; }
std::int32_t Tokenizer::eos() const { return state_->parts.eos; }
std::int32_t Tokenizer::unk() const { return state_->parts.unk; }
std::int32_t Tokenizer::pad() const { return state_->parts.pad; }
std::string_view Tokenizer::kind() const { return state_->parts.kind; }
const TokenizerParts& Tokenizer::parts() const { return state_->parts; }

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

// The window holds the ids whose text is not all out yet, after some whose text is: what a token
// decodes to can depend on its being the first, so the context in front must itself show something.
std::string StreamDecoder::push(std::int32_t id) {
  constexpr std::size_t patience = 16, most_context = 64;
  window_.push_back(id);
  const std::string text = tokenizer_.decode(window_, skip_special_);
  const bool complete = !text.ends_with("\xef\xbf\xbd");
  if (text.size() <= shown_.size() || (!complete && window_.size() - settled_ <= patience))
    return {};
  std::string fresh = text.substr(shown_.size());
  const std::vector<std::int32_t> rest(window_.begin() + static_cast<std::ptrdiff_t>(settled_),
                                       window_.end());
  const std::string rest_text = tokenizer_.decode(rest, skip_special_);
  if (!rest_text.empty() || window_.size() > most_context) {
    window_ = rest;
    shown_ = rest_text;
  } else {
    shown_ = text;
  }
  settled_ = window_.size();
  return fresh;
}

std::string StreamDecoder::finish() {
  const std::string text = tokenizer_.decode(window_, skip_special_);
  std::string fresh = text.size() > shown_.size() ? text.substr(shown_.size()) : std::string();
  window_.clear();
  shown_.clear();
  settled_ = 0;
  return fresh;
}

}  // namespace pare
