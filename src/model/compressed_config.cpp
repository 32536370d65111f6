// The configuration side of compressed-tensors.
//
// Readers of this form reject members they do not know inside the arguments, and newer packages add
// some, so what is written is the smallest set that every release since 2024 accepts. Reading is
// strict where mathematics is concerned: rotations, sparse forms and unknown formats are refused by
// name.
#include "model/compressed_config.h"

#include <algorithm>
#include <array>

#include "number/compressed.h"

namespace pare {
namespace {

constexpr auto readable = std::to_array<std::string_view>(
    {"pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized",
     "mxfp4-pack-quantized", "naive-quantized"});

bool empty(const Json* j) {
  return j == nullptr || j->is_null() || (j->is_object() && j->as_object().empty());
}

std::vector<ModuleTarget> targets_of(const Json* list, const char* key) {
  std::vector<ModuleTarget> out;
  if (list == nullptr || list->is_null()) return out;
  if (!list->is_array())
    fail_input("MO-011", "the quantization config has a list of modules that is none",
               {{"key", key}, {"found", list->type_name()}});
  for (const Json& item : list->as_array()) {
    ModuleTarget t;
    t.text = item.as_string();
    if (t.text.starts_with("re:")) {
      try {
        t.pattern.emplace("^(?:" + t.text.substr(3) + ")");
      } catch (const Error& e) {
        fail_input("MO-010", "a pattern of the quantization config cannot be used",
                   {{"found", pare::quoted(t.text)}, {"reason", e.message}});
      }
    }
    out.push_back(std::move(t));
  }
  return out;
}

std::string format_of(const Json& group, const Json& section) {
  for (const Json* format : {group.find("format"), section.find("format")})
    if (format != nullptr && format->is_string()) {
      const std::string& name = format->as_string();
      if (std::find(readable.begin(), readable.end(), name) != readable.end()) return name;
      fail_input("MO-011", "a compressed-tensors format that cannot be read",
                 {{"found", pare::quoted(name)},
                  {"need", "pack-, int-, float-, naive-, nvfp4-pack- or mxfp4-pack-quantized"}});
    }
  fail_input("MO-011", "the quantization config does not name a format",
             {{"key", "quantization_config.format"}});
}

CompressedGroup parse_group(const Json& json, const Json& section) {
  CompressedGroup g;
  g.targets = targets_of(json.find("targets"), "targets");
  g.format = format_of(json, section);
  const Json& weights = json.at("weights");
  if (g.format == "naive-quantized")
    g.format = weights.at("type") == Json("float") ? "float-quantized" : "int-quantized";
  g.scheme = parse_weight_args(weights, g.format);
  if (const Json* inputs = json.find("input_activations"))
    g.activation = parse_activation_args(*inputs);
  if (!empty(json.find("output_activations")))
    fail_input("MO-011", "the quantization config quantizes outputs, which is not supported",
               {{"key", "output_activations"}});
  return g;
}

// Members that would change the mathematics.
void refuse_others(const Json& section) {
  if (!empty(section.find("transform_config")))
    fail_input("MO-011", "the checkpoint is rotated by transforms, which cannot be read yet",
               {{"key", "quantization_config.transform_config"}});
  const Json* sparsity = section.find("sparsity_config");
  if (empty(sparsity)) return;
  const Json* format = sparsity->find("format");
  if (format == nullptr || *format == Json("dense")) return;
  fail_input("MO-011", "the checkpoint is stored sparse, which cannot be read yet",
             {{"key", "quantization_config.sparsity_config.format"}, {"found", format->dump()}});
}

// The cache's scales are measured while it runs; of the file's scheme the code is kept.
void read_cache(const Json& section, CompressedConfig& q) {
  const Json* cache = section.find("kv_cache_scheme");
  if (empty(cache)) return;
  q.quantizes_cache = true;
  const Json *type = cache->find("type"), *width = cache->find("num_bits");
  if (width == nullptr || *width != Json(8))
    fail_input("MO-011", "the checkpoint asks for a cache code that is not supported",
               {{"key", "quantization_config.kv_cache_scheme.num_bits"},
                {"found", width != nullptr ? width->dump() : "nothing"},
                {"need", "8"}});
  q.kv = type != nullptr && *type == Json("float") ? Code::e4m3 : Code::int8;
}

// A full set of members, as every release writes it.
Json complete(Json args, bool observed) {
  args.set("actorder", Json());
  if (args.find("block_structure") == nullptr) args.set("block_structure", Json());
  args.set("observer", observed ? Json("minmax") : Json());
  args.set("observer_kwargs", Json::object());
  return args;
}

}  // namespace

bool ModuleTarget::matches(const std::string& module) const {
  if (!pattern) return by_class() || text == module;
  RegexMatcher matcher(*pattern);
  std::size_t begin = 0, end = 0;
  return matcher.find(module, 0, begin, end);
}

const CompressedGroup* CompressedConfig::group_of(const std::string& module) const {
  for (const ModuleTarget& t : ignore)
    if (t.matches(module)) return nullptr;
  for (const bool by_class : {false, true})
    for (const CompressedGroup& g : groups)
      for (const ModuleTarget& t : g.targets)
        if (t.by_class() == by_class && t.matches(module)) return &g;
  return nullptr;
}

CompressedConfig parse_compressed_config(const Json& config) {
  CompressedConfig q;
  const Json* section = config.find("quantization_config");
  if (section == nullptr || section->is_null()) section = config.find("compression_config");
  if (section == nullptr || section->is_null()) return q;
  const Json* method = section->find("quant_method");
  if (method == nullptr || *method != Json("compressed-tensors"))
    fail_input("MO-011", "the checkpoint is quantized by a method that cannot be read yet",
               {{"key", "quantization_config.quant_method"},
                {"found", method != nullptr ? method->dump() : "nothing"},
                {"need", "compressed-tensors, gptq, awq, bitsandbytes, fp8 or pare"}});
  refuse_others(*section);
  read_cache(*section, q);
  q.ignore = targets_of(section->find("ignore"), "ignore");
  for (const Json::Member& m : section->at("config_groups").as_object()) {
    const Json* weights = m.second.find("weights");
    if (weights == nullptr || weights->is_null()) {  // a cache, or inputs of dense weights
      const Json* inputs = m.second.find("input_activations");
      const bool cache = q.quantizes_cache || empty(inputs);
      if (!cache)
        fail_input("MO-011", "a group quantizes inputs of dense weights, which is not supported",
                   {{"key", "quantization_config.config_groups." + m.first}});
      continue;
    }
    q.groups.push_back(parse_group(m.second, *section));
  }
  return q;
}

bool says_cache(const KvScheme& kv) { return kv == KvScheme(Code::e4m3); }

Json compressed_section(const std::vector<CompressedModule>& modules,
                        const std::optional<KvScheme>& kv) {
  struct Group {
    const CompressedModule* first;
    std::vector<std::string> names;
  };
  std::vector<Group> groups;
  Json::Array ignore;
  for (const CompressedModule& m : modules) {
    if (m.format.empty()) {
      ignore.emplace_back(m.name);
      continue;
    }
    auto it = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.first->scheme == m.scheme && g.first->activation == m.activation &&
             g.first->format == m.format;
    });
    if (it == groups.end()) it = groups.insert(groups.end(), {&m, {}});
    it->names.push_back(m.name);
  }
  PARE_CHECK(!groups.empty());
  const bool mixed = std::any_of(groups.begin(), groups.end(), [&](const Group& g) {
    return g.first->format != groups[0].first->format;
  });
  Json all = Json::object();
  for (std::size_t i = 0; i < groups.size(); i++) {
    const CompressedModule& m = *groups[i].first;
    Json::Array targets;
    if (groups.size() == 1)
      targets.emplace_back("Linear");
    else
      for (const std::string& name : groups[i].names) targets.emplace_back(name);
    Json inputs = activation_args(m.activation);
    if (!inputs.is_null()) inputs = complete(std::move(inputs), m.activation.is_static);
    Json group = Json::object({{"targets", Json(std::move(targets))},
                               {"weights", complete(weight_args(m.scheme), true)},
                               {"input_activations", std::move(inputs)},
                               {"output_activations", Json()}});
    if (mixed) group.set("format", m.format);
    all.set(fmt::format("group_{}", i), std::move(group));
  }
  Json cache;
  if (kv && says_cache(*kv))
    cache = complete(activation_args({Activation::Per::tensor, Code::e4m3, 0, true}), true);
  return Json::object(
      {{"quant_method", Json("compressed-tensors")},
       {"format", Json(mixed ? std::string("mixed-precision") : groups[0].first->format)},
       {"quantization_status", Json("compressed")},
       {"global_compression_ratio", Json()},
       {"kv_cache_scheme", std::move(cache)},
       {"ignore", Json(std::move(ignore))},
       {"config_groups", std::move(all)}});
}

}  // namespace pare
