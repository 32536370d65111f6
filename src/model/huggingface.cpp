// Hugging Face folders: dense, or quantized in compressed-tensors form. The forms of other programs
// (GPTQ, AWQ, bitsandbytes, FP8) take their tensors out first, in packed.cpp.
//
// A quantized module is several tensors under one name ("X.weight_packed", "X.weight_scale", ...).
// Their types and shapes are compared with what its scheme demands when the folder is opened, from
// the headers alone; the planes become one Tensor through number/compressed.h when it is asked for.
#include <cstring>

#include "file/io.h"
#include "model/checkpoint.h"
#include "model/compressed_config.h"
#include "model/packed.h"
#include "number/compressed.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

using Stored = StoredTensors;

struct Name {
  std::string module, suffix;  // of "module.suffix"
};
Name split(const std::string& tensor) {
  const std::size_t dot = tensor.rfind('.');
  if (dot == std::string::npos) return {"", tensor};
  return {tensor.substr(0, dot), tensor.substr(dot + 1)};
}

// All stored planes of one module.
std::vector<RawPlane> planes_of(const Stored& stored, const std::string& module) {
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

class Quantized {
 public:
  Quantized(const fs::path& folder, const std::string& module, const CompressedGroup& group,
            std::vector<RawPlane> planes)
      : folder_(folder), module_(module), group_(group), planes_(std::move(planes)) {}

  CheckpointTensor tensor() {
    find_shape();
    Scheme scheme = group_.scheme;
    if (!scheme.second_level && scheme.scale != Code::e8m0) scheme.scale = scale_code();
    check_planes(scheme);
    return {scheme,
            {rows_, cols_},
            [planes = planes_, scheme, format = group_.format, rows = rows_, cols = cols_,
             module = module_] {
              for (const RawPlane& p : planes) touch(p.bytes, module);
              try {
                return from_compressed(planes, scheme, format, rows, cols);
              } catch (Error& e) {
                throw e.with("module", module);
              }
            },
            {}};
  }

 private:
  [[noreturn]] void wrong(const std::string& message, const std::string& found,
                          const std::string& need) const {
    fail_input("MO-012", message,
               {{"folder", folder_.string()},
                {"module", pare::quoted(module_)},
                {"found", found},
                {"need", need}});
  }

  void find_shape() {
    if (const RawPlane* shape = plane(planes_, "weight_shape")) {
      if (shape->dtype != "I64" || shape->bytes.size() != 16)
        wrong("weight_shape of a quantized module is damaged", shape->dtype, "two I64");
      touch(shape->bytes, module_);
      std::memcpy(&rows_, shape->bytes.data(), 8);
      std::memcpy(&cols_, shape->bytes.data() + 8, 8);
    } else if (const RawPlane* weight = plane(planes_, "weight");
               weight != nullptr && weight->shape.size() == 2) {
      rows_ = weight->shape[0], cols_ = weight->shape[1];
    } else if (const RawPlane* packed = plane(planes_, "weight_packed");
               packed != nullptr && packed->dtype == "U8" && packed->shape.size() == 2) {
      rows_ = packed->shape[0], cols_ = 2 * packed->shape[1];
    } else {
      wrong("a quantized module has no weight, or no shape", "nothing",
            "weight, or weight_packed with weight_shape");
    }
    constexpr i64 most = i64{1} << 31;
    if (rows_ < 1 || cols_ < 1 || rows_ > most || cols_ > most)
      wrong("the shape of a quantized module cannot be", fmt::format("{} x {}", rows_, cols_),
            "at least 1 x 1");
  }

  Code scale_code() const {
    const RawPlane* scale = plane(planes_, "weight_scale");
    const std::optional<Dtype> dtype =
        scale != nullptr ? find_dtype(scale->dtype) : std::optional<Dtype>();
    const std::optional<Code> code = dtype ? plain_code(*dtype) : std::nullopt;
    if (!code)
      wrong("a module's scales are missing or have a type that cannot be read",
            scale != nullptr ? scale->dtype : "nothing", "F32, F16 or BF16");
    return *code;
  }

  // Exactly the planes that the scheme demands, with their types and sizes. Row-wise scales may be
  // (rows) or (rows, 1), single ones () or (1).
  void check_planes(const Scheme& scheme) const {
    const Scheme& s = scheme;
    if (s.grouping == Grouping::group && s.cols > 0 && cols_ % s.cols != 0)
      wrong("a module's columns are no multiple of the group", std::to_string(cols_),
            fmt::format("a multiple of {}", s.cols));
    const auto elements = [](const std::vector<i64>& shape) {
      i64 n = 1;
      for (i64 d : shape) n *= d;
      return n;
    };
    std::set<std::string> known = {"bias"};
    if (group_.activation.is_static) known.insert("input_scale");
    for (const RawPlane& want : plan_compressed(scheme, group_.format, rows_, cols_)) {
      known.insert(want.suffix);
      const RawPlane* have = plane(planes_, want.suffix);
      const std::string need = fmt::format("{} {}", want.dtype, shape_text(want.shape));
      if (have == nullptr)
        wrong(want.suffix + " of a quantized module is missing", "nothing", need);
      const bool fits = have->dtype == want.dtype && elements(have->shape) == elements(want.shape);
      if (!fits)
        wrong(want.suffix + " of a quantized module has the wrong type or shape",
              fmt::format("{} {}", have->dtype, shape_text(have->shape)), need);
    }
    for (const RawPlane& p : planes_)
      if (!known.contains(p.suffix))
        wrong("a quantized module has a tensor that its scheme does not have", p.suffix,
              group_.format + " with " + to_string(s));
  }

  const fs::path& folder_;
  const std::string& module_;
  const CompressedGroup& group_;
  std::vector<RawPlane> planes_;
  i64 rows_ = 0, cols_ = 0;
};

// Calibrated scales of a quantized cache, which Pare measures while it runs.
bool cache_scale(const std::string& tensor) {
  for (std::string_view end : {".k_scale", ".v_scale", ".q_scale", "k_proj.output_scale",
                               "v_proj.output_scale", "q_proj.output_scale"})
    if (tensor.ends_with(end)) return true;
  return false;
}

}  // namespace

Checkpoint read_huggingface(const fs::path& folder, const Json& config) {
  Checkpoint c;
  c.config = config;
  c.path = folder;
  c.tokenizer = tokenizer_in(folder);
  Stored stored;
  for (StoredTensor& t : open_safetensors_folder(folder)) stored.emplace(t.name, std::move(t));
  const bool packed = read_packed(folder, config, stored, c);
  const CompressedConfig quantization =
      packed ? CompressedConfig() : parse_compressed_config(config);
  c.kv = quantization.kv;
  std::set<std::string> quantized;
  for (const auto& [name, t] : stored) {
    const Name n = split(name);
    if (packed || (n.suffix != "weight_packed" && n.suffix != "weight_scale")) continue;
    if (!quantized.insert(n.module).second) continue;
    const CompressedGroup* group = quantization.group_of(n.module);
    if (group == nullptr)
      fail_input("MO-012", "a module is quantized, but the configuration does not say how",
                 {{"folder", folder.string()}, {"module", pare::quoted(n.module)}});
    c.tensors[n.module + ".weight"] =
        Quantized(folder, n.module, *group, planes_of(stored, n.module)).tensor();
    if (group->activation.per != Activation::Per::none) c.activations[n.module] = group->activation;
  }
  for (const auto& [name, t] : stored) {
    const Name n = split(name);
    const bool plane = n.suffix.starts_with("weight");
    if (quantized.contains(n.module) && plane) continue;
    if (quantization.quantizes_cache && cache_scale(name)) continue;
    if (const std::optional<Code> code = plain_code(t.dtype))
      c.tensors[name] = stored_tensor(*code, t.shape, t.bytes, name);
    else
      c.tensors[name] = {{}, t.shape, {}, std::string(dtype_name(t.dtype))};
  }
  return c;
}

}  // namespace pare
