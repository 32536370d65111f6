// GGUF files under Hugging Face names.
//
// The metadata becomes a config.json of the family, so that everything after this file is the same
// for all sources; tensors keep their block schemes. What converters to GGUF changed is changed
// back: llama's rows of q and k, stored as adjacent rotary pairs; Gemma's norms, to which one was
// added; fused projections, stored as all queries, all keys, all values where the original has them
// head by head; llama 3's rope scaling, stored as divisors of frequencies.
#include <algorithm>
#include <cmath>

#include "file/gguf.h"
#include "file/io.h"
#include "model/checkpoint.h"
#include "model/gguf_archs.h"
#include "number/ggml.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

// llama 3's parameters from the divisors they give; none when no parameters give them. In the
// blended region 1 / divisor is linear in the frequency f: with s = (o f / 2 pi - a) / (b - a), it
// is (1 - s) / factor + s. The three numbers o, a, b have one common factor; a is taken as 1.
std::optional<Json> llama3_scaling(const std::vector<float>& divisors, double theta) {
  Rope r;
  r.dims = 2 * static_cast<i64>(divisors.size());
  r.theta = theta;
  const std::vector<double> f = rope_frequencies(r, 1);
  r.scaling = RopeScaling::llama3;
  r.factor = *std::max_element(divisors.begin(), divisors.end());
  std::vector<std::pair<double, double>> blended;  // frequency, s
  for (std::size_t i = 0; i < f.size(); i++)
    if (divisors[i] > 1.0001f && divisors[i] < r.factor * 0.9999)
      blended.emplace_back(f[i], (1.0 / divisors[i] - 1 / r.factor) / (1 - 1 / r.factor));
  r.low_freq_factor = 1;
  r.high_freq_factor = 4;
  r.original_positions = 8192;  // what every release so far uses, if too little is blended
  if (blended.size() >= 2) {
    const auto [f0, s0] = blended.front();
    const auto [f1, s1] = blended.back();
    const double slope = (s0 - s1) / (f0 - f1), span = -1 / (s0 - slope * f0);
    r.high_freq_factor = std::round((1 + span) * 1000) / 1000;
    r.original_positions =
        std::llround(slope * (r.high_freq_factor - 1) * 2 * 3.14159265358979323846);
  }
  if (!(r.high_freq_factor > 1) || r.original_positions < 1) return std::nullopt;
  const std::vector<double> scaled = rope_frequencies(r, 1);
  for (std::size_t i = 0; i < f.size(); i++)
    if (std::abs(f[i] / scaled[i] / divisors[i] - 1) > 1e-4) return std::nullopt;
  return Json::object({{"rope_type", Json("llama3")},
                       {"factor", Json(r.factor)},
                       {"low_freq_factor", Json(r.low_freq_factor)},
                       {"high_freq_factor", Json(r.high_freq_factor)},
                       {"original_max_position_embeddings", Json(r.original_positions)}});
}

class GgufImport {
 public:
  GgufImport(Gguf file, const fs::path& path) : g_(std::move(file)), path_(path) {
    const std::string* name = g_.text("general.architecture");
    if (name == nullptr)
      wrong("the GGUF file does not say its architecture", "general.architecture");
    key_ = *name;
    const std::span<const GgufArch> archs = gguf_archs();
    const auto it =
        std::find_if(archs.begin(), archs.end(), [&](const GgufArch& a) { return a.name == key_; });
    if (it == archs.end()) {
      std::string list;
      for (const GgufArch& a : archs) list += (list.empty() ? "" : ", ") + std::string(a.name);
      fail_input(
          "MO-014", "GGUF files of this architecture cannot be read yet",
          {{"file", path.string()}, {"found", pare::quoted(key_)}, {"need", "one of " + list}});
    }
    arch_ = *it;
    if (g_.tensors.empty())
      fail_input("MO-014", "the GGUF file holds no tensors, only a vocabulary",
                 {{"file", path.string()}});
    if (integer("expert_count").value_or(0) > 0)
      fail_input("SP-002", "mixture-of-experts models are not supported yet",
                 {{"file", path.string()}, {"key", key_ + ".expert_count"}});
  }

  Checkpoint read() {
    Checkpoint c;
    c.path = path_;
    if (g_.texts("tokenizer.ggml.tokens") != nullptr) c.tokenizer = path_;
    make_config(c.config);
    for (const GgufTensor& t : g_.tensors) add(c, t);
    return c;
  }

 private:
  [[noreturn]] void wrong(const char* message, const std::string& key) const {
    fail_input("MO-014", message, {{"file", path_.string()}, {"key", key}});
  }

  std::optional<i64> integer(const std::string& key) const { return g_.integer(key_ + "." + key); }
  double number(const std::string& key, double absent) const {
    return g_.number(key_ + "." + key).value_or(absent);
  }
  i64 need(const std::string& key, i64 most) const {
    const std::optional<i64> value = integer(key);
    if (!value) wrong("the GGUF file lacks a key", key_ + "." + key);
    if (*value < 1 || *value > most)
      fail_input("MO-014", "a key of the GGUF file has a value that cannot be",
                 {{"file", path_.string()},
                  {"key", key_ + "." + key},
                  {"found", std::to_string(*value)},
                  {"need", fmt::format("1 to {}", most)}});
    return *value;
  }

  void make_config(Json& j) {
    const GgufTensor* embed = g_.tensor("token_embd.weight");
    if (embed == nullptr || embed->shape.size() != 2)
      fail_input("MO-001", "a tensor of the model is missing",
                 {{"file", path_.string()}, {"tensor", "token_embd.weight"}});
    heads_ = need("attention.head_count", 65536);
    kv_heads_ =
        integer("attention.head_count_kv") ? need("attention.head_count_kv", heads_) : heads_;
    const i64 dim = need("embedding_length", 1 << 20);
    head_dim_ = integer("attention.key_length") ? need("attention.key_length", 65536)
                                                : std::max<i64>(1, dim / heads_);
    j = Json::object({{"architectures", Json::array({Json(arch_.class_name)})},
                      {"model_type", Json(arch_.model_type)},
                      {"hidden_size", Json(dim)},
                      {"num_hidden_layers", Json(need("block_count", 4096))},
                      {"num_attention_heads", Json(heads_)},
                      {"vocab_size", Json(embed->shape[0])},
                      {"max_position_embeddings", Json(need("context_length", i64{1} << 31))},
                      {"tie_word_embeddings", Json(g_.tensor("output.weight") == nullptr)},
                      {"torch_dtype", Json(dtype(*embed))}});
    for (const auto& [key, name] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                    {"tokenizer.ggml.eos_token_id", "eos_token_id"}})
      if (const auto id = g_.integer(key)) j.set(name, *id);
    if (key_ == "gpt2") return gpt2(j);
    if (key_ == "gptneox") return gpt_neox(j);
    if (key_ == "falcon") return falcon(j);
    j.set("intermediate_size", need("feed_forward_length", 1 << 24));
    j.set("num_key_value_heads", kv_heads_);
    if (key_ == "llama" || key_ == "qwen3" || key_ == "gemma2") j.set("head_dim", head_dim_);
    j.set("rms_norm_eps", number("attention.layer_norm_rms_epsilon", 1e-6));
    j.set("rope_theta", number("rope.freq_base", 10000));
    if (key_ == "gemma2") return gemma2(j);
    j.set("hidden_act", "silu");
    if (key_ == "llama") llama(j);
    if (key_ == "phi3") return phi3(j);
    rope_scaling(j);
  }

  static const char* dtype(const GgufTensor& t) {
    const GgmlType* type = find_ggml_type(t.type);
    return type != nullptr && type->name == "F32"   ? "float32"
           : type != nullptr && type->name == "F16" ? "float16"
                                                    : "bfloat16";
  }

  void llama(Json& j) {
    j.set("attention_bias", g_.tensor("blk.0.attn_q.bias") != nullptr);
    if (g_.tensor("blk.0.ffn_up.bias") != nullptr) j.set("mlp_bias", true);
    if (integer("attention.sliding_window").value_or(0) < 1) return;
    j.erase("attention_bias");  // the one llama with windows is mistral, under this name
    j.set("sliding_window", *integer("attention.sliding_window"));
    j.set("model_type", "mistral");
    j.set("architectures", Json::array({Json("MistralForCausalLM")}));
  }

  void gemma2(Json& j) const {
    j.set("hidden_activation", "gelu_pytorch_tanh");
    j.set("attn_logit_softcapping", number("attn_logit_softcapping", 50));
    j.set("final_logit_softcapping", number("final_logit_softcapping", 30));
    j.set("sliding_window", integer("attention.sliding_window").value_or(4096));
    // Not stored in the file: every size but the one of 46 blocks scales by the head size.
    const i64 blocks = j.at("num_hidden_layers").as_int(), dim = j.at("hidden_size").as_int();
    j.set("query_pre_attn_scalar", blocks == 46 ? dim / heads_ : head_dim_);
  }

  void phi3(Json& j) const {
    const i64 turned = integer("rope.dimension_count").value_or(head_dim_);
    if (turned != head_dim_)
      j.set("partial_rotary_factor", static_cast<double>(turned) / static_cast<double>(head_dim_));
    if (const i64 window = integer("attention.sliding_window").value_or(0); window > 0)
      j.set("sliding_window", window);
    j.set("original_max_position_embeddings",
          integer("rope.scaling.original_context_length")
              .value_or(j.at("max_position_embeddings").as_int()));
    const GgufTensor *longer = g_.tensor("rope_factors_long.weight"),
                     *shorter = g_.tensor("rope_factors_short.weight");
    if (longer == nullptr || shorter == nullptr) return rope_scaling(j);
    j.set("rope_scaling", Json::object({{"type", Json("longrope")},
                                        {"short_factor", list(floats(*shorter))},
                                        {"long_factor", list(floats(*longer))}}));
    if (const auto factor = g_.number(key_ + ".rope.scaling.attn_factor"))
      j.find("rope_scaling")->set("attention_factor", *factor);
  }

  void gpt2(Json& j) const {
    Json::Object names;
    for (auto& [name, value] : j.as_object())
      names.emplace_back(name == "hidden_size"               ? "n_embd"
                         : name == "num_hidden_layers"       ? "n_layer"
                         : name == "num_attention_heads"     ? "n_head"
                         : name == "max_position_embeddings" ? "n_positions"
                                                             : name,
                         value);
    j = Json(std::move(names));
    j.set("n_inner", need("feed_forward_length", 1 << 24));
    j.set("layer_norm_epsilon", number("attention.layer_norm_epsilon", 1e-5));
    j.set("activation_function", "gelu_new");
  }

  void gpt_neox(Json& j) const {
    j.set("intermediate_size", need("feed_forward_length", 1 << 24));
    j.set("layer_norm_eps", number("attention.layer_norm_epsilon", 1e-5));
    j.set("hidden_act", "gelu");
    j.set("rotary_emb_base", number("rope.freq_base", 10000));
    j.set("rotary_pct", static_cast<double>(integer("rope.dimension_count").value_or(head_dim_)) /
                            static_cast<double>(head_dim_));
    j.set("use_parallel_residual", g_.boolean("gptneox.use_parallel_residual").value_or(true));
  }

  void falcon(Json& j) {
    const bool two_norms = g_.tensor("blk.0.attn_norm_2.weight") != nullptr;
    const bool renewed = two_norms || kv_heads_ > 1;
    if (two_norms) arch_.inside = arch_.two_norms;
    j.set("ffn_hidden_size", integer("feed_forward_length") ? need("feed_forward_length", 1 << 24)
                                                            : 4 * j.at("hidden_size").as_int());
    j.set("num_kv_heads", kv_heads_ == 1 && !renewed ? heads_ : kv_heads_);
    j.set("multi_query", kv_heads_ == 1);
    j.set("new_decoder_architecture", renewed);
    if (renewed) j.set("num_ln_in_parallel_attn", two_norms ? 2 : 1);
    j.set("parallel_attn", true);
    j.set("bias", g_.tensor("blk.0.attn_qkv.bias") != nullptr);
    j.set("alibi", false);
    j.set("layer_norm_epsilon", number("attention.layer_norm_epsilon", 1e-5));
    j.set("rope_theta", number("rope.freq_base", 10000));
  }

  static Json list(const std::vector<float>& values) {
    Json::Array out;
    for (float x : values) out.emplace_back(static_cast<double>(x));
    return out;
  }
  static std::vector<float> floats(const GgufTensor& t) {
    return decode(tensor_from_ggml(t.type, 1, t.shape.empty() ? 1 : t.shape.back(), t.bytes));
  }

  void rope_scaling(Json& j) const {
    if (const GgufTensor* freqs = g_.tensor("rope_freqs.weight")) {
      const std::vector<float> divisors = floats(*freqs);
      for (float d : divisors)
        if (!(d > 0) || !std::isfinite(d))
          wrong("a rope divisor is no positive number", freqs->name);
      if (divisors.empty() || *std::max_element(divisors.begin(), divisors.end()) <= 1.0f) return;
      if (auto scaling = llama3_scaling(divisors, j.at("rope_theta").as_number()))
        j.set("rope_scaling", std::move(*scaling));
      else  // the same frequencies under another name
        j.set("rope_scaling",
              Json::object({{"rope_type", Json("longrope")},
                            {"short_factor", list(divisors)},
                            {"long_factor", list(divisors)},
                            {"attention_factor", Json(1.0)},
                            {"original_max_position_embeddings", j.at("max_position_embeddings")},
                            {"factor", Json(1.0)}}));
      return;
    }
    const std::string* type = g_.text(key_ + ".rope.scaling.type");
    const double factor = number("rope.scaling.factor", 0);
    if (type == nullptr || *type == "none" || factor == 0) return;
    if (number("rope.scaling.attn_factor", 1) != 1)
      wrong("a rope attention factor cannot be read yet", key_ + ".rope.scaling.attn_factor");
    Json scaling = Json::object({{"rope_type", Json(*type)}, {"factor", Json(factor)}});
    if (*type == "yarn") {
      scaling.set("original_max_position_embeddings",
                  integer("rope.scaling.original_context_length")
                      .value_or(j.at("max_position_embeddings").as_int()));
      scaling.set("beta_fast", number("rope.scaling.yarn_beta_fast", 32));
      scaling.set("beta_slow", number("rope.scaling.yarn_beta_slow", 1));
    }
    j.set("rope_scaling", std::move(scaling));
  }

  // "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; empty: not a weight. A name
  // that nobody knows stays as it is and is then reported as one that nobody asks for.
  std::string name_of(const std::string& name) const {
    if (name == "rope_freqs.weight" || name.starts_with("rope_factors_")) return {};
    return name_from_gguf(arch_, name);
  }

  // Where the rows that a Hugging Face checkpoint has lie in the GGUF tensor; empty: as they are.
  std::vector<RowRange> rows_of(const std::string& name, const GgufTensor& t) const {
    const i64 q = heads_ * head_dim_, kv = kv_heads_ * head_dim_;
    const auto demand = [&](i64 rows) {
      if (t.shape[0] != rows)
        fail_input("MO-001", "a tensor's shape does not fit the metadata",
                   {{"file", path_.string()},
                    {"tensor", pare::quoted(t.name)},
                    {"found", shape_text(t.shape)},
                    {"need", fmt::format("{} rows", rows)}});
    };
    const bool is_q = name.find("q_proj.") != std::string::npos,
               is_k = name.find("k_proj.") != std::string::npos;
    if (arch_.pairs && (is_q || is_k)) {
      demand(is_q ? q : kv);
      return halves_from_pairs(is_q ? heads_ : kv_heads_, head_dim_);
    }
    if (!arch_.head_by_head || name.find("query_key_value") == std::string::npos) return {};
    demand(q + 2 * kv);
    std::vector<RowRange> rows;
    const i64 group = heads_ / kv_heads_ * head_dim_;
    for (i64 g = 0; g < kv_heads_; g++) {
      rows.push_back({g * group, group});
      rows.push_back({q + g * head_dim_, head_dim_});
      rows.push_back({q + kv + g * head_dim_, head_dim_});
    }
    return rows;
  }

  void add(Checkpoint& c, const GgufTensor& t) const {
    const std::string name = name_of(t.name);
    if (name.empty()) return;
    if (t.shape.empty() || t.shape.size() > 2)
      fail_input("MO-014", "a GGUF tensor has an unusual number of axes",
                 {{"file", path_.string()}, {"tensor", pare::quoted(t.name)}});
    CheckpointTensor out;
    const bool offset = arch_.plus_one && name.ends_with("norm.weight");
    out.shape = t.shape;
    out.upright = true;
    try {
      out.scheme = offset ? Scheme{} : scheme_of_ggml(t.type);
    } catch (Error& e) {
      throw e.with("tensor", t.name).with("file", path_.string());
    }
    out.load = [t, offset, rows = rows_of(name, t), file = path_.string()] {
      touch(t.bytes, t.name);
      Tensor tensor;
      try {
        tensor =
            tensor_from_ggml(t.type, t.shape.size() == 2 ? t.shape[0] : 1, t.shape.back(), t.bytes);
      } catch (Error& e) {
        throw e.with("tensor", t.name).with("file", file);
      }
      tensor.shape = t.shape;
      if (offset) {
        std::vector<float> values = decode(tensor);
        for (float& v : values) v -= 1.0f;
        tensor = plain_tensor(values, t.shape);
      }
      return rows.empty() ? tensor : select_rows(tensor, rows);
    };
    if (!c.tensors.emplace(name, std::move(out)).second)
      fail_input("MO-014", "two GGUF tensors stand for the same weight",
                 {{"file", path_.string()}, {"tensor", pare::quoted(t.name)}});
  }

  Gguf g_;
  fs::path path_;
  std::string key_;
  GgufArch arch_;
  i64 heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
};

}  // namespace

Checkpoint read_gguf(const fs::path& file) { return GgufImport(open_gguf(file), file).read(); }

}  // namespace pare
