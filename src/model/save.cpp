// Writing a model as a Hugging Face folder.
//
// The form is chosen first: dense; compressed-tensors when it can hold every scheme exactly (no
// re-rounding); else Pare's own. Then all tensors of the output are planned, and drawn through one
// at a time, so memory stays at the largest tensor and its codes. Fused checkpoint tensors are put
// together from their slots again.
#include <algorithm>
#include <map>

#include "file/publish.h"
#include "file/safetensors.h"
#include "model/checkpoint.h"
#include "number/compressed.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Dtype dtype_of(Code code) {
  switch (code) {
    case Code::f32:
      return Dtype::F32;
    case Code::f16:
      return Dtype::F16;
    case Code::bf16:
      return Dtype::BF16;
    case Code::e4m3:
      return Dtype::F8_E4M3;
    case Code::e5m2:
      return Dtype::F8_E5M2;
    case Code::int8:
      return Dtype::I8;
    default:
      return Dtype::U8;
  }
}

// One tensor of the checkpoint: the slots whose rows it holds.
struct Output {
  std::string name;  // "model.layers.0.self_attn.qkv_proj.weight"
  bool transposed = false;
  struct Part {
    Slot slot;
    std::vector<RowRange> rows;
  };
  std::vector<Part> parts;
  Scheme scheme;  // of the whole; a whole-tensor scale becomes one a row when parts have their own
  Activation activation;
  std::vector<i64> shape;  // (out, in)
};

std::vector<Output> outputs_of(const Model& m, const Family& family) {
  std::vector<Output> list;
  std::map<std::string, std::size_t> index;
  for (const Slot& slot : slots(m.spec)) {
    if (slot.name.ends_with(".static_scale")) continue;
    const Source source = family.source(slot, m.spec, m.config);
    const auto [it, fresh] = index.try_emplace(source.name, list.size());
    if (fresh) {
      list.emplace_back();
      list.back().name = source.name;
      list.back().transposed = source.transposed;
      list.back().shape = slot.shape;
      list.back().shape[0] = 0;
      list.back().scheme = m.weights.find(slot.name)->second.scheme;
      if (slot.linear != nullptr) list.back().activation = slot.linear->activation;
    }
    Output& o = list[it->second];
    o.shape[0] += slot.shape[0];
    o.parts.push_back({slot, source.rows});
  }
  return list;
}

bool same_everywhere(const Model& m, const Output& o) {
  return std::all_of(o.parts.begin(), o.parts.end(), [&](const Output::Part& p) {
    const Weight& w = m.weights.find(p.slot.name)->second;
    return w.scheme == o.scheme &&
           (p.slot.linear == nullptr || p.slot.linear->activation == o.activation);
  });
}

// One scale per tensor as the same scale for every row: exact.
Scheme per_row(Scheme s) {
  if (s.grouping == Grouping::tensor) s.grouping = Grouping::channel;
  return s;
}
Tensor expand_scale(Tensor t) {
  if (t.scheme.grouping != Grouping::tensor) return t;
  const std::size_t rows = static_cast<std::size_t>(t.rows());
  const auto repeat = [&](Blob& plane) {
    if (plane.size() == 0) return;
    std::vector<std::byte> out;
    for (std::size_t r = 0; r < rows; r++)
      out.insert(out.end(), plane.bytes.begin(), plane.bytes.end());
    plane = blob_of(std::move(out));
  };
  repeat(t.scales);
  repeat(t.zeros);
  repeat(t.mins);
  t.scheme = per_row(t.scheme);
  return t;
}

// The tensor of an output, from its slots.
Tensor build(const Model& m, const Output& o) {
  std::vector<Tensor> parts;
  struct Piece {
    i64 begin, from, count;
  };
  std::vector<Piece> pieces;
  i64 offset = 0;
  for (const Output::Part& p : o.parts) {
    Tensor t = m.weights.find(p.slot.name)->second.load();
    if (o.parts.size() > 1) t = expand_scale(std::move(t));
    i64 at = 0;
    for (const RowRange& r : p.rows) {
      pieces.push_back({r.begin, offset + at, r.count});
      at += r.count;
    }
    offset += t.shape[0];
    parts.push_back(std::move(t));
  }
  Tensor whole = parts.size() == 1 ? std::move(parts[0]) : concat_rows(parts);
  if (!pieces.empty()) {
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    std::vector<RowRange> order;
    for (const Piece& p : pieces) order.push_back({p.from, p.count});
    whole = select_rows(whole, order);
  }
  if (o.transposed && whole.shape.size() == 2) whole = transpose(whole);
  return whole;
}

bool fits_compressed(const Model& m, const std::vector<Output>& list) {
  for (const Output& o : list) {
    if (!same_everywhere(m, o)) return false;
    const bool linear = o.parts[0].slot.linear != nullptr;
    if (!linear) {
      if (!o.scheme.plain() || bits(o.scheme.code) < 16) return false;
      continue;
    }
    const Linear& l = *o.parts[0].slot.linear;
    if (l.rank > 0 || l.outliers > 0 || l.permuted || l.input_scaled || l.rotation > 0)
      return false;
    if (o.scheme.plain()) {
      if (bits(o.scheme.code) < 16 || o.activation.per != Activation::Per::none) return false;
      continue;
    }
    if (o.transposed) return false;
    if (o.scheme.grouping == Grouping::block && o.parts.size() > 1)
      for (const Output::Part& p : o.parts)
        if (p.slot.shape[0] % o.scheme.rows != 0) return false;
    const Scheme scheme = o.parts.size() > 1 ? per_row(o.scheme) : o.scheme;
    if (!compressed_format(scheme, o.activation, o.shape[1])) return false;
  }
  return true;
}

struct Form {
  std::string name;  // "dense", "compressed-tensors", "pare"
  std::vector<TensorPlan> plan;
  Json config;
};

// What a tensor contributes to the file: names with their bytes.
using Emit = std::function<void(const std::string& name, const Blob& bytes)>;

void plan_plain(std::vector<TensorPlan>& plan, const Output& o) {
  std::vector<i64> shape = o.shape;
  if (o.transposed) std::reverse(shape.begin(), shape.end());
  plan.push_back({o.name, dtype_of(o.scheme.code), shape});
}

Json args_with_defaults(Json args) {
  args.set("actorder", Json());
  if (args.find("block_structure") == nullptr) args.set("block_structure", Json());
  args.set("observer", Json("minmax"));
  args.set("observer_kwargs", Json::object());
  return args;
}

// The quantization_config of compressed-tensors: a group for each distinct pair of scheme and
// activation.
Json compressed_config(const std::vector<Output>& list, const std::vector<std::string>& formats) {
  struct Group {
    Scheme scheme;
    Activation activation;
    std::string format;
    std::vector<std::string> modules;
  };
  std::vector<Group> groups;
  Json::Array ignore;
  for (std::size_t i = 0; i < list.size(); i++) {
    const Output& o = list[i];
    if (o.parts[0].slot.linear == nullptr || o.parts[0].slot.vector) continue;
    if (o.scheme.plain()) {
      ignore.emplace_back(module_of(o.name));
      continue;
    }
    Scheme key = o.parts.size() > 1 ? per_row(o.scheme) : o.scheme;
    auto it = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.scheme == key && g.activation == o.activation && g.format == formats[i];
    });
    if (it == groups.end()) it = groups.insert(groups.end(), {key, o.activation, formats[i], {}});
    it->modules.push_back(module_of(o.name));
  }
  Json all = Json::object();
  const bool mixed = std::any_of(groups.begin(), groups.end(),
                                 [&](const Group& g) { return g.format != groups[0].format; });
  for (std::size_t g = 0; g < groups.size(); g++) {
    Json::Array targets;
    if (groups.size() == 1)
      targets.emplace_back("Linear");
    else
      for (const std::string& m : groups[g].modules) targets.emplace_back(m);
    Json inputs = activation_args(groups[g].activation);
    if (!inputs.is_null()) {
      inputs = args_with_defaults(std::move(inputs));
      if (inputs.at("dynamic") == Json(true)) inputs.set("observer", Json());
    }
    Json group = Json::object({{"targets", Json(std::move(targets))},
                               {"weights", args_with_defaults(weight_args(groups[g].scheme))},
                               {"input_activations", std::move(inputs)},
                               {"output_activations", Json()}});
    if (mixed) group.set("format", groups[g].format);
    all.set(fmt::format("group_{}", g), std::move(group));
  }
  return Json::object({{"quant_method", Json("compressed-tensors")},
                       {"format", Json(mixed ? "mixed-precision" : groups[0].format)},
                       {"quantization_status", Json("compressed")},
                       {"global_compression_ratio", Json()},
                       {"kv_cache_scheme", Json()},
                       {"ignore", Json(std::move(ignore))},
                       {"config_groups", std::move(all)}});
}

Json pare_notes(const Model& m) {
  Json notes = Json::object({{"version", Json(PARE_VERSION)}});
  if (m.spec.kv) notes.set("kv", info(*m.spec.kv).name);
  Json::Array history, evidence;
  for (const std::string& line : m.history) history.emplace_back(line);
  for (const Evidence& e : m.evidence)
    evidence.push_back(
        Json::array({Json(e.pass), Json(e.site), Json(e.metric), Json(e.before), Json(e.after)}));
  notes.set("history", Json(std::move(history)));
  notes.set("evidence", Json(std::move(evidence)));
  return notes;
}

// The configuration without what a previous quantization left in it.
Json base_config(const Model& m, const Family& family) {
  Json original = m.config;
  for (const char* key : {"quantization_config", "compression_config", "pare"}) original.erase(key);
  Json config = family.unparse(m.spec, original);
  if (!m.history.empty() || m.spec.kv) config.set("pare", pare_notes(m));
  return config;
}

void set_dtype(Json& config, Code code) {
  const char* name = code == Code::f32 ? "float32" : code == Code::f16 ? "float16" : "bfloat16";
  config.set(config.find("dtype") != nullptr ? "dtype" : "torch_dtype", name);
}

// The dense code of what stays dense: the embedding's, else the norms'.
Code dense_code(const Model& m) {
  if (m.spec.embed.plain() && bits(m.spec.embed.code) >= 16) return m.spec.embed.code;
  const auto norm = m.weights.find("norm.weight");
  return norm != m.weights.end() ? norm->second.scheme.code : Code::bf16;
}

// --- the three forms
// ----------------------------------------------------------------------------------

void write_outputs(const Model& m, const std::vector<Output>& list,
                   const std::vector<std::string>& formats, const Emit& emit, Progress& progress) {
  for (std::size_t i = 0; i < list.size(); i++) {
    stop_if_interrupted();
    const Output& o = list[i];
    const Tensor t = build(m, o);
    if (o.scheme.plain()) {
      emit(o.name, t.codes);
    } else {
      const Tensor stored = o.parts.size() > 1 ? expand_scale(t) : t;
      for (const RawPlane& p : to_compressed(stored, formats[i]))
        emit(module_of(o.name) + "." + p.suffix, p.bytes);
      if (o.activation.is_static)
        emit(
            module_of(o.name) + ".input_scale",
            m.weights.find(module_of(o.parts[0].slot.name) + ".static_scale")->second.load().codes);
    }
    progress.add(1, o.name);
  }
}

std::vector<std::pair<std::string, i64>> plane_sizes(const Slot& slot) {
  const Scheme& s = slot.scheme;
  const i64 rows = slot.shape.size() < 2 ? 1 : slot.shape[0], cols = slot.shape.back();
  const auto width = [](Code c) { return bits(c) >= 16 ? bits(c) / 8 : 1; };
  const i64 groups = scale_rows(s, rows) * scale_cols(s, cols),
            minimum = s.offset == Offset::minimum;
  const i64 supers =
      !s.second_level ? 0
      : s.super_count == 0
          ? 1
          : scale_rows(s, rows) * ((scale_cols(s, cols) + s.super_count - 1) / s.super_count);
  return {{"codes", rows * row_bytes(s, cols)},
          {"scales", groups * width(s.scale)},
          {"zeros", s.offset == Offset::zero ? groups : 0},
          {"mins", minimum * groups * width(s.scale)},
          {"super_scales", supers * width(s.super)},
          {"super_mins", minimum * supers * width(s.super)},
          {"mask", s.sparsity == Sparsity::bitmask ? rows * ((cols + 7) / 8) : 0}};
}

Form pare_form(const Model& m, const Family& family) {
  Form form;
  form.name = "pare";
  form.config = base_config(m, family);
  Json schemes = Json::object(), activations = Json::object();
  if (!m.spec.embed.plain()) schemes.set("embed", to_string(m.spec.embed));
  for (const auto& [name, linear] : linears(m.spec)) {
    if (!linear->scheme.plain() && !(name == "head" && m.spec.tied))
      schemes.set(name, to_string(linear->scheme));
    if (linear->activation.per != Activation::Per::none)
      activations.set(name, to_string(linear->activation));
  }
  form.config.set("quantization_config", Json::object({{"quant_method", Json("pare")},
                                                       {"version", Json(1)},
                                                       {"tied", Json(m.spec.tied)},
                                                       {"schemes", std::move(schemes)},
                                                       {"activations", std::move(activations)}}));
  for (const Slot& slot : slots(m.spec)) {
    const Scheme& scheme = m.weights.find(slot.name)->second.scheme;
    if (scheme.plain() && bits(scheme.code) >= 16) {
      form.plan.push_back({slot.name, dtype_of(scheme.code), slot.shape});
      continue;
    }
    for (const auto& [suffix, bytes] : plane_sizes(slot))
      if (bytes > 0)
        form.plan.push_back({fmt::format("{}.{}", slot.name, suffix), Dtype::U8, {bytes}});
  }
  return form;
}

void write_pare(const Model& m, const Emit& emit, Progress& progress) {
  for (const Slot& slot : slots(m.spec)) {
    stop_if_interrupted();
    const Tensor t = m.weights.find(slot.name)->second.load();
    if (t.scheme.plain() && bits(t.scheme.code) >= 16)
      emit(slot.name, t.codes);
    else
      for (const PlaneName& p : plane_names)
        if ((t.*(p.plane)).size() > 0)
          emit(fmt::format("{}.{}", slot.name, p.suffix), t.*(p.plane));
    progress.add(1, slot.name);
  }
}

Form file_form(const Model& m, const Family& family, const std::vector<Output>& list,
               std::vector<std::string>& formats) {
  Form form;
  form.config = base_config(m, family);
  bool quantized = false;
  for (const Output& o : list) {
    formats.emplace_back();
    if (o.scheme.plain()) {
      plan_plain(form.plan, o);
      continue;
    }
    quantized = true;
    const Scheme scheme = o.parts.size() > 1 ? per_row(o.scheme) : o.scheme;
    formats.back() = *compressed_format(scheme, o.activation, o.shape[1]);
    for (const RawPlane& p : plan_compressed(scheme, formats.back(), o.shape[0], o.shape[1]))
      form.plan.push_back({module_of(o.name) + "." + p.suffix, *find_dtype(p.dtype), p.shape});
    if (o.activation.is_static)
      form.plan.push_back({module_of(o.name) + ".input_scale", Dtype::F32, {1}});
  }
  form.name = quantized ? "compressed-tensors" : "dense";
  if (quantized) form.config.set("quantization_config", compressed_config(list, formats));
  return form;
}

// The tokenizer and the other files of the source, or a tokenizer.json made from the source's
// vocabulary.
std::vector<std::string> carry(const Model& m, const fs::path& to) {
  std::vector<std::string> names;
  if (fs::is_directory(m.path))
    for (const std::string& name : side_files(m.path)) {
      fs::copy_file(m.path / name, to / name, fs::copy_options::overwrite_existing);
      names.push_back(name);
    }
  const bool has = std::find(names.begin(), names.end(), "tokenizer.json") != names.end() ||
                   std::find(names.begin(), names.end(), "tokenizer.model") != names.end();
  if (m.tokenizer.empty() || has) return names;
  const Tokenizer tokenizer = load_tokenizer(m.tokenizer);
  write_file(to / "tokenizer.json", to_tokenizer_json(tokenizer));
  write_file(to / "tokenizer_config.json", to_tokenizer_config_json(tokenizer));
  names.push_back("tokenizer.json");
  names.push_back("tokenizer_config.json");
  return names;
}

}  // namespace

SaveReport save_model(const Model& m, const fs::path& target, bool force, const Log& log) {
  check(m);
  const Family* family = find_family(m.family);
  PARE_CHECK(family != nullptr);
  const std::vector<Output> list = outputs_of(m, *family);
  const bool compressed = fits_compressed(m, list);
  std::vector<std::string> formats;
  Form form = compressed ? file_form(m, *family, list, formats) : pare_form(m, *family);
  set_dtype(form.config, dense_code(m));
  i64 need = 0;
  for (const TensorPlan& t : form.plan) need += t.bytes();
  Publisher publisher(target, force, Publisher::Kind::folder, m.path, need + (1 << 20));
  SaveReport report;
  report.form = form.name;
  report.bytes = need;
  {
    ShardedWriter writer(publisher.path(), form.plan);
    Progress progress(log, "save",
                      static_cast<double>(compressed ? list.size() : slots(m.spec).size()),
                      "tensors");
    const Emit emit = [&](const std::string& name, const Blob& bytes) {
      writer.write(name, bytes.bytes);
    };
    if (compressed)
      write_outputs(m, list, formats, emit, progress);
    else
      write_pare(m, emit, progress);
    writer.finish();
  }
  write_file(publisher.path() / "config.json", form.config.dump(2) + "\n");
  report.side_files = carry(m, publisher.path());
  publisher.commit();
  return report;
}

}  // namespace pare
