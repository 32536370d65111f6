// GGUF's names: architecture by architecture, module by module (llama.cpp's tensor list).
#include "model/gguf_archs.h"

#include <array>

namespace pare {
namespace {

constexpr auto llama_outside = std::to_array<GgufNamePair>(
    {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}});
constexpr auto llama_inside = std::to_array<GgufNamePair>({{"attn_norm", "input_layernorm"},
                                                           {"attn_q", "self_attn.q_proj"},
                                                           {"attn_k", "self_attn.k_proj"},
                                                           {"attn_v", "self_attn.v_proj"},
                                                           {"attn_output", "self_attn.o_proj"},
                                                           {"attn_q_norm", "self_attn.q_norm"},
                                                           {"attn_k_norm", "self_attn.k_norm"},
                                                           {"ffn_norm", "post_attention_layernorm"},
                                                           {"ffn_gate", "mlp.gate_proj"},
                                                           {"ffn_up", "mlp.up_proj"},
                                                           {"ffn_down", "mlp.down_proj"}});
constexpr auto gemma2_inside =
    std::to_array<GgufNamePair>({{"attn_norm", "input_layernorm"},
                                 {"attn_q", "self_attn.q_proj"},
                                 {"attn_k", "self_attn.k_proj"},
                                 {"attn_v", "self_attn.v_proj"},
                                 {"attn_output", "self_attn.o_proj"},
                                 {"post_attention_norm", "post_attention_layernorm"},
                                 {"ffn_norm", "pre_feedforward_layernorm"},
                                 {"post_ffw_norm", "post_feedforward_layernorm"},
                                 {"ffn_gate", "mlp.gate_proj"},
                                 {"ffn_up", "mlp.up_proj"},
                                 {"ffn_down", "mlp.down_proj"}});
constexpr auto phi3_inside = std::to_array<GgufNamePair>({{"attn_norm", "input_layernorm"},
                                                          {"attn_qkv", "self_attn.qkv_proj"},
                                                          {"attn_output", "self_attn.o_proj"},
                                                          {"ffn_norm", "post_attention_layernorm"},
                                                          {"ffn_up", "mlp.gate_up_proj"},
                                                          {"ffn_down", "mlp.down_proj"}});
constexpr auto neox_outside =
    std::to_array<GgufNamePair>({{"token_embd", "gpt_neox.embed_in"},
                                 {"output_norm", "gpt_neox.final_layer_norm"},
                                 {"output", "embed_out"}});
constexpr auto neox_inside = std::to_array<GgufNamePair>({{"attn_norm", "input_layernorm"},
                                                          {"attn_qkv", "attention.query_key_value"},
                                                          {"attn_output", "attention.dense"},
                                                          {"ffn_norm", "post_attention_layernorm"},
                                                          {"ffn_up", "mlp.dense_h_to_4h"},
                                                          {"ffn_down", "mlp.dense_4h_to_h"}});
constexpr auto falcon_outside =
    std::to_array<GgufNamePair>({{"token_embd", "transformer.word_embeddings"},
                                 {"output_norm", "transformer.ln_f"},
                                 {"output", "lm_head"}});
constexpr auto falcon_inside =
    std::to_array<GgufNamePair>({{"attn_norm", "input_layernorm"},
                                 {"attn_qkv", "self_attention.query_key_value"},
                                 {"attn_output", "self_attention.dense"},
                                 {"ffn_up", "mlp.dense_h_to_4h"},
                                 {"ffn_down", "mlp.dense_4h_to_h"}});
constexpr auto falcon_two_norms =
    std::to_array<GgufNamePair>({{"attn_norm", "ln_mlp"},
                                 {"attn_norm_2", "ln_attn"},
                                 {"attn_qkv", "self_attention.query_key_value"},
                                 {"attn_output", "self_attention.dense"},
                                 {"ffn_up", "mlp.dense_h_to_4h"},
                                 {"ffn_down", "mlp.dense_4h_to_h"}});

constexpr auto gpt2_outside = std::to_array<GgufNamePair>({{"token_embd", "transformer.wte"},
                                                           {"position_embd", "transformer.wpe"},
                                                           {"output_norm", "transformer.ln_f"},
                                                           {"output", "lm_head"}});
constexpr auto gpt2_inside = std::to_array<GgufNamePair>({{"attn_norm", "ln_1"},
                                                          {"attn_qkv", "attn.c_attn"},
                                                          {"attn_output", "attn.c_proj"},
                                                          {"ffn_norm", "ln_2"},
                                                          {"ffn_up", "mlp.c_fc"},
                                                          {"ffn_down", "mlp.c_proj"}});

constexpr std::string_view decoder = "model.layers.";
constexpr auto archs = std::to_array<GgufArch>({
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .layers = decoder,
     .outside = llama_outside,
     .inside = llama_inside,
     .pairs = true},
    {.name = "qwen2",
     .model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .layers = decoder,
     .outside = llama_outside,
     .inside = llama_inside},
    {.name = "qwen3",
     .model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .layers = decoder,
     .outside = llama_outside,
     .inside = llama_inside},
    {.name = "gemma2",
     .model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .layers = decoder,
     .outside = llama_outside,
     .inside = gemma2_inside,
     .plus_one = true},
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .layers = decoder,
     .outside = llama_outside,
     .inside = phi3_inside},
    {.name = "gptneox",
     .model_type = "gpt_neox",
     .class_name = "GPTNeoXForCausalLM",
     .layers = "gpt_neox.layers.",
     .outside = neox_outside,
     .inside = neox_inside,
     .head_by_head = true,
     .layer_norm = true},
    {.name = "falcon",
     .model_type = "falcon",
     .class_name = "FalconForCausalLM",
     .layers = "transformer.h.",
     .outside = falcon_outside,
     .inside = falcon_inside,
     .two_norms = falcon_two_norms,
     .head_by_head = true,
     .layer_norm = true},
    {.name = "gpt2",
     .model_type = "gpt2",
     .class_name = "GPT2LMHeadModel",
     .layers = "transformer.h.",
     .outside = gpt2_outside,
     .inside = gpt2_inside,
     .layer_norm = true},
});

}  // namespace

std::span<const GgufArch> gguf_archs() { return archs; }

std::string name_from_gguf(const GgufArch& arch, const std::string& name) {
  const std::size_t last = name.rfind('.');
  if (last == std::string::npos) return name;
  const std::string leaf = name.substr(last);
  if (!name.starts_with("blk.")) {
    for (const auto& [from, to] : arch.outside)
      if (name.substr(0, last) == from) return std::string(to) + leaf;
    return name;
  }
  const std::size_t dot = name.find('.', 4);
  if (dot >= last) return name;
  for (const auto& [from, to] : arch.inside)
    if (name.substr(dot + 1, last - dot - 1) == from)
      return fmt::format("{}{}.{}{}", arch.layers, name.substr(4, dot - 4), to, leaf);
  return name;
}

std::optional<std::string> name_to_gguf(const GgufArch& arch, const std::string& name) {
  const std::size_t last = name.rfind('.');
  if (last == std::string::npos) return std::nullopt;
  const std::string leaf = name.substr(last);
  if (name.starts_with(arch.layers)) {
    const std::size_t begin = arch.layers.size(), dot = name.find('.', begin);
    if (dot >= last) return std::nullopt;
    for (const auto& [to, from] : arch.inside)
      if (name.substr(dot + 1, last - dot - 1) == from)
        return fmt::format("blk.{}.{}{}", name.substr(begin, dot - begin), to, leaf);
    return std::nullopt;
  }
  for (const auto& [to, from] : arch.outside)
    if (name.substr(0, last) == from) return std::string(to) + leaf;
  return std::nullopt;
}

}  // namespace pare
