// Byte-pair encoding.
//
// A piece of n symbols is merged in one of two ways with the same result. Short pieces, nearly all,
// keep the rank of every neighbouring pair in an array and take the minimum again and again: n^2
// simple steps, no memory traffic. Long ones keep a linked list of symbols and a queue of places; a
// place is looked at again when its turn comes, so that candidates merged away meanwhile need no
// removal. Each merge adds at most two candidates: n log n, and nearly n on text of one kind, where
// a few ranks hold most candidates in order already.
#include "text/bpe.h"

#include <algorithm>
#include <functional>

#include "text/normalize.h"
#include "text/unicode.h"

namespace pare {
namespace {

constexpr std::size_t short_piece = 40;  // symbols; about where the heap begins to win
constexpr std::uint32_t no_rank = PairTable::no_rank;

}  // namespace

void PairTable::build(std::span<const BpeMerge> merges) {
  std::size_t size = 16;
  while (size < merges.size() * 2) size *= 2;
  slots_.assign(size, Slot{free_key, {no_rank, no_token}});
  shift_ = 64 - __builtin_ctzll(size);
  for (const BpeMerge& m : merges) {
    const std::uint64_t key = key_of(m.left, m.right);
    std::size_t s = slot_of(key);
    while (slots_[s].key != free_key && slots_[s].key != key) s = (s + 1) & (size - 1);
    slots_[s] = {key, {m.rank, m.result}};
  }
}

void CodeMap::set(char32_t c, TokenId id) {
  std::uint16_t& page = pages_[c >> 8];
  if (page == 0) {
    page = static_cast<std::uint16_t>(ids_.size() / 256);
    ids_.resize(ids_.size() + 256, no_token);
  }
  ids_[page * std::size_t{256} + (c & 255)] = id;
}

namespace {

// True if some token holds U+2581 after another character, so that a merge may cross a space.
bool space_inside(const Vocabulary& vocabulary) {
  for (TokenId id = 0; id < vocabulary.size(); id++) {
    const std::string_view text = vocabulary.text(id);
    std::size_t begin = 0;  // past the leading marks
    while (text.substr(begin, meta_space.size()) == meta_space) begin += meta_space.size();
    if (text.find(meta_space, begin) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

void prepare(Bpe& bpe, const Vocabulary& vocabulary) {
  bpe.pairs.build(bpe.merges);
  for (const BpeMerge& m : bpe.merges) bpe.rank_end = std::max(bpe.rank_end, m.rank + 1);
  bpe.has_fallback = true;
  for (int b = 0; b < 256; b++) {
    const auto i = static_cast<std::size_t>(b);
    std::string symbol;
    append_char(symbol, byte_alphabet().to_char[i]);
    bpe.byte_ids[i] = vocabulary.find(symbol);
    bpe.fallback_ids[i] = vocabulary.find(token_of_byte(b));
    if (bpe.fallback_ids[i] == no_token) bpe.has_fallback = false;
  }
  for (TokenId id = 0; id < vocabulary.size(); id++) {
    const std::string_view text = vocabulary.text(id);
    if (text.empty() || static_cast<std::size_t>(char_bytes(text[0])) != text.size()) continue;
    const char32_t c = char_at(text.data()).code;
    if (bpe.chars.find(c) == no_token) bpe.chars.set(c, vocabulary.find(text));
  }
  bpe.first_pseudo = static_cast<TokenId>(vocabulary.size());
  for (std::size_t i = 0; i < bpe.pseudo.size(); i++)
    bpe.chars.set(bpe.pseudo[i], bpe.first_pseudo + static_cast<TokenId>(i));
  bpe.cut_before_space = !bpe.byte_level && bpe.prefix.empty() && bpe.suffix.empty() &&
                         !bpe.ignore_merges && vocabulary.find(meta_space) != no_token &&
                         !space_inside(vocabulary);
}

namespace {

// Where known tokens begin and end inside one token.
struct SplitFinder {
  const Vocabulary& vocabulary;
  Trie forward, backward;

  explicit SplitFinder(const Vocabulary& v, const std::vector<std::uint32_t>& rank_of)
      : vocabulary(v) {
    for (TokenId id = 0; id < v.size(); id++) {
      if (rank_of[static_cast<std::size_t>(id)] == no_rank || v.find(v.text(id)) != id) continue;
      const std::string_view text = v.text(id);
      forward.add(text, id);
      backward.add(std::string(text.rbegin(), text.rend()), id);
    }
  }

  // lefts[i]: the token text[0, i), rights[i]: the token text[i, end); no_token if there is none.
  void find(std::string_view text, std::vector<TokenId>& lefts,
            std::vector<TokenId>& rights) const {
    lefts.assign(text.size() + 1, no_token);
    rights.assign(text.size() + 1, no_token);
    std::uint32_t node = Trie::root;
    for (std::size_t i = 0; i < text.size(); i++) {
      node = forward.step(node, text[i]);
      if (node == Trie::none) break;
      lefts[i + 1] = forward.value(node);
    }
    node = Trie::root;
    for (std::size_t i = text.size(); i > 0; i--) {
      node = backward.step(node, text[i - 1]);
      if (node == Trie::none) break;
      rights[i - 1] = backward.value(node);
    }
  }
};

struct RankedMerge {
  BpeMerge merge;
  std::uint32_t left_length, right_length;  // in characters
};

std::uint32_t length_in_chars(std::string_view text) {
  std::uint32_t n = 0;
  for (char b : text) n += (static_cast<unsigned char>(b) & 0xc0) != 0x80;
  return n;
}

}  // namespace

void merges_from_ranks(Bpe& bpe, const Vocabulary& vocabulary,
                       const std::vector<std::uint32_t>& rank_of) {
  const SplitFinder finder(vocabulary, rank_of);
  std::vector<RankedMerge> found;
  std::vector<TokenId> lefts, rights;
  // A character that is no token can still be a first symbol: it gets an id beyond the vocabulary.
  const auto symbol_id = [&](std::string_view text, TokenId id) -> TokenId {
    if (id != no_token || static_cast<std::size_t>(char_bytes(text[0])) != text.size()) return id;
    const char32_t c = char_at(text.data()).code;
    if (bpe.chars.find(c) == no_token) {
      bpe.chars.set(
          c, static_cast<TokenId>(vocabulary.size()) + static_cast<TokenId>(bpe.pseudo.size()));
      bpe.pseudo.push_back(c);
    }
    return bpe.chars.find(c);
  };
  for (TokenId id = 0; id < vocabulary.size(); id++) {
    const std::uint32_t rank = rank_of[static_cast<std::size_t>(id)];
    const std::string_view text = vocabulary.text(id);
    if (rank == no_rank || text.empty() || vocabulary.find(text) != id) continue;
    finder.find(text, lefts, rights);
    std::size_t i = 0;
    while ((i += static_cast<std::size_t>(char_bytes(text[i]))) < text.size()) {
      const TokenId left = symbol_id(text.substr(0, i), lefts[i]);
      const TokenId right = symbol_id(text.substr(i), rights[i]);
      if (left == no_token || right == no_token) continue;
      if (static_cast<i64>(found.size()) >= max_merges)
        fail_input("TK-004", "the tokens split into each other in too many ways",
                   {{"need", fmt::format("at most {} splits", max_merges)}});
      found.push_back({{left, right, id, rank},
                       length_in_chars(text.substr(0, i)),
                       length_in_chars(text.substr(i))});
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const RankedMerge& a, const RankedMerge& b) {
    if (a.merge.rank != b.merge.rank) return a.merge.rank < b.merge.rank;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    if (a.right_length != b.right_length) return a.right_length > b.right_length;
    if (a.merge.left != b.merge.left) return a.merge.left < b.merge.left;
    return a.merge.right < b.merge.right;
  });
  bpe.merges.clear();
  bpe.merges.reserve(found.size());
  for (const RankedMerge& f : found) bpe.merges.push_back(f.merge);
}

namespace {

void merge_short(const Bpe& bpe, BpeScratch& s) {
  std::vector<TokenId>& ids = s.ids;
  const auto order_of = [&](std::size_t i) {
    const PairTable::Entry e = bpe.pairs.find(ids[i], ids[i + 1]);
    return static_cast<std::uint64_t>(e.rank) << 32 | static_cast<std::uint32_t>(e.result);
  };
  std::size_t n = ids.size();
  s.order.resize(n);
  for (std::size_t i = 0; i + 1 < n; i++) s.order[i] = order_of(i);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; i++)
      if (s.order[i] >> 32 < s.order[best] >> 32) best = i;
    s.steps += static_cast<i64>(n);
    if (s.order[best] >> 32 == no_rank) break;
    ids[best] = static_cast<TokenId>(s.order[best] & 0xffffffffu);
    for (std::size_t i = best + 1; i + 1 < n; i++) {
      ids[i] = ids[i + 1];
      s.order[i] = s.order[i + 1];
    }
    n--;
    if (best > 0) s.order[best - 1] = order_of(best - 1);
    if (best + 1 < n) s.order[best] = order_of(best);
  }
  ids.resize(n);
}

bool is_unused(const Bpe& bpe, TokenId id) {
  const auto i = static_cast<std::size_t>(id);
  return i < bpe.unused.size() && bpe.unused[i];
}

// The queue of a long piece. Candidates of one rank wait in a bucket, in a linked list; a heap
// holds the ranks that have one. Only what a merge brings up of the current rank or below it has to
// go before the rest of the current bucket: that is kept in a small heap of its own.
struct MergeQueue {
  const Bpe& bpe;
  BpeScratch& s;
  std::uint32_t current = 0;  // rank of the bucket being worked on

  void push(std::uint32_t rank, std::int32_t place) {
    if (rank <= current) {
      s.urgent.push_back(static_cast<std::uint64_t>(rank) << 32 |
                         static_cast<std::uint32_t>(place));
      std::push_heap(s.urgent.begin(), s.urgent.end(), std::greater<>());
      return;
    }
    add(rank, place);
  }

  void add(std::uint32_t rank, std::int32_t place) {
    BpeScratch::Bucket& bucket = s.buckets[rank];
    const auto entry = static_cast<std::int32_t>(s.waiting.size());
    s.waiting.push_back({place, -1});
    if (bucket.first < 0) {
      bucket.first = entry;
      s.ranks.push_back(rank);
      std::push_heap(s.ranks.begin(), s.ranks.end(), std::greater<>());
    } else {
      s.waiting[static_cast<std::size_t>(bucket.last)].next = entry;
    }
    bucket.last = entry;
  }

  // Moves the bucket of the lowest rank into s.places, by rising place; false when none is left.
  bool next_bucket() {
    if (s.ranks.empty()) return false;
    std::pop_heap(s.ranks.begin(), s.ranks.end(), std::greater<>());
    current = s.ranks.back();
    s.ranks.pop_back();
    s.places.clear();
    BpeScratch::Bucket& bucket = s.buckets[current];
    for (std::int32_t e = bucket.first; e >= 0; e = s.waiting[static_cast<std::size_t>(e)].next)
      s.places.push_back(s.waiting[static_cast<std::size_t>(e)].place);
    bucket = {-1, -1};
    if (!std::is_sorted(s.places.begin(), s.places.end()))
      std::sort(s.places.begin(), s.places.end());
    return true;
  }
};

struct LongMerge {
  const Bpe& bpe;
  BpeScratch& s;
  MergeQueue queue{bpe, s};

  BpeScratch::Node& node(std::int32_t i) { return s.nodes[static_cast<std::size_t>(i)]; }

  // The pair that begins at `place`, if both halves are there.
  PairTable::Entry pair_at(std::int32_t place) {
    const BpeScratch::Node& left = node(place);
    if (left.id == no_token || left.next < 0) return {no_rank, no_token};
    return bpe.pairs.find(left.id, node(left.next).id);
  }

  void propose(std::int32_t place) {
    if (place < 0) return;
    const PairTable::Entry e = pair_at(place);
    if (e.rank == no_rank) return;
    if (is_unused(bpe, e.result)) s.splits[e.result] = {node(place).id, node(node(place).next).id};
    queue.push(e.rank, place);
  }

  // A candidate counts if the pair that is there now has its rank; else it has been merged away.
  void try_merge(std::uint32_t rank, std::int32_t place) {
    s.steps++;
    const PairTable::Entry e = pair_at(place);
    if (e.rank != rank) return;
    BpeScratch::Node& left = node(place);
    BpeScratch::Node& right = node(left.next);
    left.id = e.result;
    left.next = right.next;
    right.id = no_token;
    if (left.next >= 0) node(left.next).previous = place;
    propose(left.previous);
    propose(place);
  }

  void drain_urgent_before(std::uint64_t order) {
    while (!s.urgent.empty() && s.urgent.front() < order) {
      std::pop_heap(s.urgent.begin(), s.urgent.end(), std::greater<>());
      const std::uint64_t top = s.urgent.back();
      s.urgent.pop_back();
      try_merge(static_cast<std::uint32_t>(top >> 32),
                static_cast<std::int32_t>(top & 0xffffffffu));
    }
  }

  void run() {
    const auto n = static_cast<std::int32_t>(s.ids.size());
    s.nodes.resize(s.ids.size());
    for (std::int32_t i = 0; i < n; i++)
      node(i) = {s.ids[static_cast<std::size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
    s.buckets.resize(bpe.rank_end, {-1, -1});
    s.waiting.clear();
    for (std::int32_t i = 0; i + 1 < n; i++) {
      const PairTable::Entry e = pair_at(i);
      if (e.rank == no_rank) continue;
      if (is_unused(bpe, e.result)) s.splits[e.result] = {node(i).id, node(i + 1).id};
      queue.add(e.rank, i);
    }
    while (queue.next_bucket()) {
      const std::uint64_t rank = queue.current;
      for (std::int32_t place : s.places) {
        drain_urgent_before(rank << 32 | static_cast<std::uint32_t>(place));
        try_merge(queue.current, place);
      }
      drain_urgent_before(~std::uint64_t{0});
    }
    s.ids.clear();
    for (std::int32_t i = n > 0 ? 0 : -1; i >= 0; i = node(i).next) s.ids.push_back(node(i).id);
  }
};

void merge_long(const Bpe& bpe, BpeScratch& s) { LongMerge{bpe, s}.run(); }

// SentencePiece takes a token of type UNUSED apart into the pair last proposed for it.
void split_unused(const Bpe& bpe, BpeScratch& s) {
  std::vector<TokenId> merged;
  merged.swap(s.ids);
  s.open.assign(merged.rbegin(), merged.rend());
  while (!s.open.empty()) {
    const TokenId id = s.open.back();
    s.open.pop_back();
    const auto split = is_unused(bpe, id) ? s.splits.find(id) : s.splits.end();
    if (split == s.splits.end()) {
      s.ids.push_back(id);
    } else {
      s.open.push_back(split->second.second);
      s.open.push_back(split->second.first);
    }
  }
}

void merge(const Bpe& bpe, BpeScratch& s) {
  if (!bpe.unused.empty()) {
    s.splits.clear();
    merge_long(bpe, s);
    split_unused(bpe, s);
  } else if (s.ids.size() <= short_piece) {
    merge_short(bpe, s);
  } else {
    merge_long(bpe, s);
  }
}

[[noreturn]] void no_token_for(std::string_view symbol) {
  fail_input("TK-010", "the vocabulary has no token for a character and no unknown token",
             {{"character", quoted(symbol)}});
}

// First symbols of a piece of characters. An unknown one becomes its bytes, else the unknown token,
// else nothing, as in Hugging Face's BPE: a pending unknown token is put before the next known one.
void first_symbols(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece,
                   BpeScratch& s) {
  const bool affixed = !bpe.prefix.empty() || !bpe.suffix.empty();
  bool pending = false;
  for (std::size_t i = 0; i < piece.size();) {
    const Char c = char_at(piece.data() + i);
    const std::size_t end = i + static_cast<std::size_t>(c.bytes);
    std::string_view symbol = piece.substr(i, end - i);
    TokenId id;
    if (affixed) {
      s.text.assign(i > 0 ? bpe.prefix : "");
      s.text += symbol;
      if (end == piece.size()) s.text += bpe.suffix;
      symbol = s.text;
      id = vocabulary.find(symbol);
    } else {
      id = bpe.chars.find(c.code);
    }
    i = end;
    if (id != no_token) {
      if (pending) s.ids.push_back(bpe.unk);
      pending = false;
      s.ids.push_back(id);
    } else if (bpe.byte_fallback && bpe.has_fallback) {
      for (char b : symbol) s.ids.push_back(bpe.fallback_ids[static_cast<unsigned char>(b)]);
    } else if (bpe.unk != no_token) {
      if (pending && !bpe.fuse_unk) s.ids.push_back(bpe.unk);
      pending = true;
    } else if (bpe.unk_missing) {
      no_token_for(symbol);
    }
  }
  if (pending) s.ids.push_back(bpe.unk);
}

void first_bytes(const Bpe& bpe, std::string_view piece, BpeScratch& s) {
  bool pending = false;
  for (char b : piece) {
    const TokenId id = bpe.byte_ids[static_cast<unsigned char>(b)];
    if (id != no_token) {
      if (pending) s.ids.push_back(bpe.unk);
      pending = false;
      s.ids.push_back(id);
    } else if (bpe.unk != no_token) {
      if (pending && !bpe.fuse_unk) s.ids.push_back(bpe.unk);
      pending = true;
    } else if (bpe.unk_missing) {
      no_token_for(token_of_byte(static_cast<unsigned char>(b)));
    }
  }
  if (pending) s.ids.push_back(bpe.unk);
}

// Characters that took part in no merge and are no tokens, after all merges.
void resolve_pseudo(const Bpe& bpe, BpeScratch& s) {
  if (bpe.pseudo.empty()) return;
  std::vector<TokenId> merged;
  merged.swap(s.ids);
  for (TokenId id : merged) {
    if (id < bpe.first_pseudo) {
      s.ids.push_back(id);
      continue;
    }
    std::string text;
    append_char(text, bpe.pseudo[static_cast<std::size_t>(id - bpe.first_pseudo)]);
    if (bpe.byte_fallback && bpe.has_fallback)
      for (char b : text) s.ids.push_back(bpe.fallback_ids[static_cast<unsigned char>(b)]);
    else if (bpe.unk != no_token && !(bpe.fuse_unk && !s.ids.empty() && s.ids.back() == bpe.unk))
      s.ids.push_back(bpe.unk);
    else if (bpe.unk == no_token && bpe.unk_missing)
      no_token_for(text);
  }
}

void encode_plain(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece,
                  BpeScratch& s, std::vector<TokenId>& out) {
  if (bpe.ignore_merges) {
    TokenId whole;
    if (bpe.byte_level) {
      s.text.clear();
      for (char b : piece)
        append_char(s.text, byte_alphabet().to_char[static_cast<unsigned char>(b)]);
      whole = vocabulary.find(s.text);
    } else {
      whole = vocabulary.find(piece);
    }
    if (whole != no_token) {
      out.push_back(whole);
      return;
    }
  }
  s.ids.clear();
  if (bpe.byte_level)
    first_bytes(bpe, piece, s);
  else
    first_symbols(bpe, vocabulary, piece, s);
  merge(bpe, s);
  resolve_pseudo(bpe, s);
  out.insert(out.end(), s.ids.begin(), s.ids.end());
}

}  // namespace

void encode_bpe(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece,
                BpeScratch& scratch, std::vector<TokenId>& out) {
  if (bpe.frozen == nullptr) return encode_plain(bpe, vocabulary, piece, scratch, out);
  std::size_t plain = 0;
  for (std::size_t i = 0; i < piece.size();) {
    const Trie::Match atom = bpe.frozen->longest(piece, i);
    if (atom.bytes == 0) {
      i += static_cast<std::size_t>(char_bytes(piece[i]));
      continue;
    }
    if (i > plain) encode_plain(bpe, vocabulary, piece.substr(plain, i - plain), scratch, out);
    out.push_back(atom.value);
    i += atom.bytes;
    plain = i;
  }
  if (plain < piece.size()) encode_plain(bpe, vocabulary, piece.substr(plain), scratch, out);
}

}  // namespace pare
