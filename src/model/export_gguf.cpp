// A model as a GGUF file.
//
// The tensors are those of a Hugging Face checkpoint under GGUF's names: parts that GGUF fuses are
// stacked one after the other, llama's rows of q and k are reordered so that rotary pairs are
// neighbours. All of that is moving rows, and rows of ggml blocks are independent, so each part is
// brought to its type first and the rows of blocks are moved afterwards.
//
// First everything is planned: names, types (which without a type to round to needs a look at the
// codes), keys, tokenizer; then tensors are drawn through one at a time; then the file is opened as
// any other and its Spec compared, which finds whatever GGUF has no words for.
#include "model/export_gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "file/publish.h"
#include "model/arch/common.h"
#include "model/checkpoint.h"
#include "model/gguf_metadata.h"
#include "model/gguf_types.h"
#include "model/outputs.h"
#include "number/ggml_exact.h"
#include "text/gguf_vocabulary.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

struct Item {
  GgufPlan plan;
  std::vector<std::string> slots;  // the parts, one below the other
  i64 pairs_of = 0;                // > 0: rows of heads of this size become rotary pairs
  float add = 0;                   // to every value of a vector
  std::vector<float> values;       // instead of slots
};

[[noreturn]] void no_words(const std::string& what, const std::string& found,
                           const std::string& hint = {}) {
  fail_input("MO-020", "GGUF has no words for " + what, {{"found", found}}, hint);
}

const GgufArch& arch_of(const Model& m) {
  const std::string family = m.family == "mistral" ? "llama" : m.family;
  std::string list;
  for (const GgufArch& a : gguf_archs()) {
    if (a.model_type == family) return a;
    list += (list.empty() ? "" : ", ") + std::string(a.model_type);
  }
  fail_input("MO-020", "models of this family cannot be written as GGUF",
             {{"found", m.family}, {"need", "one of " + list + ", mistral"}});
}

void refuse_companions(const Spec& spec) {
  for (const auto& [name, l] : linears(spec))
    if (l->rank > 0 || l->outliers > 0 || l->permuted || l->input_scaled || l->rotation > 0)
      no_words("companions of a matrix (low rank, outliers, permutation, input scales, rotation)",
               name, "export a model without them");
}

// What the file cannot carry and llama.cpp does in its own way.
std::vector<std::string> notes_on(const Model& m, const GgufArch& arch) {
  std::vector<std::string> notes;
  for (const auto& [name, l] : linears(m.spec))
    if (l->activation.per != Activation::Per::none) {
      notes.push_back(fmt::format("{} is left out: llama.cpp rounds inputs by rules of its own",
                                  to_string(l->activation)));
      break;
    }
  if (m.spec.kv) notes.push_back("the code of the cache is left out: llama.cpp's flags choose it");
  const i64 window = m.spec.blocks[0].attn.window;
  if (window > 0 && window < m.spec.max_positions && arch.name != "gemma2")
    notes.push_back(fmt::format(
        "llama.cpp ignores the sliding window of this model; texts above {} tokens differ",
        window));
  return notes;
}

// ---- the tensors ----

GgufArch arch_for(const Model& m) {
  GgufArch arch = arch_of(m);
  const Block& block = m.spec.blocks[0];
  if (!arch.two_norms.empty() && block.parallel && block.before_ffn) arch.inside = arch.two_norms;
  return arch;
}

Item item_of(const Model& m, const GgufArch& arch, const Output& o) {
  const std::optional<std::string> name = name_to_gguf(arch, o.name);
  if (!name) no_words("a tensor of the model", o.name);
  Item item;
  item.plan.name = *name;
  item.plan.shape = o.shape;
  for (const Output::Part& p : o.parts) item.slots.push_back(p.slot);
  const bool q = o.parts[0].slot.find(".attn.q.") != std::string::npos,
             k = o.parts[0].slot.find(".attn.k.") != std::string::npos;
  if (arch.pairs && (q || k)) item.pairs_of = m.spec.blocks[0].attn.qk_dim;
  if (arch.plus_one && o.shape.size() == 1 && name->ends_with("norm.weight")) item.add = 1;
  return item;
}

std::vector<Item> items_of(const Model& m, const GgufArch& arch) {
  const std::optional<std::vector<Output>> outputs = outputs_of(m, *find_family(m.family));
  if (!outputs) no_words("a part of this model", "a tensor that its family has no name for");
  std::vector<Item> items;
  for (const Output& o : *outputs) items.push_back(item_of(m, arch, o));
  if (m.spec.tied && arch.name == "gptneox") {  // llama.cpp demands the head there
    Item head = items[0];
    head.plan.name = "output.weight";
    items.push_back(std::move(head));
  }
  for (auto& [name, values] : gguf_rope_tensors(m.spec)) {
    Item item;
    item.plan.name = name;
    item.plan.shape = {static_cast<i64>(values.size())};
    item.values = std::move(values);
    items.push_back(std::move(item));
  }
  for (const Item& item : items)
    if (item.plan.name.size() > 63) no_words("a tensor name this long", item.plan.name);
  return items;
}

// ---- types ----

// The smallest type that holds all parts exactly.
std::uint32_t exact_type(const Model& m, const Item& item) {
  std::vector<std::uint32_t> common;
  std::string found;
  for (std::size_t i = 0; i < item.slots.size(); i++) {
    const Tensor t = load(m, item.slots[i]);
    const std::vector<std::uint32_t> types = exact_ggml_types(t);
    found += (i > 0 ? ", " : "") + to_string(t.scheme);
    if (i == 0) common = types;
    std::erase_if(common, [&](std::uint32_t type) {
      return std::find(types.begin(), types.end(), type) == types.end();
    });
  }
  if (common.empty())
    fail_input("MO-022", "no ggml type holds the codes of a matrix exactly",
               {{"tensor", item.plan.name}, {"found", found}},
               "name a type to round to, --format gguf:Q4_K_M, or quantize to a scheme that GGUF "
               "has: q4_0, q4_k, int8:g32, ...");
  return common[0];
}

void choose_types(const Model& m, const GgufArch& arch, const GgufOptions& options,
                  std::vector<Item>& items) {
  const Attention& a = m.spec.blocks[0].attn;
  const bool head = std::any_of(items.begin(), items.end(),
                                [](const Item& item) { return item.plan.name == "output.weight"; });
  const GgufShape shape{arch.name, static_cast<i64>(m.spec.blocks.size()), a.heads, a.kv_heads,
                        !head,     options.importance != nullptr};
  for (Item& item : items) {
    stop_if_interrupted();
    const bool matrix = item.plan.shape.size() == 2 && item.plan.name != "position_embd.weight";
    if (!matrix)
      item.plan.type = 0;
    else if (options.type.empty())
      item.plan.type = exact_type(m, item);
    else
      item.plan.type =
          gguf_type(find_gguf_preset(options.type), shape, item.plan.name, item.plan.shape);
  }
}

// ---- bytes ----

// One part as a tensor of the type's scheme; counts it as exact or rounded.
Tensor converted(const Model& m, const std::string& slot, std::uint32_t type,
                 const GgufOptions& options, Pool& pool, bool& exact) {
  const Tensor t = load(m, slot);
  if (std::optional<Tensor> same = exact_in_ggml(t, type)) return std::move(*same);
  const std::vector<float> values = decode(t);
  for (float x : values)
    if (!std::isfinite(x))
      fail_input("MO-022", "a weight is not a finite number", {{"tensor", slot}});
  // An embedding multiplies nothing, unless it is the head too.
  const bool looked_up = slot == "embed.weight" && !m.spec.tied;
  const std::string linear = slot == "embed.weight" ? "head" : module_of(slot);
  const std::vector<float> importance =
      options.importance && !looked_up ? options.importance(linear) : std::vector<float>();
  const Scheme scheme = scheme_of_ggml(type);
  Tensor out =
      quantize({values.data(), t.rows(), t.cols()}, scheme, options.fit, importance, &pool);
  if (scheme.plain()) {
    const std::vector<float> back = decode(out);
    exact = exact && back == values;
    for (std::size_t i = 0; i < back.size(); i++)
      if (!std::isfinite(back[i]))
        fail_input("MO-022", "a weight is too large for F16",
                   {{"tensor", slot}, {"found", fmt::format("{}", values[i])}},
                   "use --format gguf:BF16 or gguf:F32");
  } else {
    exact = false;
  }
  return out;
}

// Rows of whole heads: (half, j) -> (j, half).
std::vector<std::byte> paired_rows(std::span<const std::byte> rows, i64 count, i64 head) {
  const std::size_t width = rows.size() / static_cast<std::size_t>(count);
  std::vector<std::byte> out(rows.size());
  for (i64 r = 0; r < count; r++) {
    const i64 h = r / head, j = r % head / 2, half = r % 2;
    const i64 from = h * head + half * (head / 2) + j;
    std::memcpy(out.data() + static_cast<std::size_t>(r) * width,
                rows.data() + static_cast<std::size_t>(from) * width, width);
  }
  return out;
}

std::vector<std::byte> bytes_of(const Model& m, const Item& item, const GgufOptions& options,
                                Pool& pool, bool& exact) {
  std::vector<std::byte> out;
  const auto append = [&](std::span<const std::byte> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  append(std::as_bytes(std::span(item.values)));
  for (const std::string& slot : item.slots) {
    if (item.plan.type == 0) {
      std::vector<float> values = decode(load(m, slot));
      for (float& x : values) x += item.add;
      append(std::as_bytes(std::span<const float>(values)));
    } else {
      append(blocks_from_tensor(converted(m, slot, item.plan.type, options, pool, exact),
                                item.plan.type)
                 .bytes);
    }
  }
  PARE_CHECK(static_cast<i64>(out.size()) == item.plan.bytes());
  if (item.pairs_of == 0) return out;
  return paired_rows(out, item.plan.shape[0], item.pairs_of);
}

// ---- keys ----

i64 file_type_of(const GgufOptions& options, const std::vector<Item>& items) {
  if (!options.type.empty()) return find_gguf_preset(options.type).file_type;
  std::map<std::uint32_t, i64> bytes;
  for (const Item& item : items)
    if (item.plan.shape.size() == 2) bytes[item.plan.type] += item.plan.bytes();
  std::uint32_t most = 0;
  for (const auto& [type, count] : bytes)
    if (count > bytes[most]) most = type;
  i64 file_type = 0;
  for (const GgufPreset& p : gguf_presets())
    if (p.base == most) file_type = p.file_type;
  return file_type;
}

std::optional<i64> config_id(const Model& m, const char* key) {
  const Json* id = m.config.find(key);
  if (id != nullptr && id->is_array() && !id->as_array().empty()) id = &id->as_array()[0];
  if (id == nullptr || !id->is_int() || id->as_int() < 0 || id->as_int() >= m.spec.vocab)
    return std::nullopt;
  return id->as_int();
}

GgufMetadata metadata_of(const Model& m, const GgufArch& arch, const GgufOptions& options,
                         const std::vector<Item>& items, std::vector<std::string>& notes) {
  const std::string name = (m.path.has_filename() ? m.path : m.path.parent_path()).stem().string();
  GgufMetadata out;
  out.emplace_back("general.architecture", std::string(arch.name));
  out.emplace_back("general.type", std::string("model"));
  out.emplace_back("general.name", name);
  out.emplace_back("general.file_type", file_type_of(options, items));
  if (std::any_of(items.begin(), items.end(),
                  [](const Item& i) { return ggml_block(i.plan.type) > 1; }))
    out.emplace_back("general.quantization_version", i64{2});
  for (auto& pair : gguf_architecture_keys(m.spec, arch)) out.push_back(std::move(pair));
  if (m.tokenizer.empty()) {
    out.emplace_back("tokenizer.ggml.model", std::string("none"));
    notes.push_back("the model has no tokenizer; the file can be run on token ids only");
    return out;
  }
  GgufVocabularyOptions vocabulary;
  vocabulary.rows = m.spec.vocab;
  vocabulary.model_name = name;
  vocabulary.bos = static_cast<std::int32_t>(config_id(m, "bos_token_id").value_or(-1));
  vocabulary.eos = static_cast<std::int32_t>(config_id(m, "eos_token_id").value_or(-1));
  vocabulary.notes = &notes;
  const bool llama2c = m.tokenizer.extension() == ".bin";
  const Tokenizer tokenizer =
      llama2c ? load_tokenizer(m.tokenizer, m.spec.vocab) : load_tokenizer(m.tokenizer);
  for (auto& pair : to_gguf_vocabulary(tokenizer, vocabulary)) out.push_back(std::move(pair));
  if (std::string text = find_chat_template(m.tokenizer); !text.empty())
    out.emplace_back("tokenizer.chat_template", std::move(text));
  return out;
}

// ---- reading back ----

// Frequencies are what counts: GGUF keeps llama 3's as divisors, from which its parameters are
// found again only up to rounding.
bool same_frequencies(const Rope& a, const Rope& b) {
  if (a.dims != b.dims) return false;
  const std::vector<double> x = rope_frequencies(a, 1), y = rope_frequencies(b, 1);
  for (std::size_t i = 0; i < x.size(); i++)
    if (std::abs(x[i] - y[i]) > 1e-5 * std::abs(x[i])) return false;
  return true;
}

Spec in_floats(Spec spec) {
  for (Block& b : spec.blocks)
    for (auto* list : {&b.attn.rope.short_factor, &b.attn.rope.long_factor})
      for (double& x : *list) x = static_cast<float>(x);
  return spec;
}

void verify(const Model& m, const GgufArch& arch, const fs::path& file) {
  Spec want = in_floats(m.spec);
  if (arch.name == "gptneox") want.tied = false;
  Spec found;
  try {
    found = assemble(read_gguf(file)).spec;
  } catch (const Error& e) {
    no_words(fmt::format("this model in the architecture {}", arch.name), e.message);
  }
  if (found.blocks.size() == want.blocks.size())
    for (std::size_t i = 0; i < want.blocks.size(); i++) {
      Rope &a = found.blocks[i].attn.rope, &b = want.blocks[i].attn.rope;
      if (b.scaling == RopeScaling::llama3 && same_frequencies(a, b)) a = b;
    }
  const std::string difference = arch::first_difference(found, want);
  if (!difference.empty())
    no_words(fmt::format("this model in the architecture {}", arch.name), difference,
             "nothing was published");
}

std::vector<std::string> type_counts(const std::vector<Item>& items) {
  std::map<std::uint32_t, int> counts;
  for (const Item& item : items)
    if (item.plan.shape.size() == 2) counts[item.plan.type]++;
  std::vector<std::pair<int, std::uint32_t>> order;
  for (const auto& [type, count] : counts) order.emplace_back(-count, type);
  std::sort(order.begin(), order.end());
  std::vector<std::string> out;
  for (const auto& [count, type] : order)
    out.push_back(fmt::format("{} x {}", find_ggml_type(type)->name, -count));
  return out;
}

}  // namespace

GgufReport export_gguf(const Model& m, const fs::path& target, const GgufOptions& options,
                       bool force, Pool& pool, const Log& log) {
  check(m.spec);
  check(m);
  if (!options.type.empty()) find_gguf_preset(options.type);
  const GgufArch arch = arch_for(m);
  refuse_companions(m.spec);
  std::vector<std::string> notes = notes_on(m, arch);
  std::vector<Item> items = items_of(m, arch);
  choose_types(m, arch, options, items);
  const GgufMetadata metadata = metadata_of(m, arch, options, items, notes);
  GgufReport report;
  std::vector<GgufPlan> plan;
  for (const Item& item : items) {
    plan.push_back(item.plan);
    report.bytes += item.plan.bytes();
  }
  report.types = type_counts(items);
  Publisher publisher(target, force, Publisher::Kind::file, m.path, report.bytes + (1 << 24));
  {
    GgufWriter writer(publisher.path(), metadata, plan);
    Progress progress(log, "export", static_cast<double>(items.size()), "tensors");
    for (const Item& item : items) {
      stop_if_interrupted();
      bool exact = true;
      writer.write(item.plan.name, bytes_of(m, item, options, pool, exact));
      if (item.plan.shape.size() == 2) (exact ? report.exact : report.rounded)++;
      progress.add(1, item.plan.name);
    }
    writer.finish();
  }
  verify(m, arch, publisher.path());
  report.bytes = static_cast<i64>(fs::file_size(publisher.path()));
  publisher.commit();
  for (const std::string& note : notes) log.warning(note);
  return report;
}

}  // namespace pare
