// vocab.json + merges.txt: GPT-2's own two files, and the components that byte-level and
// SentencePiece vocabularies of every format share.
#include "text/formats/formats.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {

void set_byte_level(TokenizerParts& parts, const std::vector<std::string>& patterns) {
  Json::Array steps;
  for (const std::string& pattern : patterns)
    steps.push_back(Json::object({{"type", "Split"},
                                  {"pattern", Json::object({{"Regex", pattern}})},
                                  {"behavior", "Isolated"},
                                  {"invert", false}}));
  const auto byte_level = [](bool use_regex) {
    return Json::object({{"type", "ByteLevel"},
                         {"add_prefix_space", false},
                         {"trim_offsets", true},
                         {"use_regex", use_regex}});
  };
  if (patterns.size() == 1 && patterns[0] == known_pattern("gpt2").pattern) {
    set_pre_tokenizer(parts, byte_level(true));
  } else {
    steps.push_back(byte_level(false));
    set_pre_tokenizer(parts,
                      Json::object({{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}));
  }
  set_decoder(parts, byte_level(true));
}

Json space_marks_decoder_json(bool prefix) {
  Json::Array steps = {Json::object({{"type", "Replace"},
                                     {"pattern", Json::object({{"String", meta_space}})},
                                     {"content", " "}}),
                       Json::object({{"type", "ByteFallback"}}), Json::object({{"type", "Fuse"}})};
  if (prefix)
    steps.push_back(Json::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
  return Json::object({{"type", "Sequence"}, {"decoders", std::move(steps)}});
}

void set_space_marks(TokenizerParts& parts, bool prefix) {
  Json::Array steps;
  if (prefix) steps.push_back(Json::object({{"type", "Prepend"}, {"prepend", meta_space}}));
  steps.push_back(Json::object({{"type", "Replace"},
                                {"pattern", Json::object({{"String", " "}})},
                                {"content", meta_space}}));
  set_normalizer(parts, Json::object({{"type", "Sequence"}, {"normalizers", std::move(steps)}}));
  set_decoder(parts, space_marks_decoder_json(prefix));
}

TokenizerParts parts_from_merges(std::string_view vocab_json, std::string_view merges_txt,
                                 std::string_view name) {
  TokenizerParts parts;
  const Json vocab = parse_json(vocab_json, name);
  if (static_cast<i64>(vocab.as_object().size()) > max_tokens)
    fail_input("TK-004", "too many tokens",
               {{"found", fmt::format("{}", vocab.as_object().size())},
                {"need", fmt::format("at most {}", max_tokens)}});
  for (const auto& [token, id] : vocab.as_object()) parts.vocabulary.add(id.as_int(), token);
  parts.model_tokens = parts.vocabulary.size();
  Bpe bpe;
  bpe.byte_level = true;
  std::size_t number = 0;
  for (bool first = true; !merges_txt.empty(); first = false) {
    const std::size_t end = std::min(merges_txt.find('\n'), merges_txt.size());
    std::string_view line = merges_txt.substr(0, end);
    merges_txt.remove_prefix(std::min(end + 1, merges_txt.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      fail_input("TK-006", "a merge is not two tokens with one space between",
                 {{"merge", fmt::format("{}", number)}, {"found", quoted(line)}});
    if (static_cast<i64>(number) >= max_merges)
      fail_input("TK-004", "too many merges", {{"need", fmt::format("at most {}", max_merges)}});
    add_merge(line.substr(0, space), line.substr(space + 1), number++, parts.vocabulary, bpe);
  }
  parts.model = std::move(bpe);
  parts.kind = "byte-level BPE";
  set_byte_level(parts, {std::string(known_pattern("gpt2").pattern)});
  if (parts.vocabulary.find("<|endoftext|>") != no_token) {
    AddedToken token;
    token.content = "<|endoftext|>";
    token.special = true;
    add_token(parts, std::move(token));
    parts.bos = parts.eos = parts.vocabulary.find("<|endoftext|>");
  }
  return parts;
}

Tokenizer tokenizer_from_merges(std::string_view vocab_json, std::string_view merges_txt,
                                std::string_view name) {
  try {
    return Tokenizer(parts_from_merges(vocab_json, merges_txt, name));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
