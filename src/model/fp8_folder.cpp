// FP8 folders in the form of DeepSeek-V3 and Qwen3: e4m3 matrices with a multiplier for each block,
// or one for the whole matrix.
//
// Readers of this form quantize the inputs too: to e4m3, per token and 128 columns in the block
// form, per token or with a stored scale in the other. A folder that is read gets that activation.
#include "model/packed.h"
#include "number/fp8.h"

namespace pare {
namespace {

struct Settings {
  i64 rows = 0, cols = 0;  // of a block; 0: one scale a matrix
  bool is_static = false;
};

Settings settings_of(const PackedFolder& f) {
  Settings s;
  if (const Json* form = f.find({"fmt"}); form != nullptr && *form != Json("e4m3"))
    f.refuse("fmt", form->dump(), "e4m3");
  if (const Json* block = f.find({"weight_block_size"})) {
    const bool good = block->is_array() && block->as_array().size() == 2 &&
                      block->as_array()[0].is_int() && block->as_array()[1].is_int() &&
                      block->as_array()[0].as_int() >= 1 && block->as_array()[1].as_int() >= 1 &&
                      block->as_array()[0].as_int() <= (1 << 24) &&
                      block->as_array()[1].as_int() <= (1 << 24);
    if (!good) f.refuse("weight_block_size", block->dump(), "rows and columns");
    s.rows = block->as_array()[0].as_int();
    s.cols = block->as_array()[1].as_int();
  }
  if (const Json* scheme = f.find({"activation_scheme"})) {
    if (*scheme != Json("dynamic") && *scheme != Json("static"))
      f.refuse("activation_scheme", scheme->dump(), "dynamic or static");
    s.is_static = *scheme == Json("static");
  }
  if (s.is_static && s.rows > 0) f.refuse("activation_scheme", "\"static\" with blocks", "dynamic");
  return s;
}

Activation activation_of(const Settings& s) {
  Activation a;
  a.code = Code::e4m3;
  a.per = s.rows > 0    ? Activation::Per::group
          : s.is_static ? Activation::Per::tensor
                        : Activation::Per::token;
  if (s.rows > 0) a.group = s.cols;
  a.is_static = s.is_static;
  return a;
}

void add(PackedFolder& f, const std::string& module, const std::string& scale_name,
         const Settings& settings) {
  const std::string suffixes[] = {"weight", scale_name};
  std::vector<RawPlane> planes = f.take(module, suffixes);
  const RawPlane* weight = find_plane(planes, "weight");
  if (weight == nullptr || weight->dtype != "F8_E4M3" || weight->shape.size() != 2)
    f.wrong(module, "weight of a quantized module is missing or has the wrong type or shape",
            weight != nullptr ? fmt::format("{} {}", weight->dtype, shape_text(weight->shape))
                              : "nothing",
            "F8_E4M3 outputs x inputs");
  const i64 rows = weight->shape[0], cols = weight->shape[1];
  RawPlane* scale = nullptr;
  for (RawPlane& p : planes)
    if (p.suffix == scale_name) scale = &p;
  Scheme s;
  s.code = Code::e4m3;
  s.grouping = settings.rows > 0 ? Grouping::block : Grouping::tensor;
  s.rows = settings.rows, s.cols = settings.cols;
  const std::optional<Dtype> dtype = find_dtype(scale->dtype);
  const std::optional<Code> plain = dtype ? plain_code(*dtype) : std::nullopt;
  const bool powers = dtype == Dtype::F8_E8M0;
  if (!plain && !powers)
    f.wrong(module, scale_name + " has a type that cannot be read", scale->dtype,
            "F32, F16, BF16 or F8_E8M0");
  s.scale = powers ? Code::e8m0 : *plain;
  if (settings.rows == 0 && scale->shape.empty()) scale->shape = {1};
  const std::vector<i64> grid = settings.rows > 0
                                    ? std::vector<i64>{scale_rows(s, rows), scale_cols(s, cols)}
                                    : std::vector<i64>{1};
  f.demand(module, planes, {{scale_name, scale->dtype, grid, {}}});
  CheckpointTensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  f.add(module, t, planes, [s, scale_name, rows, cols](const std::vector<RawPlane>& p) {
    return from_fp8(p, s, scale_name, rows, cols);
  });
  f.checkpoint.tensors[module + ".weight"].upright = false;
  f.checkpoint.activations[module] = activation_of(settings);
}

// ---- writing ----

std::vector<RawPlane> plan(const Scheme& s, i64 rows, i64 cols, const std::string&) {
  return plan_fp8(s, rows, cols);
}
std::vector<RawPlane> pack(const Tensor& t, std::span<const std::int32_t>, const std::string&) {
  return to_fp8(t);
}

Json section(const std::vector<PackedModule>& modules) {
  Json::Array skipped;
  for (const PackedModule& m : modules)
    if (!m.quantized) skipped.emplace_back(m.name);
  return Json::object({{"quant_method", Json("fp8")},
                       {"fmt", Json("e4m3")},
                       {"activation_scheme", Json("dynamic")},
                       {"weight_block_size", Json::array({Json(128), Json(128)})},
                       {"modules_to_not_convert", Json(std::move(skipped))}});
}

Activation block_activation() { return activation_of({128, 128, false}); }

}  // namespace

void read_fp8(PackedFolder& f) {
  const Settings settings = settings_of(f);
  for (const char* name : {"weight_scale_inv", "weight_scale"})
    for (const std::string& module : f.modules_with(name)) {
      add(f, module, name, settings);
      if (!settings.is_static) continue;
      // Transformers' name of what others call input_scale.
      const auto it = f.stored.find(module + ".activation_scale");
      if (it == f.stored.end()) continue;
      StoredTensor scale = std::move(it->second);
      f.stored.erase(it);
      f.stored[module + ".input_scale"] = std::move(scale);
    }
}

const PackedForm fp8_form = {.name = "fp8",
                             .misfit = fp8_misfit,
                             .plan = plan,
                             .pack = pack,
                             .section = section,
                             .activation = block_activation()};

}  // namespace pare
