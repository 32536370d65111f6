// Running parts of a model.
//
// A segment is a Net that holds some blocks and nothing else, with operations of its own; the
// forward pass is the one of forward.h. Whole sequences go through it as one batch, so that a tap
// sees the input of a matrix for all tokens at once, may solve for the matrix there and then, and
// the pass goes on with the quantized product: one forward pass gives every matrix of a block the
// inputs that it will have in the quantized model ("true sequential" without running a block more
// than once).
#include "engine/segment.h"

#include <algorithm>

#include "engine/cpu_ops.h"

namespace pare {

std::vector<BlockRange> block_ranges(const Spec& spec) {
  const i64 n = static_cast<i64>(spec.blocks.size());
  std::vector<i64> last(static_cast<std::size_t>(n));  // block that reads this one's cache last
  for (i64 i = 0; i < n; i++) {
    last[static_cast<std::size_t>(i)] = i;
    const i64 from = spec.blocks[static_cast<std::size_t>(i)].attn.kv_from;
    if (from >= 0) last[static_cast<std::size_t>(from)] = i;
  }
  std::vector<BlockRange> ranges;
  for (i64 first = 0; first < n;) {
    i64 end = first + 1;
    for (i64 i = first; i < end; i++) end = std::max(end, last[static_cast<std::size_t>(i)] + 1);
    ranges.push_back({first, end - first});
    first = end;
  }
  return ranges;
}

struct Segment::Impl {
  const Model& model;
  BlockRange range;
  Pool& pool;
  unsigned isa;
  std::unique_ptr<Net<PackedLinear>> net;
  CpuOps ops;
  std::vector<KvCache> caches;  // one a sequence, kept while the lengths stay
  std::vector<i64> lengths;

  Impl(const Model& m, BlockRange r, Pool& p, unsigned i, std::shared_ptr<Buffers> buffers)
      : model(m),
        range(r),
        pool(p),
        isa(i),
        net(packed_blocks(m, r.first, r.count, i, p)),
        ops(*net, p, i, std::move(buffers)) {}

  void make_caches(const std::vector<i64>& wanted) {
    if (wanted != lengths) caches.clear();
    lengths = wanted;
    for (i64 length : caches.empty() ? wanted : std::vector<i64>())
      caches.emplace_back(net->spec, length, Code::f32);
    for (KvCache& cache : caches) {
      cache.truncate(0);
      cache.state().in_step = false;
    }
  }
};

Segment::Segment(const Model& model, BlockRange range, Pool& pool, unsigned isa,
                 std::shared_ptr<Buffers> buffers)
    : impl_(std::make_unique<Impl>(model, range, pool, isa, std::move(buffers))) {}
Segment::~Segment() = default;

void Segment::run(Matrix<float> hidden, const std::vector<i64>& lengths, const Tap* tap) {
  Impl& m = *impl_;
  m.make_caches(lengths);
  Chunk chunk;
  for (std::size_t i = 0; i < lengths.size(); i++) {
    PARE_CHECK(lengths[i] > 0);
    chunk.pieces.push_back({&m.caches[i].state(), chunk.rows(), lengths[i], 0, lengths[i]});
    chunk.tokens.resize(chunk.tokens.size() + static_cast<std::size_t>(lengths[i]));
  }
  PARE_CHECK(chunk.rows() == hidden.rows && hidden.cols == m.net->spec.dim);
  m.ops.begin(chunk);
  Forward<CpuOps> forward(m.ops, *m.net, tap);
  const Array x = forward.blocks(m.ops.copy(hidden));
  for (i64 r = 0; r < hidden.rows; r++) std::copy_n(x.view().row(r), hidden.cols, hidden.row(r));
  for (KvCache& cache : m.caches) {
    for (KvStore& store : cache.state().stores) store.commit();
    cache.truncate(0);
  }
}

void Segment::repack(const std::string& linear) {
  Impl& m = *impl_;
  for (i64 i = 0; i < m.range.count; i++)
    if (linear.starts_with(m.net->blocks[static_cast<std::size_t>(i)].name + "."))
      return pare::repack(*m.net, i, m.model, m.range.first, linear, m.isa, m.pool);
  PARE_CHECK(false);
}

i64 Segment::floats_per_token(const Spec& spec, BlockRange range) {
  i64 most = 0, cache = 0;
  for (i64 i = range.first; i < range.first + range.count; i++) {
    const Block& b = spec.blocks[static_cast<std::size_t>(i)];
    const Attention& a = b.attn;
    const i64 q = a.heads * a.qk_dim, mix = a.heads * a.v_dim;
    if (a.kv_from < 0)
      cache += a.mla() ? a.kv_rank + a.rope.dims : a.kv_heads * (a.qk_dim + a.v_dim);
    const i64 attention = 2 * q + mix + a.kv_heads * (a.qk_dim + a.v_dim);
    const i64 ffn = b.ffn.up.out * (b.ffn.gated ? 2 : 1);
    most = std::max(most, std::max(attention, ffn));
  }
  return cache + most + 5 * spec.dim;
}

struct Ends::Impl {
  std::unique_ptr<Net<PackedLinear>> net;
  CpuOps ops;
  Array out;  // of the last call
  Impl(const Model& model, Pool& pool, unsigned isa)
      : net(packed_ends(model, isa, pool)), ops(*net, pool, isa) {}
};

Ends::Ends(const Model& model, Pool& pool, unsigned isa)
    : impl_(std::make_unique<Impl>(model, pool, isa)) {}
Ends::~Ends() = default;

void Ends::embed(std::span<const std::int32_t> tokens, Matrix<float> hidden) {
  Impl& m = *impl_;
  const i64 n = static_cast<i64>(tokens.size());
  PARE_CHECK(hidden.rows == n && hidden.cols == m.net->spec.dim);
  for (std::int32_t id : tokens)
    if (id < 0 || id >= m.net->spec.vocab)
      fail_input(
          "EN-001", "a token is outside the model's vocabulary",
          {{"found", std::to_string(id)}, {"need", fmt::format("0 to {}", m.net->spec.vocab - 1)}});
  Chunk chunk;
  chunk.tokens.assign(tokens.begin(), tokens.end());
  chunk.pieces.push_back({nullptr, 0, n, 0, n});
  m.ops.begin(chunk);
  const Array x = m.ops.embed();
  for (i64 r = 0; r < n; r++) std::copy_n(x.view().row(r), hidden.cols, hidden.row(r));
}

void Ends::normed(Matrix<const float> hidden,
                  const std::function<void(Matrix<const float>)>& visit) {
  constexpr i64 at_once = 1024;
  Impl& m = *impl_;
  for (i64 r = 0; r < hidden.rows; r += at_once) {
    const i64 count = std::min(at_once, hidden.rows - r);
    const Array x =
        m.ops.norm(m.net->norm, m.ops.copy({hidden.row(r), count, hidden.cols, hidden.stride}));
    visit(x.view());
  }
}

Matrix<const float> Ends::logits(Matrix<const float> hidden) {
  Impl& m = *impl_;
  Forward<CpuOps> forward(m.ops, *m.net, nullptr);
  m.out = Array();
  m.out = forward.logits(m.ops.copy(hidden));
  return m.out.view();
}

}  // namespace pare
