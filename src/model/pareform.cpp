// Pare's own form: what no interchange format can hold.
//
// A Hugging Face folder whose tensors have the slots' names; a quantized slot `X.weight` is stored
// as its planes X.weight.codes, .scales, .zeros, .mins, .super_scales, .super_mins, .mask, each a
// tensor with the type and shape that it has. config.json says under quantization_config
// {"quant_method": "pare", "version": 1, "spec": {...}} what they mean; the Spec is complete, so
// the form also holds architectures that no family's keys can describe. Described in
// docs/formats.md.
#include "file/io.h"
#include "model/checkpoint.h"

namespace pare {
namespace {

using Stored = std::map<std::string, StoredTensor, std::less<>>;

constexpr i64 form_version = 1;

struct Plane {
  TensorPlan plan;
  Blob Tensor::*blob;
};

bool stored_plain(const Scheme& s) { return s.plain() && bits(s.code) >= 16; }

// The planes of a slot under a scheme; a single one, with the slot's own name, for plain floats.
std::vector<Plane> planes_of(const std::string& slot, const std::vector<i64>& shape,
                             const Scheme& s) {
  if (stored_plain(s)) return {{{slot, dtype_of(s.code), shape}, &Tensor::codes}};
  const i64 rows = shape.size() < 2 ? 1 : shape[0], cols = shape.back();
  const i64 grid_rows = scale_rows(s, rows), grid_cols = scale_cols(s, cols);
  const i64 supers = s.super_count == 0 ? 1 : ceil_div(grid_cols, s.super_count);
  const i64 super_rows = s.super_count == 0 ? 1 : grid_rows;
  const bool minimum = s.offset == Offset::minimum;
  std::vector<Plane> planes;
  const auto add = [&](const char* suffix, Dtype dtype, i64 r, i64 c, Blob Tensor::*blob) {
    planes.push_back({{fmt::format("{}.{}", slot, suffix), dtype, {r, c}}, blob});
  };
  add("codes", Dtype::U8, rows, row_bytes(s, cols), &Tensor::codes);
  if (s.sparsity == Sparsity::bitmask)
    add("mask", Dtype::U8, rows, ceil_div(cols, 8), &Tensor::mask);
  if (s.plain()) return planes;
  add("scales", dtype_of(s.scale), grid_rows, grid_cols, &Tensor::scales);
  if (s.offset == Offset::zero) add("zeros", Dtype::I8, grid_rows, grid_cols, &Tensor::zeros);
  if (minimum) add("mins", dtype_of(s.scale), grid_rows, grid_cols, &Tensor::mins);
  if (s.second_level) {
    add("super_scales", dtype_of(s.super), super_rows, supers, &Tensor::super_scales);
    if (minimum) add("super_mins", dtype_of(s.super), super_rows, supers, &Tensor::super_mins);
  }
  return planes;
}

std::string type_and_shape(Dtype dtype, const std::vector<i64>& shape) {
  return fmt::format("{} {}", dtype_name(dtype), shape_text(shape));
}

class FormReader {
 public:
  FormReader(Stored stored, std::string folder)
      : stored_(std::move(stored)), folder_(std::move(folder)) {}

  Weight weight(const Slot& slot) {
    Tensor t;
    t.scheme = slot.scheme;
    t.shape = slot.shape;
    const auto plain = stored_.find(slot.name);
    const bool any_code = slot.linear == nullptr && slot.name != "embed.weight";
    if (any_code && plain != stored_.end())
      if (const std::optional<Code> code = plain_code(plain->second.dtype)) t.scheme.code = *code;
    for (const Plane& p : planes_of(slot.name, slot.shape, t.scheme)) {
      const auto it = stored_.find(p.plan.name);
      const std::string need = type_and_shape(p.plan.dtype, p.plan.shape);
      if (it == stored_.end()) wrong("a tensor of the model is missing", p.plan.name, "", need);
      if (it->second.dtype != p.plan.dtype || it->second.shape != p.plan.shape)
        wrong("a tensor has the wrong type or shape", p.plan.name,
              type_and_shape(it->second.dtype, it->second.shape), need);
      used_.insert(p.plan.name);
      t.*(p.blob) = it->second.bytes;
    }
    check(t, slot.name);
    return {t.scheme, t.shape, [t, name = slot.name] {
              touch(t.codes, name);
              for (const Blob* plane :
                   {&t.scales, &t.zeros, &t.mins, &t.super_scales, &t.super_mins, &t.mask})
                touch(*plane, name);
              return t;
            }};
  }

  void refuse_leftovers() const {
    for (const auto& [name, tensor] : stored_)
      if (!used_.contains(name))
        wrong("the model has a tensor that its configuration does not ask for", name,
              type_and_shape(tensor.dtype, tensor.shape), "", "MO-003");
  }

 private:
  [[noreturn]] void wrong(const char* message, const std::string& name, const std::string& found,
                          const std::string& need, const char* code = "MO-001") const {
    std::vector<Fact> facts = {{"model", folder_}, {"tensor", pare::quoted(name)}};
    if (!found.empty()) facts.push_back({"found", found});
    if (!need.empty()) facts.push_back({"need", need});
    fail_input(code, message, std::move(facts));
  }

  Stored stored_;
  std::string folder_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace

bool is_pare_form(const Json& config) {
  const Json* section = config.find("quantization_config");
  const Json* method = section != nullptr ? section->find("quant_method") : nullptr;
  return method != nullptr && *method == Json("pare");
}

Json pare_form_section(const Spec& spec) {
  Spec stored = spec;
  stored.kv.reset();  // a note, not part of the form
  return Json::object({{"quant_method", Json("pare")},
                       {"version", Json(form_version)},
                       {"spec", spec_to_json(stored)}});
}

Spec pare_form_spec(const Json& config) {
  const Json& section = config.at("quantization_config");
  const Json* version = section.find("version");
  if (version == nullptr || *version != Json(form_version))
    fail_input("MO-013", "the folder is of a version of Pare's form that cannot be read",
               {{"key", "quantization_config.version"},
                {"found", version != nullptr ? version->dump() : "nothing"},
                {"need", std::to_string(form_version)}});
  return spec_from_json(section.at("spec"));
}

std::vector<TensorPlan> pare_form_plan(const Model& m) {
  std::vector<TensorPlan> plan;
  for (const Slot& slot : slots(m.spec))
    for (Plane& p : planes_of(slot.name, slot.shape, m.weights.find(slot.name)->second.scheme))
      plan.push_back(std::move(p.plan));
  return plan;
}

void write_pare_form(const Model& m, ShardedWriter& writer, Progress& progress) {
  for (const Slot& slot : slots(m.spec)) {
    stop_if_interrupted();
    const Tensor t = m.weights.find(slot.name)->second.load();
    for (const Plane& p : planes_of(slot.name, slot.shape, t.scheme))
      writer.write(p.plan.name, (t.*(p.blob)).bytes);
    progress.add(1, slot.name);
  }
}

void write_slots(const std::filesystem::path& file, const Weights& weights) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, weight] : weights)
    for (Plane& p : planes_of(name, weight.shape, weight.scheme)) plan.push_back(std::move(p.plan));
  SafetensorsWriter writer(file, plan);
  for (const auto& [name, weight] : weights) {
    const Tensor t = weight.load();
    for (const Plane& p : planes_of(name, weight.shape, weight.scheme))
      writer.write(p.plan.name, (t.*(p.blob)).bytes);
  }
  writer.finish();
}

Weights read_slots(const std::filesystem::path& file, const Spec& spec) {
  Safetensors content = parse_safetensors(map_file(file), file.string());
  std::set<std::string, std::less<>> names;
  Stored stored;
  for (StoredTensor& t : content.tensors) {
    names.insert(t.name);
    stored.emplace(t.name, std::move(t));
  }
  FormReader reader(std::move(stored), file.string());
  Weights weights;
  for (const Slot& slot : slots(spec))
    if (names.contains(slot.name) || names.contains(slot.name + ".codes"))
      weights.emplace(slot.name, reader.weight(slot));
  reader.refuse_leftovers();
  return weights;
}

Model read_pare_form(const std::filesystem::path& folder, const Json& config) {
  Model m;
  m.config = config;
  m.path = folder;
  m.tokenizer = tokenizer_in(folder);
  m.spec = pare_form_spec(config);
  const Spec spec = m.spec;
  take_notes(m);
  const Json* type = config.find("model_type");
  const Family* family =
      type != nullptr && type->is_string() ? find_family(type->as_string()) : nullptr;
  m.family = std::string(family != nullptr ? family->name : family_of(config).name);
  Stored stored;
  for (StoredTensor& t : open_safetensors_folder(folder)) stored.emplace(t.name, std::move(t));
  FormReader reader(std::move(stored), folder.string());
  for (const Slot& slot : slots(spec)) m.weights.emplace(slot.name, reader.weight(slot));
  reader.refuse_leftovers();
  check(m);
  return m;
}

}  // namespace pare
