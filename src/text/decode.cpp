// Decoders, after the Rust sources of Hugging Face tokenizers: each step maps a list of strings to
// a list of strings.
#include "text/decode.h"

#include "text/normalize.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace pare {
namespace {

using Tokens = std::vector<std::string>;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  std::size_t done = 0;
  while (true) {
    const std::size_t at = text.find(from, done);
    if (at == std::string::npos) break;
    out.append(text, done, at - done);
    out += to;
    done = at + from.size();
  }
  if (done == 0) return;
  out.append(text, done, std::string::npos);
  text = std::move(out);
}

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

void decoded(const post::ByteLevel&, Tokens& tokens) {
  std::string all, bytes;
  for (const std::string& t : tokens) all += alphabet_to_bytes(t, bytes) ? bytes : t;
  tokens.assign(1, valid_utf8(all) ? std::move(all) : lossy_utf8(all));
}

void decoded(const post::ByteFallback&, Tokens& tokens) {
  Tokens out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (valid_utf8(run))
      out.push_back(run);
    else
      for (std::size_t i = 0; i < run.size(); i++) out.push_back("\xef\xbf\xbd");
    run.clear();
  };
  for (std::string& t : tokens) {
    const int byte = byte_of_token(t);
    if (byte >= 0) {
      run += static_cast<char>(byte);
    } else {
      flush();
      out.push_back(std::move(t));
    }
  }
  flush();
  tokens = std::move(out);
}

void decoded(const post::Fuse&, Tokens& tokens) {
  std::string all;
  for (const std::string& t : tokens) all += t;
  tokens.assign(1, std::move(all));
}

void decoded(const post::Strip& step, Tokens& tokens) {
  const std::size_t n = step.content.size();
  for (std::string& t : tokens) {
    std::size_t begin = 0, end = t.size();
    for (i64 i = 0; i < step.start && n > 0 && t.compare(begin, n, step.content) == 0; i++)
      begin += n;
    for (i64 i = 0;
         i < step.stop && n > 0 && end >= begin + n && t.compare(end - n, n, step.content) == 0;
         i++)
      end -= n;
    t = t.substr(begin, end - begin);
  }
}

void decoded(const post::Replace& step, Tokens& tokens) {
  std::vector<Match> matches;
  Finder finder(step.pattern);
  for (std::string& t : tokens) {
    if (!step.pattern.is_expression) {
      replace_all(t, step.pattern.text, step.content);
      continue;
    }
    if (!valid_utf8(t)) t = lossy_utf8(t);
    finder.find_all(t, matches);
    std::string out;
    for (const Match& m : matches)
      out += m.matched ? step.content : t.substr(m.begin, m.end - m.begin);
    t = std::move(out);
  }
}

void decoded(const post::Metaspace& step, Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size(); i++) {
    // In the first token every mark goes, as in the original.
    replace_all(tokens[i], step.replacement, i == 0 && step.drop_first ? "" : " ");
  }
}

void clean_up(std::string& t) {
  constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : rules) replace_all(t, from, to);
}

void decoded(const post::WordPiece& step, Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size(); i++) {
    std::string& t = tokens[i];
    if (i > 0) {
      const bool joined = starts_with(t, step.prefix);
      std::string whole(joined ? "" : " ");
      whole.append(t, joined ? step.prefix.size() : 0, std::string::npos);
      t = std::move(whole);
    }
    if (step.cleanup) clean_up(t);
  }
}

void decoded(const post::Bpe& step, Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size(); i++)
    replace_all(tokens[i], step.suffix, i + 1 < tokens.size() ? " " : "");
}

void decoded(const post::Ctc& step, Tokens& tokens) {
  Tokens out;
  for (std::size_t i = 0; i < tokens.size(); i++) {
    if (i > 0 && tokens[i] == tokens[i - 1]) continue;
    std::string t = tokens[i];
    replace_all(t, step.pad, "");
    if (step.cleanup) {
      clean_up(t);
      replace_all(t, step.word_delimiter, " ");
    }
    if (!t.empty()) out.push_back(std::move(t));
  }
  tokens = std::move(out);
}

void decoded(const post::Sentencepiece& step, Tokens& tokens) {
  std::string all, run;
  const auto flush = [&] {
    all += lossy_utf8(run, true);
    run.clear();
  };
  bool at_begin = step.strip_first;
  for (const std::string& t : tokens) {
    const int byte = byte_of_token(t);
    if (byte >= 0) {
      run += static_cast<char>(byte);
      at_begin = false;
      continue;
    }
    flush();
    std::string_view piece = t;
    bool consumed = false;
    while (at_begin && starts_with(piece, meta_space)) {
      piece.remove_prefix(meta_space.size());
      consumed = !step.strip_all;
      if (!step.strip_all) break;
    }
    std::string surface(piece);
    replace_all(surface, meta_space, " ");
    all += surface;
    if (consumed || !surface.empty()) at_begin = false;
  }
  flush();
  tokens.assign(1, std::move(all));
}

}  // namespace

std::string decode_tokens(const std::vector<Decoder>& steps, std::vector<std::string> tokens) {
  for (const Decoder& step : steps) std::visit([&](const auto& s) { decoded(s, tokens); }, step);
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); i++) {
    if (i > 0 && steps.empty()) out += ' ';
    out += tokens[i];
  }
  return out;
}

}  // namespace pare
