// llama2.c tokenizer.bin: the longest piece in bytes (int32), then for each id a float score, an
// int32 length and the bytes.
//
// It is a SentencePiece BPE without types: ids 0, 1, 2 are unknown, begin, end, ids 3 to 258 the
// bytes (when they are spelled so), spaces stand for U+2581. Encoding in run.c: a space in front,
// characters, bytes for characters that are no piece, then the adjacent pair with the highest score
// until none is left. Turned back into SentencePiece's spelling, the usual components give the same
// ids and a tokenizer.json that others read.
#include <bit>
#include <cstring>

#include "text/formats/formats.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr i64 first_byte = 3;

std::string spaces_to_marks(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ' ')
      out += meta_space;
    else
      out += c;
  }
  return out;
}

struct Piece {
  float score;
  std::string_view bytes;
};

std::vector<Piece> read_pieces(std::span<const std::byte> file, i64 vocab_size) {
  const char* data = reinterpret_cast<const char*>(file.data());
  const auto word = [&](std::size_t at) {
    std::uint32_t value;
    std::memcpy(&value, data + at, 4);
    return value;
  };
  if (file.size() < 4)
    fail_input("TK-002", "a llama2.c tokenizer begins with the length of its longest piece",
               {{"found", fmt::format("{} bytes", file.size())}});
  const std::uint32_t longest = word(0);
  if (longest < 1 || longest > max_token_bytes)
    fail_input("TK-002", "the length of the longest piece is out of range",
               {{"offset", "0"},
                {"found", fmt::format("{}", longest)},
                {"need", fmt::format("1 to {}", max_token_bytes)}});
  std::vector<Piece> pieces;
  std::size_t at = 4;
  while (at < file.size() && (vocab_size < 0 || static_cast<i64>(pieces.size()) < vocab_size)) {
    if (file.size() - at < 8)
      fail_input("TK-002", "the file ends inside a piece", {{"offset", fmt::format("{}", at)}});
    const float score = std::bit_cast<float>(word(at));
    const std::uint32_t length = word(at + 4);
    if (length > longest || length > file.size() - at - 8)
      fail_input("TK-002", "a piece is longer than the longest one, or than what is left",
                 {{"offset", fmt::format("{}", at + 4)},
                  {"id", fmt::format("{}", pieces.size())},
                  {"found", fmt::format("{} bytes", length)}});
    if (score != score)
      fail_input("TK-002", "the score of a piece is not a number",
                 {{"offset", fmt::format("{}", at)}});
    pieces.push_back({score, {data + at + 8, length}});
    if (static_cast<i64>(pieces.size()) > max_tokens)
      fail_input("TK-004", "too many pieces", {{"need", fmt::format("at most {}", max_tokens)}});
    at += 8 + std::size_t{length};
  }
  const auto count = static_cast<i64>(pieces.size());
  if (vocab_size >= 0 && (count != vocab_size || at != file.size()))
    fail_input("TK-005", "the tokenizer is not of the size of the model's vocabulary",
               {{"found", fmt::format("{} pieces, {} bytes left", count, file.size() - at)},
                {"need", fmt::format("{} pieces", vocab_size)}});
  if (count < first_byte)
    fail_input("TK-002", "a llama2.c tokenizer has at least three pieces",
               {{"found", fmt::format("{}", count)}});
  return pieces;
}

}  // namespace

TokenizerParts parts_from_llama2c(std::span<const std::byte> bytes, i64 vocab_size) {
  const std::vector<Piece> pieces = read_pieces(bytes, vocab_size);
  TokenizerParts parts;
  std::vector<float> scores;
  std::vector<PieceType> types(pieces.size(), PieceType::normal);
  bool all_bytes = static_cast<i64>(pieces.size()) >= first_byte + 256;
  for (int b = 0; all_bytes && b < 256; b++)
    all_bytes = byte_of_token(pieces[static_cast<std::size_t>(first_byte + b)].bytes) == b;
  constexpr std::string_view names[] = {"<unk>", "<s>", "</s>"};
  for (std::size_t i = 0; i < pieces.size(); i++) {
    const auto id = static_cast<i64>(i);
    scores.push_back(pieces[i].score);
    if (id < first_byte) {
      types[i] = id == 0 ? PieceType::unknown : PieceType::control;
      parts.vocabulary.add(id, names[i]);
    } else {
      if (all_bytes && id < first_byte + 256) types[i] = PieceType::byte;
      std::string text = spaces_to_marks(pieces[i].bytes);
      if (!valid_utf8(text)) text = lossy_utf8(text);
      parts.vocabulary.add(id, text);
    }
  }
  parts.model_tokens = parts.vocabulary.size();
  parts.kind = "SentencePiece BPE";
  parts.unk = 0;
  parts.bos = 1;
  parts.eos = 2;
  Bpe bpe;
  bpe.byte_fallback = all_bytes;
  bpe.fuse_unk = true;
  bpe.unk = 0;
  merges_from_ranks(bpe, parts.vocabulary, ranks_from_scores(scores, types));
  parts.model = std::move(bpe);
  for (TokenId id = 0; id < first_byte; id++) {
    AddedToken token;
    token.id = id;
    token.content = std::string(parts.vocabulary.text(id));
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  set_space_marks(parts, true);
  set_post_processor(parts, template_json(parts.vocabulary, {parts.bos}, {}));
  return parts;
}

Tokenizer tokenizer_from_llama2c(std::span<const std::byte> bytes, std::string_view name,
                                 i64 vocab_size) {
  try {
    return Tokenizer(parts_from_llama2c(bytes, vocab_size));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
