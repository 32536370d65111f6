// Importers: llama2.c checkpoints and GGUF files become checkpoints under Hugging Face names.
//
// Both store the rotated rows of llama's q and k as adjacent pairs; here they are put back in the
// order of halves, so that what is written afterwards is an ordinary Llama folder. GGUF's Gemma
// norms have had one added to them and are taken back to the offset form.
#include <algorithm>

#include "file/gguf.h"
#include "file/io.h"
#include "file/llama2c.h"
#include "model/checkpoint.h"
#include "number/ggml.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

CheckpointTensor permuted(CheckpointTensor t, i64 heads, i64 head_dim) {
  const std::vector<RowRange> rows = halves_from_pairs(heads, head_dim);
  t.load = [load = t.load, rows] { return select_rows(load(), rows); };
  return t;
}

fs::path tokenizer_beside(const fs::path& file, i64 vocab) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const std::string& name :
       {fmt::format("tok{}.bin", vocab), std::string("tokenizer.bin"),
        fmt::format("tok{}.model", vocab), std::string("tokenizer.model")})
    if (fs::is_regular_file(folder / name)) return folder / name;
  return {};
}

// --- GGUF
// ---------------------------------------------------------------------------------------------

class GgufImport {
 public:
  GgufImport(Gguf file, const fs::path& path) : g_(std::move(file)), path_(path) {
    const std::string* arch = g_.text("general.architecture");
    if (arch == nullptr)
      fail_input("MO-014", "the GGUF file does not say its architecture",
                 {{"file", path.string()}, {"key", "general.architecture"}});
    arch_ = *arch;
    static const std::vector<std::string> known = {"llama", "qwen2", "qwen3", "gemma2", "phi3"};
    if (std::find(known.begin(), known.end(), arch_) == known.end())
      fail_input("MO-014", "GGUF files of this architecture cannot be read yet",
                 {{"file", path.string()},
                  {"found", pare::quoted(arch_)},
                  {"need", "llama, qwen2, qwen3, gemma2 or phi3"}});
    if (g_.tensors.empty())
      fail_input("MO-014", "the GGUF file holds no tensors, only a vocabulary",
                 {{"file", path.string()}});
    if (g_.integer(arch_ + ".expert_count").value_or(0) > 0)
      fail_input("SP-002", "mixture-of-experts models are not supported yet",
                 {{"file", path.string()}});
  }

  Checkpoint read() {
    Checkpoint c;
    c.path = path_;
    if (g_.texts("tokenizer.ggml.tokens") != nullptr) c.tokenizer = path_;
    make_config(c);
    for (const GgufTensor& t : g_.tensors) add(c, t);
    return c;
  }

 private:
  i64 need(const std::string& key) const {
    const auto value = g_.integer(arch_ + "." + key);
    if (!value)
      fail_input("MO-014", "the GGUF file lacks a key",
                 {{"file", path_.string()}, {"key", arch_ + "." + key}});
    return *value;
  }
  double number(const std::string& key, double fallback) const {
    return g_.number(arch_ + "." + key).value_or(fallback);
  }

  void make_config(Checkpoint& c) {
    const GgufTensor* embed = g_.tensor("token_embd.weight");
    if (embed == nullptr || embed->shape.size() != 2)
      fail_input("MO-001", "a tensor of the model is missing",
                 {{"file", path_.string()}, {"tensor", "token_embd.weight"}});
    heads_ = need("attention.head_count");
    kv_heads_ = g_.integer(arch_ + ".attention.head_count_kv").value_or(heads_);
    const i64 dim = need("embedding_length");
    if (heads_ < 1 || kv_heads_ < 1 || heads_ > 65536 || kv_heads_ > heads_)
      fail_input("SP-001", "the model's head counts do not make sense",
                 {{"file", path_.string()}, {"found", std::to_string(heads_)}});
    head_dim_ = g_.integer(arch_ + ".attention.key_length").value_or(dim / heads_);
    if (head_dim_ < 1 || head_dim_ > 65536)
      fail_input("SP-001", "the model's head size does not make sense",
                 {{"file", path_.string()}, {"found", std::to_string(head_dim_)}});
    const char* classes[] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
                             "Gemma2ForCausalLM", "Phi3ForCausalLM"};
    const std::size_t which = arch_ == "llama"    ? 0
                              : arch_ == "qwen2"  ? 1
                              : arch_ == "qwen3"  ? 2
                              : arch_ == "gemma2" ? 3
                                                  : 4;
    Json& j = c.config = Json::object();
    j.set("architectures", Json::array({Json(classes[which])}));
    j.set("model_type", arch_);
    j.set("hidden_size", dim);
    j.set("intermediate_size", need("feed_forward_length"));
    j.set("num_hidden_layers", need("block_count"));
    j.set("num_attention_heads", heads_);
    j.set("num_key_value_heads", kv_heads_);
    if (arch_ != "qwen2" && arch_ != "phi3") j.set("head_dim", head_dim_);
    j.set("vocab_size", embed->shape[0]);
    j.set("max_position_embeddings", need("context_length"));
    j.set("rms_norm_eps", number("attention.layer_norm_rms_epsilon", 1e-6));
    j.set("rope_theta", number("rope.freq_base", 10000));
    j.set("tie_word_embeddings", g_.tensor("output.weight") == nullptr);
    j.set("torch_dtype", "bfloat16");
    j.set(arch_ == "gemma2" ? "hidden_activation" : "hidden_act",
          arch_ == "gemma2" ? "gelu_pytorch_tanh" : "silu");
    for (const auto& [key, name] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                    {"tokenizer.ggml.eos_token_id", "eos_token_id"}})
      if (const auto id = g_.integer(key)) j.set(name, *id);
    if (arch_ == "llama") {
      bias_ = g_.tensor("blk.0.attn_q.bias") != nullptr;
      j.set("attention_bias", bias_);
    }
    if (arch_ == "gemma2") gemma(j);
    rope_scaling(j);
  }

  void gemma(Json& j) const {
    j.set("attn_logit_softcapping", number("attn_logit_softcapping", 50));
    j.set("final_logit_softcapping", number("final_logit_softcapping", 30));
    j.set("sliding_window", g_.integer("gemma2.attention.sliding_window").value_or(4096));
    // Not stored in the file: every size but the 46-block one scales by the head size.
    j.set("query_pre_attn_scalar",
          need("block_count") == 46 ? Json(need("embedding_length") / heads_) : Json(head_dim_));
  }

  void rope_scaling(Json& j) const {
    const std::string* type = g_.text(arch_ + ".rope.scaling.type");
    const double factor = number("rope.scaling.factor", 0);
    const i64 original = g_.integer(arch_ + ".rope.scaling.original_context_length")
                             .value_or(j.at("max_position_embeddings").as_int());
    if (const GgufTensor* freqs = g_.tensor(
            "rope_freqs.weight")) {  // divisors of each frequency: llama 3's scaling, worked out
      const std::vector<float> divisors = decode(tensor_from_ggml(
          freqs->type, 1, freqs->shape.empty() ? 1 : freqs->shape.back(), freqs->bytes));
      Json::Array list;
      for (float d : divisors) list.emplace_back(static_cast<double>(d));
      j.set("rope_scaling",
            Json::object({{"rope_type", Json("longrope")},
                          {"short_factor", Json(list)},
                          {"long_factor", Json(list)},
                          {"attention_factor", Json(1.0)},
                          {"original_max_position_embeddings", j.at("max_position_embeddings")},
                          {"factor", Json(1.0)}}));
      return;
    }
    if (g_.tensor("rope_factors_long.weight") != nullptr)
      fail_input("MO-014", "GGUF files with long-range rope factors cannot be read yet",
                 {{"file", path_.string()}});
    if (type == nullptr || *type == "none" || factor == 0) return;
    Json scaling = Json::object({{"rope_type", Json(*type)}, {"factor", Json(factor)}});
    if (*type == "yarn") {
      scaling.set("original_max_position_embeddings", original);
      scaling.set("beta_fast", number("rope.scaling.yarn_beta_fast", 32));
      scaling.set("beta_slow", number("rope.scaling.yarn_beta_slow", 1));
    }
    j.set("rope_scaling", std::move(scaling));
  }

  // "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; empty: not a weight.
  std::string name_of(const std::string& name) const {
    if (name == "token_embd.weight") return "model.embed_tokens.weight";
    if (name == "output_norm.weight") return "model.norm.weight";
    if (name == "output.weight") return "lm_head.weight";
    if (name == "rope_freqs.weight") return {};
    const std::size_t dot = name.find('.', 4), last = name.rfind('.');
    if (!name.starts_with("blk.") || dot == std::string::npos || last <= dot) return name;
    const std::string part = name.substr(dot + 1, last - dot - 1);
    const bool gemma = arch_ == "gemma2";
    const std::pair<const char*, const char*> parts[] = {
        {"attn_norm", "input_layernorm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"attn_qkv", "self_attn.qkv_proj"},
        {"ffn_norm", gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"},
        {"post_attention_norm", "post_attention_layernorm"},
        {"post_ffw_norm", "post_feedforward_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", arch_ == "phi3" ? "mlp.gate_up_proj" : "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}};
    for (const auto& [from, to] : parts)
      if (part == from)
        return fmt::format("model.layers.{}.{}{}", name.substr(4, dot - 4), to, name.substr(last));
    return name;  // stays under its own name and is reported as one that nobody asks for
  }

  void add(Checkpoint& c, const GgufTensor& t) const {
    const std::string name = name_of(t.name);
    if (name.empty()) return;
    const bool matrix = t.shape.size() == 2;
    if (t.shape.empty() || t.shape.size() > 2)
      fail_input("MO-014", "a GGUF tensor has an unusual number of axes",
                 {{"file", path_.string()}, {"tensor", pare::quoted(t.name)}});
    CheckpointTensor out;
    try {
      out.scheme = scheme_of_ggml(t.type);
    } catch (Error& e) {
      e.with("tensor", t.name).with("file", path_.string());
      throw;
    }
    out.shape = t.shape;
    const bool plus_one = arch_ == "gemma2" && name.ends_with("norm.weight");
    out.load = [t, matrix, plus_one, file = path_.string()] {
      touch(t.bytes, t.name);
      Tensor tensor;
      try {
        tensor = tensor_from_ggml(t.type, matrix ? t.shape[0] : 1, t.shape.back(), t.bytes);
      } catch (Error& e) {
        e.with("tensor", t.name).with("file", file);
        throw;
      }
      tensor.shape = t.shape;
      if (!plus_one) return tensor;
      std::vector<float> values = decode(tensor);
      for (float& v : values) v -= 1.0f;
      return plain_tensor(values, t.shape);
    };
    if (plus_one) out.scheme = Scheme{};
    const bool rotated =
        arch_ == "llama" && (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") ||
                             name.ends_with("q_proj.bias") || name.ends_with("k_proj.bias"));
    if (rotated) {
      const i64 heads = name.find("q_proj") != std::string::npos ? heads_ : kv_heads_;
      if (t.shape[0] != heads * head_dim_)
        fail_input("MO-001", "a tensor's shape does not fit the metadata",
                   {{"file", path_.string()}, {"tensor", pare::quoted(t.name)}});
      out = permuted(std::move(out), heads, head_dim_);
    }
    c.tensors[name] = std::move(out);
  }

  Gguf g_;
  fs::path path_;
  std::string arch_;
  i64 heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  bool bias_ = false;
};

}  // namespace

Checkpoint read_gguf(const fs::path& file) { return GgufImport(open_gguf(file), file).read(); }

Checkpoint read_llama2c(const fs::path& file) {
  const Llama2c m = parse_llama2c(map_file(file), file.string());
  Checkpoint c;
  c.path = file;
  c.tokenizer = tokenizer_beside(file, m.vocab);
  c.config = Json::object({{"architectures", Json::array({Json("LlamaForCausalLM")})},
                           {"model_type", Json("llama")},
                           {"hidden_size", Json(m.dim)},
                           {"intermediate_size", Json(m.hidden)},
                           {"num_hidden_layers", Json(m.layers)},
                           {"num_attention_heads", Json(m.heads)},
                           {"num_key_value_heads", Json(m.kv_heads)},
                           {"vocab_size", Json(m.vocab)},
                           {"max_position_embeddings", Json(m.positions)},
                           {"hidden_act", Json("silu")},
                           {"rms_norm_eps", Json(1e-5)},
                           {"rope_theta", Json(10000.0)},
                           {"tie_word_embeddings", Json(m.tied)},
                           {"attention_bias", Json(false)},
                           {"mlp_bias", Json(false)},
                           {"torch_dtype", Json("float32")},
                           {"bos_token_id", Json(1)},
                           {"eos_token_id", Json(2)}});
  for (const Llama2c::Tensor& t : m.tensors) {
    CheckpointTensor out = stored_tensor(Code::f32, t.shape, t.bytes, t.name);
    const bool q = t.name.ends_with("q_proj.weight"), k = t.name.ends_with("k_proj.weight");
    if (q || k) out = permuted(std::move(out), q ? m.heads : m.kv_heads, m.dim / m.heads);
    c.tensors[t.name] = std::move(out);
  }
  return c;
}

fs::path llama2c_tokenizer(const fs::path& file) {
  try {
    return tokenizer_beside(file, parse_llama2c(map_file(file), file.string()).vocab);
  } catch (const Error&) {  // not a checkpoint; perhaps a tokenizer itself
    return {};
  }
}

}  // namespace pare
