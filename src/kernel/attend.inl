// Attention for one item, block by block of keys, with the online softmax:
//   m' = max(m, max_j s_j),  a = exp(m - m'),  l = a l + sum exp(s - m'),  o = a o + sum exp(s -
//   m') v
// Keys and values of a block are decoded once for all queries of the item (that is what makes
// grouped heads cheap), scores are a register-blocked product, blocks that no query sees are
// skipped. One text per ISA.

using i64 = std::int64_t;

constexpr float minus_infinity = -__builtin_inff();

i64 vectors(i64 n) { return padded(n); }

// One stored row as floats, zero-padded.
void decode_row(Code code, const std::byte* from, float scale, i64 n, float* to) {
  i64 i = 0;
  const V s = set1(scale);
  const auto whole = [&](auto value, i64 width) {
    for (; i + L <= n; i += L) store(to + i, mul(value(from + i * width), s));
  };
  switch (code) {
    case Code::f32:
      whole([](const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }, 4);
      break;
    case Code::f16:
      whole([](const std::byte* p) { return value_f16(p); }, 2);
      break;
    case Code::bf16:
      whole([](const std::byte* p) { return value_bf16(p); }, 2);
      break;
    case Code::int8:
      whole([](const std::byte* p) { return value_i8(p); }, 1);
      break;
    default:
      whole([](const std::byte* p) { return value_e4m3(p); }, 1);
      break;
  }
  for (; i < n; i++) {
    const unsigned char* p = reinterpret_cast<const unsigned char*>(from);
    float value = 0;
    std::uint16_t half = 0;
    if (code == Code::f32)
      __builtin_memcpy(&value, p + 4 * i, 4);
    else if (code == Code::f16 || code == Code::bf16) {
      __builtin_memcpy(&half, p + 2 * i, 2);
      value = code == Code::f16 ? half_to_float(half) : bf16_to_float(half);
    } else if (code == Code::int8)
      value = static_cast<float>(static_cast<std::int8_t>(p[i]));
    else {
      alignas(64) float lanes[L];
      unsigned char bytes[L] = {p[i]};
      store(lanes, value_e4m3(bytes));
      value = lanes[0];
    }
    to[i] = value * scale;
  }
  for (; i < vectors(n); i++) to[i] = 0;
}

template <int N>
struct Count {};

struct Buffers {
  float *q, *k, *v, *scores, *out, *top, *total;
  i64 qk, vd;  // padded sizes
};

Buffers buffers_of(const AttendJob& j) {
  const i64 queries = j.group * j.tokens;
  Buffers b{};
  b.qk = vectors(j.qk_dim);
  b.vd = vectors(j.v_dim);
  float* at = j.scratch;
  const auto take = [&](i64 n) {
    float* part = at;
    at += vectors(n);
    return part;
  };
  b.q = take(queries * b.qk);
  b.k = take(attend_keys * b.qk);
  b.v = take(attend_keys * b.vd);
  b.scores = take(queries * attend_keys);
  b.out = take(queries * b.vd);
  b.top = take(queries);
  b.total = take(queries);
  return b;
}

// scores (queries, attend_keys) for `keys` keys.
template <int R>
void score_rows(const Buffers& b, i64 query, i64 keys) {
  i64 k = 0;
  const auto block = [&]<int N>(Count<N>) {
    V acc[R][N];
    for (int r = 0; r < R; r++)
      for (int n = 0; n < N; n++) acc[r][n] = set1(0.0f);
    for (i64 d = 0; d < b.qk; d += L)
      for (int n = 0; n < N; n++) {
        const V key = load(b.k + (k + n) * b.qk + d);
        for (int r = 0; r < R; r++)
          acc[r][n] = fma(load(b.q + (query + r) * b.qk + d), key, acc[r][n]);
      }
    for (int r = 0; r < R; r++)
      for (int n = 0; n < N; n++) b.scores[(query + r) * attend_keys + k + n] = sum(acc[r][n]);
  };
  for (; k + 2 <= keys; k += 2) block(Count<2>{});
  for (; k < keys; k++) block(Count<1>{});
}

bool visible(const AttendJob& j, i64 key, i64 query) {
  return key <= query && (j.window == 0 || key > query - j.window || key < j.sinks);
}

i64 position_of(const KvSegment& s, i64 slot) {
  return s.positions != nullptr ? s.positions[slot] : s.first + slot;
}

// Scaling, soft cap, mask, running maximum and sum; scores become weights.
void soften(const AttendJob& j, const Buffers& b, const KvSegment& s, i64 slot0, i64 keys,
            bool all_visible) {
  const i64 queries = j.group * j.tokens;
  for (i64 r = 0; r < queries; r++) {
    float* row = b.scores + r * attend_keys;
    const i64 query = j.first_position + r / j.group;
    for (i64 k = keys; k < attend_keys; k++) row[k] = minus_infinity;
    V most = set1(minus_infinity);
    for (i64 k = 0; k < attend_keys; k += L) {
      V x = mul(load(row + k), set1(j.scale));
      if (j.softcap > 0) x = mul(set1(j.softcap), tanh_of(div(x, set1(j.softcap))));
      store(row + k, x);
    }
    for (i64 k = keys; k < attend_keys; k++) row[k] = minus_infinity;
    if (!all_visible)
      for (i64 k = 0; k < keys; k++)
        if (!visible(j, position_of(s, slot0 + k), query)) row[k] = minus_infinity;
    for (i64 k = 0; k < attend_keys; k += L) most = max(most, load(row + k));
    const float top = largest(most);
    if (top == minus_infinity) {  // no key of this block is seen: weights are zero
      for (i64 k = 0; k < attend_keys; k += L) store(row + k, set1(0.0f));
      continue;
    }
    const float before = b.top[r], now = top > before ? top : before;
    const float shrink = before == minus_infinity ? 0.0f : __builtin_expf(before - now);
    V part = set1(0.0f);
    for (i64 k = 0; k < attend_keys; k += L) {
      const V x = load(row + k);
      V e = exp(sub(max(x, set1(now - 100.0f)), set1(now)));
      e = choose_below(x, set1(now - 87.0f), set1(0.0f), e);
      store(row + k, e);
      part = add(part, e);
    }
    b.top[r] = now;
    b.total[r] = b.total[r] * shrink + sum(part);
    if (shrink != 1.0f)
      for (i64 d = 0; d < b.vd; d += L)
        store(b.out + r * b.vd + d, mul(load(b.out + r * b.vd + d), set1(shrink)));
  }
}

template <int R>
void mix_rows(const Buffers& b, i64 query, i64 keys) {
  for (i64 d = 0; d < b.vd; d += L) {
    V acc[R];
    for (int r = 0; r < R; r++) acc[r] = load(b.out + (query + r) * b.vd + d);
    for (i64 k = 0; k < keys; k++) {
      const V value = load(b.v + k * b.vd + d);
      for (int r = 0; r < R; r++)
        acc[r] = fma(set1(b.scores[(query + r) * attend_keys + k]), value, acc[r]);
    }
    for (int r = 0; r < R; r++) store(b.out + (query + r) * b.vd + d, acc[r]);
  }
}

void attend_block(const AttendJob& j, const Buffers& b, const KvSegment& s, i64 slot0, i64 keys) {
  const i64 last_query = j.first_position + j.tokens - 1;
  i64 lowest = position_of(s, slot0), highest = lowest;
  for (i64 k = 1; k < keys; k++) {
    const i64 p = position_of(s, slot0 + k);
    lowest = p < lowest ? p : lowest;
    highest = p > highest ? p : highest;
  }
  const bool too_new = lowest > last_query;
  const bool too_old = j.window > 0 && highest <= j.first_position - j.window && lowest >= j.sinks;
  if (too_new || too_old) return;
  const bool all_visible =
      highest <= j.first_position && (j.window == 0 || lowest > last_query - j.window);
  for (i64 k = 0; k < keys; k++) {
    const i64 slot = slot0 + k, at = j.kv_head * s.scale_stride + slot;
    decode_row(s.code, s.k + j.kv_head * s.k_head_stride + slot * s.k_row_stride,
               s.k_scales == nullptr ? 1.0f : s.k_scales[at], j.qk_dim, b.k + k * b.qk);
    decode_row(s.code, s.v + j.kv_head * s.v_head_stride + slot * s.v_row_stride,
               s.v_scales == nullptr ? 1.0f : s.v_scales[at], j.v_dim, b.v + k * b.vd);
  }
  const i64 queries = j.group * j.tokens;
  i64 r = 0;
  for (; r + 4 <= queries; r += 4) score_rows<4>(b, r, keys);
  for (; r < queries; r++) score_rows<1>(b, r, keys);
  soften(j, b, s, slot0, keys, all_visible);
  for (r = 0; r + 4 <= queries; r += 4) mix_rows<4>(b, r, keys);
  for (; r < queries; r++) mix_rows<1>(b, r, keys);
}

void attend_job(const AttendJob& j) {
  const Buffers b = buffers_of(j);
  for (i64 t = 0; t < j.tokens; t++)
    for (i64 h = 0; h < j.group; h++) {
      const i64 r = t * j.group + h;
      const float* from = j.q + t * j.q_token + h * j.q_head;
      for (i64 d = 0; d < b.qk; d++) b.q[r * b.qk + d] = d < j.qk_dim ? from[d] : 0.0f;
      for (i64 d = 0; d < b.vd; d += L) store(b.out + r * b.vd + d, set1(0.0f));
      b.top[r] = j.sink_logits != nullptr ? j.sink_logits[h] : minus_infinity;
      b.total[r] = j.sink_logits != nullptr ? 1.0f : 0.0f;
    }
  for (i64 s = 0; s < j.segment_count; s++)
    for (i64 slot = 0; slot < j.segments[s].count; slot += attend_keys) {
      const i64 left = j.segments[s].count - slot;
      attend_block(j, b, j.segments[s], slot, left < attend_keys ? left : attend_keys);
    }
  for (i64 t = 0; t < j.tokens; t++)
    for (i64 h = 0; h < j.group; h++) {
      const i64 r = t * j.group + h;
      float* to = j.out + t * j.out_token + h * j.out_head;
      const float scale = b.total[r] > 0 ? 1.0f / b.total[r] : 0.0f;
      for (i64 d = 0; d < j.v_dim; d++) to[d] = b.out[r * b.vd + d] * scale;
    }
}
