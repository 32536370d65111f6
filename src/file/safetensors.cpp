// Reading: every number of the header is checked before it is used, and the tensors must tile the
// data buffer exactly, so there is no byte that two readers could understand differently. Writing:
// larger alignments first, so every tensor starts at a multiple of its element's size.
#include "file/safetensors.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <unordered_set>

#include "base/json.h"

namespace pare {
namespace {

struct DtypeRow {
  const char* name;
  int bits;
};
constexpr DtypeRow dtypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64}};

constexpr std::uint64_t header_limit = 100'000'000;
constexpr std::size_t tensor_limit = 1u << 20, name_limit = 4096, rank_limit = 8,
                      shard_limit = 1u << 16;

[[noreturn]] void bad(std::string_view code, const std::string& what, std::string message,
                      std::vector<Fact> facts = {}, std::string hint = {}) {
  facts.insert(facts.begin(), {"file", what});
  fail_input(code, std::move(message), std::move(facts), std::move(hint));
}

i64 natural(const Json& value, const std::string& what, const std::string& tensor,
            const char* field) {
  if (!value.is_int() || value.as_int() < 0)
    bad("ST-005", what, fmt::format("{} of a tensor is not a natural number", field),
        {{"tensor", pare::quoted(tensor)},
         {"found", value.is_number() || value.is_string() ? value.dump() : value.type_name()}});
  return value.as_int();
}

void check_name(const std::string& name, const std::string& what) {
  const bool control =
      std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (name.empty() || name.size() > name_limit || control)
    bad("ST-004", what, "a tensor has an unusable name",
        {{"tensor", pare::quoted(name)}, {"need", "1 to 4096 bytes, no control characters"}});
}

struct Entry {
  StoredTensor tensor;
  std::uint64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& name, const Json& value, const std::string& what) {
  check_name(name, what);
  Entry e;
  e.tensor.name = name;
  const Json *dtype = value.find("dtype"), *shape = value.find("shape"),
             *offsets = value.find("data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr || !dtype->is_string() ||
      !shape->is_array() || !offsets->is_array() || offsets->as_array().size() != 2)
    bad("ST-005", what, "a tensor's entry is incomplete",
        {{"tensor", pare::quoted(name)}, {"need", "dtype, shape and data_offsets [begin, end]"}});
  const std::optional<Dtype> known = find_dtype(dtype->as_string());
  if (!known) {
    std::string list;
    for (const DtypeRow& row : dtypes) list += std::string(list.empty() ? "" : " ") + row.name;
    bad("ST-006", what, "a tensor has an unknown dtype",
        {{"tensor", pare::quoted(name)},
         {"found", pare::quoted(dtype->as_string())},
         {"need", list}});
  }
  e.tensor.dtype = *known;
  if (shape->as_array().size() > rank_limit)
    bad("ST-007", what, "a tensor has too many axes",
        {{"tensor", pare::quoted(name)},
         {"found", std::to_string(shape->as_array().size())},
         {"need", "at most 8"}});
  for (const Json& d : shape->as_array()) e.tensor.shape.push_back(natural(d, what, name, "shape"));
  e.begin = static_cast<std::uint64_t>(natural(offsets->as_array()[0], what, name, "data_offsets"));
  e.end = static_cast<std::uint64_t>(natural(offsets->as_array()[1], what, name, "data_offsets"));
  return e;
}

// shape x dtype in bytes; fails on overflow and on sub-byte tensors that end inside a byte.
std::uint64_t bytes_of(const Entry& e, const std::string& what) {
  std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(e.tensor.dtype));
  bool good = true;
  bool zero = false;
  for (i64 d : e.tensor.shape) zero = zero || d == 0;
  if (zero) return 0;
  for (i64 d : e.tensor.shape) good = good && mul_ok(bits, static_cast<std::uint64_t>(d), bits);
  if (!good)
    bad("ST-008", what, "a tensor's shape overflows", {{"tensor", pare::quoted(e.tensor.name)}});
  if (bits % 8 != 0)
    bad("ST-009", what, "a tensor ends inside a byte",
        {{"tensor", pare::quoted(e.tensor.name)}, {"found", fmt::format("{} bits", bits)}});
  return bits / 8;
}

void tile(std::vector<Entry>& entries, const Blob& data, const std::string& what) {
  std::vector<Entry*> order;
  for (Entry& e : entries) order.push_back(&e);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t at = 0;
  for (Entry* e : order) {
    const auto range = fmt::format("data_offsets [{}, {}]", e->begin, e->end);
    if (e->begin != at || e->end < e->begin)
      bad("ST-010", what,
          e->begin < at ? "tensors overlap or run backwards" : "there is a hole between tensors",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", range},
           {"need", fmt::format("begin {}", at)}});
    const std::uint64_t need = bytes_of(*e, what);
    if (e->end - e->begin != need)
      bad("ST-011", what, "a tensor's bytes do not fit its shape and dtype",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", fmt::format("{} bytes", e->end - e->begin)},
           {"need", fmt::format("{} bytes", need)}});
    if (e->end > data.size())
      bad("ST-012", what, "a tensor ends after the end of the file",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", range},
           {"need", fmt::format("{} more bytes", e->end - data.size())}},
          "the file is cut short; copy or download it again");
    e->tensor.bytes = data.slice(e->begin, need);
    at = e->end;
  }
  if (at != data.size())
    bad("ST-013", what, "bytes follow the last tensor",
        {{"found", fmt::format("{} bytes of data", data.size())}, {"need", fmt::format("{}", at)}});
}

}  // namespace

std::string_view dtype_name(Dtype d) { return dtypes[static_cast<std::size_t>(d)].name; }
int dtype_bits(Dtype d) { return dtypes[static_cast<std::size_t>(d)].bits; }
std::optional<Dtype> find_dtype(std::string_view name) {
  for (std::size_t i = 0; i < std::size(dtypes); i++)
    if (name == dtypes[i].name) return static_cast<Dtype>(i);
  return std::nullopt;
}

Safetensors parse_safetensors(const Blob& file, const std::string& what) {
  const std::string short_hint = "the file is cut short; copy or download it again";
  if (file.size() < 8)
    bad("ST-001", what, "too short for a safetensors file",
        {{"found", fmt::format("{} bytes", file.size())}, {"need", "8 and more"}}, short_hint);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length < 2 || length > header_limit)
    bad("ST-002", what, "the header's length is not plausible",
        {{"found", fmt::format("{} bytes", length)},
         {"need", fmt::format("2 to {}", header_limit)}},
        "this is not a safetensors file, or it is damaged");
  if (length > file.size() - 8)
    bad("ST-003", what, "the header ends after the end of the file",
        {{"found", fmt::format("{} bytes", file.size())},
         {"need", fmt::format("{} and more", length + 8)}},
        short_hint);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  JsonLimits limits;
  limits.depth = 4;
  Json header;
  try {
    header = parse_json(text, "the header", limits);
  } catch (Error& e) {
    e.with("file", what);
    throw;
  }
  if (!header.is_object())
    bad("ST-004", what, "the header is not an object", {{"found", header.type_name()}});
  Safetensors result;
  std::vector<Entry> entries;
  for (const Json::Member& m : header.as_object()) {
    if (m.first != "__metadata__") {
      entries.push_back(parse_entry(m.first, m.second, what));
      continue;
    }
    if (!m.second.is_object())
      bad("ST-014", what, "__metadata__ is not an object", {{"found", m.second.type_name()}});
    for (const Json::Member& item : m.second.as_object()) {
      if (!item.second.is_string())
        bad("ST-014", what, "a value of __metadata__ is not a string",
            {{"key", pare::quoted(item.first)}, {"found", item.second.type_name()}});
      result.metadata.emplace_back(item.first, item.second.as_string());
    }
  }
  if (entries.size() > tensor_limit)
    bad("ST-015", what, "too many tensors", {{"found", std::to_string(entries.size())}});
  tile(entries, file.slice(8 + length, file.size() - 8 - length), what);
  for (Entry& e : entries) result.tensors.push_back(std::move(e.tensor));
  return result;
}

namespace {

std::vector<StoredTensor> open_index(const std::filesystem::path& folder,
                                     const std::filesystem::path& index_path) {
  const std::string what = index_path.string();
  const Json index = parse_json(read_text_file(index_path, 1u << 28), what);
  const Json* map = index.find("weight_map");
  if (map == nullptr || !map->is_object()) bad("ST-021", what, "the index has no weight_map");
  std::map<std::string, std::string> shard_of;
  std::set<std::string> shards;
  for (const Json::Member& m : map->as_object()) {
    if (!m.second.is_string() || !is_plain_name(m.second.as_string()))
      bad("ST-022", what, "a shard is not a plain file name",
          {{"tensor", pare::quoted(m.first)},
           {"found",
            m.second.is_string() ? pare::quoted(m.second.as_string()) : m.second.type_name()}});
    shard_of[m.first] = m.second.as_string();
    shards.insert(m.second.as_string());
  }
  if (shards.empty() || shards.size() > shard_limit)
    bad("ST-021", what, "the index names no shard, or too many");
  std::vector<StoredTensor> all;
  std::set<std::string> seen;
  for (const std::string& shard : shards) {
    const std::filesystem::path path = folder / shard;
    if (!std::filesystem::exists(path))
      bad("ST-023", what, "a shard is missing", {{"shard", pare::quoted(shard)}},
          "copy or download the file");
    for (StoredTensor& t : parse_safetensors(map_file(path), path.string()).tensors) {
      const auto it = shard_of.find(t.name);
      if (it == shard_of.end() || it->second != shard)
        bad("ST-024", path.string(), "a tensor is not where the index says",
            {{"tensor", pare::quoted(t.name)},
             {"need", it == shard_of.end() ? "an entry in the index" : pare::quoted(it->second)}});
      seen.insert(t.name);
      all.push_back(std::move(t));
    }
  }
  for (const auto& [name, shard] : shard_of)
    if (!seen.contains(name))
      bad("ST-025", (folder / shard).string(), "a tensor of the index is not in its shard",
          {{"tensor", pare::quoted(name)}});
  return all;
}

bool has_pickles(const std::filesystem::path& folder) {
  std::error_code status;
  for (const auto& entry : std::filesystem::directory_iterator(folder, status)) {
    const std::string ext = entry.path().extension().string();
    if (ext == ".bin" || ext == ".pt" || ext == ".pth" || ext == ".ckpt") return true;
  }
  return false;
}

}  // namespace

std::vector<StoredTensor> open_safetensors_folder(const std::filesystem::path& folder) {
  const std::filesystem::path single = folder / "model.safetensors",
                              index = folder / "model.safetensors.index.json";
  const bool one = std::filesystem::exists(single), many = std::filesystem::exists(index);
  if (one && many) {
    const Json parsed = parse_json(read_text_file(index, 1u << 28), index.string());
    const Json* map = parsed.find("weight_map");
    const bool named =
        map != nullptr && map->is_object() &&
        std::any_of(map->as_object().begin(), map->as_object().end(),
                    [](const Json::Member& m) { return m.second == Json("model.safetensors"); });
    if (!named)
      bad("ST-026", folder.string(),
          "there are both model.safetensors and an index of other shards", {},
          "remove the one that is stale");
  }
  if (many) return open_index(folder, index);
  if (one) return parse_safetensors(map_file(single), single.string()).tensors;
  if (has_pickles(folder))
    bad("ST-020", folder.string(),
        "the folder has only pickled weights (.bin, .pt), which can run code when they are opened",
        {},
        "convert it first: load it in Transformers and call save_pretrained(folder, "
        "safe_serialization=True)");
  bad("ST-020", folder.string(),
      "the folder has no model.safetensors and no model.safetensors.index.json");
}

i64 TensorPlan::bytes() const {
  i64 n = dtype_bits(dtype);
  for (i64 d : shape) n *= d;
  PARE_CHECK(n % 8 == 0);
  return n / 8;
}

namespace {

std::vector<std::size_t> file_order(const std::vector<TensorPlan>& plan) {
  std::vector<std::size_t> order(plan.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (plan[a].dtype != plan[b].dtype) return plan[a].dtype > plan[b].dtype;
    return plan[a].name < plan[b].name;
  });
  return order;
}

}  // namespace

std::string safetensors_header(std::vector<TensorPlan> plan,
                               const std::vector<std::pair<std::string, std::string>>& metadata) {
  Json::Object members;
  if (!metadata.empty()) {
    Json::Object items;
    for (const auto& [key, value] : metadata) items.emplace_back(key, value);
    members.emplace_back("__metadata__", Json(std::move(items)));
  }
  i64 at = 0;
  for (std::size_t i : file_order(plan)) {
    const TensorPlan& t = plan[i];
    Json::Array shape;
    for (i64 d : t.shape) shape.emplace_back(d);
    members.emplace_back(
        t.name, Json::object({{"dtype", Json(dtype_name(t.dtype))},
                              {"shape", Json(std::move(shape))},
                              {"data_offsets", Json::array({Json(at), Json(at + t.bytes())})}}));
    at += t.bytes();
  }
  std::string text = Json(std::move(members)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  std::string whole(8, '\0');
  std::memcpy(whole.data(), &length, 8);
  return whole + text;
}

struct SafetensorsWriter::State {
  OutputFile file;
  std::map<std::string, std::pair<i64, i64>> place;  // offset, bytes
  std::set<std::string> missing;
};

SafetensorsWriter::SafetensorsWriter(
    const std::filesystem::path& path, const std::vector<TensorPlan>& plan,
    const std::vector<std::pair<std::string, std::string>>& metadata)
    : state_(new State{OutputFile(path), {}, {}}) {
  const std::string header = safetensors_header(plan, metadata);
  i64 at = static_cast<i64>(header.size());
  for (std::size_t i : file_order(plan)) {
    PARE_CHECK(state_->place.try_emplace(plan[i].name, at, plan[i].bytes()).second);
    state_->missing.insert(plan[i].name);
    at += plan[i].bytes();
  }
  state_->file.reserve(at);
  state_->file.write_at(0, std::as_bytes(std::span(header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto it = state_->place.find(name);
  PARE_CHECK(it != state_->place.end() && it->second.second == static_cast<i64>(bytes.size()));
  state_->file.write_at(it->second.first, bytes);
  state_->missing.erase(name);
}

void SafetensorsWriter::finish() {
  PARE_CHECK(state_->missing.empty());
  state_->file.sync_and_close();
}

ShardedWriter::ShardedWriter(const std::filesystem::path& folder,
                             const std::vector<TensorPlan>& plan, i64 shard_bytes)
    : folder_(folder) {
  std::vector<std::vector<TensorPlan>> shards(1);
  i64 filled = 0;
  for (const TensorPlan& t : plan) {
    if (!shards.back().empty() && filled + t.bytes() > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += t.bytes();
    total_bytes_ += t.bytes();
    shard_of_[t.name] = shards.size() - 1;
    order_.emplace_back(t.name, shards.size() - 1);
    shards.back().push_back(t);
  }
  for (std::size_t i = 0; i < shards.size(); i++) {
    names_.push_back(shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    shards_.push_back(std::make_unique<SafetensorsWriter>(folder / names_[i], shards[i]));
  }
}

ShardedWriter::~ShardedWriter() = default;

void ShardedWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  shards_[shard_of_.at(name)]->write(name, bytes);
}

void ShardedWriter::finish() {
  for (auto& shard : shards_) shard->finish();
  if (shards_.size() == 1) return;
  Json map = Json::object();
  for (const auto& [name, shard] : order_) map.as_object().emplace_back(name, Json(names_[shard]));
  const Json index = Json::object({{"metadata", Json::object({{"total_size", Json(total_bytes_)}})},
                                   {"weight_map", std::move(map)}});
  write_file(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace pare
