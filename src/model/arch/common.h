// What family files share: the parts a block is built of, the name tables, and writing a config
// back.
#pragma once

#include <functional>
#include <span>

#include "model/arch.h"
#include "model/arch/config.h"
#include "model/arch/rope.h"

namespace pare::arch {

// ---- parsing ----

// The numbers nearly every family has, under whatever keys.
struct Sizes {
  i64 dim = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, inner = 0, vocab = 0;
  i64 max_positions = 0;
  Scheme scheme;  // plain, of the type the config names
};
// hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim,
// intermediate_size, vocab_size, max_position_embeddings. `head_dim` 0: hidden / heads when absent;
// `kv_heads` 0: heads when absent.
Sizes read_sizes(Keys&, i64 default_positions, i64 kv_heads = 0, i64 head_dim = 0);
// As above with the older names: n_embd, n_layer, n_head, n_inner (absent: 4 n_embd), n_positions.
Sizes read_gpt_sizes(Keys&);
// Heads and key/value heads fit each other; products stay in bounds.
void check_heads(const Keys&, const Sizes&, std::string_view heads_key, std::string_view kv_key);

Scheme read_scheme(Keys&);  // dtype or torch_dtype; absent: f32
Act read_act(Keys&, std::string_view key, std::string_view absent);
float read_eps(Keys&, std::string_view key, double absent);
// Keys that any config may have and that must not ask for anything.
void read_common(Keys&);

Norm rms(float eps);
Norm layer_norm(float eps);
Linear linear(i64 in, i64 out, bool bias, Scheme);
RopeHints plain_rope(i64 head_dim, i64 max_positions);  // whole heads, halves, rope_theta
// Separate q, k, v, o with rope applied to qk_dim; scale = head_dim^-0.5.
Attention plain_attention(const Sizes&, const Rope&, bool qkv_bias, bool o_bias);
Ffn gated_ffn(const Sizes&, Act, bool bias);
Ffn plain_ffn(const Sizes&, Act, bool bias);
// dim, vocab, max_positions, `layers` copies of the block, the final norm, the head.
Spec assemble(const Sizes&, const Block&, Norm final_norm, bool tied, bool head_bias = false);

// Windows by layer_types, where given ("sliding_attention", "full_attention"); else by `slides`.
using Slides = std::function<bool(i64 layer)>;
void apply_windows(Keys&, Spec&, i64 window, const Slides& slides);

// ---- multi-head latent attention (DeepSeek V2, V3, MiniCPM3) ----

struct LatentHints {
  i64 q_rank = 0, kv_rank = 0, nope = 0, rope = 0, v = 0;
  bool bias = false;
};
// kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, attention_bias.
LatentHints read_latent(Keys&, const Sizes&, i64 default_v);
Attention latent_attention(const Sizes&, const LatentHints&, const RopeConfig&);

// ---- names ----

using RowsOf = std::vector<RowRange> (*)(const Block&);

// One row: a module of a Spec and where the checkpoint keeps it. Fused tensors have several rows.
struct NameRule {
  std::string_view slot;    // "attn.q" within a block, "embed" outside
  std::string_view module;  // "self_attn.q_proj", "model.embed_tokens"
  RowsOf rows = nullptr;    // null: all rows
  bool transposed = false;  // the matrix is stored (in, out)
};
struct NameTable {
  std::string_view block_prefix;  // "model.layers.{}." with the block's number in place of {}
  std::span<const NameRule> rules;
};
// Looks the slot up; a slot that a family has no name for is an Error AR-007.
Source source_from(std::span<const NameTable>, const Slot&, const Spec&);

// The names of llama and its relatives.
std::span<const NameRule> llama_rules();
Source llama_source(const Slot&, const Spec&, const Json& config);
bool llama_ignorable(std::string_view tensor);
Source latent_source(const Slot&, const Spec&, const Json& config);  // with kv_b_proj and its like

// Rows of a fused projection stored per key/value head: its queries, its key, its value.
std::vector<RowRange> grouped_q(const Block&);
std::vector<RowRange> grouped_k(const Block&);
std::vector<RowRange> grouped_v(const Block&);
// Rows of [all queries; all keys; all values].
std::vector<RowRange> stacked_q(const Block&);
std::vector<RowRange> stacked_k(const Block&);
std::vector<RowRange> stacked_v(const Block&);

bool legacy_buffer(std::string_view tensor);  // rotary_emb.inv_freq, attn.bias, masked_bias ...

// ---- writing ----

// The parts of a config that a family's `unparse` starts from: `original` if it is of this family,
// else the two keys that name it.
Json start_config(const Json& original, std::string_view model_type, std::string_view architecture);
bool fresh(const Json& original, std::string_view model_type);  // nothing to keep from it
void put_sizes(Json&, const Spec&);      // the keys of read_sizes but head_dim
void put_gpt_sizes(Json&, const Spec&);  // the keys of read_gpt_sizes
void put_dtype(Json&, const Scheme& embed);
// Sets a switch where it is present or is not what an absent one means.
void put_flag(Json&, std::string_view key, bool value, bool absent);
void put_act(Json&, std::string_view key, Act);
void put_eps(Json&, std::string_view key, float);
// head_dim where it is present or is not what an absent one means (0: hidden / heads).
void put_head_dim(Json&, const Spec&, i64 absent);
Json shortest(float);  // the double with the fewest digits that rounds to this float
// sliding_window and layer_types, as apply_windows reads them; the list only where it was or where
// `usual` does not say the same.
void put_windows(Json&, const Spec&, const Slides& usual);
void put_latent(Json&, const Spec&);
// Leaves the rope keys alone when they say the same already, unless the config is fresh.
void put_rope(Json&, bool fresh_config, const RopeConfig&, const RopeHints&);
RopeConfig rope_of(const Attention&);   // MLA: score_factor from the attention's scale
const Block& first_block(const Spec&);  // Error AR-007 when there is none
// Sets the spelling that is there, else the first.
void put_alias(Json&, const Names&, Json value);

// Reads the written config back and compares: Error AR-007 names the first field of `spec` that the
// family's keys did not carry.
Json verified(Json written, const Spec& spec, Spec (*parse)(const Json&));

// "blocks.3.attn.heads: 5 instead of 6", or empty. Storage (schemes, activations, companions, cache
// code) is not compared: it is not config.json's to say. Floats compare to a relative 1e-6.
std::string first_difference(const Spec& found, const Spec& wanted);

}  // namespace pare::arch
