// The components of tokenizer.json: from their JSON to the steps of the pipeline.
//
// A component is an object with a `type` and its parameters; sequences nest (bounded by the depth
// the JSON reader allows) and are flattened. What is not known is refused by name: ids that are
// nearly right are worse than none.
#include <algorithm>

#include "text/formats/formats.h"
#include "text/unicode.h"

namespace pare {
namespace {

[[noreturn]] void not_supported(std::string_view part, std::string_view type) {
  fail_input("TK-003", fmt::format("a {} of this type is not supported", part),
             {{"type", quoted(type)}});
}

std::string_view type_of(const Json& json) { return json.at("type").as_string(); }

// {"String": s}, {"Regex": r}, or (old files) a plain string.
Pattern read_pattern(const Json& json) {
  if (json.is_string()) return Pattern::literal(json.as_string());
  if (const Json* literal = json.find("String")) return Pattern::literal(literal->as_string());
  return Pattern::expression(json.at("Regex").as_string());
}

Delimiter read_delimiter(const Json& json) {
  const std::string& name = json.as_string();
  if (name == "Removed") return Delimiter::removed;
  if (name == "Isolated") return Delimiter::isolated;
  if (name == "MergedWithPrevious") return Delimiter::merged_with_previous;
  if (name == "MergedWithNext") return Delimiter::merged_with_next;
  if (name == "Contiguous") return Delimiter::contiguous;
  not_supported("split behavior", name);
}

// Calls f for every leaf of nested sequences, in order. Iterative: files choose the nesting.
template <class F>
void each_leaf(const Json& json, std::string_view list, F f) {
  std::vector<const Json*> open{&json};
  while (!open.empty()) {
    const Json* top = open.back();
    open.pop_back();
    if (top->is_null()) continue;
    if (type_of(*top) != "Sequence") {
      f(*top);
      continue;
    }
    const Json::Array& items = top->at(list).as_array();
    for (std::size_t i = items.size(); i > 0; i--) open.push_back(&items[i - 1]);
  }
}

std::shared_ptr<const Charsmap> read_charsmap(const Json& json) {
  std::string bytes;
  if (!from_base64(json.as_string(), bytes)) fail_input("TK-009", "a character map is not base64");
  return std::make_shared<const Charsmap>(bytes);
}

Normalizer one_normalizer(const Json& json) {
  const std::string_view type = type_of(json);
  if (type == "NFC") return normal::Form{true, false};
  if (type == "NFD") return normal::Form{false, false};
  if (type == "NFKC") return normal::Form{true, true};
  if (type == "NFKD") return normal::Form{false, true};
  if (type == "Lowercase") return normal::Lowercase{};
  if (type == "Strip" || type == "StripNormalizer")
    return normal::Strip{flag_or(json, "strip_left", true), flag_or(json, "strip_right", true)};
  if (type == "StripAccents") return normal::StripAccents{};
  if (type == "Replace")
    return normal::Replace{read_pattern(json.at("pattern")), json.at("content").as_string()};
  if (type == "Prepend") return normal::Prepend{json.at("prepend").as_string()};
  if (type == "Nmt") return normal::Nmt{};
  if (type == "ByteLevel") return normal::Bytes{};
  if (type == "Precompiled")
    return normal::Precompiled{read_charsmap(json.at("precompiled_charsmap"))};
  if (type == "BertNormalizer") {
    const bool lowercase = flag_or(json, "lowercase", true);
    return normal::Bert{flag_or(json, "clean_text", true),
                        flag_or(json, "handle_chinese_chars", true),
                        flag_or(json, "strip_accents", lowercase), lowercase};
  }
  not_supported("normalizer", type);
}

pre::Metaspace read_metaspace(const Json& json) {
  const std::string scheme = text_or(json, "prepend_scheme", "always");
  pre::Metaspace step{text_or(json, "replacement", meta_space), {}, flag_or(json, "split", true)};
  if (scheme == "always")
    step.prepend = pre::Metaspace::Prepend::always;
  else if (scheme == "first")
    step.prepend = pre::Metaspace::Prepend::first;
  else if (scheme == "never")
    step.prepend = pre::Metaspace::Prepend::never;
  else
    not_supported("prepend scheme", scheme);
  if (!flag_or(json, "add_prefix_space", true)) {
    if (json.find("prepend_scheme") != nullptr && step.prepend != pre::Metaspace::Prepend::never)
      fail_input("TK-003", "add_prefix_space and prepend_scheme contradict each other",
                 {{"found", quoted(scheme)}});
    step.prepend = pre::Metaspace::Prepend::never;
  }
  if (step.replacement.empty() ||
      static_cast<std::size_t>(char_bytes(step.replacement[0])) != step.replacement.size())
    fail_input("TK-003", "a Metaspace replacement must be one character",
               {{"found", quoted(step.replacement)}});
  return step;
}

PreTokenizer one_pre_tokenizer(const Json& json) {
  const std::string_view type = type_of(json);
  if (type == "ByteLevel")
    return pre::ByteLevel{flag_or(json, "add_prefix_space", true),
                          flag_or(json, "use_regex", true)};
  if (type == "Split")
    return pre::Split{read_pattern(json.at("pattern")), read_delimiter(json.at("behavior")),
                      flag_or(json, "invert", false)};
  if (type == "Metaspace") return read_metaspace(json);
  if (type == "Digits") return pre::Digits{flag_or(json, "individual_digits", false)};
  if (type == "Punctuation") {
    const Json* behavior = json.find("behavior");
    return pre::Punctuation{behavior == nullptr ? Delimiter::isolated : read_delimiter(*behavior)};
  }
  if (type == "Whitespace") return pre::Words{};
  if (type == "WhitespaceSplit") return pre::Whitespace{};
  if (type == "BertPreTokenizer") return pre::Bert{};
  if (type == "CharDelimiterSplit") return pre::Character{json.at("delimiter").as_string()};
  if (type == "FixedLength") {
    const Json* length = json.find("length");
    const i64 characters = length == nullptr ? 5 : length->as_int();
    if (characters < 1)
      fail_input("TK-003", "a FixedLength must be at least 1",
                 {{"found", fmt::format("{}", characters)}});
    return pre::FixedLength{characters};
  }
  not_supported("pre-tokenizer", type);
}

Decoder one_decoder(const Json& json) {
  const std::string_view type = type_of(json);
  if (type == "ByteLevel") return post::ByteLevel{};
  if (type == "ByteFallback") return post::ByteFallback{};
  if (type == "Fuse") return post::Fuse{};
  if (type == "Strip")
    return post::Strip{json.at("content").as_string(), json.at("start").as_int(),
                       json.at("stop").as_int()};
  if (type == "Replace")
    return post::Replace{read_pattern(json.at("pattern")), json.at("content").as_string()};
  if (type == "Metaspace") {
    const pre::Metaspace step = read_metaspace(json);
    return post::Metaspace{step.replacement, step.prepend != pre::Metaspace::Prepend::never};
  }
  if (type == "WordPiece")
    return post::WordPiece{text_or(json, "prefix", "##"), flag_or(json, "cleanup", true)};
  if (type == "BPEDecoder") return post::Bpe{text_or(json, "suffix", "</w>")};
  if (type == "CTC")
    return post::Ctc{text_or(json, "pad_token", "<pad>"),
                     text_or(json, "word_delimiter_token", "|"), flag_or(json, "cleanup", true)};
  not_supported("decoder", type);
}

TokenId read_id(const Json& json) {
  const i64 id = json.as_int();
  if (id < 0 || id >= max_tokens)
    fail_input(
        "TK-005", "a template's id is out of range",
        {{"found", fmt::format("{}", id)}, {"need", fmt::format("0 to {}", max_tokens - 1)}});
  return static_cast<TokenId>(id);
}

// ["[CLS]", 101] of the Bert and Roberta processors.
TokenId read_pair_id(const Json& json) {
  const Json::Array& pair = json.as_array();
  if (pair.size() != 2)
    fail_input("TK-002", "a post-processor names a token by other than its text and id");
  return read_id(pair[1]);
}

std::vector<TemplatePart> read_template(const Json& json) {
  const Json* table = json.find("special_tokens");
  std::vector<TemplatePart> parts;
  for (const Json& item : json.at("single").as_array()) {
    if (const Json* sequence = item.find("Sequence")) {
      if (sequence->at("id").as_string() != "A")
        fail_input("TK-003", "the template for one text speaks of a second one");
      parts.push_back({true, {}});
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").as_string();
    const Json* entry = table == nullptr ? nullptr : table->find(name);
    if (entry == nullptr)
      fail_input("TK-005", "the template names a special token it does not define",
                 {{"token", quoted(name)}});
    TemplatePart part;
    for (const Json& id : entry->at("ids").as_array()) part.ids.push_back(read_id(id));
    parts.push_back(std::move(part));
  }
  // More than one copy of a long text is never meant.
  if (std::count_if(parts.begin(), parts.end(), [](const auto& p) { return p.text; }) > 1)
    fail_input("TK-003", "the template repeats the text");
  return parts;
}

}  // namespace

bool flag_or(const Json& json, std::string_view key, bool otherwise) {
  const Json* value = json.find(key);
  return value == nullptr || value->is_null() ? otherwise : value->as_bool();
}

std::string text_or(const Json& json, std::string_view key, std::string_view otherwise) {
  const Json* value = json.find(key);
  return std::string(value == nullptr || value->is_null() ? otherwise : value->as_string());
}

std::vector<Normalizer> read_normalizer(const Json& json) {
  std::vector<Normalizer> steps;
  each_leaf(json, "normalizers", [&](const Json& j) { steps.push_back(one_normalizer(j)); });
  return steps;
}

std::vector<PreTokenizer> read_pre_tokenizer(const Json& json) {
  std::vector<PreTokenizer> steps;
  each_leaf(json, "pretokenizers", [&](const Json& j) { steps.push_back(one_pre_tokenizer(j)); });
  return steps;
}

std::vector<Decoder> read_decoder(const Json& json) {
  std::vector<Decoder> steps;
  each_leaf(json, "decoders", [&](const Json& j) { steps.push_back(one_decoder(j)); });
  return steps;
}

std::vector<TemplatePart> read_post_processor(const Json& json) {
  std::vector<TemplatePart> parts;
  each_leaf(json, "processors", [&](const Json& j) {
    const std::string_view type = type_of(j);
    if (type == "ByteLevel") return;  // only moves offsets
    std::vector<TemplatePart> step;
    if (type == "TemplateProcessing")
      step = read_template(j);
    else if (type == "BertProcessing" || type == "RobertaProcessing")
      step = {
          {false, {read_pair_id(j.at("cls"))}}, {true, {}}, {false, {read_pair_id(j.at("sep"))}}};
    else
      not_supported("post-processor", type);
    if (parts.empty()) {
      parts = std::move(step);
      return;
    }
    // A later processor wraps what the earlier ones made.
    std::vector<TemplatePart> wrapped;
    for (TemplatePart& part : step) {
      if (part.text)
        wrapped.insert(wrapped.end(), parts.begin(), parts.end());
      else
        wrapped.push_back(std::move(part));
    }
    parts = std::move(wrapped);
  });
  return parts;
}

Json template_json(const Vocabulary& vocabulary, const std::vector<TokenId>& before,
                   const std::vector<TokenId>& after) {
  Json table = Json::object();
  const auto special = [&](TokenId id, i64 type) {
    const std::string name(vocabulary.text(id));
    table.set(name, Json::object({{"id", name},
                                  {"ids", Json::array({static_cast<i64>(id)})},
                                  {"tokens", Json::array({name})}}));
    return Json::object({{"SpecialToken", Json::object({{"id", name}, {"type_id", type}})}});
  };
  const auto sequence = [](const char* name, i64 type) {
    return Json::object({{"Sequence", Json::object({{"id", name}, {"type_id", type}})}});
  };
  Json::Array single, pair;
  for (int text = 0; text < 2; text++) {
    for (TokenId id : before) {
      if (text == 0) single.push_back(special(id, 0));
      pair.push_back(special(id, text));
    }
    if (text == 0) single.push_back(sequence("A", 0));
    pair.push_back(sequence(text == 0 ? "A" : "B", text));
    for (TokenId id : after) {
      if (text == 0) single.push_back(special(id, 0));
      pair.push_back(special(id, text));
    }
  }
  return Json::object({{"type", "TemplateProcessing"},
                       {"single", std::move(single)},
                       {"pair", std::move(pair)},
                       {"special_tokens", std::move(table)}});
}

void set_normalizer(TokenizerParts& parts, Json json) {
  parts.normalizer = read_normalizer(json);
  parts.normalizer_json = std::move(json);
}
void set_pre_tokenizer(TokenizerParts& parts, Json json) {
  parts.pre_tokenizer = read_pre_tokenizer(json);
  parts.pre_tokenizer_json = std::move(json);
}
void set_decoder(TokenizerParts& parts, Json json) {
  parts.decoder = read_decoder(json);
  parts.decoder_json = std::move(json);
}
void set_post_processor(TokenizerParts& parts, Json json) {
  parts.single = read_post_processor(json);
  for (const TemplatePart& part : parts.single)
    for (TokenId id : part.ids)
      if (id >= parts.vocabulary.size())
        fail_input("TK-005", "a template's id is not in the vocabulary",
                   {{"found", fmt::format("{}", id)},
                    {"need", fmt::format("below {}", parts.vocabulary.size())}});
  parts.post_processor_json = std::move(json);
}

void add_token(TokenizerParts& parts, AddedToken token) {
  if (token.content.empty()) return;
  for (AddedToken& other : parts.added) {
    if (other.content != token.content) continue;
    token.id = other.id;
    other = std::move(token);
    return;
  }
  token.id = parts.vocabulary.find(token.content);
  if (token.id == no_token) {
    token.id = static_cast<TokenId>(parts.vocabulary.size());
    parts.vocabulary.add(token.id, token.content);
  }
  parts.added.push_back(std::move(token));
}

}  // namespace pare
