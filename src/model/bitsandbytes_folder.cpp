// bitsandbytes folders, as Transformers writes them: NF4 or FP4 with a quantization state beside
// each matrix, or int8 with the absmax of its rows.
//
// A folder is of one width. Eight-bit folders ask their readers to keep inputs beyond a threshold
// in 16 bits while the model runs; that belongs to the product, not to the weights, and is not
// imitated here.
#include "file/io.h"
#include "model/packed.h"
#include "number/bitsandbytes.h"

namespace pare {
namespace {

const std::string state_suffixes[] = {"weight.quant_state.bitsandbytes__nf4",
                                      "weight.quant_state.bitsandbytes__fp4"};
constexpr i64 most_values = i64{1} << 40;

i64 elements(const std::vector<i64>& shape) {
  i64 n = 1;
  for (i64 d : shape) n *= d;
  return n;
}

void demand_count(const PackedFolder& f, const std::string& module,
                  const std::vector<RawPlane>& planes, const std::string& suffix,
                  const std::string& dtype, i64 count) {
  const RawPlane* p = find_plane(planes, suffix);
  const std::string need = fmt::format("{} with {} elements", dtype, count);
  if (p == nullptr) f.wrong(module, suffix + " of a quantized module is missing", "nothing", need);
  if (p->dtype != dtype || elements(p->shape) != count)
    f.wrong(module, suffix + " of a quantized module has the wrong type or shape",
            fmt::format("{} {}", p->dtype, shape_text(p->shape)), need);
}

void add4(PackedFolder& f, const std::string& module, const std::string& state_suffix) {
  const std::string suffixes[] = {"weight",
                                  "weight.absmax",
                                  "weight.quant_map",
                                  "weight.nested_absmax",
                                  "weight.nested_quant_map",
                                  state_suffix};
  std::vector<RawPlane> planes = f.take(module, suffixes);
  for (RawPlane& p : planes)  // "quant_storage" may call the same bytes floats
    if (p.suffix == "weight") p.dtype = "U8", p.shape = {static_cast<i64>(p.bytes.size()), 1};
  const RawPlane& state_plane = *find_plane(planes, state_suffix);
  touch(state_plane.bytes, module);
  Bnb4State state;
  try {
    state = parse_bnb4_state(state_plane);
  } catch (Error& e) {
    throw e.with("module", module).with("folder", f.folder.string());
  }
  const i64 count = state.rows * state.cols;
  if (count > most_values)
    f.wrong(module, "the shape of a quantized module cannot be",
            fmt::format("{} x {}", state.rows, state.cols),
            fmt::format("at most {} weights", most_values));
  const i64 blocks = (count + state.block - 1) / state.block;
  demand_count(f, module, planes, "weight", "U8", (count + 1) / 2);
  demand_count(f, module, planes, "weight.quant_map", "F32", 16);
  demand_count(f, module, planes, "weight.absmax", state.nested ? "U8" : "F32", blocks);
  if (state.nested) {
    demand_count(f, module, planes, "weight.nested_quant_map", "F32", 256);
    demand_count(f, module, planes, "weight.nested_absmax", "F32",
                 (blocks + state.nested_block - 1) / state.nested_block);
  }
  CheckpointTensor t;
  t.scheme = bnb4_scheme(state);
  t.shape = {state.rows, state.cols};
  f.add(module, t, planes, [state](const std::vector<RawPlane>& p) { return from_bnb4(p, state); });
}

void add8(PackedFolder& f, const std::string& module) {
  static const std::string suffixes[] = {"weight", "SCB", "weight_format"};
  std::vector<RawPlane> planes = f.take(module, suffixes);
  const RawPlane* weight = find_plane(planes, "weight");
  if (weight == nullptr || weight->dtype != "I8" || weight->shape.size() != 2)
    f.wrong(module, "weight of a quantized module is missing or has the wrong type or shape",
            weight != nullptr ? fmt::format("{} {}", weight->dtype, shape_text(weight->shape))
                              : "nothing",
            "I8 outputs x inputs");
  const i64 rows = weight->shape[0], cols = weight->shape[1];
  demand_count(f, module, planes, "SCB", "F32", rows);
  CheckpointTensor t;
  t.scheme.code = Code::int8;
  t.scheme.grouping = Grouping::channel;
  t.scheme.scale = Code::f32;
  t.shape = {rows, cols};
  f.add(module, t, planes,
        [rows, cols](const std::vector<RawPlane>& p) { return from_bnb8(p, rows, cols); });
}

// ---- writing ----

bool four_bits(const Scheme& s) { return s.code == Code::nf4 || s.code == Code::fp4; }

std::optional<Misfit> misfit(const Scheme& s, i64 rows, i64 cols) {
  if (s.code == Code::int8) return bnb8_misfit(s, rows, cols);
  std::optional<Misfit> m = bnb4_misfit(s, rows, cols);
  if (m && !four_bits(s)) m->need = "nf4, fp4, or int8 with one scale a row";
  return m;
}
std::vector<RawPlane> plan(const Scheme& s, i64 rows, i64 cols, const std::string& dtype) {
  return four_bits(s) ? plan_bnb4(s, rows, cols, dtype) : plan_bnb8(rows, cols);
}
std::vector<RawPlane> pack(const Tensor& t, std::span<const std::int32_t>,
                           const std::string& dtype) {
  return four_bits(t.scheme) ? to_bnb4(t, dtype) : to_bnb8(t);
}

Json section(const std::vector<PackedModule>& modules) {
  Json::Array skipped;
  const PackedModule& first = shared_settings(
      modules, skipped, "code",
      [](const PackedModule& a, const PackedModule& b) { return a.scheme.code == b.scheme.code; });
  const bool four = four_bits(first.scheme);
  Json s = Json::object({{"quant_method", Json("bitsandbytes")},
                         {"load_in_4bit", Json(four)},
                         {"load_in_8bit", Json(!four)}});
  if (four) {
    s.set("bnb_4bit_quant_type", first.scheme.code == Code::nf4 ? "nf4" : "fp4");
    s.set("bnb_4bit_use_double_quant", first.scheme.second_level);
    s.set("bnb_4bit_compute_dtype", "float32");
    s.set("bnb_4bit_quant_storage", "uint8");
  }
  s.set("llm_int8_threshold", 6.0);
  s.set("llm_int8_skip_modules", Json(std::move(skipped)));
  s.set("llm_int8_enable_fp32_cpu_offload", false);
  s.set("llm_int8_has_fp16_weight", false);
  return s;
}

}  // namespace

void read_bitsandbytes(PackedFolder& f) {
  for (const std::string& suffix : state_suffixes)
    for (const std::string& module : f.modules_with(suffix)) add4(f, module, suffix);
  for (const std::string& module : f.modules_with("SCB")) add8(f, module);
}

const PackedForm bitsandbytes_form = {.name = "bnb",
                                      .misfit = misfit,
                                      .plan = plan,
                                      .pack = pack,
                                      .section = section,
                                      .conv1d = true};

}  // namespace pare
