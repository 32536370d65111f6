// Scales that move within a block.
//
// A matrix that reads x computes the same from x / s when its columns are multiplied by s. The
// division is free where what makes x is linear in something stored: the weights of a norm (and its
// bias: the last thing a norm does is add it), the rows of the matrix before (and their biases).
// Which of these it is follows from the Spec alone:
//
//   reads                     made by
//   q k v (q_down, kv_down)   before_attn; in a parallel block without before_ffn the MLP reads it
//                             too, and all share one scale
//   q of a latent             q_down_norm, else the rows of q_down
//   k v of a latent           kv_down_norm, else the first rows of kv_down: behind them lies the
//                             rotated key, which neither k nor v reads and no norm covers
//   o                         the rows of v, for sum_t p_t v_t is linear in v
//   gate up                   before_ffn
//   down                      the rows of up when gated, act(gate) * up being linear in up;
//                             without a gate the rows of up if act(x / s) = act(x) / s (relu), or,
//                             for relu^2, act(x / sqrt(s)) = act(x) / s
//
// Norms behind a product (after_attn, after_ffn, q_norm, k_norm) see the same product as before.
// Where nothing can absorb the division it is stored and done at run time: after GELU, where a
// block has no norm in front, and for o where blocks share their keys and values: v then has
// readers in other blocks.
#include "pass/quantize/block.h"

#include <algorithm>
#include <cmath>

namespace pare {
namespace {

using Absorb = ScaleGroup::Absorb;

const Block& block_of(const Spec& spec, i64 block) {
  return spec.blocks.at(static_cast<std::size_t>(block));
}

// Another block reads the keys and values that this one makes.
bool lends(const Spec& spec, i64 block) {
  return std::any_of(spec.blocks.begin(), spec.blocks.end(),
                     [&](const Block& b) { return b.attn.kv_from == block; });
}

class Lister {
 public:
  Lister(const Spec& spec, i64 block)
      : b_(block_of(spec, block)),
        at_(fmt::format("blocks.{}.", block)),
        lends_(lends(spec, block)) {}

  std::vector<ScaleGroup> list() {
    const Attention& a = b_.attn;
    const bool shared = b_.parallel && !b_.before_ffn;  // attention and MLP read one input
    Members input;
    if (a.q_rank == 0) input.add("attn.q", a.q);
    input.add("attn.q_down", a.q_down);
    input.add("attn.kv_down", a.kv_down);
    if (!a.mla()) input.add("attn.k", a.k), input.add("attn.v", a.v);
    if (shared) input.add("ffn.gate", b_.ffn.gate), input.add("ffn.up", b_.ffn.up);
    behind_norm(input, "before_attn", b_.before_attn.has_value());
    latents();
    output();
    if (!shared) {
      Members ffn;
      ffn.add("ffn.gate", b_.ffn.gate);
      ffn.add("ffn.up", b_.ffn.up);
      behind_norm(ffn, "before_ffn", b_.before_ffn.has_value());
    }
    hidden();
    return std::move(groups_);
  }

 private:
  struct Members {
    std::vector<std::pair<std::string, const Linear*>> list;
    void add(const char* name, const Linear& l) {
      if (l.present()) list.emplace_back(name, &l);
    }
  };

  void push(const Members& members, Absorb absorb, const std::string& source) {
    // A rotation mixes the inputs before the matrix sees them: its columns are not theirs.
    const bool hindered = std::any_of(members.list.begin(), members.list.end(),
                                      [](const auto& m) { return m.second->rotation > 0; });
    if (members.list.empty() || hindered) return;
    ScaleGroup group;
    for (const auto& [name, linear] : members.list) group.matrices.push_back(at_ + name);
    group.input = group.matrices.front();
    group.absorb = absorb;
    if (absorb != Absorb::stored) group.source = at_ + source;
    groups_.push_back(std::move(group));
  }

  void behind_norm(const Members& members, const char* norm, bool present) {
    push(members, present ? Absorb::norm : Absorb::stored, norm);
  }

  void latents() {
    const Attention& a = b_.attn;
    Members q, kv;
    if (a.q_rank > 0) q.add("attn.q", a.q);
    push(q, a.q_down_norm ? Absorb::norm : Absorb::rows,
         a.q_down_norm ? "attn.q_down_norm" : "attn.q_down");
    if (a.mla()) kv.add("attn.k", a.k), kv.add("attn.v", a.v);
    push(kv, a.kv_down_norm ? Absorb::norm : Absorb::rows,
         a.kv_down_norm ? "attn.kv_down_norm" : "attn.kv_down");
  }

  void output() {
    Members o;
    o.add("attn.o", b_.attn.o);
    const bool own = b_.attn.v.present() && !lends_;
    push(o, own ? Absorb::heads : Absorb::stored, "attn.v");
  }

  void hidden() {
    const Ffn& f = b_.ffn;
    Members down;
    down.add("ffn.down", f.down);
    const bool passes = f.gated || f.act == Act::relu || f.act == Act::relu2;
    push(down, passes ? Absorb::rows : Absorb::stored, "ffn.up");
  }

  const Block& b_;
  std::string at_;
  bool lends_;
  std::vector<ScaleGroup> groups_;
};

Values* find(BlockValues& values, const std::string& name) {
  const auto it = values.find(name);
  return it == values.end() ? nullptr : &it->second;
}
Values& need(BlockValues& values, const std::string& name) {
  Values* found = find(values, name);
  PARE_CHECK(found != nullptr);
  return *found;
}

void divide(Values* vector, const std::vector<float>& s) {
  if (vector == nullptr) return;
  PARE_CHECK(vector->data.size() >= s.size());
  for (std::size_t i = 0; i < s.size(); i++) vector->data[i] /= s[i];
}

void divide_rows(Values* matrix, const std::vector<float>& s) {
  if (matrix == nullptr) return;
  const Matrix<float> m = matrix->matrix();
  PARE_CHECK(m.rows >= static_cast<i64>(s.size()));
  for (i64 r = 0; r < static_cast<i64>(s.size()); r++)
    for (float& x : m.span(r)) x /= s[static_cast<std::size_t>(r)];
}

// `column(k)`: the input that column k of the matrix stands for.
template <class Column>
void scale_columns(Values* matrix, const std::vector<float>& s, const Column& column) {
  if (matrix == nullptr) return;
  const Matrix<float> m = matrix->matrix();
  for (i64 r = 0; r < m.rows; r++)
    for (i64 k = 0; k < m.cols; k++) m.row(r)[k] *= s.at(column(k));
}

// Everything of a Linear that sees its input, in the order of engine/net.h.
void scale_member(BlockValues& values, const std::string& name, const std::vector<float>& s) {
  const Values* order = find(values, name + ".permutation");
  const Values* outliers = find(values, name + ".outlier_index");
  const auto plain = [](i64 k) { return static_cast<std::size_t>(k); };
  const auto gathered = [&](i64 k) {
    return order == nullptr ? plain(k) : static_cast<std::size_t>(order->data.at(plain(k)));
  };
  PARE_CHECK(need(values, name + ".weight").shape.back() == static_cast<i64>(s.size()));
  scale_columns(&need(values, name + ".weight"), s, gathered);
  scale_columns(find(values, name + ".low_rank_a"), s, plain);
  if (outliers != nullptr)
    scale_columns(find(values, name + ".outlier_weight"), s,
                  [&](i64 k) { return gathered(static_cast<i64>(outliers->data.at(plain(k)))); });
}

void scale_norm(BlockValues& values, const std::string& name, bool plus_one,
                const std::vector<float>& s) {
  Values& weight = need(values, name + ".weight");
  PARE_CHECK(weight.data.size() == s.size());
  for (std::size_t i = 0; i < s.size(); i++)
    weight.data[i] =
        plus_one ? static_cast<float>((1.0 + weight.data[i]) / s[i] - 1.0) : weight.data[i] / s[i];
  divide(find(values, name + ".bias"), s);
}

void scale_rows(BlockValues& values, const std::string& name, const std::vector<float>& s) {
  divide_rows(&need(values, name + ".weight"), s);
  divide_rows(find(values, name + ".outlier_weight"), s);
  divide_rows(find(values, name + ".low_rank_b"), s);
  divide(find(values, name + ".bias"), s);
}

void store(BlockValues& values, const std::string& name, const std::vector<float>& s) {
  Values& kept = values[name + ".input_scale"];
  if (kept.data.empty()) {
    kept.shape = {static_cast<i64>(s.size())};
    kept.data = s;
    return;
  }
  PARE_CHECK(kept.data.size() == s.size());
  for (std::size_t i = 0; i < s.size(); i++) kept.data[i] *= s[i];
}

// Of the norm that a group names as its source.
const Norm& norm_of(const Block& b, std::string_view source) {
  const std::optional<Norm>& norm = source.ends_with(".before_attn")        ? b.before_attn
                                    : source.ends_with(".before_ffn")       ? b.before_ffn
                                    : source.ends_with(".attn.q_down_norm") ? b.attn.q_down_norm
                                                                            : b.attn.kv_down_norm;
  PARE_CHECK(norm.has_value());
  return *norm;
}

// Input (head, d) of o is row (head / shared, d) of v.
i64 row_of_input(const Attention& a, i64 k) {
  return k / a.v_dim / (a.heads / a.kv_heads) * a.v_dim + k % a.v_dim;
}

}  // namespace

std::vector<ScaleGroup> scale_groups(const Spec& spec, i64 block) {
  return Lister(spec, block).list();
}

std::vector<float> shareable(const Spec& spec, const ScaleGroup& group, i64 block,
                             std::vector<float> s) {
  for (float& x : s)
    if (!std::isfinite(x) || !(x > 0) || !std::isfinite(1 / x)) x = 1;
  if (group.absorb != Absorb::heads) return s;
  const Attention& a = block_of(spec, block).attn;
  PARE_CHECK(static_cast<i64>(s.size()) == a.heads * a.v_dim);
  std::vector<double> sum(static_cast<std::size_t>(a.kv_heads * a.v_dim));
  const auto row = [&](std::size_t k) {
    return static_cast<std::size_t>(row_of_input(a, static_cast<i64>(k)));
  };
  for (std::size_t k = 0; k < s.size(); k++) sum[row(k)] += s[k];
  const double heads = static_cast<double>(a.heads / a.kv_heads);
  for (std::size_t k = 0; k < s.size(); k++) s[k] = static_cast<float>(sum[row(k)] / heads);
  return s;
}

void apply_scale(BlockValues& values, const Spec& spec, const ScaleGroup& group, i64 block,
                 const std::vector<float>& s) {
  const Block& b = block_of(spec, block);
  switch (group.absorb) {
    case Absorb::norm:
      scale_norm(values, group.source, norm_of(b, group.source).plus_one, s);
      break;
    case Absorb::rows: {
      std::vector<float> rows = s;
      const bool square = group.source.ends_with(".ffn.up") && !b.ffn.gated;
      if (square && b.ffn.act == Act::relu2)
        for (float& x : rows) x = std::sqrt(x);
      scale_rows(values, group.source, rows);
      break;
    }
    case Absorb::heads: {
      std::vector<float> rows(static_cast<std::size_t>(b.attn.kv_heads * b.attn.v_dim));
      for (std::size_t k = 0; k < s.size(); k++) {
        const auto r = static_cast<std::size_t>(row_of_input(b.attn, static_cast<i64>(k)));
        PARE_CHECK(rows[r] == 0 || rows[r] == s[k]);  // `shareable` has made them equal
        rows[r] = s[k];
      }
      scale_rows(values, group.source, rows);
      break;
    }
    case Absorb::stored:
      for (const std::string& name : group.matrices) store(values, name, s);
      break;
  }
  for (const std::string& name : group.matrices) scale_member(values, name, s);
}

BlockValues block_values(const Model& model, i64 block) {
  BlockValues values;
  for (const Slot& slot : slots(model.spec)) {
    if (slot.block != block) continue;
    const auto weight = model.weights.find(slot.name);
    PARE_CHECK(weight != model.weights.end());
    values[slot.name] = {slot.shape, decode(weight->second.load())};
  }
  return values;
}

void note_stored(Spec& spec, const ScaleGroup& group) {
  if (group.absorb != Absorb::stored) return;
  for (auto& [name, linear] : linears(spec))
    if (std::find(group.matrices.begin(), group.matrices.end(), name) != group.matrices.end())
      linear->input_scaled = true;
}

}  // namespace pare
