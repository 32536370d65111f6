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

Json read_config_file(const fs::path& path) {
  Json config = parse_json(read_text_file(path, 64u << 20), path.string());
  if (!config.is_object())
    fail_input("MO-002", "config.json is not an object", {{"file", path.string()}});
  return config;
}

Json read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  if (!fs::exists(path))
    fail_input("MO-002", "the folder has no config.json", {{"folder", folder.string()}},
               "a model folder is what Transformers' save_pretrained writes");
  return read_config_file(path);
}

// Finds where each slot lies and keeps count of what was used.
class Assembler {
 public:
  explicit Assembler(Checkpoint checkpoint) : c_(std::move(checkpoint)) {}

  Model model() {
    Model m;
    m.config = std::move(c_.config);
    take_notes(m);
    const std::optional<KvScheme> kv = m.spec.kv ? m.spec.kv : c_.kv;
    config_ = &m.config;
    family_ = &family_of(m.config);
    m.family = std::string(family_->name);
    m.path = c_.path;
    m.tokenizer = c_.tokenizer;
    m.spec = family_->parse(m.config);
    m.spec.kv = kv;
    check(m.spec);
    find_prefix(m.spec);
    set_schemes(m.spec);
    for (const Slot& slot : slots(m.spec)) m.weights.emplace(slot.name, weight_of(slot, m.spec));
    compare_tied_head(m.spec);
    refuse_leftovers(m.spec);
    check(m);
    return m;
  }

 private:
  // Files saved from the bare model lack the front of every name.
  void find_prefix(const Spec& spec) {
    const std::vector<Slot> list = slots(spec);
    const std::string first = family_->source(list[0], spec, *config_).name;
    if (c_.tensors.contains(first) || family_->base_prefix.empty() ||
        !first.starts_with(family_->base_prefix))
      return;
    if (c_.tensors.contains(first.substr(family_->base_prefix.size())))
      strip_ = std::string(family_->base_prefix);
  }

  Source source_of(const Slot& slot, const Spec& spec) const {
    Source source = family_->source(slot, spec, *config_);
    if (!strip_.empty() && source.name.starts_with(strip_)) source.name.erase(0, strip_.size());
    return source;
  }

  // The schemes that the file has, so that slots(spec) then says what is there.
  void set_schemes(Spec& spec) {
    std::map<std::string, std::string> source_names;  // by slot
    for (const Slot& slot : slots(spec))
      if (!slot.vector) source_names[slot.name] = source_of(slot, spec).name;
    const auto found = [&](const std::string& slot) {
      const auto it = c_.tensors.find(source_names[slot]);
      return it != c_.tensors.end() ? &it->second : nullptr;  // null: reported by weight_of
    };
    if (const CheckpointTensor* t = found("embed.weight")) spec.embed = t->scheme;
    for (auto& [name, linear] : linears(spec)) {
      if (name == "head" && spec.tied) continue;
      const std::string slot = name + ".weight";
      if (const CheckpointTensor* t = found(slot)) {
        linear->scheme = t->scheme;
        linear->permuted = !t->permutation.empty();
      }
      const auto it = c_.activations.find(module_of(source_names[slot]));
      if (it != c_.activations.end()) linear->activation = it->second;
    }
    if (spec.tied) spec.head.scheme = spec.embed;
  }

  const CheckpointTensor& find(const std::string& name, const Slot& slot) {
    const auto it = c_.tensors.find(name);
    if (it == c_.tensors.end()) {
      std::vector<std::string> names;
      for (const auto& [key, value] : c_.tensors) names.push_back(key);
      const std::string near = nearest(name, names);
      fail_input("MO-001", "a tensor of the model is missing",
                 {{"model", c_.path.string()},
                  {"tensor", pare::quoted(name)},
                  {"need", shape_text(slot.shape)}},
                 near.empty() ? "" : "the nearest name is " + near);
    }
    used_.insert(name);
    if (!it->second.unreadable.empty())
      fail_input("MO-001", "a tensor has a type that weights cannot have",
                 {{"model", c_.path.string()},
                  {"tensor", pare::quoted(name)},
                  {"found", it->second.unreadable},
                  {"need", "F32, F16 or BF16"}});
    return it->second;
  }

  Weight static_scale(const Slot& slot, const Spec& spec) {
    Slot matrix = slot;
    matrix.name = slot.name.substr(0, slot.name.size() - 12) + "weight";
    const std::string name = module_of(source_of(matrix, spec).name) + ".input_scale";
    const CheckpointTensor& t = find(name, slot);
    i64 count = 1;
    for (i64 d : t.shape) count *= d;
    if (count != 1) mismatch(name, t.shape, slot);
    return {t.scheme, {1}, [load = t.load] {
              Tensor scale = load();
              scale.shape = {1};
              return scale;
            }};
  }

  Weight permutation(const Slot& slot, const Spec& spec) {
    Slot matrix = slot;
    matrix.name = slot.name.substr(0, slot.name.rfind('.')) + ".weight";
    const CheckpointTensor& t = find(source_of(matrix, spec).name, matrix);
    const std::vector<float> order(t.permutation.begin(), t.permutation.end());
    return {{}, {static_cast<i64>(order.size())}, [order] {
              return plain_tensor(order, {static_cast<i64>(order.size())});
            }};
  }

  // The slot's rows exist in the tensor and can be cut out of it.
  void check_rows(const Source& source, const CheckpointTensor& t, i64 rows, const Slot& slot) {
    const Scheme& s = t.scheme;
    for (const RowRange& r : source.rows) {
      if (r.begin < 0 || r.count < 0 || r.begin > rows || r.count > rows - r.begin)
        mismatch(source.name, t.shape, slot);
      const bool whole_blocks =
          s.grouping != Grouping::block ||
          (r.begin % s.rows == 0 && (r.count % s.rows == 0 || r.begin + r.count == rows));
      if (!whole_blocks)
        fail_input("MO-005", "a fused matrix is quantized in blocks that cross its parts",
                   {{"model", c_.path.string()},
                    {"tensor", pare::quoted(source.name)},
                    {"found", to_string(s)},
                    {"need", fmt::format("blocks that end with {}", slot.name)}});
    }
  }

  Weight weight_of(const Slot& slot, const Spec& spec) {
    if (slot.name.ends_with(".static_scale")) return static_scale(slot, spec);
    if (slot.name.ends_with(".permutation")) return permutation(slot, spec);
    const Source source = source_of(slot, spec);
    const CheckpointTensor& t = find(source.name, slot);
    std::vector<i64> shape = t.shape;
    const bool turned = source.transposed && shape.size() == 2 && !t.upright;
    if (turned) {
      if (!t.scheme.plain())
        fail_input("MO-005", "a transposed matrix is quantized",
                   {{"model", c_.path.string()}, {"tensor", pare::quoted(source.name)}});
      std::reverse(shape.begin(), shape.end());
    }
    if (!source.rows.empty() && !shape.empty()) {
      check_rows(source, t, shape[0], slot);
      shape[0] = 0;
      for (const RowRange& r : source.rows) shape[0] += r.count;
    }
    if (shape != slot.shape) mismatch(source.name, t.shape, slot);
    return {t.scheme, slot.shape, [load = t.load, rows = source.rows, turned] {
              Tensor tensor = load();
              if (turned) tensor = transpose(tensor);
              return rows.empty() ? tensor : select_rows(tensor, rows);
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

  // A tied model may store its head again, but only the same one: otherwise nobody can know which
  // of the two is meant.
  void compare_tied_head(const Spec& spec) {
    if (!spec.tied) return;
    Spec untied = spec;
    untied.tied = false;
    const std::vector<Slot> list = slots(untied);
    const auto source = [&](std::string_view name) {
      const auto it = std::find_if(list.begin(), list.end(),
                                   [&](const Slot& slot) { return slot.name == name; });
      return source_of(*it, untied).name;
    };
    const auto head = c_.tensors.find(source("head.weight"));
    if (head == c_.tensors.end() || !head->second.unreadable.empty()) return;
    const CheckpointTensor& embed = c_.tensors.find(source("embed.weight"))->second;
    used_.insert(head->first);
    if (head->second.scheme == embed.scheme && head->second.shape == embed.shape) {
      const Tensor a = embed.load(), b = head->second.load();
      if (a.codes.data() == b.codes.data()) return;
      if (std::equal(a.codes.bytes.begin(), a.codes.bytes.end(), b.codes.bytes.begin(),
                     b.codes.bytes.end()))
        return;
    }
    fail_input("MO-009",
               "the configuration ties the head to the embedding, but both are stored and differ",
               {{"model", c_.path.string()},
                {"tensor", pare::quoted(head->first)},
                {"found", fmt::format("{} {}, hash {:016x}", shape_text(head->second.shape),
                                      to_string(head->second.scheme), hash(head->second))},
                {"need", fmt::format("{} {}, hash {:016x}", shape_text(embed.shape),
                                     to_string(embed.scheme), hash(embed))}},
               "set tie_word_embeddings to false to use both, or remove the tensor");
  }

  static std::uint64_t hash(const CheckpointTensor& t) {  // FNV-1a
    std::uint64_t h = 0xcbf29ce484222325u;
    for (std::byte b : t.load().codes.bytes)
      h = (h ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
    return h;
  }

  void refuse_leftovers(const Spec& spec) {
    for (const auto& [name, tensor] : c_.tensors) {
      if (used_.contains(name) || family_->ignorable(name) || c_.spare.contains(name)) continue;
      if (!strip_.empty() && family_->ignorable(strip_ + name)) continue;
      std::vector<std::string> names;
      for (const Slot& slot : slots(spec))
        if (!slot.name.ends_with(".static_scale") && !slot.name.ends_with(".permutation"))
          names.push_back(source_of(slot, spec).name);
      const std::string near = nearest(name, names);
      fail_input("MO-003", "the model has a tensor that its configuration does not ask for",
                 {{"model", c_.path.string()},
                  {"tensor", pare::quoted(name)},
                  {"found", shape_text(tensor.shape)}},
                 near.empty() ? "" : "the nearest expected name is " + near);
    }
  }

  Checkpoint c_;
  const Json* config_ = nullptr;
  const Family* family_ = nullptr;
  std::string strip_;
  std::set<std::string, std::less<>> used_;
};

// PyTorch's .bin files are zip archives or bare pickles; llama2.c's begin with small integers.
bool looks_pickled(const fs::path& path) {
  const Blob file = map_file(path);
  if (file.size() < 4) return false;
  touch(file.slice(0, 4), path.string());
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(file.bytes[i]); };
  return (byte(0) == 'P' && byte(1) == 'K' && byte(2) == 3 && byte(3) == 4) ||
         (byte(0) == 0x80 && byte(1) >= 2 && byte(1) <= 5 && byte(3) != 0);
}

Model load_path(const fs::path& path) {
  std::error_code status;
  if (fs::is_directory(path, status)) {
    const Json config = read_config(path);
    return is_pare_form(config) ? read_pare_form(path, config)
                                : assemble(read_huggingface(path, config));
  }
  const std::string ext = path.extension().string();
  if (ext == ".gguf") return assemble(read_gguf(path));
  const bool pickle = ext == ".pt" || ext == ".pth" || ext == ".ckpt" || ext == ".pkl" ||
                      (ext == ".bin" && looks_pickled(path));
  if (ext == ".bin" && !pickle) return assemble(read_llama2c(path));
  if (ext == ".safetensors" || ext == ".json")
    fail_input("MO-004", "this is one file of a model", {{"file", path.string()}},
               fmt::format("give its folder: {}",
                           path.has_parent_path() ? path.parent_path().string() : "."));
  if (pickle)
    fail_input("MO-004", "pickled weights can run code when they are opened and are not read",
               {{"file", path.string()}},
               "convert them with Transformers' save_pretrained(folder, safe_serialization=True)");
  fail_input("MO-004", "this is not a model",
             {{"file", path.string()},
              {"need", "a Hugging Face folder, a .gguf file or a llama2.c .bin"}});
}

}  // namespace

std::string shape_text(const std::vector<i64>& shape) {
  std::string text;
  for (i64 d : shape) text += (text.empty() ? "" : " x ") + std::to_string(d);
  return text.empty() ? "scalar" : text;
}

fs::path tokenizer_in(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer.bin"})
    if (fs::exists(folder / name)) return folder;
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(folder, status))
    if (entry.path().extension() == ".tiktoken") return folder;
  return {};
}

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

std::string module_of(const std::string& name) {
  constexpr std::string_view suffix = ".weight";
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

CheckpointTensor stored_tensor(Code code, std::vector<i64> shape, const Blob& bytes,
                               const std::string& name) {
  Scheme scheme;
  scheme.code = code;
  return {scheme,
          shape,
          [scheme, shape, bytes, name] {
            touch(bytes, name);
            Tensor t;
            t.scheme = scheme;
            t.shape = shape;
            t.codes = bytes;
            return t;
          },
          {},
          false};
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

namespace {
Spec spec_of(const Json& config) {
  if (is_pare_form(config)) return pare_form_spec(config);
  const Json plain = without_marks(config);
  Spec spec = family_of(plain).parse(plain);
  check(spec);
  return spec;
}
}  // namespace

Spec spec_of_folder(const fs::path& folder) { return spec_of(read_config(folder)); }
Spec spec_of_config(const fs::path& file) { return spec_of(read_config_file(file)); }

fs::path find_tokenizer(const std::string& argument) {
  const fs::path path = resolve_model(argument);
  if (fs::is_directory(path) && tokenizer_in(path).empty())
    fail_input(
        "MO-006", "the folder has no tokenizer",
        {{"folder", path.string()},
         {"need", "tokenizer.json, tokenizer.model, vocab.json, *.tiktoken or tokenizer.bin"}});
  const fs::path beside = path.extension() == ".bin" ? llama2c_tokenizer(path) : fs::path();
  return beside.empty() ? path : beside;
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

KvScheme default_kv(const Spec& spec) {
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
    const bool any_code = slot.linear == nullptr && slot.name != "embed.weight";
    const bool scheme_fits =
        w.scheme == slot.scheme || (any_code && w.scheme.plain() && bits(w.scheme.code) >= 16);
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
