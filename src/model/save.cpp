// Writing a model as a Hugging Face folder.
//
// The form is chosen first: dense; compressed-tensors when it can hold every scheme exactly (no
// re-rounding) and the family can say the Spec; else Pare's own. Then all tensors of the output are
// planned, and drawn through one at a time, so memory stays at the largest tensor and its codes.
// What was written is opened again before it gets its name.
#include <algorithm>
#include <map>
#include <set>

#include "file/gguf.h"
#include "file/io.h"
#include "file/publish.h"
#include "model/arch/common.h"
#include "model/checkpoint.h"
#include "model/compressed_config.h"
#include "model/folder.h"
#include "model/manifest.h"
#include "model/outputs.h"
#include "number/compressed.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

enum class FormKind { dense, compressed, own };

struct Form {
  FormKind kind = FormKind::own;
  std::vector<TensorPlan> plan;
  std::vector<Output> outputs;       // dense, compressed
  std::vector<std::string> formats;  // of each output; empty: dense
  Json config;
};

const char* name_of(FormKind kind) {
  switch (kind) {
    case FormKind::dense:
      return "dense";
    case FormKind::compressed:
      return "compressed-tensors";
    case FormKind::own:
      return "pare";
  }
  PARE_CHECK(false);
}

std::string static_scale_of(const Output::Part& part) {
  return module_of(part.slot) + ".static_scale";
}

// Parts of a fused matrix share one input, so one scale of it; theirs must be equal.
bool one_input_scale(const Model& m, const Output& o) {
  if (!o.activation.is_static) return true;
  const std::vector<float> first = decode(load(m, static_scale_of(o.parts[0])));
  return std::all_of(o.parts.begin(), o.parts.end(), [&](const Output::Part& p) {
    return decode(load(m, static_scale_of(p))) == first;
  });
}

// The compressed-tensors format of an output; empty for a dense one, none when it has no place in
// this form, and then why.
struct Choice {
  std::optional<std::string> format;
  Misfit why = {};
};

Choice no(std::string found, std::string need, std::string scheme = {}) {
  return {std::nullopt, {std::move(found), std::move(need), std::move(scheme)}};
}

Choice format_of(const Model& m, const Output& o) {
  if (!o.uniform) return no("parts of a fused matrix in different schemes", "one scheme for all");
  if (o.companions) return no("companions around the matrix", "a plain product");
  if (o.permuted) return no("columns in the order of a permutation", "columns in order");
  const std::string scheme = to_string(o.scheme);
  if (o.scheme.plain()) {
    const bool dense = bits(o.scheme.code) >= 16 && o.activation.per == Activation::Per::none;
    return dense ? Choice{std::string()} : no(scheme, "f32, f16 or bf16 with plain inputs");
  }
  if (!o.linear) return no(scheme, "f32, f16 or bf16, for this is no Linear", "bf16");
  if (o.transposed) return no("a transposed matrix in " + scheme, "f32, f16 or bf16");
  const Scheme& s = o.scheme;
  if (o.parts.size() > 1) {
    if (s.second_level && s.super_count == 0)  // each has its own
      return no("a fused matrix whose parts have a scale each", "one scale for the whole");
    for (const Output::Part& p : o.parts)
      if (s.grouping == Grouping::block && m.weights.find(p.slot)->second.shape[0] % s.rows != 0)
        return no("blocks that cross the parts of a fused matrix", "blocks that end with them");
  }
  if (!one_input_scale(m, o)) return no("parts with different scales of their input", "one scale");
  std::optional<std::string> format = compressed_format(s, o.activation, o.shape[1]);
  if (format) return {std::move(format)};
  return no(fmt::format("{}, inputs {}, {} columns", scheme, to_string(o.activation), o.shape[1]),
            "int2, int4, int8, e4m3, nvfp4 or mxfp4 in whole groups with float scales, and inputs "
            "none, int8:token or e4m3:token",
            "int4:g128");
}

// The code of what stays dense: the embedding's, else the norms'.
void set_dtype(Json& config, const Model& m) {
  Code code = m.spec.embed.code;
  if (!m.spec.embed.plain() || bits(code) < 16) {
    const Scheme norm = m.weights.find("norm.weight")->second.scheme;
    code = norm.plain() && bits(norm.code) >= 16 ? norm.code : Code::bf16;
  }
  const char* name = code == Code::f32 ? "float32" : code == Code::f16 ? "float16" : "bfloat16";
  config.set(config.find("dtype") != nullptr ? "dtype" : "torch_dtype", name);
}

void plan_output(std::vector<TensorPlan>& plan, const Output& o, const std::string& format) {
  if (format.empty()) {
    std::vector<i64> shape = o.shape;
    if (o.transposed) std::reverse(shape.begin(), shape.end());
    plan.push_back({o.name, dtype_of(o.scheme.code), shape});
    return;
  }
  const std::string module = module_of(o.name);
  for (const RawPlane& p : plan_compressed(o.scheme, format, o.shape[0], o.shape[1]))
    plan.push_back({module + "." + p.suffix, *find_dtype(p.dtype), p.shape});
  if (o.activation.is_static) plan.push_back({module + ".input_scale", Dtype::F32, {1}});
}

// The family's form, dense or compressed; none when it cannot hold the model.
std::optional<Form> family_form(const Model& m, const Family& family, std::string& tensor,
                                Misfit& why) {
  Form form;
  tensor = "config.json";
  std::optional<Json> config = family_config(m, family, &why.found);
  std::optional<std::vector<Output>> outputs = config ? outputs_of(m, family) : std::nullopt;
  if (!outputs) {
    why.need = "a model that its family can describe";
    return std::nullopt;
  }
  form.kind = FormKind::dense;
  std::vector<CompressedModule> modules;
  for (const Output& o : *outputs) {
    Choice choice = format_of(m, o);
    const std::optional<std::string>& format = choice.format;
    if (!format) {
      tensor = o.name;
      why = std::move(choice.why);
      return std::nullopt;
    }
    if (!format->empty()) form.kind = FormKind::compressed;
    plan_output(form.plan, o, *format);
    form.formats.push_back(*format);
    if (!o.linear) continue;
    modules.push_back({module_of(o.name), *format, o.scheme, o.activation});
    // Newer releases of Transformers call every family's head lm_head, whatever the file does.
    if (o.parts[0].slot == "head.weight" && modules.back().name != "lm_head")
      modules.push_back({"lm_head", *format, o.scheme, o.activation});
  }
  // To other programs a tied head is a Linear too, which the class "Linear" would name.
  for (const std::string& name : tied_head_names(m, family)) modules.push_back({name, "", {}, {}});
  form.config = std::move(*config);
  form.outputs = std::move(*outputs);
  if (form.kind == FormKind::compressed)
    form.config.set("quantization_config", compressed_section(modules, m.spec.kv));
  return form;
}

Form own_form(const Model& m, const Family& family) {
  Form form;
  std::optional<Json> config = family_config(m, family);
  if (!config) {  // the Spec of the form says it all; the keys are kept for people
    config = without_marks(m.config);
    if (config->find("model_type") == nullptr) {
      config->set("architectures", Json::array({Json(family.architecture)}));
      config->set("model_type", family.name);
    }
    set_dtype(*config, m);
    if (Json notes = notes_of(m); !notes.is_null()) config->set("pare", std::move(notes));
  }
  form.config = std::move(*config);
  form.config.set("quantization_config", pare_form_section(m.spec));
  form.plan = pare_form_plan(m);
  return form;
}

void write_outputs(const Model& m, const Form& form, ShardedWriter& writer, Progress& progress) {
  for (std::size_t i = 0; i < form.outputs.size(); i++) {
    stop_if_interrupted();
    const Output& o = form.outputs[i];
    const Tensor t = build(m, o);
    const std::string module = module_of(o.name);
    if (form.formats[i].empty()) {
      writer.write(o.name, t.codes.bytes);
    } else {
      for (const RawPlane& p : to_compressed(t, form.formats[i]))
        writer.write(module + "." + p.suffix, p.bytes.bytes);
      if (o.activation.is_static) {
        const float scale = decode(load(m, static_scale_of(o.parts[0])))[0];
        writer.write(module + ".input_scale", std::as_bytes(std::span<const float>(&scale, 1)));
      }
    }
    progress.add(1, o.name);
  }
}

// ---- files beside the weights ----

bool of_tokenizer(const std::string& name) {
  return name.starts_with("tokenizer") || name == "vocab.json" || name == "merges.txt" ||
         name == "special_tokens_map.json" || name == "added_tokens.json" ||
         name.ends_with(".tiktoken") || name.ends_with(".model");
}

// A chat template that a GGUF file carries.
void write_template(const fs::path& source, const fs::path& to, std::vector<std::string>& names) {
  if (source.extension() != ".gguf") return;
  const Gguf gguf = open_gguf(source);
  const std::string* text = gguf.text("tokenizer.chat_template");
  if (text == nullptr) return;
  write_file(to / "chat_template.jinja", *text);
  names.push_back("chat_template.jinja");
}

// The other files of the source folder. A tokenizer that lies elsewhere, or in a form that
// Transformers does not read, is written as tokenizer.json.
std::vector<std::string> carry(const Model& m, const fs::path& to, const Log& log) {
  std::vector<std::string> names;
  const bool folder = fs::is_directory(m.path);
  const bool own_tokenizer = folder && (m.tokenizer.empty() || m.tokenizer == m.path);
  bool readable = false;
  if (folder)
    for (const std::string& name : side_files(m.path)) {
      if (!own_tokenizer && of_tokenizer(name)) continue;
      readable =
          readable || name == "tokenizer.json" || name == "tokenizer.model" || name == "vocab.json";
      copy_file_from(m.path, name, to / name);  // a link may not lead out of the model
      names.push_back(name);
      if (name.ends_with(".py")) log.warning(name + " is program code; it was copied unread");
    }
  if (m.tokenizer.empty() || (own_tokenizer && readable)) return names;
  const bool llama2c = m.tokenizer.extension() == ".bin";
  const Tokenizer tokenizer =
      llama2c ? load_tokenizer(m.tokenizer, m.spec.vocab) : load_tokenizer(m.tokenizer);
  write_file(to / "tokenizer.json", to_tokenizer_json(tokenizer));
  write_file(to / "tokenizer_config.json", to_tokenizer_config_json(tokenizer));
  names.push_back("tokenizer.json");
  names.push_back("tokenizer_config.json");
  write_template(m.tokenizer, to, names);
  return names;
}

// Opens what was written: the same Spec, and the schemes that were planned.
void verify(const Model& m, const Form& form, const fs::path& folder) {
  const Model back = load_model(folder.string());
  std::string difference = arch::first_difference(back.spec, m.spec);
  std::map<std::string, Scheme, std::less<>> planned;
  for (const Output& o : form.outputs)
    for (const Output::Part& p : o.parts) planned[p.slot] = o.scheme;
  for (const auto& [name, weight] : m.weights) {
    const auto it = planned.find(name);
    const Scheme& want = it != planned.end() ? it->second : weight.scheme;
    const Weight& found = back.weights.find(name)->second;  // there: load_model checks
    if (difference.empty() && !(found.scheme == want && found.shape == weight.shape))
      difference =
          fmt::format("{}: {} instead of {}", name, to_string(found.scheme), to_string(want));
  }
  if (!difference.empty())
    fail(Exit::failed, "MO-008", "the model that was written is not the one that was meant",
         {{"found", difference}}, "nothing was published; please report this");
}

}  // namespace

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

std::optional<Json> family_config(const Model& m, const Family& family, std::string* why) {
  try {
    Json config = family.unparse(m.spec, without_marks(m.config));
    set_dtype(config, m);
    if (Json notes = notes_of(m); !notes.is_null()) config.set("pare", std::move(notes));
    return config;
  } catch (const Error& e) {
    if (e.code != "AR-007") throw;
    if (why != nullptr) *why = e.what();
    return std::nullopt;
  }
}

std::string config_dtype(const Json& config) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const Json* dtype = config.find(key)) return dtype->as_string();
  return "float32";
}

std::vector<std::string> tied_head_names(const Model& m, const Family& family) {
  if (!m.spec.tied) return {};
  const std::set<std::string> names = {tied_head_module(m, family), "lm_head"};
  return {names.begin(), names.end()};
}

void no_place(const std::string& format, const std::string& tensor, const Misfit& why) {
  std::vector<Fact> facts = {{"tensor", tensor}, {"found", why.found}, {"need", why.need}};
  fail_input("MO-030", fmt::format("the model has no exact form in {}", format), std::move(facts),
             why.scheme.empty()
                 ? "pare convert keeps every value, in Pare's own form"
                 : fmt::format("make it fit first: pare quantize MODEL --weights {}", why.scheme));
}

SaveReport publish_folder(const Model& m, const FolderJob& job, const fs::path& target, bool force,
                          const Log& log) {
  SaveReport report;
  report.form = job.form;
  for (const TensorPlan& t : job.plan) report.bytes += t.bytes();
  Publisher publisher(target, force, Publisher::Kind::folder, m.path, report.bytes + (1 << 20));
  report.side_files = carry(m, publisher.path(), log);
  write_file(publisher.path() / "config.json", job.config.dump(2) + "\n");
  for (const auto& [name, text] : job.files) write_file(publisher.path() / name, text);
  {
    ShardedWriter writer(publisher.path(), job.plan);
    Progress progress(log, "save", static_cast<double>(job.steps), "tensors");
    job.write(writer, progress);
    writer.finish();
  }
  job.verify(publisher.path());
  write_manifest(publisher.path());
  publisher.commit();
  return report;
}

namespace {

SaveReport save_form(const Model& m, const Form& form, const fs::path& target, bool force,
                     const Log& log) {
  const bool own = form.kind == FormKind::own;
  FolderJob job;
  job.form = name_of(form.kind);
  job.plan = form.plan;
  job.config = form.config;
  job.steps = own ? m.weights.size() : form.outputs.size();
  job.write = [&](ShardedWriter& writer, Progress& progress) {
    if (own)
      write_pare_form(m, writer, progress);
    else
      write_outputs(m, form, writer, progress);
  };
  job.verify = [&](const fs::path& folder) { verify(m, form, folder); };
  return publish_folder(m, job, target, force, log);
}

const Family& family_of_model(const Model& m) {
  check(m.spec);
  check(m);
  const Family* family = find_family(m.family);
  PARE_CHECK(family != nullptr);
  return *family;
}

}  // namespace

SaveReport save_model(const Model& m, const fs::path& target, bool force, const Log& log) {
  const Family& family = family_of_model(m);
  std::string tensor;
  Misfit why;
  std::optional<Form> possible = family_form(m, family, tensor, why);
  return save_form(m, possible ? *possible : own_form(m, family), target, force, log);
}

SaveReport save_compressed(const Model& m, const fs::path& target, bool force, const Log& log) {
  std::string tensor;
  Misfit why;
  const std::optional<Form> form = family_form(m, family_of_model(m), tensor, why);
  if (!form) no_place("compressed-tensors", tensor, why);
  if (form->kind != FormKind::compressed)
    no_place("compressed-tensors", "all",
             {"a model that is not quantized", "at least one quantized matrix", "int4:g128"});
  return save_form(m, *form, target, force, log);
}

}  // namespace pare
