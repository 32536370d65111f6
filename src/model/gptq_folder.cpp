// GPTQ folders, as AutoGPTQ, GPTQModel and Transformers write them.
//
// quantization_config has one set of bits, group size and symmetry; "dynamic" overrides it for the
// modules that a pattern matches. Module names are matched from their start, the first pattern in
// the file's order wins.
#include <algorithm>
#include <cstring>

#include "file/io.h"
#include "model/packed.h"
#include "number/gptq.h"
#include "text/regex.h"

namespace pare {
namespace {

struct Settings {
  i64 bits = 4, group = 128;  // -1: a whole row
  bool sym = true, act_order = false;
};

struct Rule {
  Regex pattern;
  Settings settings;
};

void check(const PackedFolder& f, const Settings& s) {
  if (s.bits != 2 && s.bits != 3 && s.bits != 4 && s.bits != 8)
    f.refuse("bits", std::to_string(s.bits), "2, 3, 4 or 8");
  if (s.group != -1 && s.group < 1)
    f.refuse("group_size", std::to_string(s.group), "-1, or the columns of a group");
}

Settings overridden(const PackedFolder& f, Settings s, const Json& change) {
  if (!change.is_object()) f.refuse("dynamic", change.dump(), "an object");
  const auto number = [&](const char* key, i64& to) {
    if (const Json* value = change.find(key); value != nullptr && value->is_int())
      to = value->as_int();
  };
  const auto flag = [&](const char* key, bool& to) {
    if (const Json* value = change.find(key); value != nullptr && value->is_bool())
      to = value->as_bool();
  };
  number("bits", s.bits);
  number("group_size", s.group);
  flag("sym", s.sym);
  flag("desc_act", s.act_order);
  check(f, s);
  return s;
}

class Reader {
 public:
  explicit Reader(PackedFolder& folder) : f_(folder) {
    base_.bits = f_.integer({"bits"}, 2, 8);
    base_.group = f_.integer({"group_size"}, -1, i64{1} << 24);
    base_.sym = f_.flag({"sym"}, true);
    base_.act_order = f_.flag({"desc_act"}, false);
    check(f_, base_);
    const Json* form = f_.find({"checkpoint_format", "format"});
    if (form != nullptr && *form != Json("gptq") && *form != Json("gptq_v2"))
      f_.refuse("checkpoint_format", form->dump(), "gptq or gptq_v2");
    v2_ = form != nullptr && *form == Json("gptq_v2");
    const Json* words = f_.find({"pack_dtype"});
    if (words != nullptr && *words != Json("int32"))
      f_.refuse("pack_dtype", words->dump(), "int32");
    read_rules();
  }

  void read() {
    static const std::string suffixes[] = {"qweight", "qzeros", "scales", "g_idx"};
    for (const std::string& module : f_.modules_with("qweight")) {
      add(module, f_.take(module, suffixes));
      f_.spare_zero_bias(module);
    }
  }

 private:
  void read_rules() {
    const Json* dynamic = f_.find({"dynamic"});
    if (dynamic == nullptr || *dynamic == Json(false)) return;
    if (!dynamic->is_object()) f_.refuse("dynamic", dynamic->dump(), "an object of patterns");
    for (const auto& [key, change] : dynamic->as_object()) {
      const bool skip = key.starts_with("-:");
      const std::string pattern = skip || key.starts_with("+:") ? key.substr(2) : key;
      try {
        rules_.push_back(
            {Regex("^(?:" + pattern + ")"), skip ? base_ : overridden(f_, base_, change)});
      } catch (const Error& e) {
        if (e.code == "MO-011") throw;
        fail_input("MO-010", "a pattern of the quantization config cannot be used",
                   {{"found", pare::quoted(key)}, {"reason", e.message}});
      }
    }
  }

  Settings settings_of(const std::string& module) const {
    for (const Rule& rule : rules_) {
      RegexMatcher matcher(rule.pattern);
      std::size_t begin = 0, end = 0;
      if (matcher.find(module, 0, begin, end)) return rule.settings;
    }
    return base_;
  }

  void add(const std::string& module, std::vector<RawPlane> planes) {
    const Settings s = settings_of(module);
    const RawPlane& words = *find_plane(planes, "qweight");
    if (words.shape.size() != 2 || words.shape[0] * 32 % s.bits != 0)
      f_.wrong(module, "qweight of a quantized module has the wrong shape", shape_text(words.shape),
               fmt::format("(inputs * {} / 32) x outputs", s.bits));
    const i64 cols = words.shape[0] * 32 / s.bits, rows = words.shape[1];
    const Scheme scheme = scheme_of(module, planes, s, cols);
    if (const std::optional<Misfit> misfit = gptq_misfit(scheme, rows, cols))
      f_.wrong(module, "the shape of a quantized module cannot be", misfit->found, misfit->need);
    std::vector<RawPlane> plan = plan_gptq(scheme, rows, cols);
    plan[2].dtype = float_name(scheme.scale);
    const bool indexed = find_plane(planes, "g_idx") != nullptr;
    if (!indexed && !s.act_order) plan.pop_back();
    f_.demand(module, planes, plan);
    CheckpointTensor t;
    t.scheme = scheme;
    t.shape = {rows, cols};
    if (indexed) t.permutation = order_of(module, planes, group_columns(scheme, cols));
    f_.add(module, t, planes,
           [scheme, rows, cols, order = t.permutation, v2 = v2_](const std::vector<RawPlane>& p) {
             return from_gptq(p, scheme, rows, cols, order, v2);
           });
  }

  Scheme scheme_of(const std::string& module, const std::vector<RawPlane>& planes,
                   const Settings& s, i64 cols) const {
    Scheme scheme;
    scheme.code = s.bits == 2   ? Code::int2
                  : s.bits == 3 ? Code::int3
                  : s.bits == 4 ? Code::int4
                                : Code::int8;
    scheme.grouping = s.group == -1 ? Grouping::channel : Grouping::group;
    if (s.group != -1) scheme.cols = s.group;
    scheme.offset = s.sym ? Offset::none : Offset::zero;
    const RawPlane* scales = find_plane(planes, "scales");
    const std::optional<Dtype> dtype =
        scales != nullptr ? find_dtype(scales->dtype) : std::optional<Dtype>();
    const std::optional<Code> code = dtype ? plain_code(*dtype) : std::nullopt;
    if (!code || cols < 1)
      f_.wrong(module, "scales of a quantized module are missing or cannot be read",
               scales != nullptr ? scales->dtype : "nothing", "F16, BF16 or F32");
    scheme.scale = *code;
    return scheme;
  }

  std::vector<std::int32_t> order_of(const std::string& module, const std::vector<RawPlane>& planes,
                                     i64 group) const {
    const RawPlane& plane = *find_plane(planes, "g_idx");
    touch(plane.bytes, module);
    std::vector<std::int32_t> index(plane.bytes.size() / 4);
    std::memcpy(index.data(), plane.bytes.data(), index.size() * 4);
    try {
      return group_order(index, group);
    } catch (Error& e) {
      throw e.with("module", module).with("folder", f_.folder.string());
    }
  }

  PackedFolder& f_;
  Settings base_;
  bool v2_ = false;
  std::vector<Rule> rules_;
};

// ---- writing ----

std::vector<RawPlane> plan(const Scheme& s, i64 rows, i64 cols, const std::string&) {
  return plan_gptq(s, rows, cols);
}
template <bool v2>
std::vector<RawPlane> pack(const Tensor& t, std::span<const std::int32_t> permutation,
                           const std::string&) {
  return to_gptq(t, permutation, v2);
}

Json settings_json(const PackedModule& m) {
  return Json::object({{"bits", Json(bits(m.scheme.code))},
                       {"group_size", Json(config_group(m))},
                       {"sym", Json(m.scheme.offset == Offset::none)}});
}

std::string exactly(const std::string& module) {
  std::string pattern;
  for (char c : module) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return "^" + pattern + "$";
}

// The settings that most modules have are the base; the others are named one by one.
template <bool v2>
Json section(const std::vector<PackedModule>& modules) {
  std::vector<std::pair<Json, int>> kinds;
  bool act_order = false, head = false;
  for (const PackedModule& m : modules) {
    if (!m.quantized) continue;
    act_order = act_order || m.permuted;
    head = head || m.name == "lm_head";
    const Json settings = settings_json(m);
    auto it = std::find_if(kinds.begin(), kinds.end(),
                           [&](const auto& kind) { return kind.first == settings; });
    if (it == kinds.end()) it = kinds.insert(kinds.end(), {settings, 0});
    it->second++;
  }
  const auto most = std::max_element(
      kinds.begin(), kinds.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Json dynamic = Json::object();
  for (const PackedModule& m : modules) {
    const bool is_head = m.name == "lm_head";
    if (!m.quantized && !is_head) dynamic.set("-:" + exactly(m.name), Json::object());
    if (m.quantized && settings_json(m) != most->first)
      dynamic.set("+:" + exactly(m.name), settings_json(m));
  }
  Json s = Json::object({{"quant_method", Json("gptq")}});
  for (const auto& [key, value] : most->first.as_object()) s.set(key, value);
  s.set("desc_act", act_order);
  s.set("lm_head", head);
  s.set("checkpoint_format", v2 ? "gptq_v2" : "gptq");
  s.set("pack_dtype", "int32");
  if (!dynamic.as_object().empty()) s.set("dynamic", std::move(dynamic));
  s.set("meta", Json::object({{"quantizer", Json::array({Json("pare:" PARE_VERSION)})}}));
  return s;
}

}  // namespace

void read_gptq(PackedFolder& folder) { Reader(folder).read(); }

const PackedForm gptq_form = {.name = "gptq",
                              .misfit = gptq_misfit,
                              .plan = plan,
                              .pack = pack<false>,
                              .section = section<false>,
                              .permuted = true,
                              .conv1d = true,
                              .activation = {},
                              .copy_of_section = "quantize_config.json"};
const PackedForm gptq_v2_form = {.name = "gptq-v2",
                                 .misfit = gptq_misfit,
                                 .plan = plan,
                                 .pack = pack<true>,
                                 .section = section<true>,
                                 .permuted = true,
                                 .conv1d = true,
                                 .activation = {},
                                 .copy_of_section = "quantize_config.json"};

}  // namespace pare
