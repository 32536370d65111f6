// AWQ folders, as AutoAWQ and Transformers write them: four bits, GEMM layout, one group size.
#include <algorithm>
#include <cctype>

#include "model/packed.h"
#include "number/awq.h"

namespace pare {
namespace {

Scheme scheme_of(const PackedFolder& f, const std::string& module,
                 const std::vector<RawPlane>& planes, i64 group) {
  Scheme s;
  s.code = Code::int4;
  s.grouping = group == -1 ? Grouping::channel : Grouping::group;
  if (group != -1) s.cols = group;
  s.offset = Offset::zero;
  const RawPlane* scales = find_plane(planes, "scales");
  const std::optional<Dtype> dtype =
      scales != nullptr ? find_dtype(scales->dtype) : std::optional<Dtype>();
  const std::optional<Code> code = dtype ? plain_code(*dtype) : std::nullopt;
  if (!code)
    f.wrong(module, "scales of a quantized module are missing or cannot be read",
            scales != nullptr ? scales->dtype : "nothing", "F16, BF16 or F32");
  s.scale = *code;
  return s;
}

void add(PackedFolder& f, const std::string& module, std::vector<RawPlane> planes, i64 group) {
  const RawPlane& words = *find_plane(planes, "qweight");
  if (words.shape.size() != 2 || words.shape[0] < 1 || words.shape[1] < 1)
    f.wrong(module, "qweight of a quantized module has the wrong shape", shape_text(words.shape),
            "inputs x (outputs / 8)");
  const i64 cols = words.shape[0], rows = words.shape[1] * 8;
  const Scheme scheme = scheme_of(f, module, planes, group);
  if (const std::optional<Misfit> misfit = awq_misfit(scheme, rows, cols))
    f.wrong(module, "the shape of a quantized module cannot be", misfit->found, misfit->need);
  std::vector<RawPlane> plan = plan_awq(scheme, rows, cols);
  plan[2].dtype = float_name(scheme.scale);
  f.demand(module, planes, plan);
  CheckpointTensor t;
  t.scheme = scheme;
  t.shape = {rows, cols};
  f.add(module, t, planes, [scheme, rows, cols](const std::vector<RawPlane>& p) {
    return from_awq(p, scheme, rows, cols);
  });
}

// ---- writing ----

std::vector<RawPlane> plan(const Scheme& s, i64 rows, i64 cols, const std::string&) {
  return plan_awq(s, rows, cols);
}
std::vector<RawPlane> pack(const Tensor& t, std::span<const std::int32_t>, const std::string&) {
  return to_awq(t);
}

Json section(const std::vector<PackedModule>& modules) {
  Json::Array skipped;
  const PackedModule& first = shared_settings(modules, skipped, "group size",
                                              [](const PackedModule& a, const PackedModule& b) {
                                                return config_group(a) == config_group(b);
                                              });
  return Json::object({{"quant_method", Json("awq")},
                       {"bits", Json(4)},
                       {"group_size", Json(config_group(first))},
                       {"zero_point", Json(true)},
                       {"version", Json("gemm")},
                       {"modules_to_not_convert", Json(std::move(skipped))}});
}

}  // namespace

void read_awq(PackedFolder& f) {
  static const std::string suffixes[] = {"qweight", "qzeros", "scales"};
  if (f.integer({"bits", "w_bit"}, 1, 8) != 4) f.refuse("bits", "another number", "4");
  const i64 group = f.integer({"group_size", "q_group_size"}, -1, i64{1} << 24);
  if (group == 0) f.refuse("group_size", "0", "-1, or the columns of a group");
  if (!f.flag({"zero_point"}, true)) f.refuse("zero_point", "false", "true");
  if (const Json* version = f.find({"version"})) {
    std::string word = version->is_string() ? version->as_string() : version->dump();
    std::transform(word.begin(), word.end(), word.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (word != "gemm") f.refuse("version", version->dump(), "gemm");
  }
  for (const std::string& module : f.modules_with("qweight")) {
    add(f, module, f.take(module, suffixes), group);
    f.spare_zero_bias(module);
  }
}

const PackedForm awq_form = {
    .name = "awq", .misfit = awq_misfit, .plan = plan, .pack = pack, .section = section};

}  // namespace pare
