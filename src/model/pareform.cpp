// Pare's own form: what no interchange format can hold.
//
// A Hugging Face folder whose tensors have the slots' names; a quantized slot `X.weight` is stored
// as its planes X.weight.codes, .scales, .zeros, .mins, .super_scales, .super_mins, .mask.
// config.json keeps the original keys and says under quantization_config {"quant_method": "pare",
// "schemes": {"blocks.0.attn.q": "nf4:g64", ...}, "activations": {...}} what they mean. Described
// in docs/formats.md.
#include <set>

#include "file/safetensors.h"
#include "model/checkpoint.h"

namespace pare {

const PlaneName plane_names[7] = {{"codes", &Tensor::codes},
                                  {"scales", &Tensor::scales},
                                  {"zeros", &Tensor::zeros},
                                  {"mins", &Tensor::mins},
                                  {"super_scales", &Tensor::super_scales},
                                  {"super_mins", &Tensor::super_mins},
                                  {"mask", &Tensor::mask}};

namespace {

using Stored = std::map<std::string, StoredTensor, std::less<>>;

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

// Schemes and activations by Linear ("embed" too), checked against the names of the Spec.
void apply_schemes(Spec& spec, const Json& quantization) {
  const Json& schemes = quantization.at("schemes");
  auto all = linears(spec);
  const auto find = [&](const std::string& name) -> Linear* {
    for (auto& [known, linear] : all)
      if (known == name) return linear;
    return nullptr;
  };
  for (const Json::Member& m : schemes.as_object()) {
    const Scheme scheme = parse_scheme(m.second.as_string());
    Linear* linear = find(m.first);
    if (m.first == "embed")
      spec.embed = scheme;
    else if (linear != nullptr)
      linear->scheme = scheme;
    else
      fail_input("MO-013", "the quantization config names a matrix that the model does not have",
                 {{"found", pare::quoted(m.first)}});
  }
  if (const Json* activations = quantization.find("activations"))
    for (const Json::Member& m : activations->as_object()) {
      Linear* linear = find(m.first);
      if (linear == nullptr)
        fail_input("MO-013", "the quantization config names a matrix that the model does not have",
                   {{"found", pare::quoted(m.first)}});
      linear->activation = parse_activation(m.second.as_string());
    }
  if (spec.tied) spec.head.scheme = spec.embed;
}

class Reader {
 public:
  explicit Reader(Stored stored) : stored_(std::move(stored)) {}

  Weight weight(const Slot& slot) {
    const auto plain = stored_.find(slot.name);
    if (plain != stored_.end()) {
      const std::optional<Code> code = plain_code(plain->second.dtype);
      if (!code || plain->second.shape != slot.shape)
        fail_input(
            "MO-001", "a tensor has the wrong type or shape",
            {{"tensor", slot.name}, {"found", std::string(dtype_name(plain->second.dtype))}});
      used_.insert(slot.name);
      CheckpointTensor t = stored_tensor(*code, slot.shape, plain->second.bytes, slot.name);
      return {t.scheme, t.shape, t.load};
    }
    Tensor t;
    t.scheme = slot.scheme;
    t.shape = slot.shape;
    for (const PlaneName& p : plane_names) {
      const std::string name = fmt::format("{}.{}", slot.name, p.suffix);
      const auto it = stored_.find(name);
      if (it == stored_.end()) continue;
      used_.insert(name);
      t.*(p.plane) = it->second.bytes;
    }
    if (t.codes.size() == 0)
      fail_input("MO-001", "a tensor of the model is missing", {{"tensor", slot.name}});
    check(t, slot.name);
    return {t.scheme, t.shape, [t, name = slot.name] {
              touch(t.codes, name);
              return t;
            }};
  }

  void refuse_leftovers() const {
    for (const auto& [name, tensor] : stored_)
      if (!used_.contains(name))
        fail_input("MO-003", "the model has a tensor that its configuration does not ask for",
                   {{"tensor", pare::quoted(name)}});
  }

 private:
  Stored stored_;
  std::set<std::string> used_;
};

}  // namespace

Model read_pare_form(const std::filesystem::path& folder, const Json& config) {
  Model m;
  m.config = config;
  m.path = folder;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer.bin"})
    if (std::filesystem::exists(folder / name)) m.tokenizer = folder;
  const Json& quantization = config.at("quantization_config");
  Json original = config;
  original.erase("quantization_config");
  original.erase("pare");
  const Family& family = family_of(original);
  m.family = std::string(family.name);
  m.spec = family.parse(original);
  check(m.spec);
  if (const Json* tied = quantization.find("tied")) m.spec.tied = tied->as_bool();
  apply_schemes(m.spec, quantization);
  check(m.spec);
  Stored stored;
  for (StoredTensor& t : open_safetensors_folder(folder)) stored.emplace(t.name, std::move(t));
  Reader reader(std::move(stored));
  for (const Slot& slot : slots(m.spec)) m.weights.emplace(slot.name, reader.weight(slot));
  reader.refuse_leftovers();
  // Plain matrices have the code they are stored in.
  for (auto& [name, linear] : linears(m.spec))
    if (const auto it = m.weights.find(name + ".weight");
        it != m.weights.end() && linear->scheme.plain())
      linear->scheme = it->second.scheme;
  if (m.spec.embed.plain()) m.spec.embed = m.weights.find("embed.weight")->second.scheme;
  if (m.spec.tied) m.spec.head.scheme = m.spec.embed;
  check(m);
  return m;
}

}  // namespace pare
