// Bytes and operations of a step.
//
// These are the denominators of every efficiency that is reported, so they follow the definitions
// and not the implementation, with one exception: for MLA the cheaper of the two orders counts, as
// that is what runs.
#include "engine/counts.h"

#include <algorithm>
#include <utility>

#include "engine/cache.h"
#include "engine/cpu_ops.h"

namespace pare {
namespace {

double multiply_adds(const Linear& l) {
  if (!l.present()) return 0;
  const double in = static_cast<double>(l.in), out = static_cast<double>(l.out);
  return in * out + static_cast<double>(l.rank) * (in + out) +
         static_cast<double>(l.outliers) * out;
}

double attention_multiply_adds(const Attention& a, i64 tokens, i64 context) {
  double pairs = 0;
  for (i64 t = 0; t < tokens; t++) pairs += static_cast<double>(visible_positions(a, context + t));
  const double heads = static_cast<double>(a.heads), qk = static_cast<double>(a.qk_dim);
  const double v = static_cast<double>(a.v_dim);
  if (!a.mla()) return heads * pairs * (qk + v);
  const double rank = static_cast<double>(a.kv_rank), rope = static_cast<double>(a.rope.dims);
  const i64 keys = visible_positions(a, context + tokens - 1);
  const double expand = heads * rank * (qk - rope + v);
  if (absorbed_is_cheaper(a, tokens, keys))
    return static_cast<double>(tokens) * expand + heads * pairs * (2 * rank + rope);
  return static_cast<double>(keys) * expand + heads * pairs * (qk + v);
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

}  // namespace

i64 visible_positions(const Attention& a, i64 position) {
  const i64 all = position + 1;
  if (a.window == 0) return all;
  return std::min(all, a.window) + std::clamp<i64>(all - a.window, 0, a.sinks);
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

double forward_flops(const Spec& spec, i64 tokens, i64 context) {
  const double n = static_cast<double>(tokens);
  double sum = multiply_adds(spec.head);
  for (const Block& b : spec.blocks) {
    const Attention& a = b.attn;
    for (const Linear* l : {&a.q, &a.o, &a.q_down, &a.kv_down}) sum += n * multiply_adds(*l);
    if (!a.mla()) sum += n * (multiply_adds(a.k) + multiply_adds(a.v));
    if (b.ffn.gated) sum += n * multiply_adds(b.ffn.gate);
    sum += n * (multiply_adds(b.ffn.up) + multiply_adds(b.ffn.down));
    sum += attention_multiply_adds(a, tokens, context);
  }
  return 2 * sum;
}

}  // namespace pare
