// What the readers of packed folders share, and the choice among them.
//
// config.json says the method under quantization_config; files of the first packers said it in
// quantize_config.json (GPTQ) or quant_config.json (AWQ) only. The module names come from the
// tensors that are there: lists of modules to skip are matched differently by every reader, while
// the tensors cannot lie about what was packed.
#include "model/packed.h"

#include <algorithm>
#include <array>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

struct Method {
  std::string_view name;
  void (*read)(PackedFolder&);
};
constexpr std::array methods = {Method{"gptq", read_gptq}, Method{"awq", read_awq},
                                Method{"bitsandbytes", read_bitsandbytes}, Method{"fp8", read_fp8}};

// The section, and its method: of config.json, else of the file beside it.
std::optional<Json> section_of(const fs::path& folder, const Json& config, std::string& method) {
  if (const Json* section = config.find("quantization_config");
      section != nullptr && !section->is_null()) {
    const Json* name = section->find("quant_method");
    if (name != nullptr && name->is_string()) method = name->as_string();
    for (const char* key : {"load_in_4bit", "load_in_8bit"})
      if (const Json* on = section->find(key); on != nullptr && *on == Json(true))
        method = "bitsandbytes";
    return *section;
  }
  if (config.find("compression_config") != nullptr) return std::nullopt;
  for (const auto& [file, name] :
       {std::pair{"quantize_config.json", "gptq"}, std::pair{"quant_config.json", "awq"}}) {
    if (!fs::exists(folder / file)) continue;
    Json section = parse_json(read_text_file_in(folder, file, 16u << 20), (folder / file).string());
    method = name;
    if (const Json* said = section.find("quant_method"); said != nullptr && said->is_string())
      method = said->as_string();
    return section;
  }
  return std::nullopt;
}

std::string key_list(std::initializer_list<const char*> keys) {
  std::string text;
  for (const char* key : keys) text += (text.empty() ? "" : " or ") + std::string(key);
  return text;
}

}  // namespace

std::vector<std::string> PackedFolder::modules_with(std::string_view suffix) const {
  std::vector<std::string> modules;
  const std::string end = "." + std::string(suffix);
  for (const auto& [name, tensor] : stored)
    if (name.ends_with(end)) modules.push_back(name.substr(0, name.size() - end.size()));
  return modules;
}

std::vector<RawPlane> PackedFolder::take(const std::string& module,
                                         std::span<const std::string> suffixes) {
  std::vector<RawPlane> planes;
  for (const std::string& suffix : suffixes) {
    const auto it = stored.find(module + "." + suffix);
    if (it == stored.end()) continue;
    planes.push_back(
        {suffix, std::string(dtype_name(it->second.dtype)), it->second.shape, it->second.bytes});
    stored.erase(it);
  }
  return planes;
}

void PackedFolder::wrong(const std::string& module, const std::string& message,
                         const std::string& found, const std::string& need) const {
  fail_input("MO-012", message,
             {{"folder", folder.string()},
              {"module", pare::quoted(module)},
              {"found", found},
              {"need", need}});
}

void PackedFolder::demand(const std::string& module, const std::vector<RawPlane>& planes,
                          const std::vector<RawPlane>& plan) const {
  for (const RawPlane& want : plan) {
    const RawPlane* have = find_plane(planes, want.suffix);
    const std::string need = fmt::format("{} {}", want.dtype, shape_text(want.shape));
    if (have == nullptr)
      wrong(module, want.suffix + " of a quantized module is missing", "nothing", need);
    if (have->dtype != want.dtype || have->shape != want.shape)
      wrong(module, want.suffix + " of a quantized module has the wrong type or shape",
            fmt::format("{} {}", have->dtype, shape_text(have->shape)), need);
  }
}

void PackedFolder::add(const std::string& module, CheckpointTensor tensor,
                       std::vector<RawPlane> planes,
                       std::function<Tensor(const std::vector<RawPlane>&)> make) {
  tensor.upright = true;
  tensor.load = [planes = std::move(planes), make = std::move(make), module] {
    for (const RawPlane& p : planes) touch(p.bytes, module);
    try {
      return make(planes);
    } catch (Error& e) {
      throw e.with("module", module);
    }
  };
  checkpoint.tensors[module + ".weight"] = std::move(tensor);
}

const Json* PackedFolder::find(std::initializer_list<const char*> keys) const {
  for (const char* key : keys)
    if (const Json* value = section.find(key); value != nullptr && !value->is_null()) return value;
  return nullptr;
}

i64 PackedFolder::integer(std::initializer_list<const char*> keys, i64 from, i64 to) const {
  const Json* value = find(keys);
  const bool good =
      value != nullptr && value->is_int() && value->as_int() >= from && value->as_int() <= to;
  if (!good)
    refuse(key_list(keys).c_str(), value != nullptr ? value->dump() : "nothing",
           fmt::format("{} to {}", from, to));
  return value->as_int();
}

bool PackedFolder::flag(std::initializer_list<const char*> keys, bool fallback) const {
  const Json* value = find(keys);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) refuse(key_list(keys).c_str(), value->dump(), "true or false");
  return value->as_bool();
}

void PackedFolder::refuse(const char* key, const std::string& found,
                          const std::string& need) const {
  fail_input("MO-011", "the quantization config says something that cannot be read",
             {{"folder", folder.string()},
              {"key", std::string("quantization_config.") + key},
              {"found", found},
              {"need", need}});
}

void PackedFolder::spare_zero_bias(const std::string& module) {
  const auto it = stored.find(module + ".bias");
  if (it == stored.end()) return;
  touch(it->second.bytes, it->first);
  const auto& bytes = it->second.bytes.bytes;
  if (std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }))
    checkpoint.spare.insert(it->first);
}

bool read_packed(const fs::path& folder, const Json& config, StoredTensors& stored,
                 Checkpoint& checkpoint) {
  std::string method;
  const std::optional<Json> section = section_of(folder, config, method);
  if (!section) return false;
  for (const Method& m : methods)
    if (m.name == method) {
      PackedFolder packed{folder, *section, stored, checkpoint};
      m.read(packed);
      return true;
    }
  return false;
}

i64 config_group(const PackedModule& m) {
  const i64 group = group_columns(m.scheme, m.cols);
  const bool said = m.scheme.grouping == Grouping::group && m.scheme.cols == group;
  return said || group < m.cols ? group : -1;
}

const PackedModule& shared_settings(const std::vector<PackedModule>& modules, Json::Array& skipped,
                                    const char* what,
                                    bool (*same)(const PackedModule&, const PackedModule&)) {
  const PackedModule* first = nullptr;
  for (const PackedModule& m : modules) {
    if (!m.quantized)
      skipped.emplace_back(m.name);
    else if (first == nullptr)
      first = &m;
    else if (!same(m, *first))
      cannot_share(m, *first, what);
  }
  PARE_CHECK(first != nullptr);
  return *first;
}

void cannot_share(const PackedModule& a, const PackedModule& b, const char* what) {
  fail_input("MO-031", fmt::format("the format has one {} for the whole model", what),
             {{"tensor", a.name},
              {"found", to_string(a.scheme)},
              {"need", fmt::format("{}, as {} has", to_string(b.scheme), b.name)}},
             "quantize all matrices alike, or export to compressed-tensors");
}

}  // namespace pare
