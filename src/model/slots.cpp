// The one list of tensors, and the sums that follow from it.
//
// Everything that counts or names tensors goes through here: loaders, savers, passes, the engine,
// tests. The same walk over a Spec yields the slots and the Linears, so the two cannot disagree.
#include <algorithm>
#include <cmath>

#include "model/spec.h"

namespace pare {
namespace {

constexpr i64 max_side = i64{1} << 24;  // of a matrix; two of them times bytes fit i64

Scheme plain_f32() { return {}; }

// The Linears of a block in slot order, absent ones left out.
template <class B, class F>
void each_linear(B& block, i64 index, const F& visit) {
  const auto one = [&](const char* name, auto& linear) {
    if (linear.present()) visit(fmt::format("blocks.{}.{}", index, name), linear);
  };
  one("attn.q_down", block.attn.q_down);
  one("attn.q", block.attn.q);
  one("attn.kv_down", block.attn.kv_down);
  one("attn.k", block.attn.k);
  one("attn.v", block.attn.v);
  one("attn.o", block.attn.o);
  one("ffn.gate", block.ffn.gate);
  one("ffn.up", block.ffn.up);
  one("ffn.down", block.ffn.down);
}

template <class S, class L>
std::vector<std::pair<std::string, L*>> all_linears(S& spec) {
  std::vector<std::pair<std::string, L*>> list;
  for (std::size_t b = 0; b < spec.blocks.size(); b++)
    each_linear(spec.blocks[b], static_cast<i64>(b),
                [&](std::string name, L& linear) { list.emplace_back(std::move(name), &linear); });
  list.emplace_back("head", &spec.head);
  return list;
}

class Lister {
 public:
  explicit Lister(const Spec& spec) : spec_(spec) {}

  std::vector<Slot> list() {
    matrix("embed.weight", spec_.vocab, spec_.dim, spec_.embed, nullptr);
    if (spec_.learned_positions > 0)
      matrix("positions.weight", spec_.learned_positions, spec_.dim, plain_f32(), nullptr);
    for (std::size_t b = 0; b < spec_.blocks.size(); b++)
      block(spec_.blocks[b], static_cast<i64>(b));
    block_ = -1;
    norm("norm", spec_.final_norm, spec_.dim);
    if (!spec_.tied)
      linear("head", spec_.head);
    else if (spec_.head.bias)
      vector("head.bias", spec_.head.out);
    return std::move(slots_);
  }

 private:
  void block(const Block& b, i64 index) {
    block_ = index;
    const Attention& a = b.attn;
    const std::string at = fmt::format("blocks.{}.", index);
    const auto optional_norm = [&](const char* name, const std::optional<Norm>& n, i64 size) {
      if (n) norm(at + name, *n, size);
    };
    optional_norm("before_attn", b.before_attn, spec_.dim);
    optional_norm("attn.q_norm", a.q_norm, a.qk_dim);
    optional_norm("attn.k_norm", a.k_norm, a.qk_dim);
    optional_norm("attn.q_down_norm", a.q_down_norm, a.q_rank);
    optional_norm("attn.kv_down_norm", a.kv_down_norm, a.kv_rank);
    if (a.sink_logits) vector(at + "attn.sink_logits", a.heads);
    optional_norm("after_attn", b.after_attn, spec_.dim);
    optional_norm("before_ffn", b.before_ffn, spec_.dim);
    optional_norm("after_ffn", b.after_ffn, spec_.dim);
    each_linear(b, index, [&](const std::string& name, const Linear& l) { linear(name, l); });
  }

  void add(std::string name, std::vector<i64> shape, const Scheme& scheme, bool is_vector,
           const Linear* l) {
    Slot slot;
    slot.name = std::move(name);
    slot.shape = std::move(shape);
    slot.scheme = scheme;
    slot.block = block_;
    slot.vector = is_vector;
    slot.linear = l;
    slots_.push_back(std::move(slot));
  }
  void vector(std::string name, i64 n) { add(std::move(name), {n}, plain_f32(), true, nullptr); }
  void matrix(std::string name, i64 rows, i64 cols, const Scheme& s, const Linear* l) {
    add(std::move(name), {rows, cols}, s, false, l);
  }
  void norm(const std::string& name, const Norm& n, i64 size) {
    vector(name + ".weight", size);
    if (n.bias) vector(name + ".bias", size);
  }
  void linear(const std::string& name, const Linear& l) {
    matrix(name + ".weight", l.out, l.in, l.scheme, &l);
    if (l.bias) vector(name + ".bias", l.out);
    if (l.rank > 0) {
      matrix(name + ".low_rank_a", l.rank, l.in, plain_f32(), nullptr);
      matrix(name + ".low_rank_b", l.out, l.rank, plain_f32(), nullptr);
    }
    if (l.outliers > 0) {
      matrix(name + ".outlier_weight", l.out, l.outliers, plain_f32(), nullptr);
      vector(name + ".outlier_index", l.outliers);
    }
    if (l.permuted) vector(name + ".permutation", l.in);
    if (l.input_scaled) vector(name + ".input_scale", l.in);
    if (l.activation.is_static) vector(name + ".static_scale", 1);
  }

  const Spec& spec_;
  std::vector<Slot> slots_;
  i64 block_ = -1;
};

i64 elements(const Slot& slot) {
  i64 n = 1;
  for (i64 d : slot.shape) n *= d;
  return n;
}

[[noreturn]] void bad(const std::string& field, const std::string& found, const std::string& need) {
  fail_input("SP-001", fmt::format("the model's {} does not make sense", field),
             {{"found", found}, {"need", need}});
}

void check_linear(const std::string& name, const Linear& l, i64 in, i64 out) {
  if (l.in == in && l.out == out) return;
  bad("shape of " + name, fmt::format("{} x {}", l.out, l.in), fmt::format("{} x {}", out, in));
}

// Numbers that later code divides by, takes logarithms of, or indexes with.
void check_rope(const std::string& at, const Rope& r, i64 qk_dim) {
  const auto demand = [&](bool good, const char* field, double found, const std::string& need) {
    if (!good) bad(at + "attn.rope." + field, fmt::format("{}", found), need);
  };
  const auto positive = [](double x) { return x > 0 && std::isfinite(x); };
  demand(r.dims >= 0 && r.dims <= qk_dim && r.dims % 2 == 0, "dims", static_cast<double>(r.dims),
         fmt::format("even, at most {}", qk_dim));
  if (r.dims == 0) return;
  demand(positive(r.theta), "theta", r.theta, "a positive number");
  demand(positive(r.factor), "factor", r.factor, "a positive number");
  demand(positive(r.attention_factor), "attention_factor", r.attention_factor, "a positive number");
  if (r.scaling == RopeScaling::none || r.scaling == RopeScaling::linear) return;
  demand(r.original_positions >= 1, "original_positions", static_cast<double>(r.original_positions),
         "at least 1");
  switch (r.scaling) {
    case RopeScaling::dynamic:
      demand(r.dims > 2, "dims", static_cast<double>(r.dims), "more than 2 with dynamic scaling");
      break;
    case RopeScaling::llama3:
      demand(positive(r.low_freq_factor), "low_freq_factor", r.low_freq_factor,
             "a positive number");
      demand(std::isfinite(r.high_freq_factor) && r.high_freq_factor > r.low_freq_factor,
             "high_freq_factor", r.high_freq_factor, "more than low_freq_factor");
      break;
    case RopeScaling::yarn:
      demand(r.theta > 1, "theta", r.theta, "more than 1 with yarn");
      demand(positive(r.beta_slow) && positive(r.beta_fast), "beta_fast", r.beta_fast,
             "a positive number");
      break;
    default:
      for (const std::vector<double>* list : {&r.short_factor, &r.long_factor}) {
        demand(static_cast<i64>(list->size()) == r.dims / 2,
               list == &r.short_factor ? "short_factor" : "long_factor",
               static_cast<double>(list->size()), fmt::format("{} numbers", r.dims / 2));
        for (double x : *list)
          demand(positive(x), list == &r.short_factor ? "short_factor" : "long_factor", x,
                 "positive numbers");
      }
  }
}

void check_companions(const std::string& name, const Linear& l) {
  const auto demand = [&](bool good, const char* field, i64 found, const std::string& need) {
    if (!good) bad(name + "." + field, std::to_string(found), need);
  };
  demand(l.rank >= 0 && l.rank <= max_side, "rank", l.rank, "0 or more");
  demand(l.outliers >= 0 && l.outliers <= l.in, "outliers", l.outliers,
         fmt::format("0 to {}", l.in));
  demand(l.rotation == 0 || (l.rotation > 0 && l.in % l.rotation == 0), "rotation", l.rotation,
         fmt::format("a divisor of {}", l.in));
}

void check_norm(const std::string& name, const std::optional<Norm>& norm) {
  if (norm && !(norm->eps >= 0 && norm->eps < 1))
    bad(name + ".eps", fmt::format("{}", norm->eps), "0 to 1");
}

void check_block(const Spec& spec, const Block& b, i64 index) {
  const Attention& a = b.attn;
  const std::string at = fmt::format("blocks.{}.", index);
  const auto demand = [&](bool good, const char* field, i64 found, const std::string& need) {
    if (!good) bad(at + field, std::to_string(found), need);
  };
  const auto within = [&](const char* field, i64 found, i64 least, i64 most) {
    demand(found >= least && found <= most, field, found, fmt::format("{} to {}", least, most));
  };
  within("attn.heads", a.heads, 1, 65536);
  demand(a.kv_heads >= 1 && a.heads % std::max<i64>(1, a.kv_heads) == 0, "attn.kv_heads",
         a.kv_heads, fmt::format("a divisor of the {} heads", a.heads));
  within("attn.qk_dim", a.qk_dim, 1, 65536);
  within("attn.v_dim", a.v_dim, 1, 65536);
  within("attn.q_rank", a.q_rank, 0, max_side);
  within("attn.kv_rank", a.kv_rank, 0, max_side);
  within("attn.window", a.window, 0, i64{1} << 40);
  within("attn.sinks", a.sinks, 0, i64{1} << 40);
  check_rope(at, a.rope, a.qk_dim);
  if (!(a.scale > 0 && std::isfinite(a.scale)))
    bad(at + "attn.scale", fmt::format("{}", a.scale), "a positive number");
  if (!(a.softcap >= 0 && std::isfinite(a.softcap)))
    bad(at + "attn.softcap", fmt::format("{}", a.softcap), "0 or a positive number");
  if (!std::isfinite(b.residual_scale))
    bad(at + "residual_scale", fmt::format("{}", b.residual_scale), "a number");
  for (const auto& [name, norm] : {std::pair{"before_attn", &b.before_attn},
                                   {"after_attn", &b.after_attn},
                                   {"before_ffn", &b.before_ffn},
                                   {"after_ffn", &b.after_ffn},
                                   {"attn.q_norm", &a.q_norm},
                                   {"attn.k_norm", &a.k_norm},
                                   {"attn.q_down_norm", &a.q_down_norm},
                                   {"attn.kv_down_norm", &a.kv_down_norm}})
    check_norm(at + name, *norm);
  demand(a.kv_from < index && a.kv_from >= -1, "attn.kv_from", a.kv_from, "an earlier block");
  check_linear(at + "attn.q", a.q, a.q_rank > 0 ? a.q_rank : spec.dim, a.heads * a.qk_dim);
  check_linear(at + "attn.o", a.o, a.heads * a.v_dim, spec.dim);
  if (a.kv_from >= 0) {
    const Attention& from = spec.blocks[static_cast<std::size_t>(a.kv_from)].attn;
    demand(from.kv_from < 0 && from.kv_heads == a.kv_heads && from.qk_dim == a.qk_dim &&
               from.v_dim == a.v_dim && from.kv_rank == a.kv_rank,
           "attn.kv_from", a.kv_from, "a block with its own keys and values of the same shape");
    demand(!a.k.present() && !a.v.present() && !a.kv_down.present(), "attn.k", a.k.out,
           "absent: the block shares keys and values");
  } else if (a.mla()) {
    demand(a.rope.dims > 0 && a.rope.dims < a.qk_dim, "attn.rope.dims", a.rope.dims,
           fmt::format("1 to {}", a.qk_dim - 1));
    demand(a.kv_heads == a.heads, "attn.kv_heads", a.kv_heads,
           "as many as heads in latent attention");
    check_linear(at + "attn.kv_down", a.kv_down, spec.dim, a.kv_rank + a.rope.dims);
    check_linear(at + "attn.k", a.k, a.kv_rank, a.heads * (a.qk_dim - a.rope.dims));
    check_linear(at + "attn.v", a.v, a.kv_rank, a.heads * a.v_dim);
  } else {
    check_linear(at + "attn.k", a.k, spec.dim, a.kv_heads * a.qk_dim);
    check_linear(at + "attn.v", a.v, spec.dim, a.kv_heads * a.v_dim);
  }
  if (a.q_rank > 0) check_linear(at + "attn.q_down", a.q_down, spec.dim, a.q_rank);
  if (b.ffn.experts > 0)
    fail_input("SP-002", "mixture-of-experts blocks are not supported yet",
               {{"block", std::to_string(index)}});
  within("ffn.up", b.ffn.up.out, 1, max_side);
  check_linear(at + "ffn.up", b.ffn.up, spec.dim, b.ffn.up.out);
  check_linear(at + "ffn.down", b.ffn.down, b.ffn.up.out, spec.dim);
  if (b.ffn.gated) check_linear(at + "ffn.gate", b.ffn.gate, spec.dim, b.ffn.up.out);
  demand(b.ffn.gated || !b.ffn.gate.present(), "ffn.gate", b.ffn.gate.out, "absent without gating");
  demand(a.mla() || !a.kv_down.present(), "attn.kv_down", a.kv_down.out, "absent without kv_rank");
  demand(a.q_rank > 0 || !a.q_down.present(), "attn.q_down", a.q_down.out, "absent without q_rank");
  each_linear(b, index,
              [](const std::string& name, const Linear& l) { check_companions(name, l); });
}

}  // namespace

std::vector<Slot> slots(const Spec& spec) { return Lister(spec).list(); }

std::vector<std::pair<std::string, Linear*>> linears(Spec& spec) {
  return all_linears<Spec, Linear>(spec);
}
std::vector<std::pair<std::string, const Linear*>> linears(const Spec& spec) {
  return all_linears<const Spec, const Linear>(spec);
}

void check(const Spec& spec) {
  const auto demand = [](bool good, const char* field, i64 found, const char* need) {
    if (!good) bad(field, std::to_string(found), need);
  };
  demand(spec.dim >= 1 && spec.dim <= (i64{1} << 20), "width", spec.dim, "1 to 1048576");
  demand(spec.vocab >= 1 && spec.vocab <= (i64{1} << 26), "vocabulary", spec.vocab,
         "1 to 67108864");
  demand(spec.max_positions >= 1, "context", spec.max_positions, "at least 1 position");
  demand(spec.learned_positions >= 0 && spec.learned_positions <= max_side, "learned positions",
         spec.learned_positions, "0 to 16777216");
  demand(!spec.blocks.empty() && spec.blocks.size() <= 65536, "number of blocks",
         static_cast<i64>(spec.blocks.size()), "1 to 65536");
  for (float x : {spec.embed_scale, spec.logit_cap, spec.logit_scale})
    if (!std::isfinite(x)) bad("scale of embedding or logits", fmt::format("{}", x), "a number");
  check_norm("norm", spec.final_norm);
  for (std::size_t b = 0; b < spec.blocks.size(); b++)
    check_block(spec, spec.blocks[b], static_cast<i64>(b));
  check_linear("head", spec.head, spec.dim, spec.vocab);
  check_companions("head", spec.head);
  if (spec.tied && !(spec.head.scheme == spec.embed))
    bad("head", to_string(spec.head.scheme), "the embedding's scheme, since it is tied");
}

i64 kv_heads_stored(const Attention& a) { return a.mla() ? 1 : a.kv_heads; }
i64 kv_key_width(const Attention& a) { return a.mla() ? a.kv_rank + a.rope.dims : a.qk_dim; }
i64 kv_value_width(const Attention& a) { return a.mla() ? 0 : a.v_dim; }

i64 kv_packed_bytes(const Attention& a, const KvScheme& scheme, i64 positions) {
  i64 bytes = kv_packed_bytes(scheme.keys, kv_key_width(a), positions);
  if (!a.mla()) bytes += kv_packed_bytes(scheme.values, a.v_dim, positions);
  return kv_heads_stored(a) * bytes;
}

double kv_bytes_per_token(const Spec& spec, const KvScheme& kv) {
  const i64 group = kv.positions();
  i64 bytes = 0;  // of a group
  for (const Block& b : spec.blocks)
    if (b.attn.kv_from < 0) bytes += kv_packed_bytes(b.attn, kv, group);
  return static_cast<double>(bytes) / static_cast<double>(group);
}

i64 parameters(const Spec& spec) {
  i64 n = 0;
  for (const Slot& slot : slots(spec)) n += elements(slot);
  return n;
}

i64 weight_bytes(const Spec& spec) {
  i64 bytes = 0;
  // Vectors are counted as the checkpoint's plain code would store them: 16 bits beside 16-bit
  // matrices.
  const bool half = bits(spec.embed.code) <= 16;
  for (const Slot& slot : slots(spec))
    bytes += slot.vector ? elements(slot) * (half ? 2 : 4)
                         : stored_bytes(slot.scheme, slot.shape[0], slot.shape[1]);
  return bytes;
}

}  // namespace pare
