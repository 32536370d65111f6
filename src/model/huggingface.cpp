// Hugging Face folders: dense, or quantized in compressed-tensors form.
//
// compressed-tensors names modules by class, exact path or regular expression, groups first match
// wins; what `ignore` names stays dense. A module's planes become one Tensor through
// number/compressed.
#include <regex.h>

#include <algorithm>
#include <set>

#include "file/safetensors.h"
#include "model/checkpoint.h"
#include "number/compressed.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::optional<Code> plain_code(Dtype dtype) {
  switch (dtype) {
    case Dtype::F32:
      return Code::f32;
    case Dtype::F16:
      return Code::f16;
    case Dtype::BF16:
      return Code::bf16;
    default:
      return std::nullopt;
  }
}

// POSIX extended expressions: linear-time matching, no look-around (which these lists do not use).
bool matches_expression(const std::string& pattern, const std::string& name) {
  regex_t compiled;
  if (pattern.size() > 1000 ||
      regcomp(&compiled, ("^(" + pattern + ")").c_str(), REG_EXTENDED | REG_NOSUB) != 0)
    fail_input("MO-010", "a pattern of the quantization config cannot be used",
               {{"found", pare::quoted(pattern)}});
  const bool found = regexec(&compiled, name.c_str(), 0, nullptr, 0) == 0;
  regfree(&compiled);
  return found;
}

bool names_module(const std::string& target, const std::string& module) {
  if (target.starts_with("re:")) return matches_expression(target.substr(3), module);
  return target == module || target == "Linear";
}

struct Group {
  std::vector<std::string> targets;
  Scheme scheme;
  Activation activation;
  std::string format;
};

struct Quantization {
  std::vector<Group> groups;
  std::vector<std::string> ignore;

  const Group* group_of(const std::string& module) const {
    for (const std::string& name : ignore)
      if (name != "Linear" && names_module(name, module)) return nullptr;
    const Group* by_class = nullptr;
    for (const Group& g : groups)
      for (const std::string& target : g.targets) {
        if (target == "Linear")
          by_class = by_class == nullptr ? &g : by_class;
        else if (names_module(target, module))
          return &g;
      }
    return by_class;
  }
};

Quantization parse_quantization(const Json& config) {
  Quantization q;
  const Json* section = config.find("quantization_config");
  if (section == nullptr || section->is_null()) return q;
  const Json* method = section->find("quant_method");
  const std::string name =
      method != nullptr && method->is_string() ? method->as_string() : "nothing";
  if (name != "compressed-tensors")
    fail_input("MO-011", "the checkpoint is quantized by a method that cannot be read yet",
               {{"key", "quantization_config.quant_method"},
                {"found", pare::quoted(name)},
                {"need", "compressed-tensors or pare"}});
  const auto words = [](const Json* list) {
    std::vector<std::string> out;
    if (list != nullptr && list->is_array())
      for (const Json& item : list->as_array()) out.push_back(item.as_string());
    return out;
  };
  q.ignore = words(section->find("ignore"));
  const Json* outer = section->find("format");
  for (const Json::Member& member : section->at("config_groups").as_object()) {
    Group g;
    g.targets = words(member.second.find("targets"));
    const Json* own = member.second.find("format");
    const Json* format = own != nullptr && own->is_string() ? own : outer;
    g.format = format != nullptr && format->is_string() ? format->as_string() : "";
    static const std::set<std::string> known = {"pack-quantized",       "int-quantized",
                                                "float-quantized",      "nvfp4-pack-quantized",
                                                "mxfp4-pack-quantized", "naive-quantized"};
    if (!known.contains(g.format))
      fail_input("MO-011", "a compressed-tensors format that cannot be read",
                 {{"found", pare::quoted(g.format)},
                  {"need", "pack-, int-, float-, naive-, nvfp4-pack- or mxfp4-pack-quantized"}});
    const Json* weights = member.second.find("weights");
    if (weights == nullptr || weights->is_null()) continue;  // inputs only: nothing is stored
    if (g.format == "naive-quantized")
      g.format = weights->at("type") == Json("float") ? "float-quantized" : "int-quantized";
    g.scheme = parse_weight_args(*weights, g.format);
    if (const Json* inputs = member.second.find("input_activations"); inputs != nullptr)
      g.activation = parse_activation_args(*inputs);
    q.groups.push_back(std::move(g));
  }
  return q;
}

// All stored planes of one module.
std::vector<RawPlane> planes_of(const std::map<std::string, StoredTensor>& stored,
                                const std::string& module) {
  std::vector<RawPlane> planes;
  const std::string front = module + ".";
  for (auto it = stored.lower_bound(front); it != stored.end() && it->first.starts_with(front);
       ++it) {
    const std::string suffix = it->first.substr(front.size());
    if (suffix.find('.') != std::string::npos) continue;
    planes.push_back(
        {suffix, std::string(dtype_name(it->second.dtype)), it->second.shape, it->second.bytes});
  }
  return planes;
}

const RawPlane* plane(const std::vector<RawPlane>& planes, std::string_view suffix) {
  for (const RawPlane& p : planes)
    if (p.suffix == suffix) return &p;
  return nullptr;
}

// (rows, columns) of a quantized module from its planes alone.
std::pair<i64, i64> module_shape(const std::vector<RawPlane>& planes, const std::string& module) {
  if (const RawPlane* shape = plane(planes, "weight_shape");
      shape != nullptr && shape->dtype == "I64" && shape->bytes.size() == 16) {
    std::int64_t d[2];
    std::copy_n(shape->bytes.data(), 16, reinterpret_cast<std::byte*>(d));
    if (d[0] > 0 && d[1] > 0 && d[0] < (i64{1} << 31) && d[1] < (i64{1} << 31)) return {d[0], d[1]};
  }
  if (const RawPlane* weight = plane(planes, "weight");
      weight != nullptr && weight->shape.size() == 2)
    return {weight->shape[0], weight->shape[1]};
  if (const RawPlane* packed = plane(planes, "weight_packed");
      packed != nullptr && packed->dtype == "U8" && packed->shape.size() == 2)
    return {packed->shape[0], 2 * packed->shape[1]};
  fail_input("MO-012", "a quantized module has no weight, or no shape",
             {{"module", pare::quoted(module)}});
}

void add_quantized(Checkpoint& c, const std::map<std::string, StoredTensor>& stored,
                   const std::string& module, const Group& group) {
  const std::vector<RawPlane> planes = planes_of(stored, module);
  const auto [rows, cols] = module_shape(planes, module);
  Scheme scheme = group.scheme;
  if (const RawPlane* scale = plane(planes, "weight_scale");
      scale != nullptr && !scheme.second_level && scheme.scale != Code::e8m0) {
    const std::optional<Dtype> dtype = find_dtype(scale->dtype);
    const std::optional<Code> code = dtype ? plain_code(*dtype) : std::nullopt;
    if (!code)
      fail_input("MO-012", "a module's scales have a type that cannot be read",
                 {{"module", pare::quoted(module)}, {"found", scale->dtype}});
    scheme.scale = *code;
  }
  const std::string format = group.format;
  try {  // planes must fit before anything is promised
    plan_compressed(scheme, format, rows, cols);
    check(from_compressed(planes, scheme, format, rows, cols), module);
  } catch (Error& e) {
    e.with("module", module).with("folder", c.path.string());
    throw;
  }
  c.tensors[module + ".weight"] = {
      scheme, {rows, cols}, [planes, scheme, format, rows = rows, cols = cols, module] {
        for (const RawPlane& p : planes) touch(p.bytes, module);
        return from_compressed(planes, scheme, format, rows, cols);
      }};
  if (group.activation.per != Activation::Per::none) c.activations[module] = group.activation;
}

}  // namespace

Checkpoint read_huggingface(const fs::path& folder, const Json& config) {
  Checkpoint c;
  c.config = config;
  c.path = folder;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer.bin"})
    if (fs::exists(folder / name)) c.tokenizer = folder;
  const Quantization quantization = parse_quantization(config);
  std::map<std::string, StoredTensor> stored;
  for (StoredTensor& t : open_safetensors_folder(folder)) stored.emplace(t.name, std::move(t));
  static const std::set<std::string> plane_suffixes = {
      "weight_packed",       "weight_scale", "weight_shape",       "weight_zero_point",
      "weight_global_scale", "weight_g_idx", "input_global_scale", "input_zero_point"};
  std::set<std::string> quantized;
  for (const auto& [name, t] : stored) {
    const std::size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot == std::string::npos ? 0 : dot),
                      suffix = name.substr(dot == std::string::npos ? 0 : dot + 1);
    if (suffix != "weight_packed" && suffix != "weight_scale") continue;
    const Group* group = quantization.group_of(module);
    if (group == nullptr)
      fail_input("MO-012", "a module is quantized, but the configuration does not say how",
                 {{"folder", folder.string()}, {"module", pare::quoted(module)}});
    if (stored.contains(module + ".weight_g_idx"))
      fail_input(
          "MO-012",
          "a module's columns are permuted (activation ordering by group), which is not supported",
          {{"module", pare::quoted(module)}});
    if (quantized.insert(module).second) add_quantized(c, stored, module, *group);
  }
  for (const auto& [name, t] : stored) {
    const std::size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot == std::string::npos ? 0 : dot),
                      suffix = name.substr(dot == std::string::npos ? 0 : dot + 1);
    if (quantized.contains(module) && (suffix == "weight" || plane_suffixes.contains(suffix)))
      continue;
    const std::optional<Code> code = plain_code(t.dtype);
    if (!code) {
      // A buffer of another type is only an error when a slot asks for it: it then is missing by
      // name.
      continue;
    }
    c.tensors[name] = stored_tensor(*code, t.shape, t.bytes, name);
  }
  return c;
}

}  // namespace pare
