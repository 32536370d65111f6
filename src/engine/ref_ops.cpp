// Every operation as its definition says it, one element at a time.
//
// Nothing here is shared with CpuOps but the caches: products are those of linear_reference,
// attention that of attend_reference, MLA always expands its keys and values. Slow on purpose.
#include "engine/ref_ops.h"

#include <algorithm>
#include <cmath>

namespace pare {
namespace {

RefOps::Array make(i64 rows, i64 cols) {
  return {std::vector<float>(static_cast<std::size_t>(rows * cols)), rows, cols};
}

AttendCall call_for(const Attention& a, const Piece& piece, const std::vector<float>& sink_logits) {
  AttendCall c;
  c.heads = a.heads;
  c.qk_dim = a.qk_dim;
  c.v_dim = a.v_dim;
  c.scale = a.scale;
  c.softcap = a.softcap;
  c.window = a.window;
  c.sinks = a.sinks;
  c.first_position = piece.position;
  const KvScheme& kv = piece.cache->scheme;
  c.group = kv.positions();
  c.wait = kv.window;
  c.kept = kv.sinks;
  c.sink_logits = sink_logits.empty() ? nullptr : sink_logits.data();
  return c;
}

Matrix<const float> rows_of(const RefOps::Array& x, const Piece& p) {
  return {x.view().row(p.row), p.count, x.cols};
}
Matrix<float> rows_of(RefOps::Array& x, const Piece& p) {
  return {x.view().row(p.row), p.count, x.cols};
}

// y(i) = sum_j (-1)^popcount(i & j) x(j) / sqrt(n): Sylvester's matrix written out.
void rotate_block(float* x, i64 n) {
  std::vector<double> y(static_cast<std::size_t>(n));
  for (i64 i = 0; i < n; i++)
    for (i64 j = 0; j < n; j++)
      y[static_cast<std::size_t>(i)] +=
          (__builtin_popcountll(static_cast<unsigned long long>(i & j)) % 2 == 1 ? -1.0 : 1.0) *
          x[j];
  for (i64 i = 0; i < n; i++)
    x[i] = static_cast<float>(y[static_cast<std::size_t>(i)] / std::sqrt(static_cast<double>(n)));
}

}  // namespace

RefOps::Array RefOps::embed() {
  const i64 dim = net_.spec.dim;
  Array x = make(chunk_->rows(), dim);
  for (const Piece& piece : chunk_->pieces)
    for (i64 t = 0; t < piece.count; t++) {
      float* row = x.view().row(piece.row + t);
      decode_row(net_.embed, chunk_->tokens[static_cast<std::size_t>(piece.row + t)],
                 {row, static_cast<std::size_t>(dim)});
      for (i64 i = 0; i < dim; i++) {
        row[i] *= net_.spec.embed_scale;
        if (!net_.positions.empty())
          row[i] += net_.positions[static_cast<std::size_t>((piece.position + t) * dim + i)];
      }
    }
  return x;
}

RefOps::Array RefOps::norm(const NormSite& site, const Array& x) {
  return norm_part(site, x, {1, 0, x.cols});
}

RefOps::Array RefOps::norm_part(const NormSite& site, Array x, const Part& part) {
  PARE_CHECK(static_cast<i64>(site.weight.size()) == part.width);
  const VectorOps& ops = vector_ops_reference();
  const i64 step = x.cols / part.heads;
  for (i64 r = 0; r < x.rows; r++)
    for (i64 h = 0; h < part.heads; h++) {
      float* row = x.view().row(r) + h * step + part.begin;
      if (site.spec->layer)
        ops.layer_norm(row, site.weight.data(), site.bias.empty() ? nullptr : site.bias.data(),
                       site.spec->eps, part.width, row);
      else
        ops.rms_norm(row, site.weight.data(), site.spec->plus_one ? 1 : 0, site.spec->eps,
                     part.width, row);
    }
  return x;
}

RefOps::Array RefOps::linear(const Linear& site, const Array& x) {
  const pare::Linear& l = *site.spec;
  Array z = x, outliers = make(x.rows, l.outliers), y = make(x.rows, site.out);
  for (i64 r = 0; r < x.rows; r++) {
    float* row = z.view().row(r);
    for (std::size_t i = 0; i < site.input_scale.size(); i++) row[i] /= site.input_scale[i];
    for (i64 b = 0; l.rotation > 0 && b < x.cols; b += l.rotation)
      rotate_block(row + b, l.rotation);
    const std::vector<float> before(row, row + x.cols);
    for (std::size_t i = 0; i < site.permutation.size(); i++)
      row[i] = before[static_cast<std::size_t>(site.permutation[i])];
    for (i64 k = 0; k < l.outliers; k++)
      std::swap(outliers.view().row(r)[k], row[site.outlier_index[static_cast<std::size_t>(k)]]);
  }
  linear_reference(site.product, l.activation, site.static_scale, z.view(), y.view());
  const auto accumulate = [&](const Tensor& w, const Array& from) {
    Array more = make(x.rows, w.rows());
    linear_reference(w, {}, 0, from.view(), more.view());
    for (std::size_t i = 0; i < y.data.size(); i++) y.data[i] += more.data[i];
  };
  if (l.outliers > 0) accumulate(site.outlier, outliers);
  if (l.rank > 0) {
    Array small = make(x.rows, l.rank);
    linear_reference(site.low_rank_a, {}, 0, x.view(), small.view());
    accumulate(site.low_rank_b, small);
  }
  for (i64 r = 0; r < y.rows && !site.bias.empty(); r++)
    for (i64 i = 0; i < y.cols; i++) y.view().row(r)[i] += site.bias[static_cast<std::size_t>(i)];
  return y;
}

RefOps::Array RefOps::rope(const Block& block, Array x, const Part& part) {
  const Rope& rope = block.spec->attn.rope;
  const i64 step = x.cols / part.heads;
  for (const Piece& piece : chunk_->pieces) {
    const std::vector<double> frequencies = rope_frequencies(
        rope, rope_depends_on_length(rope) ? piece.length : net_.spec.max_positions);
    for (i64 t = 0; t < piece.count; t++) {
      std::vector<float> cosine, sine;
      for (double f : frequencies) {
        const double angle = static_cast<double>(piece.position + t) * f;
        cosine.push_back(static_cast<float>(std::cos(angle) * rope.attention_factor));
        sine.push_back(static_cast<float>(std::sin(angle) * rope.attention_factor));
      }
      for (i64 h = 0; h < part.heads; h++)
        vector_ops_reference().rope(x.view().row(piece.row + t) + h * step + part.begin,
                                    cosine.data(), sine.data(), rope.dims, rope.interleaved);
    }
  }
  return x;
}

void RefOps::store(const Block& block, const Array& k, const Array* v) {
  const Attention& a = block.spec->attn;
  for (const Piece& piece : chunk_->pieces) {
    KvStore& to = store_of(piece, block.store);
    to.begin(piece.position, piece.count);
    for (i64 t = 0; t < piece.count; t++) {
      const i64 row = piece.row + t;
      if (v == nullptr) to.put_key(0, t, k.view().row(row));
      for (i64 h = 0; v != nullptr && h < a.kv_heads; h++) {
        to.put_key(h, t, k.view().row(row) + h * a.qk_dim);
        to.put_value(h, t, v->view().row(row) + h * a.v_dim);
      }
    }
    for (i64 i = 0; i < to.seal_items(); i++) to.seal(i);
  }
}

void RefOps::commit(const Block& block) {
  for (const Piece& piece : chunk_->pieces)
    if (KvStore& stored = store_of(piece, block.store); !stored.shared()) stored.commit();
}

RefOps::Array RefOps::attend(const Block& block, const Array& q, const Array* k, const Array* v) {
  const Attention& a = block.spec->attn;
  if (k != nullptr) store(block, *k, v);
  Array mix = make(q.rows, a.heads * a.v_dim);
  for (const Piece& piece : chunk_->pieces) {
    AttendCall call = call_for(a, piece, block.sink_logits);
    call.kv_heads = a.kv_heads;
    call.q = rows_of(q, piece);
    call.out = rows_of(mix, piece);
    store_of(piece, block.store).segments(call.segments);
    attend_reference(call);
  }
  if (k != nullptr) commit(block);
  return mix;
}

RefOps::Array RefOps::attend_latent(const Block& block, const Array& q, const Array* latent) {
  const Attention& a = block.spec->attn;
  const Block& lender = net_.blocks[static_cast<std::size_t>(block.store)];
  const i64 nope = a.qk_dim - a.rope.dims;
  if (latent != nullptr) store(block, *latent, nullptr);
  Array mix = make(q.rows, a.heads * a.v_dim);
  for (const Piece& piece : chunk_->pieces) {
    std::vector<KvSegment> stored;
    store_of(piece, block.store).segments(stored);
    i64 keys = 0;
    for (const KvSegment& s : stored) keys += s.count;
    Array c = make(keys, a.kv_rank), k = make(keys, a.heads * a.qk_dim);
    std::vector<float> row(static_cast<std::size_t>(a.kv_rank + a.rope.dims));
    i64 r = 0;
    for (const KvSegment& s : stored)
      for (i64 slot = 0; slot < s.count; slot++, r++) {
        read_kv_row(s.k, 0, slot, row.data());
        std::copy_n(row.data(), a.kv_rank, c.view().row(r));
        for (i64 h = 0; h < a.heads; h++)
          std::copy_n(row.data() + a.kv_rank, a.rope.dims, k.view().row(r) + h * a.qk_dim + nope);
      }
    const Array expanded = linear(lender.k, c), v = linear(lender.v, c);
    for (r = 0; r < keys; r++)
      for (i64 h = 0; h < a.heads; h++)
        std::copy_n(expanded.view().row(r) + h * nope, nope, k.view().row(r) + h * a.qk_dim);
    AttendCall call = call_for(a, piece, block.sink_logits);
    call.kv_heads = a.heads;
    call.q = rows_of(q, piece);
    call.out = rows_of(mix, piece);
    r = 0;
    for (KvSegment s : stored) {
      s.k = float_rows(k.view().row(r), a.qk_dim, a.qk_dim, k.cols);
      s.v = float_rows(v.view().row(r), a.v_dim, a.v_dim, v.cols);
      call.segments.push_back(s);
      r += s.count;
    }
    attend_reference(call);
  }
  if (latent != nullptr) commit(block);
  return mix;
}

RefOps::Array RefOps::act(Act kind, Array gate, const Array* up) {
  vector_ops_reference().activate(kind, gate.data.data(), up == nullptr ? nullptr : up->data.data(),
                                  static_cast<i64>(gate.data.size()), gate.data.data());
  return gate;
}

RefOps::Array RefOps::add(Array x, const Array& y, float scale) {
  vector_ops_reference().add(x.data.data(), y.data.data(), scale, static_cast<i64>(x.data.size()),
                             x.data.data());
  return x;
}

RefOps::Array RefOps::select(const Array& x, std::span<const i64> wanted) {
  Array y = make(static_cast<i64>(wanted.size()), x.cols);
  for (std::size_t i = 0; i < wanted.size(); i++)
    std::copy_n(x.view().row(wanted[i]), x.cols, y.view().row(static_cast<i64>(i)));
  return y;
}

RefOps::Array RefOps::cap(Array x, float scale, float cap) {
  for (float& v : x.data) v *= scale;
  if (cap != 0)
    vector_ops_reference().softcap(x.data.data(), cap, static_cast<i64>(x.data.size()),
                                   x.data.data());
  return x;
}

}  // namespace pare
