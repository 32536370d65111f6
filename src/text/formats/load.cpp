// Which file of a folder is the tokenizer, and what the files beside it add.
//
// tokenizer_config.json and special_tokens_map.json name the special tokens. They also hold two
// things that change ids: tokens added to a vocabulary in an older format, and, for the Llama
// class, whether begin and end ids are added (Transformers then disregards the template of
// tokenizer.json).
#include <algorithm>

#include "file/gguf.h"
#include "file/io.h"
#include "text/formats/formats.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_file_bytes = std::size_t{128} << 20;
constexpr std::size_t max_side_file_bytes = std::size_t{16} << 20;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// A small JSON file beside the tokenizer; null when it is not there.
Json side_file(const fs::path& folder, const char* name) {
  const fs::path path = folder / name;
  if (!is_file(path)) return {};
  return parse_json(read_text_file(path, max_side_file_bytes), path.string());
}

// "bos_token": "<s>" or {"content": "<s>", ...} or null.
std::string token_text(const Json& json, const char* key) {
  const Json* value = json.find(key);
  if (value == nullptr) return {};
  if (value->is_string()) return value->as_string();
  const Json* content = value->find("content");
  return content != nullptr && content->is_string() ? content->as_string() : std::string();
}

bool is_set(const Json& json, const char* key) {
  const Json* value = json.find(key);
  return value != nullptr && value->is_bool() && value->as_bool();
}

void name_special_tokens(const Json& json, TokenizerParts& parts) {
  const std::pair<const char*, TokenId*> names[] = {{"bos_token", &parts.bos},
                                                    {"eos_token", &parts.eos},
                                                    {"unk_token", &parts.unk},
                                                    {"pad_token", &parts.pad}};
  for (const auto& [key, id] : names) {
    const std::string text = token_text(json, key);
    if (text.empty()) continue;
    const TokenId found = parts.vocabulary.find(text);
    if (found != no_token) *id = found;
  }
}

// Tokens that a folder in an older format adds to its vocabulary: id to description, or text to id.
// With `fill_only` the tokenizer's own list is complete but for tokens it does not know at all.
void add_listed_tokens(const Json& config, const Json& list, bool fill_only,
                       TokenizerParts& parts) {
  std::vector<AddedToken> tokens;
  const auto add = [&](i64 id, AddedToken token) {
    if (id < 0 || id >= max_tokens)
      fail_input("TK-005", "the id of an added token is out of range",
                 {{"token", pare::quoted(token.content)}, {"found", fmt::format("{}", id)}});
    token.id = static_cast<TokenId>(id);
    tokens.push_back(std::move(token));
  };
  if (const Json* decoder = config.find("added_tokens_decoder"); decoder != nullptr) {
    for (const auto& [key, entry] : decoder->as_object()) {
      AddedToken token;
      token.content = token_text(Json::object({{"token", entry}}), "token");
      token.single_word = is_set(entry, "single_word");
      token.lstrip = is_set(entry, "lstrip");
      token.rstrip = is_set(entry, "rstrip");
      token.normalized = is_set(entry, "normalized");
      token.special = is_set(entry, "special");
      i64 id = key.empty() || key.size() > 9 ? -1 : 0;
      for (char c : key) id = id < 0 || c < '0' || c > '9' ? -1 : id * 10 + (c - '0');
      add(id, std::move(token));
    }
  } else if (list.is_object()) {
    for (const auto& [text, id] : list.as_object()) {
      AddedToken token;
      token.content = text;
      token.special = true;
      add(id.as_int(), std::move(token));
    }
  }
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const TokenId known = parts.vocabulary.find(token.content);
    if (fill_only && (known != no_token || parts.vocabulary.used(token.id))) continue;
    if (known != no_token && known != token.id)
      fail_input("TK-005", "an added token has another id in the vocabulary",
                 {{"token", pare::quoted(token.content)},
                  {"found", fmt::format("{} and {}", token.id, known)}});
    if (known == no_token) parts.vocabulary.add(token.id, token.content);
    const auto same = std::find_if(parts.added.begin(), parts.added.end(),
                                   [&](const AddedToken& a) { return a.id == token.id; });
    if (same != parts.added.end())
      *same = std::move(token);
    else
      parts.added.push_back(std::move(token));
  }
  std::sort(parts.added.begin(), parts.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

void apply_config(const fs::path& folder, bool fill_only, TokenizerParts& parts) {
  const Json config = side_file(folder, "tokenizer_config.json");
  add_listed_tokens(config, side_file(folder, "added_tokens.json"), fill_only, parts);
  name_special_tokens(side_file(folder, "special_tokens_map.json"), parts);
  name_special_tokens(config, parts);
  const Json* type = config.find("tokenizer_class");
  const bool llama =
      type != nullptr && type->is_string() &&
      (type->as_string() == "LlamaTokenizer" || type->as_string() == "LlamaTokenizerFast");
  const Json* stated = config.find("add_bos_token");
  if (!llama || stated == nullptr || !stated->is_bool()) return;
  std::vector<TokenId> before, after;
  if (stated->as_bool() && parts.bos != no_token) before.push_back(parts.bos);
  if (is_set(config, "add_eos_token") && parts.eos != no_token) after.push_back(parts.eos);
  set_post_processor(parts, template_json(parts.vocabulary, before, after));
}

enum class Form { json, sentencepiece, merges, tiktoken, llama2c, gguf };

// The one *.tiktoken of a folder; empty if there is none or several.
fs::path only_rank_file(const fs::path& folder) {
  fs::path found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != ".tiktoken") continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

std::pair<Form, fs::path> find_in_folder(const fs::path& folder) {
  if (is_file(folder / "tokenizer.json")) return {Form::json, folder / "tokenizer.json"};
  if (is_file(folder / "tokenizer.model")) return {Form::sentencepiece, folder / "tokenizer.model"};
  if (is_file(folder / "vocab.json") && is_file(folder / "merges.txt"))
    return {Form::merges, folder / "vocab.json"};
  if (const fs::path ranks = only_rank_file(folder); !ranks.empty()) return {Form::tiktoken, ranks};
  if (is_file(folder / "tokenizer.bin")) return {Form::llama2c, folder / "tokenizer.bin"};
  fail_input("TK-001", "the folder has no tokenizer",
             {{"folder", folder.string()},
              {"need",
               "tokenizer.json, tokenizer.model, vocab.json with merges.txt, one *.tiktoken or "
               "tokenizer.bin"}});
}

std::pair<Form, fs::path> find_tokenizer(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return find_in_folder(path);
  if (!fs::exists(path, ignored))
    fail_input("TK-001", "no such tokenizer", {{"file", path.string()}});
  const std::string name = path.filename().string(), extension = path.extension().string();
  if (name == "vocab.json" || name == "merges.txt")
    return {Form::merges, path.parent_path() / "vocab.json"};
  if (extension == ".json") return {Form::json, path};
  if (extension == ".model") return {Form::sentencepiece, path};
  if (extension == ".tiktoken") return {Form::tiktoken, path};
  if (extension == ".bin") return {Form::llama2c, path};
  if (extension == ".gguf") return {Form::gguf, path};
  fail_input(
      "TK-001", "the name does not say what kind of tokenizer this is",
      {{"file", path.string()}, {"need", "an ending .json, .model, .tiktoken, .bin or .gguf"}});
}

TokenizerParts read_parts(Form form, const fs::path& path, i64 vocab_size) {
  const auto text = [](const fs::path& p) { return read_text_file(p, max_file_bytes); };
  switch (form) {
    case Form::json:
      return parts_from_json(text(path), path.string());
    case Form::sentencepiece:
      return parts_from_sentencepiece(map_file(path).bytes);
    case Form::merges:
      return parts_from_merges(text(path), text(path.parent_path() / "merges.txt"), path.string());
    case Form::tiktoken:
      return parts_from_tiktoken(text(path), path.filename().string());
    case Form::llama2c:
      return parts_from_llama2c(map_file(path).bytes, vocab_size);
    case Form::gguf:
      return parts_from_gguf(open_gguf(path));
  }
  PARE_CHECK(!"a form of tokenizer");
  return {};
}

}  // namespace

Tokenizer load_tokenizer(const fs::path& folder_or_file, i64 vocab_size) {
  const auto [form, path] = find_tokenizer(folder_or_file);
  try {
    TokenizerParts parts = read_parts(form, path, vocab_size);
    if (form == Form::json || form == Form::sentencepiece || form == Form::merges)
      apply_config(path.parent_path(), form == Form::json, parts);
    return Tokenizer(std::move(parts));
  } catch (Error& error) {
    throw error.with("file", path.string());
  }
}

Tokenizer load_tokenizer(const fs::path& folder_or_file) {
  return load_tokenizer(folder_or_file, -1);
}

}  // namespace pare
