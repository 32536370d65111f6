// A Spec in GGUF's keys.
//
// Everything is written from the Spec, never from config.json, so a model that passes have changed
// says what it is now. llama.cpp compares value types strictly: counts are u32, switches booleans,
// all else f32.
#include "model/gguf_metadata.h"

#include "file/io.h"

namespace pare {
namespace {

void rope_keys(const std::string& a, const Rope& r, GgufMetadata& out) {
  if (r.dims == 0) return;
  out.emplace_back(a + "rope.dimension_count", r.dims);
  out.emplace_back(a + "rope.freq_base", r.theta);
  switch (r.scaling) {
    case RopeScaling::none:
    case RopeScaling::llama3:   // a tensor of divisors
    case RopeScaling::dynamic:  // no words for it: found when the file is read back
      return;
    case RopeScaling::linear:
      out.emplace_back(a + "rope.scaling.type", std::string("linear"));
      out.emplace_back(a + "rope.scaling.factor", r.factor);
      return;
    case RopeScaling::yarn:
      out.emplace_back(a + "rope.scaling.type", std::string("yarn"));
      out.emplace_back(a + "rope.scaling.factor", r.factor);
      out.emplace_back(a + "rope.scaling.original_context_length", r.original_positions);
      out.emplace_back(a + "rope.scaling.yarn_beta_fast", r.beta_fast);
      out.emplace_back(a + "rope.scaling.yarn_beta_slow", r.beta_slow);
      return;
    case RopeScaling::longrope:
      out.emplace_back(a + "rope.scaling.type", std::string("longrope"));
      out.emplace_back(a + "rope.scaling.original_context_length", r.original_positions);
      out.emplace_back(a + "rope.scaling.attn_factor", r.attention_factor);
      return;
  }
}

std::string template_in(const Json& config) {
  const Json* value = config.find("chat_template");
  if (value == nullptr) return {};
  if (value->is_string()) return value->as_string();
  if (!value->is_array()) return {};
  std::string first;
  for (const Json& one : value->as_array()) {
    const Json *name = one.find("name"), *text = one.find("template");
    if (name == nullptr || text == nullptr || !text->is_string()) continue;
    if (name->is_string() && name->as_string() == "default") return text->as_string();
    if (first.empty()) first = text->as_string();
  }
  return first;
}

}  // namespace

GgufMetadata gguf_architecture_keys(const Spec& spec, const GgufArch& arch) {
  const std::string a = std::string(arch.name) + ".";
  const Block& block = spec.blocks[0];
  const Attention& attn = block.attn;
  GgufMetadata out;
  out.emplace_back(a + "vocab_size", spec.vocab);
  out.emplace_back(a + "context_length", spec.max_positions);
  out.emplace_back(a + "embedding_length", spec.dim);
  out.emplace_back(a + "block_count", static_cast<i64>(spec.blocks.size()));
  out.emplace_back(a + "feed_forward_length", block.ffn.up.out);
  out.emplace_back(a + "attention.head_count", attn.heads);
  out.emplace_back(a + "attention.head_count_kv", attn.kv_heads);
  if (attn.qk_dim * attn.heads != spec.dim || attn.v_dim != attn.qk_dim || arch.name == "gemma2") {
    out.emplace_back(a + "attention.key_length", attn.qk_dim);
    out.emplace_back(a + "attention.value_length", attn.v_dim);
  }
  out.emplace_back(
      a + (arch.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
      static_cast<double>(spec.final_norm.eps));
  if (attn.window > 0) out.emplace_back(a + "attention.sliding_window", attn.window);
  if (arch.name == "gemma2") {
    out.emplace_back(a + "attn_logit_softcapping", static_cast<double>(attn.softcap));
    out.emplace_back(a + "final_logit_softcapping", static_cast<double>(spec.logit_cap));
  }
  if (arch.name == "gptneox") out.emplace_back(a + "use_parallel_residual", block.parallel);
  if (arch.name == "falcon") out.emplace_back(a + "tensor_data_layout", std::string("jploski"));
  rope_keys(a, attn.rope, out);
  return out;
}

std::vector<std::pair<std::string, std::vector<float>>> gguf_rope_tensors(const Spec& spec) {
  const Rope& r = spec.blocks[0].attn.rope;
  std::vector<std::pair<std::string, std::vector<float>>> out;
  if (r.dims == 0) return out;
  if (r.scaling == RopeScaling::llama3) {
    Rope plain = r;
    plain.scaling = RopeScaling::none;
    const std::vector<double> base = rope_frequencies(plain, 1), scaled = rope_frequencies(r, 1);
    std::vector<float> divisors;
    for (std::size_t i = 0; i < base.size(); i++)
      divisors.push_back(static_cast<float>(base[i] / scaled[i]));
    out.emplace_back("rope_freqs.weight", std::move(divisors));
  }
  if (r.scaling == RopeScaling::longrope) {
    out.emplace_back("rope_factors_long.weight",
                     std::vector<float>(r.long_factor.begin(), r.long_factor.end()));
    out.emplace_back("rope_factors_short.weight",
                     std::vector<float>(r.short_factor.begin(), r.short_factor.end()));
  }
  return out;
}

std::string find_chat_template(const std::filesystem::path& tokenizer) {
  namespace fs = std::filesystem;
  if (tokenizer.empty()) return {};
  if (tokenizer.extension() == ".gguf") {
    const Gguf file = open_gguf(tokenizer);
    const std::string* text = file.text("tokenizer.chat_template");
    return text != nullptr ? *text : std::string();
  }
  const fs::path folder = fs::is_directory(tokenizer) ? tokenizer : tokenizer.parent_path();
  if (fs::is_regular_file(folder / "chat_template.jinja"))
    return read_text_file(folder / "chat_template.jinja", 16u << 20);
  const fs::path config = folder / "tokenizer_config.json";
  if (!fs::is_regular_file(config)) return {};
  return template_in(parse_json(read_text_file(config, 64u << 20), config.string()));
}

}  // namespace pare
