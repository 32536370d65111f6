// llama2.c checkpoints under Hugging Face names.
//
// The rotated rows of q and k are stored as adjacent pairs; here they are put back in the order of
// halves, so that what is written afterwards is an ordinary Llama folder.
#include "file/io.h"
#include "file/llama2c.h"
#include "model/checkpoint.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

fs::path tokenizer_beside(const fs::path& file, i64 vocab) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const std::string& name :
       {fmt::format("tok{}.bin", vocab), std::string("tokenizer.bin"),
        fmt::format("tok{}.model", vocab), std::string("tokenizer.model")})
    if (fs::is_regular_file(folder / name)) return folder / name;
  return {};
}

}  // namespace

std::vector<RowRange> halves_from_pairs(i64 heads, i64 head_dim) {
  std::vector<RowRange> rows;
  for (i64 h = 0; h < heads; h++)
    for (i64 half = 0; half < 2; half++)
      for (i64 j = 0; j < head_dim / 2; j++) rows.push_back({h * head_dim + 2 * j + half, 1});
  return rows;
}

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
    if (q || k)
      out.load = [load = out.load,
                  rows = halves_from_pairs(q ? m.heads : m.kv_heads, m.dim / m.heads)] {
        return select_rows(load(), rows);
      };
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
