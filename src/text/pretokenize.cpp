// Pre-tokenizers.
//
// Every step either cuts pieces or rewrites the text and then cuts; a cut is a list of matches with
// the gaps between them (Finder and its like), folded by the delimiter behaviour. Definitions
// follow the Rust sources of Hugging Face tokenizers, whose order of operations decides at corners:
// a step sees each piece alone.
#include "text/pretokenize.h"

#include "text/unicode.h"

namespace pare {

Finder& Pieces::finder(const Pattern& pattern) {
  for (const auto& [known, finder] : finders)
    if (known == &pattern) return *finder;
  finders.emplace_back(&pattern, std::make_unique<Finder>(pattern));
  return *finders.back().second;
}

void Pieces::reset(std::string_view whole, bool starts_input) {
  text = whole;
  pieces.clear();
  if (!whole.empty()) pieces.push_back({0, whole.size()});
  at_start = starts_input;
}

namespace {

void add_piece(std::vector<Pieces::Piece>& out, std::size_t begin, std::size_t end) {
  if (end > begin) out.push_back({begin, end});
}

void fold_merged_with_next(const std::vector<Match>& matches, std::size_t base,
                           std::vector<Pieces::Piece>& out) {
  // A match joins the gap after it; the second of two matches in a row takes nothing more.
  std::size_t i = 0;
  while (i < matches.size()) {
    // Of a run of matches only the last one that stands before a gap merges with it.
    const bool join = matches[i].matched && i + 1 < matches.size() && !matches[i + 1].matched;
    const std::size_t last = join ? i + 1 : i;
    add_piece(out, base + matches[i].begin, base + matches[last].end);
    i = last + 1;
  }
}

// Cuts one piece, whose text began at `base`, by its matches.
void fold(const std::vector<Match>& matches, Delimiter behavior, bool invert, std::size_t base,
          std::vector<Pieces::Piece>& out) {
  if (behavior == Delimiter::merged_with_next) {
    if (!invert) return fold_merged_with_next(matches, base, out);
    std::vector<Match> inverted = matches;
    for (Match& m : inverted) m.matched = !m.matched;
    return fold_merged_with_next(inverted, base, out);
  }
  bool previous = false, any = false;
  std::size_t open_begin = 0, open_end = 0;  // the piece being grown
  for (const Match& m : matches) {
    const bool matched = m.matched != invert;
    bool grow = false;
    if (behavior == Delimiter::merged_with_previous) grow = matched && !previous;
    if (behavior == Delimiter::contiguous) grow = matched == previous;
    if (grow && any) {
      open_end = m.end;
    } else {
      if (any) add_piece(out, base + open_begin, base + open_end);
      any = !(behavior == Delimiter::removed && matched);
      open_begin = m.begin;
      open_end = m.end;
    }
    previous = matched;
  }
  if (any) add_piece(out, base + open_begin, base + open_end);
}

// Runs of characters for which `matches(code)` holds; single characters if `single`.
template <class F>
void find_chars(std::string_view text, bool single, F is_match, std::vector<Match>& out) {
  out.clear();
  std::size_t gap = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Char c = char_at(text.data() + i);
    const std::size_t end = i + static_cast<std::size_t>(c.bytes);
    if (is_match(c.code)) {
      if (i > gap) out.push_back({gap, i, false});
      if (!single && !out.empty() && out.back().matched && out.back().end == i)
        out.back().end = end;
      else
        out.push_back({i, end, true});
      gap = end;
    }
    i = end;
  }
  if (gap < text.size()) out.push_back({gap, text.size(), false});
}

bool is_punctuation(char32_t c) {
  return is_ascii_punctuation(c) || (CharClasses()[c] & char_punct) != 0;
}
bool is_space(char32_t c) { return (CharClasses()[c] & char_space) != 0; }
bool is_numeric(char32_t c) { return (CharClasses()[c] & char_number) != 0; }

// Cuts every piece by find(text of the piece) -> matches.
template <class F>
void cut(Pieces& pieces, Delimiter behavior, bool invert, F find) {
  pieces.next.clear();
  for (std::size_t i = 0; i < pieces.pieces.size(); i++) {
    find(pieces[i], pieces.matches);
    fold(pieces.matches, behavior, invert, pieces.pieces[i].begin, pieces.next);
  }
  pieces.pieces.swap(pieces.next);
}

template <class F>
void cut_chars(Pieces& pieces, Delimiter behavior, bool single, F is_match) {
  cut(pieces, behavior, false, [&](std::string_view text, std::vector<Match>& out) {
    find_chars(text, single, is_match, out);
  });
}

// Rewrites every piece: write(text, index of the piece, out).
template <class F>
void rewrite(Pieces& pieces, F write) {
  std::string& out = pieces.storage[1 - pieces.current];
  out.clear();
  out.reserve(pieces.text.size() + pieces.text.size() / 8 + 8);
  for (std::size_t i = 0; i < pieces.pieces.size(); i++) {
    const std::size_t begin = out.size();
    write(pieces[i], i, out);
    pieces.pieces[i] = {begin, out.size()};
  }
  pieces.current = 1 - pieces.current;
  pieces.text = out;
}

void run(const pre::Split& step, Pieces& pieces, bool) {
  Finder& finder = pieces.finder(step.pattern);
  cut(pieces, step.behavior, step.invert,
      [&](std::string_view text, std::vector<Match>& out) { finder.find_all(text, out); });
}

void run(const pre::ByteLevel& step, Pieces& pieces, bool keep_bytes) {
  if (step.add_prefix_space)
    rewrite(pieces, [](std::string_view text, std::size_t, std::string& out) {
      if (text.front() != ' ') out += ' ';
      out += text;
    });
  if (step.use_regex) {
    const SplitFunction next = known_pattern("gpt2").next;
    cut(pieces, Delimiter::isolated, false, [&](std::string_view text, std::vector<Match>& out) {
      out.clear();
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = next(text, at);
        out.push_back({at, end, true});
        at = end;
      }
    });
  }
  if (!keep_bytes)
    rewrite(pieces, [](std::string_view text, std::size_t, std::string& out) {
      const ByteAlphabet& alphabet = byte_alphabet();
      for (char b : text) append_char(out, alphabet.to_char[static_cast<unsigned char>(b)]);
    });
}

void run(const pre::Metaspace& step, Pieces& pieces, bool) {
  rewrite(pieces, [&](std::string_view text, std::size_t index, std::string& out) {
    const bool begins =
        text.front() == ' ' || text.substr(0, step.replacement.size()) == step.replacement;
    const bool wanted = step.prepend == pre::Metaspace::Prepend::always ||
                        (step.prepend == pre::Metaspace::Prepend::first && index == 0 &&
                         pieces.at_start && pieces.pieces[0].begin == 0);
    if (wanted && !begins) out += step.replacement;
    for (char b : text) {
      if (b == ' ')
        out += step.replacement;
      else
        out += b;
    }
  });
  if (step.split) {
    const Pattern mark = Pattern::literal(step.replacement);
    Finder finder(mark);
    cut(pieces, Delimiter::merged_with_next, false,
        [&](std::string_view text, std::vector<Match>& out) { finder.find_all(text, out); });
  }
}

void run(const pre::Digits& step, Pieces& pieces, bool) {
  cut_chars(pieces, step.individual ? Delimiter::isolated : Delimiter::contiguous, true,
            is_numeric);
}

void run(const pre::Punctuation& step, Pieces& pieces, bool) {
  cut_chars(pieces, step.behavior, true, is_punctuation);
}

void run(const pre::Words&, Pieces& pieces, bool) {
  cut_chars(pieces, Delimiter::removed, false, is_space);
  cut_chars(pieces, Delimiter::contiguous, false, is_word_char);
}

void run(const pre::Whitespace&, Pieces& pieces, bool) {
  cut_chars(pieces, Delimiter::removed, true, is_space);
}

void run(const pre::Bert&, Pieces& pieces, bool) {
  cut_chars(pieces, Delimiter::removed, true, is_space);
  cut_chars(pieces, Delimiter::isolated, true, is_punctuation);
}

void run(const pre::Character& step, Pieces& pieces, bool) {
  const Pattern mark = Pattern::literal(step.delimiter);
  Finder finder(mark);
  cut(pieces, Delimiter::removed, false,
      [&](std::string_view text, std::vector<Match>& out) { finder.find_all(text, out); });
}

void run(const pre::FixedLength& step, Pieces& pieces, bool) {
  cut(pieces, Delimiter::isolated, false, [&](std::string_view text, std::vector<Match>& out) {
    out.clear();
    std::size_t begin = 0, i = 0;
    for (i64 count = 0; i < text.size();) {
      i += static_cast<std::size_t>(char_bytes(text[i]));
      if (++count == step.characters || i >= text.size()) {
        out.push_back({begin, i, true});
        begin = i;
        count = 0;
      }
    }
  });
}

}  // namespace

void pre_tokenize(const std::vector<PreTokenizer>& steps, std::size_t count, bool keep_bytes,
                  Pieces& pieces) {
  for (std::size_t i = 0; i < count; i++)
    std::visit([&](const auto& step) { run(step, pieces, keep_bytes && i + 1 == count); },
               steps[i]);
}

}  // namespace pare
