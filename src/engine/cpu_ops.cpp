// The operations of a forward pass on this machine's vector units and threads.
//
// What is worth saying is MLA. Keys and values of all heads are linear in one latent row c of each
// position: k_h = U_h c, v_h = V_h c. So q_h . U_h c = (U_h^T q_h) . c, and the sum of p_j V_h c_j
// is V_h (sum of p_j c_j): attention can run on the latents as if all heads shared one key, whose
// front is also the value (absorbed), or keys and values can be expanded first (materialised). The
// first costs 2 rank multiply-adds a head where the second costs nope + v, but the second expands
// every cached row; which is cheaper depends on how many queries share the expansion, and
// absorbed_is_cheaper() counts it. Materialised heads are made one at a time for each thread, which
// bounds memory at threads x context x (qk + v) floats. DeepSeek-V2 report, arXiv 2405.04434,
// section 2.1 and appendix C.
//
// A product with activations in a code, or with companions, is not linear in that sense; such
// blocks always materialise.
#include "engine/cpu_ops.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "cost/count.h"

namespace pare {
namespace {

// Below this waking a thread costs more than the work: some microseconds, and far more where other
// programs want the processors.
constexpr i64 floats_per_slice = 16384;
constexpr double worth_threads = 1 << 16;  // multiply-adds

// x <- x H / sqrt(n) for each block of n = 2^k; Sylvester's order.
void hadamard_blocks(float* x, i64 total, i64 n) {
  const float norm = 1.0f / std::sqrt(static_cast<float>(n));
  for (i64 block = 0; block < total; block += n) {
    float* b = x + block;
    for (i64 half = 1; half < n; half *= 2)
      for (i64 i = 0; i < n; i += 2 * half)
        for (i64 k = i; k < i + half; k++) {
          const float sum = b[k] + b[k + half], difference = b[k] - b[k + half];
          b[k] = sum;
          b[k + half] = difference;
        }
    for (i64 i = 0; i < n; i++) b[i] *= norm;
  }
}

Matrix<float> columns(Matrix<float> m, i64 begin, i64 count) {
  return {m.data + begin, m.rows, count, m.stride};
}
Matrix<float> row_range(Matrix<float> m, i64 begin, i64 count) {
  return {m.row(begin), count, m.cols, m.stride};
}

AttendCall call_for(const CpuOps::Block& b, const Piece& piece) {
  const Attention& a = b.spec->attn;
  AttendCall c;
  c.heads = a.heads;
  c.scale = a.scale;
  c.softcap = a.softcap;
  c.window = a.window;
  c.sinks = a.sinks;
  c.first_position = piece.position;
  const KvScheme& kv = piece.cache->scheme;
  c.group = kv.positions();
  c.wait = kv.window;
  c.kept = kv.sinks;
  c.sink_logits = b.sink_logits.empty() ? nullptr : b.sink_logits.data();
  return c;
}

i64 rows_of(const std::vector<KvSegment>& segments) {
  i64 rows = 0;
  for (const KvSegment& s : segments) rows += s.count;
  return rows;
}

i64 visible_rows(const KvStore& store) {
  std::vector<KvSegment> segments;
  store.segments(segments);
  return rows_of(segments);
}

// Moves columns out of z: they become zero there and a matrix (tokens, columns) of their own.
Array take_columns(Matrix<float> z, std::span<const std::int32_t> which, Buffers& buffers) {
  Array apart = buffers.take(z.rows, static_cast<i64>(which.size()));
  for (i64 r = 0; r < z.rows; r++)
    for (std::size_t k = 0; k < which.size(); k++)
      apart.view().row(r)[k] = std::exchange(z.row(r)[which[k]], 0.0f);
  return apart;
}

// The input as a kernel needs it: scaled, rotated, permuted. (tokens, in)
Array condition(const CpuOps::Linear& site, Matrix<const float> x, Buffers& buffers) {
  Array z = buffers.take(x.rows, x.cols);
  std::vector<float> row(site.permutation.size());
  for (i64 r = 0; r < x.rows; r++) {
    float* to = z.view().row(r);
    std::copy_n(x.row(r), x.cols, to);
    for (std::size_t i = 0; i < site.input_scale.size(); i++) to[i] /= site.input_scale[i];
    if (site.spec->rotation > 0) hadamard_blocks(to, x.cols, site.spec->rotation);
    if (row.empty()) continue;
    for (std::size_t i = 0; i < row.size(); i++) row[i] = to[site.permutation[i]];
    std::copy(row.begin(), row.end(), to);
  }
  return z;
}

// Adds the seconds of its life.
class Timer {
 public:
  explicit Timer(double* to) : to_(to) {
    if (to_ != nullptr) begin_ = std::chrono::steady_clock::now();
  }
  ~Timer() {
    if (to_ != nullptr)
      *to_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  double* to_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace

CpuOps::CpuOps(const Net& net, Pool& pool, unsigned isa, std::shared_ptr<Buffers> buffers)
    : net_(net),
      pool_(pool),
      isa_(isa),
      vector_(vector_ops(isa)),
      ropes_(net.ropes.size()),
      shared_(std::move(buffers)),
      buffers_(*shared_) {
  for (std::size_t i = 0; i < net.ropes.size(); i++)
    if (!rope_depends_on_length(net.ropes[i]))
      ropes_[i].frequencies = rope_frequencies(net.ropes[i], net.spec.max_positions);
  for (int t = 0; t < pool.threads(); t++) thread_buffers_.push_back(std::make_unique<Buffers>());
}

void CpuOps::multiply(const PackedLinear& product, Matrix<const float> x, Matrix<float> y,
                      Pool* pool) const {
  if (tally_ != nullptr) tally_->product(product, x.rows);
  const double work =
      static_cast<double>(x.rows) * static_cast<double>(x.cols) * static_cast<double>(y.cols);
  // Without a pool this may be any thread: what surrounds it is timed.
  const Timer timer(pool != nullptr && times_ != nullptr ? &times_->products : nullptr);
  if (pool != nullptr && work >= worth_threads)
    product.apply(x, y, *pool);
  else
    product.apply(x, y);
}

template <class Work>
void CpuOps::rows(i64 count, i64 floats_each, const Work& work) {
  const i64 grain = std::max<i64>(1, floats_per_slice / std::max<i64>(1, floats_each));
  if (count <= grain) {  // not worth a std::function
    for (i64 r = 0; r < count; r++) work(r);
    return;
  }
  pool_.run(count, grain, [&work](i64 begin, i64 end) {
    for (i64 r = begin; r < end; r++) work(r);
  });
}

void CpuOps::begin(const Chunk& chunk) {
  chunk_ = &chunk;
  for (std::size_t i = 0; i < ropes_.size(); i++) {
    const Rope& rope = net_.ropes[i];
    RopeTable& table = ropes_[i];
    const i64 pairs = rope.dims / 2;
    if (pairs == 0) continue;
    table.cosine.resize(static_cast<std::size_t>(chunk.rows() * pairs));
    table.sine.resize(table.cosine.size());
    for (const Piece& piece : chunk.pieces) {
      const std::vector<double> own =
          table.frequencies.empty() ? rope_frequencies(rope, piece.length) : std::vector<double>();
      const std::vector<double>& frequencies = own.empty() ? table.frequencies : own;
      rows(piece.count, 16 * pairs, [&](i64 t) {
        const auto base = static_cast<std::size_t>((piece.row + t) * pairs);
        for (std::size_t k = 0; k < static_cast<std::size_t>(pairs); k++) {
          const double angle = static_cast<double>(piece.position + t) * frequencies[k];
          table.cosine[base + k] = static_cast<float>(std::cos(angle) * rope.attention_factor);
          table.sine[base + k] = static_cast<float>(std::sin(angle) * rope.attention_factor);
        }
      });
    }
  }
}

Array CpuOps::embed() {
  const i64 dim = net_.spec.dim;
  Array x = buffers_.take(chunk_->rows(), dim);
  if (tally_ != nullptr)
    tally_->weight_bytes += chunk_->rows() * (stored_bytes(net_.embed.scheme, 1, dim) +
                                              (net_.positions.empty() ? 0 : 4 * dim));
  for (const Piece& piece : chunk_->pieces)
    rows(piece.count, 8 * dim, [&](i64 t) {
      float* row = x.view().row(piece.row + t);
      decode_row(net_.embed, chunk_->tokens[static_cast<std::size_t>(piece.row + t)],
                 {row, static_cast<std::size_t>(dim)});
      if (net_.spec.embed_scale != 1)
        for (i64 i = 0; i < dim; i++) row[i] *= net_.spec.embed_scale;
      if (!net_.positions.empty())
        vector_.add(row, net_.positions.data() + (piece.position + t) * dim, 1, dim, row);
    });
  return x;
}

Array CpuOps::copy(Matrix<const float> from) {
  Array x = buffers_.take(from.rows, from.cols);
  for (i64 r = 0; r < from.rows; r++) std::copy_n(from.row(r), from.cols, x.view().row(r));
  return x;
}

void CpuOps::normalise(const NormSite& site, Matrix<float> x, Matrix<float> y, const Part& part) {
  PARE_CHECK(static_cast<i64>(site.weight.size()) == part.width);
  if (tally_ != nullptr) {
    tally_->vector(site.weight.data(), 4 * static_cast<i64>(site.weight.size()));
    tally_->vector(site.bias.data(), 4 * static_cast<i64>(site.bias.size()));
  }
  const i64 step = x.cols / part.heads;
  const float* bias = site.bias.empty() ? nullptr : site.bias.data();
  const float plus = site.spec->plus_one ? 1 : 0;
  rows(x.rows, x.cols, [&](i64 r) {
    for (i64 h = 0; h < part.heads; h++) {
      const float* from = x.row(r) + h * step + part.begin;
      float* to = y.row(r) + h * step + part.begin;
      if (site.spec->layer)
        vector_.layer_norm(from, site.weight.data(), bias, site.spec->eps, part.width, to);
      else
        vector_.rms_norm(from, site.weight.data(), plus, site.spec->eps, part.width, to);
    }
  });
}

Array CpuOps::norm(const NormSite& site, const Array& x) {
  Array y = buffers_.take(x.rows(), x.cols());
  normalise(site, x.view(), y.view(), {1, 0, x.cols()});
  return y;
}

Array CpuOps::norm_part(const NormSite& site, Array x, const Part& part) {
  normalise(site, x.view(), x.view(), part);
  return x;
}

// All that a site holds beside its matrices.
void CpuOps::count_vectors(const Linear& site) const {
  if (tally_ == nullptr) return;
  const auto add = [&](const auto& v) { tally_->vector(v.data(), 4 * static_cast<i64>(v.size())); };
  add(site.bias);
  add(site.input_scale);
  add(site.permutation);
  add(site.outlier_index);
  if (site.spec->activation.is_static) tally_->vector(&site.static_scale, 4);
}

Array CpuOps::linear(const Linear& site, const Array& x) {
  count_vectors(site);
  Array y = buffers_.take(x.rows(), site.out);
  apply(site, x.view(), y.view(), &pool_, buffers_);
  return y;
}

// A kernel and its companions, as net.h defines them. Without a pool it may run on any thread.
void CpuOps::apply(const Linear& site, Matrix<const float> x, Matrix<float> y, Pool* pool,
                   Buffers& buffers) {
  const pare::Linear& l = *site.spec;
  const auto add_rows = [&](Matrix<const float> more) {  // one row serves all
    const auto one = [&](i64 r) {
      vector_.add(y.row(r), more.row(more.rows == 1 ? 0 : r), 1, y.cols, y.row(r));
    };
    if (pool != nullptr) return rows(y.rows, y.cols, one);
    for (i64 r = 0; r < y.rows; r++) one(r);
  };
  const auto accumulate = [&](const PackedLinear& product, Matrix<const float> from) {
    const Array more = buffers.take(y.rows, y.cols);
    multiply(product, from, more.view(), pool);
    add_rows(more.view());
  };
  Array conditioned, outliers;
  Matrix<const float> in = x;
  if (l.input_scaled || l.permuted || l.rotation > 0 || l.outliers > 0) {
    conditioned = condition(site, x, buffers);
    if (l.outliers > 0) outliers = take_columns(conditioned.view(), site.outlier_index, buffers);
    in = conditioned.view();
  }
  multiply(site.product, in, y, pool);
  if (l.outliers > 0) accumulate(site.outlier, outliers.view());
  if (l.rank > 0) {
    const Array small = buffers.take(x.rows, l.rank);
    multiply(site.low_rank_a, x, small.view(), pool);
    accumulate(site.low_rank_b, small.view());
  }
  if (!site.bias.empty()) add_rows({site.bias.data(), 1, y.cols});
}

Array CpuOps::rope(const Block& block, Array x, const Part& part) {
  const Rope& rope = block.spec->attn.rope;
  const RopeTable& table = ropes_[static_cast<std::size_t>(block.rope)];
  const i64 step = x.cols() / part.heads, pairs = rope.dims / 2;
  rows(x.rows(), x.cols(), [&](i64 r) {
    for (i64 h = 0; h < part.heads; h++)
      vector_.rope(x.view().row(r) + h * step + part.begin, table.cosine.data() + r * pairs,
                   table.sine.data() + r * pairs, rope.dims, rope.interleaved);
  });
  return x;
}

// Rows that are packed at once; those that wait are not counted.
void CpuOps::count_writes(const Block& block, bool values) const {
  if (tally_ == nullptr) return;
  const Attention& a = block.spec->attn;
  for (const Piece& piece : chunk_->pieces) {
    const KvScheme& kv = piece.cache->scheme;
    if (kv.waits()) continue;
    const auto row = [](const KvPart& part, i64 width) {
      return kv_row_bytes(part, width) + kv_parameter_bytes(part, width);
    };
    const i64 bytes = row(kv.keys, kv_key_width(a)) + (values ? row(kv.values, a.v_dim) : 0);
    tally_->kv_write_bytes += piece.count * kv_heads_stored(a) * bytes;
  }
}

// Appends this step's keys and values (v null: latent rows) to the caches.
void CpuOps::store(const Block& block, const Array& k, const Array* v) {
  count_writes(block, v != nullptr);
  const Attention& a = block.spec->attn;
  for (const Piece& piece : chunk_->pieces) {
    KvStore& to = store_of(piece, block.store);
    to.begin(piece.position, piece.count);
    rows(piece.count, 2 * k.cols(), [&](i64 t) {
      const i64 row = piece.row + t;
      if (v == nullptr) return to.put_key(0, t, k.view().row(row));
      for (i64 h = 0; h < a.kv_heads; h++) {
        to.put_key(h, t, k.view().row(row) + h * a.qk_dim);
        to.put_value(h, t, v->view().row(row) + h * a.v_dim);
      }
    });
    rows(to.seal_items(), 8 * to.scheme().positions() * k.cols() / kv_heads_stored(a),
         [&](i64 item) { to.seal(item); });
  }
}

// Runs calls_, their items shared out over the threads.
void CpuOps::run_calls() {
  const Timer timer(times_ != nullptr ? &times_->attention : nullptr);
  if (tally_ != nullptr)
    for (const AttendCall& call : calls_) tally_->attention(call);
  i64 total = 0;
  double work = 0;
  for (const AttendCall& call : calls_) {
    total += attend_items(call);
    for (const KvSegment& s : call.segments)
      work += static_cast<double>(call.q.rows * call.heads) *
              static_cast<double>(s.count * (call.qk_dim + call.v_dim));
  }
  const auto item = [&](i64 i) {
    for (const AttendCall& call : calls_) {
      if (const i64 items = attend_items(call); i >= items)
        i -= items;
      else
        return pare::attend(call, i, i + 1, isa_);
    }
  };
  // Later queries see more keys, so items are not alike.
  if (work >= worth_threads) return pool_.share(total, item);
  for (i64 i = 0; i < total; i++) item(i);
}

// What later blocks still read stays open until the chunk ends (Engine commits it).
void CpuOps::commit(const Block& block) {
  for (const Piece& piece : chunk_->pieces) {
    KvStore& stored = store_of(piece, block.store);
    if (!stored.shared()) stored.commit();
  }
}

Array CpuOps::attend(const Block& block, const Array& q, const Array* k, const Array* v) {
  const Attention& a = block.spec->attn;
  if (k != nullptr) store(block, *k, v);
  if (tally_ != nullptr)
    tally_->vector(block.sink_logits.data(), 4 * static_cast<i64>(block.sink_logits.size()));
  calls_.clear();
  Array mix = buffers_.take(q.rows(), a.heads * a.v_dim);
  for (const Piece& piece : chunk_->pieces) {
    AttendCall call = call_for(block, piece);
    call.kv_heads = a.kv_heads;
    call.qk_dim = a.qk_dim;
    call.v_dim = a.v_dim;
    call.q = row_range(q.view(), piece.row, piece.count);
    call.out = row_range(mix.view(), piece.row, piece.count);
    store_of(piece, block.store).segments(call.segments);
    if (tally_ != nullptr) tally_->cache(call, a.kv_heads, true);
    calls_.push_back(std::move(call));
  }
  run_calls();
  if (k != nullptr) commit(block);
  return mix;
}

Array CpuOps::attend_latent(const Block& block, const Array& q, const Array* latent) {
  const Attention& a = block.spec->attn;
  // A block that shares another's latents has no projections of its own: it uses the lender's.
  const Block& lender = net_.blocks[static_cast<std::size_t>(block.store)];
  if (latent != nullptr) store(block, *latent, nullptr);
  if (tally_ != nullptr)
    tally_->vector(block.sink_logits.data(), 4 * static_cast<i64>(block.sink_logits.size()));
  Array mix = buffers_.take(q.rows(), a.heads * a.v_dim);
  const std::span<const Piece> pieces = chunk_->pieces;
  const auto absorb = [&](const Piece& piece) {
    const i64 keys = visible_rows(store_of(piece, block.store));
    return lender.absorbable() && absorbed_is_cheaper(a, piece.count, keys);
  };
  // Neighbours that absorb share the products with the projections.
  for (std::size_t i = 0; i < pieces.size();) {
    std::size_t end = i;
    while (end < pieces.size() && absorb(pieces[end])) end++;
    if (end > i)
      attend_absorbed(block, lender, q, mix, pieces.subspan(i, end - i));
    else
      attend_materialised(block, lender, q, mix, pieces[end++]);
    i = end;
  }
  if (latent != nullptr) commit(block);
  return mix;
}

// Queries go to the latent space; all heads share the one cached row.
void CpuOps::attend_absorbed(const Block& block, const Block& lender, const Array& q, Array& mix,
                             std::span<const Piece> pieces) {
  const Attention& a = block.spec->attn;
  const i64 nope = a.qk_dim - a.rope.dims, width = a.kv_rank + a.rope.dims;
  const i64 row0 = pieces.front().row, count = pieces.back().row + pieces.back().count - row0;
  const Matrix<float> queries = row_range(q.view(), row0, count);
  const Matrix<float> out = row_range(mix.view(), row0, count);
  const Array wide = buffers_.take(count, a.heads * width);
  const Array latent = buffers_.take(count, a.heads * a.kv_rank);
  rows(a.heads, count * a.kv_rank * nope, [&](i64 h) {
    const Matrix<float> from = columns(queries, h * a.qk_dim, a.qk_dim);
    const Matrix<float> to = columns(wide.view(), h * width, width);
    multiply(lender.k_absorbed[static_cast<std::size_t>(h)], columns(from, 0, nope),
             columns(to, 0, a.kv_rank), nullptr);
    for (i64 t = 0; t < count; t++)
      std::copy_n(from.row(t) + nope, a.rope.dims, to.row(t) + a.kv_rank);
  });
  calls_.clear();
  for (const Piece& piece : pieces) {
    AttendCall call = call_for(block, piece);
    call.kv_heads = 1;
    call.qk_dim = width;
    call.v_dim = a.kv_rank;
    call.q = row_range(wide.view(), piece.row - row0, piece.count);
    call.out = row_range(latent.view(), piece.row - row0, piece.count);
    store_of(piece, block.store).segments(call.segments);
    if (tally_ != nullptr) tally_->cache(call, 1, false);
    calls_.push_back(std::move(call));
  }
  run_calls();
  rows(a.heads, count * a.kv_rank * a.v_dim, [&](i64 h) {
    multiply(lender.v_heads[static_cast<std::size_t>(h)].product,
             columns(latent.view(), h * a.kv_rank, a.kv_rank), columns(out, h * a.v_dim, a.v_dim),
             nullptr);
  });
}

// Keys and values are expanded from all visible latents, a head at a time on each thread.
void CpuOps::attend_materialised(const Block& block, const Block& lender, const Array& q,
                                 Array& mix, const Piece& piece) {
  const Attention& a = block.spec->attn;
  std::vector<KvSegment> stored;
  store_of(piece, block.store).segments(stored);
  const i64 keys = rows_of(stored), nope = a.qk_dim - a.rope.dims;
  if (tally_ != nullptr) {
    AttendCall call = call_for(block, piece);
    call.q = row_range(q.view(), piece.row, piece.count);
    call.segments = stored;
    tally_->cache(call, 1, false);
    for (const auto* heads : {&lender.k_heads, &lender.v_heads})
      for (const Linear& head : *heads) count_vectors(head);
  }
  const Array cached = buffers_.take(keys, a.kv_rank + a.rope.dims);
  i64 row0 = 0;
  for (const KvSegment& s : stored) {
    rows(s.count, 4 * cached.cols(),
         [&](i64 slot) { read_kv_row(s.k, 0, slot, cached.view().row(row0 + slot)); });
    row0 += s.count;
  }
  const Matrix<float> latents = columns(cached.view(), 0, a.kv_rank);
  const auto one_head = [&](i64 h, Buffers& buffers) {
    const auto head = static_cast<std::size_t>(h);
    const Array k = buffers.take(keys, a.qk_dim), v = buffers.take(keys, a.v_dim);
    apply(lender.k_heads[head], latents, columns(k.view(), 0, nope), nullptr, buffers);
    apply(lender.v_heads[head], latents, v.view(), nullptr, buffers);
    for (i64 j = 0; j < keys; j++)
      std::copy_n(cached.view().row(j) + a.kv_rank, a.rope.dims, k.view().row(j) + nope);
    AttendCall call = call_for(block, piece);
    call.heads = call.kv_heads = 1;
    call.qk_dim = a.qk_dim;
    call.v_dim = a.v_dim;
    call.q = columns(row_range(q.view(), piece.row, piece.count), h * a.qk_dim, a.qk_dim);
    call.out = columns(row_range(mix.view(), piece.row, piece.count), h * a.v_dim, a.v_dim);
    if (call.sink_logits != nullptr) call.sink_logits += h;
    i64 row = 0;
    for (KvSegment s : stored) {
      s.k = float_rows(k.view().row(row), a.qk_dim, 0, k.cols());
      s.v = float_rows(v.view().row(row), a.v_dim, 0, v.cols());
      call.segments.push_back(s);
      row += s.count;
    }
    if (tally_ != nullptr) tally_->attention(call);
    pare::attend(call, 0, attend_items(call), isa_);
  };
  const double work = static_cast<double>(a.heads * keys) * static_cast<double>(a.kv_rank) *
                      static_cast<double>(nope + a.v_dim);
  const i64 team = work < worth_threads ? 1 : pool_.threads();
  const auto share = [&](int thread) {
    for (i64 h = a.heads * thread / team; h < a.heads * (thread + 1) / team; h++)
      one_head(h, *thread_buffers_[static_cast<std::size_t>(thread)]);
  };
  if (team == 1) return share(0);
  pool_.each(share);
}

Array CpuOps::act(Act kind, Array gate, const Array* up) {
  rows(gate.rows(), 8 * gate.cols(), [&](i64 r) {
    float* row = gate.view().row(r);
    vector_.activate(kind, row, up == nullptr ? nullptr : up->view().row(r), gate.cols(), row);
  });
  return gate;
}

Array CpuOps::add(Array x, const Array& y, float scale) {
  rows(x.rows(), x.cols(), [&](i64 r) {
    vector_.add(x.view().row(r), y.view().row(r), scale, x.cols(), x.view().row(r));
  });
  return x;
}

Array CpuOps::select(const Array& x, std::span<const i64> wanted) {
  Array y = buffers_.take(static_cast<i64>(wanted.size()), x.cols());
  for (std::size_t i = 0; i < wanted.size(); i++)
    std::copy_n(x.view().row(wanted[i]), x.cols(), y.view().row(static_cast<i64>(i)));
  return y;
}

Array CpuOps::cap(Array x, float scale, float cap) {
  rows(x.rows(), 8 * x.cols(), [&](i64 r) {
    float* row = x.view().row(r);
    for (i64 i = 0; i < x.cols() && scale != 1; i++) row[i] *= scale;
    if (cap != 0) vector_.softcap(row, cap, x.cols(), row);
  });
  return x;
}

}  // namespace pare
