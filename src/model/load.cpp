// Opening a model.
//
// What MODEL means is decided by what lies there: a folder with config.json, a .gguf file, a
// llama2.c checkpoint, or a name in the hub cache. All of them become a Checkpoint (tensors under
// Hugging Face names), and `assemble` maps it onto the slots of its Spec: every slot must have a
// source, every tensor a slot.
#include <algorithm>
#include <numeric>
#include <set>

#include "file/hub.h"
#include "file/io.h"
#include "model/checkpoint.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string shape_text(const std::vector<i64>& shape) {
  std::string text;
  for (i64 d : shape) text += (text.empty() ? "" : " x ") + std::to_string(d);
  return text.empty() ? "scalar" : text;
}

Json read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  if (!fs::exists(path))
    fail_input("MO-002", "the folder has no config.json", {{"folder", folder.string()}},
               "a model folder is what Transformers' save_pretrained writes");
  Json config = parse_json(read_text_file(path, 64u << 20), path.string());
  if (!config.is_object())
    fail_input("MO-002", "config.json is not an object", {{"file", path.string()}});
  return config;
}

bool is_pare_form(const Json& config) {
  const Json* quantization = config.find("quantization_config");
  const Json* method = quantization != nullptr ? quantization->find("quant_method") : nullptr;
  return method != nullptr && *method == Json("pare");
}

// Finds where each slot lies and keeps count of what was used.
class Assembler {
 public:
  explicit Assembler(Checkpoint checkpoint)
      : c_(std::move(checkpoint)), family_(family_of(c_.config)) {}

  Model model() {
    Model m;
    m.family = std::string(family_.name);
    m.config = c_.config;
    m.path = c_.path;
    m.tokenizer = c_.tokenizer;
    m.spec = family_.parse(c_.config);
    check(m.spec);
    find_prefix(m.spec);
    set_schemes(m.spec);
    for (const Slot& slot : slots(m.spec)) m.weights.emplace(slot.name, weight_of(slot, m.spec));
    refuse_leftovers(m.spec);
    check(m);
    return m;
  }

 private:
  // Files saved from the bare model lack the front of every name.
  void find_prefix(const Spec& spec) {
    const std::vector<Slot> list = slots(spec);
    const std::string first = family_.source(list[0], spec, c_.config).name;
    if (c_.tensors.contains(first) || family_.base_prefix.empty() ||
        !first.starts_with(family_.base_prefix))
      return;
    if (c_.tensors.contains(first.substr(family_.base_prefix.size())))
      strip_ = std::string(family_.base_prefix);
  }

  Source source_of(const Slot& slot, const Spec& spec) const {
    Source source = family_.source(slot, spec, c_.config);
    if (!strip_.empty() && source.name.starts_with(strip_)) source.name.erase(0, strip_.size());
    return source;
  }

  // The schemes that the file has, so that slots(spec) then says what is there.
  void set_schemes(Spec& spec) {
    const Spec plain = spec;
    for (const Slot& slot : slots(plain)) {
      if (slot.vector) continue;
      const auto it = c_.tensors.find(source_of(slot, plain).name);
      if (it == c_.tensors.end()) continue;  // reported when the slot is loaded
      if (slot.name == "embed.weight") spec.embed = it->second.scheme;
    }
    if (spec.tied) spec.head.scheme = spec.embed;
    for (auto& [name, linear] : linears(spec)) {
      if (name == "head" && spec.tied) continue;
      Slot slot;
      for (const Slot& s : slots(plain))
        if (s.name == name + ".weight") slot = s;
      const std::string source = source_of(slot, plain).name;
      if (const auto it = c_.tensors.find(source); it != c_.tensors.end())
        linear->scheme = it->second.scheme;
      if (const auto it = c_.activations.find(module_of(source)); it != c_.activations.end())
        linear->activation = it->second;
    }
  }

  const CheckpointTensor& find(const std::string& name, const Slot& slot) {
    const auto it = c_.tensors.find(name);
    if (it != c_.tensors.end()) {
      used_.insert(name);
      return it->second;
    }
    std::vector<std::string> names;
    for (const auto& [key, value] : c_.tensors) names.push_back(key);
    const std::string near = nearest(name, names);
    fail_input("MO-001", "a tensor of the model is missing",
               {{"model", c_.path.string()},
                {"tensor", pare::quoted(name)},
                {"need", shape_text(slot.shape)}},
               near.empty() ? "" : "the nearest name is " + near);
  }

  Weight weight_of(const Slot& slot, const Spec& spec) {
    if (slot.name.ends_with(".static_scale")) {
      Slot matrix = slot;
      matrix.name = slot.name.substr(0, slot.name.size() - 12) + "weight";
      const std::string name = module_of(source_of(matrix, spec).name) + ".input_scale";
      const CheckpointTensor& t = find(name, slot);
      return {t.scheme, {1}, [load = t.load] {
                Tensor scale = load();
                scale.shape = {1};
                return scale;
              }};
    }
    const Source source = source_of(slot, spec);
    const CheckpointTensor& t = find(source.name, slot);
    std::vector<i64> shape = t.shape;
    if (source.transposed) {
      if (!t.scheme.plain())
        fail_input("MO-005", "a transposed matrix is quantized",
                   {{"tensor", pare::quoted(source.name)}});
      std::reverse(shape.begin(), shape.end());
    }
    i64 rows = shape.empty() ? 0 : shape[0];
    for (const RowRange& r : source.rows)
      if (r.begin < 0 || r.count < 0 || r.begin > rows || r.count > rows - r.begin)
        mismatch(source.name, t.shape, slot);
    if (!source.rows.empty()) {
      rows = 0;
      for (const RowRange& r : source.rows) rows += r.count;
      shape[0] = rows;
    }
    if (shape != slot.shape) mismatch(source.name, t.shape, slot);
    return {t.scheme, slot.shape, [load = t.load, source, scheme = t.scheme] {
              Tensor tensor = load();
              if (source.transposed && tensor.shape.size() == 2) tensor = transpose(tensor);
              return source.rows.empty() ? tensor : select_rows(tensor, source.rows);
            }};
  }

  [[noreturn]] void mismatch(const std::string& name, const std::vector<i64>& shape,
                             const Slot& slot) const {
    fail_input("MO-001", "a tensor's shape does not fit the configuration",
               {{"model", c_.path.string()},
                {"tensor", pare::quoted(name)},
                {"found", shape_text(shape)},
                {"need", fmt::format("{} for {}", shape_text(slot.shape), slot.name)}});
  }

  void refuse_leftovers(const Spec& spec) {
    for (const auto& [name, tensor] : c_.tensors) {
      if (used_.contains(name) || family_.ignorable(name) || name.ends_with(".input_scale"))
        continue;
      if (!strip_.empty() && family_.ignorable(strip_ + name)) continue;
      std::vector<std::string> names;
      for (const Slot& slot : slots(spec)) names.push_back(source_of(slot, spec).name);
      const std::string near = nearest(name, names);
      fail_input("MO-003", "the model has a tensor that its configuration does not ask for",
                 {{"model", c_.path.string()},
                  {"tensor", pare::quoted(name)},
                  {"found", shape_text(tensor.shape)}},
                 near.empty() ? "" : "the nearest expected name is " + near);
    }
  }

  Checkpoint c_;
  const Family& family_;
  std::string strip_;
  std::set<std::string, std::less<>> used_;
};

Model load_path(const fs::path& path) {
  std::error_code status;
  if (fs::is_directory(path, status)) {
    const Json config = read_config(path);
    return is_pare_form(config) ? read_pare_form(path, config)
                                : assemble(read_huggingface(path, config));
  }
  const std::string ext = path.extension().string();
  if (ext == ".gguf") return assemble(read_gguf(path));
  if (ext == ".bin") return assemble(read_llama2c(path));
  if (ext == ".safetensors" || ext == ".json")
    fail_input("MO-004", "this is one file of a model", {{"file", path.string()}},
               fmt::format("give its folder: {}",
                           path.has_parent_path() ? path.parent_path().string() : "."));
  if (ext == ".pt" || ext == ".pth" || ext == ".ckpt")
    fail_input("MO-004", "pickled weights can run code when they are opened and are not read",
               {{"file", path.string()}},
               "convert them with Transformers' save_pretrained(folder, safe_serialization=True)");
  fail_input("MO-004", "this is not a model",
             {{"file", path.string()},
              {"need", "a Hugging Face folder, a .gguf file or a llama2.c .bin"}});
}

bool holds_tokenizer(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer.bin"})
    if (fs::exists(folder / name)) return true;
  return false;
}

}  // namespace

std::string module_of(const std::string& name) {
  constexpr std::string_view suffix = ".weight";
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

std::vector<RowRange> halves_from_pairs(i64 heads, i64 head_dim) {
  std::vector<RowRange> rows;
  for (i64 h = 0; h < heads; h++)
    for (i64 half = 0; half < 2; half++)
      for (i64 j = 0; j < head_dim / 2; j++) rows.push_back({h * head_dim + 2 * j + half, 1});
  return rows;
}

CheckpointTensor stored_tensor(Code code, std::vector<i64> shape, const Blob& bytes,
                               const std::string& name) {
  Scheme scheme;
  scheme.code = code;
  return {scheme, shape, [scheme, shape, bytes, name] {
            touch(bytes, name);
            Tensor t;
            t.scheme = scheme;
            t.shape = shape;
            t.codes = bytes;
            return t;
          }};
}

Model assemble(Checkpoint checkpoint) { return Assembler(std::move(checkpoint)).model(); }

Model load_model(const std::string& argument, const LoadOptions& options) {
  const fs::path path = resolve_model(argument);
  Model model = load_path(path);
  if (!options.tokenizer.empty()) {
    if (!fs::exists(options.tokenizer))
      fail_input("MO-006", "there is no such tokenizer", {{"path", options.tokenizer}});
    model.tokenizer = options.tokenizer;
  }
  return model;
}

Spec spec_of_folder(const fs::path& folder) {
  const Json config = read_config(folder);
  return family_of(config).parse(config);
}

fs::path find_tokenizer(const std::string& argument) {
  const fs::path path = resolve_model(argument);
  if (fs::is_directory(path) && !holds_tokenizer(path))
    fail_input("MO-006", "the folder has no tokenizer",
               {{"folder", path.string()},
                {"need", "tokenizer.json, tokenizer.model, vocab.json or tokenizer.bin"}});
  return path;
}

std::vector<std::int32_t> end_tokens(const Model& model) {
  std::set<std::int32_t> ids;
  const auto add = [&](const Json& config) {
    const Json* eos = config.find("eos_token_id");
    if (eos == nullptr) return;
    const auto one = [&](const Json& id) {
      if (id.is_int() && id.as_int() >= 0 && id.as_int() < model.spec.vocab)
        ids.insert(static_cast<std::int32_t>(id.as_int()));
    };
    if (eos->is_array())
      for (const Json& id : eos->as_array()) one(id);
    else
      one(*eos);
  };
  add(model.config);
  const fs::path generation = model.path / "generation_config.json";
  if (fs::is_directory(model.path) && fs::exists(generation))
    add(parse_json(read_text_file(generation, 1u << 20), generation.string()));
  return {ids.begin(), ids.end()};
}

Code default_kv_code(const Spec& spec) {
  if (spec.kv) return *spec.kv;
  return spec.embed.plain() && spec.embed.code == Code::f32 ? Code::f32 : Code::f16;
}

void check(const Model& model) {
  const std::vector<Slot> list = slots(model.spec);
  std::set<std::string, std::less<>> wanted;
  for (const Slot& slot : list) {
    wanted.insert(slot.name);
    const auto it = model.weights.find(slot.name);
    if (it == model.weights.end())
      fail_input("MO-001", "a tensor of the model is missing",
                 {{"tensor", slot.name}, {"need", shape_text(slot.shape)}});
    const Weight& w = it->second;
    if (w.shape != slot.shape)
      fail_input("MO-001", "a tensor has the wrong shape",
                 {{"tensor", slot.name},
                  {"found", shape_text(w.shape)},
                  {"need", shape_text(slot.shape)}});
    const bool scheme_fits = slot.vector || slot.linear == nullptr
                                 ? w.scheme.plain() || w.scheme == slot.scheme
                                 : w.scheme == slot.scheme;
    if (!scheme_fits)
      fail_input("MO-001", "a tensor has the wrong scheme",
                 {{"tensor", slot.name},
                  {"found", to_string(w.scheme)},
                  {"need", to_string(slot.scheme)}});
  }
  for (const auto& [name, weight] : model.weights)
    if (!wanted.contains(name))
      fail_input("MO-003", "the model has a tensor that its Spec does not ask for",
                 {{"tensor", name}});
}

}  // namespace pare
