// Shapes of well-known models, for `pare random --like NAME`.
//
// Each is the part of the model's published config.json that its Spec depends on; the family reads
// it as it reads any checkpoint. The parameter counts that follow are checked by a test against the
// published ones.
#include <algorithm>
#include <array>

#include "model/model.h"

namespace pare {
namespace {

struct Known {
  const char* name;
  const char* config;
};

constexpr auto shapes = std::to_array<Known>({
    {"llama-3.2-1b",
     R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
         "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
         "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    {"llama-3.2-3b",
     R"({"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192,
         "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
         "head_dim": 128, "vocab_size": 128256, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
         "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    {"llama-3-8b",
     R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "vocab_size": 128256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
         "rope_theta": 500000.0, "tie_word_embeddings": false})"},
    {"llama-3-70b",
     R"({"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
         "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
         "vocab_size": 128256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
         "rope_theta": 500000.0, "tie_word_embeddings": false})"},
    {"llama-2-7b",
     R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
         "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "tie_word_embeddings": false})"},
    {"llama-2-13b",
     R"({"model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824,
         "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40,
         "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "tie_word_embeddings": false})"},
    {"smollm2-135m",
     R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
         "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
         "rope_theta": 100000.0, "tie_word_embeddings": true})"},
    {"mistral-7b",
     R"({"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "vocab_size": 32000, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false})"},
    {"qwen2.5-0.5b",
     R"({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
         "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
         "rope_theta": 1000000.0, "use_sliding_window": false, "tie_word_embeddings": true})"},
    {"qwen2.5-1.5b",
     R"({"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
         "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
         "vocab_size": 151936, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
         "rope_theta": 1000000.0, "use_sliding_window": false, "tie_word_embeddings": true})"},
    {"qwen2.5-7b",
     R"({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
         "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
         "vocab_size": 152064, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
         "rope_theta": 1000000.0, "use_sliding_window": false, "tie_word_embeddings": false})"},
    {"qwen3-0.6b",
     R"({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
         "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
         "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": false,
         "tie_word_embeddings": true})"},
    {"qwen3-1.7b",
     R"({"model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144,
         "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
         "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": false,
         "tie_word_embeddings": true})"},
    {"qwen3-8b",
     R"({"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
         "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
         "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": false,
         "tie_word_embeddings": false})"},
    {"gemma-2-2b",
     R"({"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
         "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192,
         "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_activation": "gelu_pytorch_tanh",
         "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
         "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": true})"},
    {"phi-3-mini",
     R"({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
         "vocab_size": 32064, "max_position_embeddings": 4096,
         "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "sliding_window": 2047, "tie_word_embeddings": false})"},
    {"gpt2",
     R"({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
         "vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5})"},
    {"pythia-160m",
     R"({"model_type": "gpt_neox", "hidden_size": 768, "intermediate_size": 3072,
         "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 50304,
         "max_position_embeddings": 2048, "rotary_pct": 0.25, "rotary_emb_base": 10000,
         "layer_norm_eps": 1e-5, "hidden_act": "gelu", "use_parallel_residual": true,
         "tie_word_embeddings": false})"},
    {"falcon-7b",
     R"({"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32,
         "num_attention_heads": 71, "vocab_size": 65024, "multi_query": true,
         "parallel_attn": true, "bias": false, "alibi": false, "layer_norm_epsilon": 1e-5})"},
});

}  // namespace

std::vector<std::string> known_specs() {
  std::vector<std::string> names;
  for (const Known& k : shapes) names.emplace_back(k.name);
  return names;
}

Spec known_spec(const std::string& name) {
  for (const Known& k : shapes) {
    if (name != k.name) continue;
    Json config = parse_json(k.config, k.name);
    config.set("torch_dtype", "bfloat16");
    return family_of(config).parse(config);
  }
  std::string list;
  for (const Known& k : shapes) list += std::string(list.empty() ? "" : ", ") + k.name;
  const std::string near = nearest(name, known_specs());
  fail(Exit::usage, "MO-007", fmt::format("there is no known shape {}", pare::quoted(name)),
       {{"need", "a folder with a config.json, or one of " + list}},
       near.empty() ? "" : "did you mean " + near + "?");
}

}  // namespace pare
