// Operations of a forward pass from its Spec.
//
// These are the denominators of every efficiency that is reported, so they follow the definitions
// and not the implementation, with one exception: for MLA the cheaper of the two orders counts, as
// that is what runs. A test holds them against an instrumented run of the engine.
#include "cost/count.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernel/linear.h"

namespace pare {
namespace {

// Multiply-adds of one input, companions included.
double multiply_adds(const Linear& l) {
  if (!l.present()) return 0;
  const double in = real(l.in), out = real(l.out);
  return in * out + real(l.rank) * (in + out) + real(l.outliers) * out;
}

// Bytes of the rows that the query at `position` sees: packed ones with the scales of every group
// they touch, the others in f16.
i64 bytes_seen(const Attention& a, const KvScheme& kv, i64 position) {
  const i64 end = kv.packed_end(position + 1), share = kv.positions();
  const i64 oldest = a.window > 0 ? std::max<i64>(0, position - a.window + 1) : 0;
  i64 packed = 0, groups = 0, half = 0, last = -1;
  for (const auto& [begin, stop] :
       {std::pair{i64{0}, std::min(a.sinks, oldest)}, std::pair{oldest, position + 1}}) {
    const i64 from = std::max(begin, kv.sinks), to = std::min(stop, end);
    half += std::max<i64>(0, stop - begin) - std::max<i64>(0, to - from);
    if (to <= from) continue;
    packed += to - from;
    const i64 first_group = std::max(last + 1, (from - kv.sinks) / share);
    last = (to - 1 - kv.sinks) / share;
    groups += last - first_group + 1;
  }
  const auto bytes = [&](const KvPart& p, i64 width) {
    return packed * kv_row_bytes(p, width) +
           (p.positions() > 1 ? groups : packed) * kv_parameter_bytes(p, width) + half * 2 * width;
  };
  return kv_heads_stored(a) *
         (bytes(kv.keys, kv_key_width(a)) + (a.mla() ? 0 : bytes(kv.values, kv_value_width(a))));
}

// Of a position of one block; its share where positions share scales.
double position_bytes(const Attention& a, const KvScheme& kv) {
  return real(kv_packed_bytes(a, kv, kv.positions())) / real(kv.positions());
}

class Lister {
 public:
  Lister(const Spec& spec, const Load& load) : spec_(spec), load_(load) {}

  std::vector<Operation> list() {
    embedding();
    for (std::size_t b = 0; b < spec_.blocks.size(); b++) {
      block_ = static_cast<i64>(b);
      block(spec_.blocks[b]);
    }
    block_ = -1;
    head();
    vectors();
    return std::move(list_);
  }

 private:
  i64 rows() const { return load_.batch * load_.tokens; }

  Operation& add(std::string name, Section section) {
    Operation op;
    op.name = std::move(name);
    op.block = block_;
    op.section = section;
    op.tokens = load_.tokens;
    list_.push_back(std::move(op));
    return list_.back();
  }

  double bytes_of(const Scheme& s, i64 out, i64 in) const {
    return real(load_.packed ? packed_bytes(s, out, in) : stored_bytes(s, out, in));
  }

  // Companions are read with the matrix; they are plain floats.
  double bytes_of(const Linear& l) const {
    double bytes = bytes_of(l.scheme, l.out, l.in);
    const Scheme plain;
    if (l.rank > 0) bytes += bytes_of(plain, l.rank, l.in) + bytes_of(plain, l.out, l.rank);
    if (l.outliers > 0) bytes += bytes_of(plain, l.out, l.outliers);
    return bytes;
  }

  void embedding() {
    Operation& op = add("embed", Section::embedding);
    op.rows = rows();
    op.out = spec_.dim;
    op.scheme = spec_.embed;
    op.weight_bytes = real(rows()) * real(stored_bytes(spec_.embed, 1, spec_.dim));
    if (spec_.learned_positions > 0) op.weight_bytes += real(rows() * spec_.dim) * 4;
  }

  void product(const std::string& name, Section section, const Linear& l, i64 count) {
    if (!l.present()) return;
    Operation& op = add(name, section);
    op.product = true;
    op.rows = count;
    op.in = l.in;
    op.out = l.out;
    op.scheme = l.scheme;
    op.activation = l.activation;
    op.flops = 2 * real(count) * multiply_adds(l);
    op.weight_bytes = bytes_of(l);
  }

  void block(const Block& b) {
    const Attention& a = b.attn;
    const std::string at = fmt::format("blocks.{}.", block_);
    const auto linear = [&](const char* name, const Linear& l) {
      product(at + name, Section::attention, l, rows());
    };
    linear("attn.q_down", a.q_down);
    linear("attn.q", a.q);
    linear("attn.kv_down", a.kv_down);
    if (!a.mla()) {
      linear("attn.k", a.k);
      linear("attn.v", a.v);
    }
    mix(at, a);
    linear("attn.o", a.o);
    const double routed = b.ffn.experts > 0 ? real(b.ffn.active_experts + b.ffn.shared_experts) : 1;
    for (const auto& [name, l] :
         {std::pair{"ffn.gate", &b.ffn.gate}, {"ffn.up", &b.ffn.up}, {"ffn.down", &b.ffn.down}}) {
      if (!l->present()) continue;
      product(at + name, Section::ffn, *l, rows());
      list_.back().flops *= routed;
      list_.back().weight_bytes *= distinct_experts(b.ffn);
    }
  }

  // Expected number of experts that some row of the pass asks for.
  double distinct_experts(const Ffn& f) const {
    if (f.experts == 0) return 1;
    const double miss = 1 - real(f.active_experts) / real(f.experts);
    return real(f.experts) * (1 - std::pow(miss, real(rows()))) + real(f.shared_experts);
  }

  // Scores and values; for MLA the projections between latent and heads too.
  void mix(const std::string& at, const Attention& a) {
    const Attention& stored =
        a.kv_from >= 0 ? spec_.blocks[static_cast<std::size_t>(a.kv_from)].attn : a;
    Operation& op = add(at + "attn.mix", Section::attention);
    op.rows = rows();
    op.kv_code = info(load_.kv.keys.code).name;
    op.queries = real(a.heads * rows());
    op.heads_per_kv = real(a.heads) / real(kv_heads_stored(stored));
    const double pairs = visible_pairs(a, load_.tokens, load_.context), batch = real(load_.batch);
    if (a.mla())
      latent(op, a, stored, pairs);
    else
      op.flops = 2 * batch * real(a.heads) * pairs * real(a.qk_dim + a.v_dim);
    op.kv_read_bytes = batch * bytes_read(a, stored);
    if (a.kv_from < 0) op.kv_write_bytes = batch * real(load_.tokens) * position_bytes(a, load_.kv);
  }

  void latent(Operation& op, const Attention& a, const Attention& lender, double pairs) {
    const double heads = real(a.heads), qk = real(a.qk_dim), v = real(a.v_dim);
    const double rank = real(a.kv_rank), rope = real(a.rope.dims), batch = real(load_.batch);
    const double expand = heads * rank * (qk - rope + v);
    Attention any = a;  // what some query of the pass sees
    if (a.window > 0) any.window += load_.tokens - 1;
    i64 keys = visible_positions(any, load_.context + load_.tokens - 1);
    // A long step leaves the engine's ring as it is: one row too many is expanded.
    if (load_.packed && a.window > 0 && load_.tokens > 1)
      keys = std::min(load_.context, a.window + a.sinks) + load_.tokens;
    const bool absorbs = (!load_.packed || (bare(lender.k) && bare(lender.v))) &&
                         absorbed_is_cheaper(a, load_.tokens, keys);
    const i64 nope = a.qk_dim - a.rope.dims;
    const Linear k = head_of(lender.k, nope), v_head = head_of(lender.v, a.v_dim);
    const double of_keys = load_.packed ? heads * (multiply_adds(k) + multiply_adds(v_head))
                                        : multiply_adds(lender.k) + multiply_adds(lender.v);
    const double adds = absorbs ? real(load_.tokens) * expand + heads * pairs * (2 * rank + rope)
                                : real(keys) * of_keys + heads * pairs * (qk + v);
    op.flops = 2 * batch * adds;
    // The engine cuts both projections head by head, turns those of keys round to absorb, and goes
    // through them once for each sequence to materialise.
    if (!load_.packed)
      op.weight_bytes = bytes_of(lender.k) + bytes_of(lender.v);
    else if (absorbs)
      op.weight_bytes = heads * (bytes_of(lender.k.scheme, a.kv_rank, nope) + bytes_of(v_head));
    else
      op.weight_bytes = batch * heads * (bytes_of(k) + bytes_of(v_head)) +
                        (heads - 1) * 4 * (input_vectors(k) + input_vectors(v_head));
    op.scheme = lender.k.scheme;
  }
  static Linear head_of(Linear l, i64 out) {
    l.out = out;
    return l;
  }
  // Numbers that a site keeps for its input, once for each head here.
  static double input_vectors(const Linear& l) {
    return real((l.permuted ? l.in : 0) + (l.input_scaled ? l.in : 0) + l.outliers +
                (l.activation.is_static ? 1 : 0));
  }
  static bool bare(const Linear& l) {
    return l.rank == 0 && l.outliers == 0 && !l.permuted && !l.input_scaled && l.rotation == 0 &&
           l.activation.per == Activation::Per::none && !l.bias;
  }

  // Rows that any query of the pass sees, each once: those that the last query sees, and those
  // behind the windows of earlier ones.
  double bytes_read(const Attention& a, const Attention& stored) const {
    Attention seen = stored;
    seen.window = a.window > 0 ? a.window + load_.tokens - 1 : 0;
    seen.sinks = a.sinks;
    return real(bytes_seen(seen, load_.kv, load_.context + load_.tokens - 1));
  }

  void head() {
    const i64 count = load_.all_logits ? rows() : load_.batch;
    product("head", Section::head, spec_.head, count);
  }

  // Norms, biases, scales: read once, computed by the vector units.
  void vectors() {
    Operation& op = add("vectors", Section::norms);
    const double each = load_.packed || bits(spec_.embed.code) > 16 ? 4 : 2;
    for (const Slot& slot : slots(spec_))
      if (slot.vector && !unused(slot)) op.weight_bytes += each * real(slot.shape[0]);
    op.rows = rows();
  }

  // Blocks that share a cache make no keys to normalise.
  bool unused(const Slot& slot) const {
    return slot.block >= 0 &&
           spec_.blocks[static_cast<std::size_t>(slot.block)].attn.kv_from >= 0 &&
           (slot.name.find("kv_down_norm") != std::string::npos ||
            slot.name.find("k_norm") != std::string::npos);
  }

  const Spec& spec_;
  const Load& load_;
  i64 block_ = -1;
  std::vector<Operation> list_;
};

}  // namespace

std::string_view to_string(Section s) {
  constexpr std::string_view names[] = {"embedding", "attention", "ffn", "head", "norms"};
  return names[static_cast<std::size_t>(s)];
}

std::vector<Operation> operations(const Spec& spec, const Load& load) {
  PARE_CHECK(load.batch > 0 && load.tokens > 0 && load.context >= 0);
  return Lister(spec, load).list();
}

Count sum(const std::vector<Operation>& list) {
  Count total;
  for (const Operation& op : list) {
    total.flops += op.flops;
    total.weight_bytes += op.weight_bytes;
    total.kv_read_bytes += op.kv_read_bytes;
    total.kv_write_bytes += op.kv_write_bytes;
  }
  return total;
}

double vector_elements(const Spec& spec) {
  i64 n = 2 * spec.dim;
  for (const Block& b : spec.blocks) {
    n += 4 * spec.dim + b.attn.heads * b.attn.qk_dim + b.ffn.down.in;
    if (b.attn.kv_from < 0)
      n += kv_heads_stored(b.attn) * (kv_key_width(b.attn) + kv_value_width(b.attn));
  }
  return real(n);
}

i64 visible_positions(const Attention& a, i64 position) {
  const i64 all = position + 1;
  if (a.window == 0) return all;
  return std::min(all, a.window) + std::clamp<i64>(all - a.window, 0, a.sinks);
}

double visible_pairs(const Attention& a, i64 tokens, i64 context) {
  const double n = real(tokens), c = real(context);
  if (a.window == 0) return n * c + n * (n + 1) / 2;
  double pairs = 0;
  // Past window + sinks every query sees the same number.
  const i64 growing = std::clamp<i64>(a.window + a.sinks - context, 0, tokens);
  for (i64 t = 0; t < growing; t++) pairs += real(visible_positions(a, context + t));
  return pairs + real(tokens - growing) * real(visible_positions(a, context + tokens - 1));
}

bool absorbed_is_cheaper(const Attention& a, i64 queries, i64 keys) {
  const double nope = real(a.qk_dim - a.rope.dims), rope = real(a.rope.dims);
  const double v = real(a.v_dim), rank = real(a.kv_rank);
  const double pairs = real(queries) * real(keys);
  const double expand = rank * (nope + v);  // of one position and head, either way
  const double absorbed = real(queries) * expand + pairs * (2 * rank + rope);
  const double materialised = real(keys) * expand + pairs * (nope + rope + v);
  return absorbed < materialised;
}

i64 kv_bytes_read(const Spec& spec, const KvScheme& kv, i64 context) {
  i64 bytes = 0;
  for (const Block& b : spec.blocks) {
    Attention seen =
        b.attn.kv_from >= 0 ? spec.blocks[static_cast<std::size_t>(b.attn.kv_from)].attn : b.attn;
    seen.window = b.attn.window;
    seen.sinks = b.attn.sinks;
    bytes += bytes_seen(seen, kv, context);
  }
  return bytes;
}

double kv_cache_bytes(const Spec& spec, const KvScheme& kv, i64 positions) {
  double bytes = 0;
  for (const Block& b : spec.blocks) {
    const Attention& a = b.attn;
    if (a.kv_from >= 0) continue;
    const i64 held = a.window > 0 ? std::min(positions, a.window + a.sinks) : positions;
    bytes += real(held) * position_bytes(a, kv);
  }
  return bytes;
}

double forward_flops(const Spec& spec, i64 tokens, i64 context) {
  Load load;
  load.tokens = tokens;
  load.context = context;
  return sum(operations(spec, load)).flops;
}

}  // namespace pare
