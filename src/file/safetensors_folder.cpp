// A folder of safetensors files as one list of tensors.
//
// The index is a claim, the shards are the truth, and the two must agree tensor by tensor in both
// directions: a tensor that the index does not know, or that lies elsewhere, is what a half-copied
// or mixed-up folder looks like. Shard names come from a file, so each must be one plain name, and
// what it leads to must lie in the folder. Nothing else of the folder is opened.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "base/json.h"
#include "file/safetensors.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t index_bytes_limit = std::size_t{1} << 28, shard_limit = 1u << 16;
constexpr const char *single_name = "model.safetensors",
                     *index_name = "model.safetensors.index.json";

[[noreturn]] void refuse(std::string_view code, const std::string& what, std::string message,
                         std::vector<Fact> facts = {}, std::string hint = {}) {
  facts.insert(facts.begin(), {"file", what});
  fail_input(code, std::move(message), std::move(facts), std::move(hint));
}

// "model-00002-of-00005.safetensors"
bool is_numbered_shard(std::string_view name) {
  constexpr std::string_view pattern = "model-#####-of-#####.safetensors";
  if (name.size() != pattern.size()) return false;
  for (std::size_t i = 0; i < name.size(); i++)
    if (pattern[i] == '#' ? (name[i] < '0' || name[i] > '9') : name[i] != pattern[i]) return false;
  return true;
}

using ShardOf = std::unordered_map<std::string, std::string>;

void read_shard(const fs::path& folder, const std::string& shard, const ShardOf& shard_of,
                std::vector<StoredTensor>& all) {
  const std::string what = (folder / shard).string();
  for (StoredTensor& t : parse_safetensors(map_file_in(folder, shard), what).tensors) {
    const auto it = shard_of.find(t.name);
    if (it == shard_of.end() || it->second != shard)
      refuse(
          "ST-024", what, "a tensor is not where the index says",
          {{"tensor", pare::quoted(t.name)},
           {"need", it == shard_of.end() ? "an entry in the index" : pare::quoted(it->second)}},
          "the shards and the index are of different versions; copy or download the folder again");
    all.push_back(std::move(t));
  }
}

void check_presence(const fs::path& folder, const std::set<std::string>& shards,
                    const std::vector<std::string>& present, const std::string& what) {
  for (const std::string& shard : shards)
    if (!std::binary_search(present.begin(), present.end(), shard))
      refuse("ST-023", what, "a shard is missing", {{"shard", pare::quoted(shard)}},
             "copy or download the file");
  for (const std::string& name : present)
    if (is_numbered_shard(name) && !shards.contains(name))
      refuse("ST-027", (folder / name).string(), "the index does not name this shard", {},
             "remove it if it is stale; otherwise the index is");
}

std::vector<StoredTensor> open_index(const fs::path& folder, const SafetensorsIndex& index,
                                     const std::vector<std::string>& present,
                                     std::vector<std::string>* warnings) {
  const std::string what = (folder / index_name).string();
  const ShardOf shard_of(index.shard_of.begin(), index.shard_of.end());
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index.shard_of) shards.insert(shard);
  check_presence(folder, shards, present, what);
  std::vector<StoredTensor> all;
  for (const std::string& shard : shards) read_shard(folder, shard, shard_of, all);
  // Every tensor read has its own entry, so equal numbers mean that no entry is left over.
  if (all.size() != shard_of.size()) {
    std::set<std::string_view> seen;
    for (const StoredTensor& t : all) seen.insert(t.name);
    for (const auto& [name, shard] : index.shard_of)
      if (!seen.contains(name))
        refuse("ST-025", (folder / shard).string(), "a tensor of the index is not in its shard",
               {{"tensor", pare::quoted(name)}});
  }
  i64 total = 0;
  for (const StoredTensor& t : all) total += static_cast<i64>(t.bytes.size());
  if (warnings != nullptr && index.total_size && *index.total_size != total)
    warnings->push_back(fmt::format("{}: total_size is {}, but the tensors have {} bytes", what,
                                    *index.total_size, total));
  return all;
}

[[noreturn]] void no_weights(const fs::path& folder, const std::vector<std::string>& present) {
  const auto has = [&](std::initializer_list<const char*> extensions) {
    for (const std::string& name : present)
      for (const char* extension : extensions)
        if (name.ends_with(extension)) return true;
    return false;
  };
  if (has({".gguf"}))
    refuse("ST-020", folder.string(), "the folder has no safetensors weights, but a GGUF file", {},
           "give the .gguf file itself");
  if (has({".bin", ".pt", ".pth", ".ckpt", ".pkl"}))
    refuse(
        "ST-020", folder.string(),
        "the folder has only pickled weights (.bin, .pt), which can run code when they are opened",
        {},
        "convert it first: load it in Transformers and call save_pretrained(folder, "
        "safe_serialization=True)");
  refuse("ST-020", folder.string(),
         "the folder has no model.safetensors and no model.safetensors.index.json");
}

}  // namespace

SafetensorsIndex parse_safetensors_index(std::string_view text, const std::string& what) {
  JsonLimits limits;
  limits.depth = 8;
  const Json index = parse_json(text, what, limits);
  const Json* map = index.find("weight_map");
  if (map == nullptr || !map->is_object()) refuse("ST-021", what, "the index has no weight_map");
  SafetensorsIndex result;
  std::set<std::string> shards;
  for (const Json::Member& m : map->as_object()) {
    if (!m.second.is_string() || !is_plain_name(m.second.as_string()))
      refuse("ST-022", what, "a shard is not a plain file name",
             {{"tensor", pare::quoted(m.first)},
              {"found",
               m.second.is_string() ? pare::quoted(m.second.as_string()) : m.second.type_name()}});
    result.shard_of.emplace_back(m.first, m.second.as_string());
    shards.insert(m.second.as_string());
  }
  if (shards.empty() || shards.size() > shard_limit)
    refuse(
        "ST-021", what, "the index names no shard, or too many",
        {{"found", std::to_string(shards.size())}, {"need", fmt::format("1 to {}", shard_limit)}});
  if (const Json* metadata = index.find("metadata"); metadata != nullptr)
    if (const Json* total = metadata->find("total_size"); total != nullptr && total->is_number())
      result.total_size = total->is_int() ? total->as_int() : -1;  // a fraction fits no file
  return result;
}

std::vector<StoredTensor> open_safetensors_folder(const fs::path& folder,
                                                  std::vector<std::string>* warnings) {
  const std::vector<std::string> present = names_in(folder);
  const auto has = [&](const char* name) {
    return std::binary_search(present.begin(), present.end(), name);
  };
  const bool one = has(single_name), many = has(index_name);
  if (!one && !many) no_weights(folder, present);
  if (!many) {
    const std::string what = (folder / single_name).string();
    return parse_safetensors(map_file_in(folder, single_name), what).tensors;
  }
  const SafetensorsIndex index = parse_safetensors_index(
      read_text_file_in(folder, index_name, index_bytes_limit), (folder / index_name).string());
  if (one && std::none_of(index.shard_of.begin(), index.shard_of.end(),
                          [](const auto& entry) { return entry.second == single_name; }))
    refuse("ST-026", folder.string(),
           "there are both model.safetensors and an index of other shards", {},
           "remove the one that is stale");
  return open_index(folder, index, present, warnings);
}

}  // namespace pare
