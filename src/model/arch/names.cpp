// Tensor names: from a slot to the checkpoint's tensor and the rows that belong to the slot.
//
// A table row is a pair of module names. Fused projections appear as several rows with one module
// and a function that lists rows; the ranges of all slots of a module cover it exactly once, so the
// table works in both directions: a saver collects the slots of a source and places their rows.
#include <array>

#include "model/arch/common.h"

namespace pare::arch {
namespace {

constexpr auto llama_names = std::to_array<NameRule>({
    {"embed", "model.embed_tokens"},
    {"norm", "model.norm"},
    {"head", "lm_head"},
    {"before_attn", "input_layernorm"},
    {"before_ffn", "post_attention_layernorm"},
    {"attn.q", "self_attn.q_proj"},
    {"attn.k", "self_attn.k_proj"},
    {"attn.v", "self_attn.v_proj"},
    {"attn.o", "self_attn.o_proj"},
    {"attn.q_norm", "self_attn.q_norm"},
    {"attn.k_norm", "self_attn.k_norm"},
    {"ffn.gate", "mlp.gate_proj"},
    {"ffn.up", "mlp.up_proj"},
    {"ffn.down", "mlp.down_proj"},
});

std::vector<RowRange> latent_k(const Block& block) {
  const Attention& a = block.attn;
  const i64 nope = a.qk_dim - a.rope.dims;
  std::vector<RowRange> rows;
  for (i64 h = 0; h < a.heads; h++) rows.push_back({h * (nope + a.v_dim), nope});
  return rows;
}

std::vector<RowRange> latent_v(const Block& block) {
  const Attention& a = block.attn;
  const i64 nope = a.qk_dim - a.rope.dims;
  std::vector<RowRange> rows;
  for (i64 h = 0; h < a.heads; h++) rows.push_back({h * (nope + a.v_dim) + nope, a.v_dim});
  return rows;
}

constexpr auto latent_names = std::to_array<NameRule>({
    {"attn.kv_down", "self_attn.kv_a_proj_with_mqa"},
    {"attn.kv_down_norm", "self_attn.kv_a_layernorm"},
    {"attn.k", "self_attn.kv_b_proj", latent_k},
    {"attn.v", "self_attn.kv_b_proj", latent_v},
});

constexpr auto latent_query_names = std::to_array<NameRule>({
    {"attn.q_down", "self_attn.q_a_proj"},
    {"attn.q_down_norm", "self_attn.q_a_layernorm"},
    {"attn.q", "self_attn.q_b_proj"},
});

// Every `step` rows from `begin`, `count` rows, for each key/value head.
std::vector<RowRange> strided(i64 begin, i64 count, i64 step, i64 times) {
  std::vector<RowRange> rows;
  for (i64 i = 0; i < times; i++) rows.push_back({begin + i * step, count});
  return rows;
}

struct Groups {
  i64 queries, dim, step, groups;
};
Groups groups_of(const Block& block) {
  const Attention& a = block.attn;
  const i64 queries = a.heads / a.kv_heads;
  return {queries, a.qk_dim, (queries + 2) * a.qk_dim, a.kv_heads};
}

}  // namespace

std::span<const NameRule> llama_rules() { return llama_names; }

std::vector<RowRange> grouped_q(const Block& block) {
  const Groups g = groups_of(block);
  return strided(0, g.queries * g.dim, g.step, g.groups);
}
std::vector<RowRange> grouped_k(const Block& block) {
  const Groups g = groups_of(block);
  return strided(g.queries * g.dim, g.dim, g.step, g.groups);
}
std::vector<RowRange> grouped_v(const Block& block) {
  const Groups g = groups_of(block);
  return strided((g.queries + 1) * g.dim, g.dim, g.step, g.groups);
}

std::vector<RowRange> stacked_q(const Block& block) { return {{0, block.attn.q.out}}; }
std::vector<RowRange> stacked_k(const Block& block) {
  return {{block.attn.q.out, block.attn.k.out}};
}
std::vector<RowRange> stacked_v(const Block& block) {
  return {{block.attn.q.out + block.attn.k.out, block.attn.v.out}};
}

Source source_from(std::span<const NameTable> tables, const Slot& slot, const Spec& spec) {
  std::string_view name = slot.name;
  if (slot.block >= 0) name.remove_prefix(fmt::format("blocks.{}.", slot.block).size());
  const std::size_t dot = name.rfind('.');
  PARE_CHECK(dot != std::string_view::npos);
  const std::string_view module = name.substr(0, dot), leaf = name.substr(dot + 1);
  const bool stored = leaf == "weight" || leaf == "bias";
  for (const NameTable& table : tables) {
    if (table.block_prefix.empty() == (slot.block >= 0)) continue;
    for (const NameRule& rule : table.rules) {
      if (!stored || rule.slot != module) continue;
      Source source;
      if (slot.block >= 0) source.name = fmt::format(fmt::runtime(table.block_prefix), slot.block);
      source.name += fmt::format("{}.{}", rule.module, leaf);
      source.transposed = rule.transposed && leaf == "weight";
      if (rule.rows != nullptr)
        source.rows = rule.rows(spec.blocks[static_cast<std::size_t>(slot.block)]);
      return source;
    }
  }
  fail_input("AR-007", "this family has no name for a tensor of the model",
             {{"tensor", quoted(slot.name)}}, "save it in Pare's own form");
}

Source llama_source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 2> tables = {{{"", llama_names}, {"model.layers.{}.", llama_names}}};
  return source_from(tables, slot, spec);
}

Source latent_source(const Slot& slot, const Spec& spec, const Json&) {
  constexpr std::string_view prefix = "model.layers.{}.";
  std::array<NameTable, 4> tables = {
      {{"", llama_names}, {prefix, latent_names}, {prefix, {}}, {prefix, llama_names}}};
  if (slot.block >= 0 && spec.blocks[static_cast<std::size_t>(slot.block)].attn.q_rank > 0)
    tables[2].rules = latent_query_names;
  return source_from(tables, slot, spec);
}

bool llama_ignorable(std::string_view tensor) {
  // A tied model may store its head again; what is used is the embedding.
  return legacy_buffer(tensor) || tensor == "lm_head.weight";
}

bool legacy_buffer(std::string_view tensor) {
  constexpr auto endings = std::to_array<std::string_view>(
      {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
       ".attention.masked_bias", ".attention.rotary_emb.inv_freq", ".attn.embed_positions"});
  for (std::string_view ending : endings)
    if (tensor.ends_with(ending)) return true;
  return false;
}

}  // namespace pare::arch
