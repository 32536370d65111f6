// Exporting to the folders of other programs.
//
// Nothing is rounded again: a matrix has a place in the form, code by code and scale by scale, or
// the export is refused with the name of the first that has none. What was written is opened again
// as any folder, and every value compared with the model's, before the folder gets its name.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "model/compressed_config.h"
#include "model/folder.h"
#include "model/packed.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const PackedForm*, 5> forms = {&gptq_form, &gptq_v2_form, &awq_form,
                                                    &bitsandbytes_form, &fp8_form};

std::vector<std::int32_t> permutation_of(const Model& m, const Output::Part& part) {
  const auto it = m.weights.find(module_of(part.slot) + ".permutation");
  if (it == m.weights.end()) return {};
  std::vector<std::int32_t> order;
  std::vector<bool> seen;
  for (float column : decode(it->second.load())) {
    order.push_back(static_cast<std::int32_t>(column));
    seen.push_back(false);
  }
  for (std::int32_t column : order) {
    const std::size_t at = static_cast<std::size_t>(column);
    if (column < 0 || at >= seen.size() || seen[at])
      fail_input("MO-033", "a stored permutation does not name every column once",
                 {{"tensor", it->first}, {"found", std::to_string(column)}});
    seen[at] = true;
  }
  return order;
}

class Exporter {
 public:
  Exporter(const Model& m, const PackedForm& form, const Family& family)
      : m_(m), form_(form), family_(family) {}

  // What the folder will hold; refuses what has no place.
  FolderJob job(const Log& log) {
    check_spec();
    std::string why;
    std::optional<Json> config = family_config(m_, family_, &why);
    std::optional<std::vector<Output>> outputs;
    if (config) outputs = outputs_of(m_, family_);
    if (!outputs) refuse("config.json", {why, "a model that its family can describe", ""});
    outputs_ = std::move(*outputs);
    dtype_ = config_dtype(*config);
    FolderJob job;
    job.form = std::string(form_.name);
    for (const Output& o : outputs_) plan(o, job.plan);
    const std::vector<PackedModule> modules = this->modules();
    if (std::none_of(modules.begin(), modules.end(), [](const auto& m) { return m.quantized; }))
      refuse("all", with_scheme({"a model that is not quantized", "a quantized matrix", ""}));
    const Json section = form_.section(modules);
    if (!form_.copy_of_section.empty())
      job.files.emplace_back(form_.copy_of_section, section.dump(2) + "\n");
    config->set("quantization_config", section);
    job.config = std::move(*config);
    job.steps = outputs_.size();
    if (adds_activation_)
      log.info(fmt::format("programs that read {} quantize inputs too ({})", form_.name,
                           to_string(*form_.activation)));
    return job;
  }

  void write(ShardedWriter& writer, Progress& progress) const {
    for (const Output& o : outputs_) {
      stop_if_interrupted();
      if (o.scheme.plain()) {
        writer.write(o.name, build(m_, o).codes.bytes);
      } else {
        Output upright = o;
        upright.transposed = false;
        const Tensor t = build(m_, upright);
        try {
          for (const RawPlane& p : form_.pack(t, permutation(o), dtype_))
            writer.write(module_of(o.name) + "." + p.suffix, p.bytes.bytes);
        } catch (Error& e) {
          throw e.with("tensor", o.name);
        }
      }
      progress.add(1, o.name);
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& tensor, const Misfit& why) const {
    no_place(std::string(form_.name), tensor, why);
  }

  // A scheme that fits, for a misfit that names none: asked of the form itself.
  Misfit with_scheme(Misfit why) const {
    const std::optional<Misfit> any = form_.misfit(Scheme{}, 128, 128);
    if (any && why.scheme.empty()) why.scheme = any->scheme;
    return why;
  }

  void check_spec() const {
    for (const auto& [name, l] : linears(m_.spec))
      if (l->rank > 0 || l->outliers > 0 || l->input_scaled || l->rotation > 0)
        refuse(name, {"companions around the matrix", "a plain product", ""});
    if (!m_.spec.embed.plain() || bits(m_.spec.embed.code) < 16)
      refuse("embed.weight", {to_string(m_.spec.embed), "f32, f16 or bf16", ""});
  }

  void check_output(const Output& o) {
    if (!o.uniform)
      refuse(o.name,
             {"parts of a fused matrix in different schemes", "one scheme for all of them", ""});
    if (o.activation.per != Activation::Per::none && o.activation != form_.activation)
      refuse(o.name, {"inputs in " + to_string(o.activation),
                      form_.activation ? "none or " + to_string(*form_.activation) : "none", ""});
    if (o.scheme.plain()) {
      if (bits(o.scheme.code) < 16 || o.permuted || o.activation.per != Activation::Per::none)
        refuse(o.name, {to_string(o.scheme), "f32, f16 or bf16, or a quantized matrix", ""});
      return;
    }
    if (!o.linear) refuse(o.name, {to_string(o.scheme), "f32, f16 or bf16", ""});
    if (o.transposed && !form_.conv1d)
      refuse(o.name, {"a matrix that is stored transposed", "the matrix of a Linear", ""});
    if (o.permuted && !form_.permuted)
      refuse(o.name, {"columns in the order of a permutation", "columns in order", ""});
    if (o.parts.size() > 1 && o.scheme.grouping == Grouping::block)
      for (const Output::Part& p : o.parts)
        if (m_.weights.find(p.slot)->second.shape[0] % o.scheme.rows != 0)
          refuse(o.name, {"blocks that cross the parts of a fused matrix",
                          "blocks that end with them", ""});
    if (o.parts.size() > 1 && o.scheme.second_level && o.scheme.super_count == 0)
      refuse(o.name,
             {"a fused matrix whose parts have a scale each", "one scale for the whole", ""});
    if (const std::optional<Misfit> why = form_.misfit(o.scheme, o.shape[0], o.shape[1]))
      refuse(o.name, *why);
    adds_activation_ =
        adds_activation_ || (form_.activation && o.activation.per == Activation::Per::none);
  }

  void plan(const Output& o, std::vector<TensorPlan>& plan) {
    check_output(o);
    if (o.scheme.plain()) {
      std::vector<i64> shape = o.shape;
      if (o.transposed) std::reverse(shape.begin(), shape.end());
      plan.push_back({o.name, dtype_of(o.scheme.code), shape});
      return;
    }
    for (const RawPlane& p : form_.plan(o.scheme, o.shape[0], o.shape[1], dtype_))
      plan.push_back({module_of(o.name) + "." + p.suffix, *find_dtype(p.dtype), p.shape});
  }

  std::vector<PackedModule> modules() const {
    std::vector<PackedModule> list;
    for (const Output& o : outputs_)
      if (o.linear && o.shape.size() == 2 && o.name.ends_with(".weight"))
        list.push_back(
            {module_of(o.name), !o.scheme.plain(), o.scheme, o.shape[0], o.shape[1], o.permuted});
    for (const std::string& name : tied_head_names(m_, family_))
      list.push_back({name, false, {}, 0, 0, false});
    return list;
  }

  // The one order of columns that all parts of a fused matrix must share.
  std::vector<std::int32_t> permutation(const Output& o) const {
    const std::vector<std::int32_t> first = permutation_of(m_, o.parts[0]);
    for (const Output::Part& p : o.parts)
      if (permutation_of(m_, p) != first)
        refuse(o.name, {"parts of a fused matrix with different permutations", "one for all", ""});
    return first;
  }

  const Model& m_;
  const PackedForm& form_;
  const Family& family_;
  std::vector<Output> outputs_;
  std::string dtype_;
  bool adds_activation_ = false;
};

// A matrix with its columns in the order of the inputs, row by row.
struct InOrder {
  Tensor t;
  std::vector<std::int32_t> permutation;

  void row(i64 r, std::span<float> out, std::span<float> buffer) const {
    decode_row(t, r, permutation.empty() ? out : buffer);
    for (std::size_t i = 0; i < permutation.size(); i++)
      out[static_cast<std::size_t>(permutation[i])] = buffer[i];
  }
};

InOrder in_order(const Model& m, const std::string& slot) {
  return {load(m, slot), permutation_of(m, {slot, {}})};
}

bool same_value(float a, float b) {
  return a == b || std::memcmp(&a, &b, sizeof a) == 0;  // NaN stays what it is
}

// Opens what was written; every value of every tensor is the model's.
void compare_values(const Model& m, const fs::path& folder, Pool& pool, const Log& log) {
  const Model back = load_model(folder.string());
  Progress progress(log, "compare", static_cast<double>(m.weights.size()), "tensors");
  for (const auto& [name, weight] : m.weights) {
    stop_if_interrupted();
    if (name.ends_with(".permutation") || name.ends_with(".static_scale")) continue;
    const InOrder a = in_order(m, name), b = in_order(back, name);
    std::atomic<i64> wrong{-1};
    pool.run(a.t.rows(), 8, [&](i64 begin, i64 end) {
      const std::size_t cols = static_cast<std::size_t>(a.t.cols());
      std::vector<float> x(cols), y(cols), buffer(cols);
      for (i64 r = begin; r < end; r++) {
        a.row(r, x, buffer);
        b.row(r, y, buffer);
        if (!std::equal(x.begin(), x.end(), y.begin(), same_value)) wrong = r;
      }
    });
    if (wrong >= 0)
      fail(Exit::failed, "MO-008", "the model that was written is not the one that was meant",
           {{"tensor", name}, {"found", fmt::format("other values in row {}", wrong.load())}},
           "nothing was published; please report this");
    progress.add(1, name);
  }
}

// Other programs choose how they keep keys and values; one form has a word for one way.
void warn_of_cache(const Model& m, const std::string& format, const Log& log) {
  if (!m.spec.kv || (m.spec.kv->keys.plain() && m.spec.kv->values.plain())) return;
  if (format == "compressed-tensors" && says_cache(*m.spec.kv)) return;
  log.warning(fmt::format("the cache's scheme {} is known to Pare alone: {} has no word for it",
                          to_string(*m.spec.kv), format));
}

}  // namespace

SaveReport export_model(const Model& m, const std::string& format, const fs::path& target,
                        bool force, Pool& pool, const Log& log) {
  warn_of_cache(m, format, log);
  if (format == "compressed-tensors") return save_compressed(m, target, force, log);
  const auto form = std::find_if(forms.begin(), forms.end(),
                                 [&](const PackedForm* f) { return f->name == format; });
  PARE_CHECK(form != forms.end());
  check(m.spec);
  check(m);
  const Family* family = find_family(m.family);
  PARE_CHECK(family != nullptr);
  Exporter exporter(m, **form, *family);
  FolderJob job = exporter.job(log);
  job.write = [&](ShardedWriter& writer, Progress& progress) { exporter.write(writer, progress); };
  job.verify = [&](const fs::path& folder) { compare_values(m, folder, pool, log); };
  return publish_folder(m, job, target, force, log);
}

}  // namespace pare
