// Attention for one item, block by block of keys, with the online softmax:
//   m' = max(m, max_j s_j),  a = exp(m - m'),  l = a l + sum exp(s - m'),  o = a o + sum exp(s -
//   m') v
// Packed keys and values of a block are unpacked once, into the nearest cache, for all queries of
// the item (that is what makes grouped heads cheap), scores are a register-blocked product, blocks
// that no query sees are skipped. One text per ISA.

using i64 = std::int64_t;

constexpr float minus_infinity = -__builtin_inff();

i64 vectors(i64 n) { return padded(n); }

template <int N>
struct Shift {
  static constexpr int value = N;
};

// What one value of a row is scaled by: spread over the row, or one for all.
struct Spread {
  float *scale, *minimum;  // (width), whole vectors
  float one_scale, one_minimum;
  bool one;  // the row has one scale
};

float parameter_at(const std::byte* from, i64 i, bool wide) {
  if (wide) {
    float x;
    __builtin_memcpy(&x, from + 4 * i, 4);
    return x;
  }
  std::uint16_t h;
  __builtin_memcpy(&h, from + 2 * i, 2);
  return half_to_float(h);
}

// Codes below 8 bits are counted from 0, so a symmetric one has the minimum -2^(b-1) scale.
float lowest_code(const KvPart& p) {
  if (p.asym) return 0;
  return p.code == Code::int4 ? -8.0f : p.code == Code::int2 ? -2.0f : 0.0f;
}

void spread_columns(const KvPart& p, const std::byte* from, i64 n, const Spread& to) {
  const V lowest = set1(lowest_code(p));
  i64 i = 0;
  for (; i + L <= n; i += L) {
    const V s = value_f16(from + 2 * i);
    store(to.scale + i, s);
    store(to.minimum + i, p.asym ? value_f16(from + 2 * (n + i)) : mul(s, lowest));
  }
  for (; i < n; i++) {
    to.scale[i] = parameter_at(from, i, false);
    to.minimum[i] = p.asym ? parameter_at(from, n + i, false) : to.scale[i] * lowest_code(p);
  }
}

// Parameters of row `slot`, or of its group of positions.
void spread(const KvRows& r, i64 head, i64 slot, Spread& to) {
  const KvPart& p = r.part;
  to.one = p.grouping == KvGrouping::token;
  const i64 unit = p.grouping == KvGrouping::channel ? slot / p.count : slot;
  const std::byte* from = r.parameters + head * r.parameter_head_stride + unit * r.parameter_stride;
  if (p.grouping == KvGrouping::channel) return spread_columns(p, from, r.width, to);
  const i64 size = to.one ? r.width : p.count, total = (r.width + size - 1) / size;
  const bool wide = to.one && (p.code == Code::int8 || p.code == Code::e4m3);
  for (i64 g = 0; g < total; g++) {
    to.one_scale = parameter_at(from, g, wide);
    to.one_minimum = p.asym ? parameter_at(from, total + g, wide) : to.one_scale * lowest_code(p);
    const i64 end = (g + 1) * size < r.width ? (g + 1) * size : r.width;
    for (i64 i = g * size; !to.one && i < end; i++) {
      to.scale[i] = to.one_scale;
      to.minimum[i] = to.one_minimum;
    }
  }
}

// Numbers [first, first + n) of a row from n bytes (of which field `shift` counts). Whole vectors,
// then the rest lane by lane.
template <class Value>
void unpack(const Spread& p, i64 first, const std::byte* from, i64 n, float* to, Value value) {
  const V one_scale = set1(p.one_scale), one_minimum = set1(p.one_minimum);
  i64 i = 0;
  if (p.one) {
    for (; i + L <= n; i += L) store(to + first + i, value(from + i, one_scale, one_minimum));
  } else {
    for (; i + L <= n; i += L)
      store(to + first + i,
            value(from + i, load(p.scale + first + i), load(p.minimum + first + i)));
  }
  if (i == n) return;
  std::byte rest[L] = {};
  float lanes[L], scales[L] = {}, minima[L] = {};
  for (i64 k = 0; i + k < n; k++) {
    rest[k] = from[i + k];
    scales[k] = p.one ? p.one_scale : p.scale[first + i + k];
    minima[k] = p.one ? p.one_minimum : p.minimum[first + i + k];
  }
  store(lanes, value(rest, load(scales), load(minima)));
  for (i64 k = 0; i + k < n; k++) to[first + i + k] = lanes[k];
}

template <int Bits>
void unpack_fields(const Spread& p, const std::byte* row, i64 width, i64 n, float* to) {
  const i64 bytes = (width * Bits + 7) / 8;
  const auto field = [&](auto shift) {
    const i64 first = decltype(shift)::value / Bits * bytes;
    const i64 count = n - first < bytes ? n - first : bytes;
    if (count > 0)
      unpack(p, first, row, count, to, [](const std::byte* at, V s, V m) {
        return fma(value_field<decltype(shift)::value, Bits>(at), s, m);
      });
  };
  field(Shift<0>{});
  if constexpr (Bits == 2) field(Shift<2>{});
  field(Shift<4>{});
  if constexpr (Bits == 2) field(Shift<6>{});
}

void unpack_floats(const KvRows& r, const std::byte* row, i64 n, float* to) {
  i64 i = 0;
  for (; i + L <= n; i += L) {
    if (r.part.code == Code::f32)
      store(to + i, load(reinterpret_cast<const float*>(row + 4 * i)));
    else
      store(to + i, r.part.code == Code::f16 ? value_f16(row + 2 * i) : value_bf16(row + 2 * i));
  }
  for (; i < n; i++) {
    std::uint16_t half = 0;
    if (r.part.code == Code::f32) {
      __builtin_memcpy(to + i, row + 4 * i, 4);
      continue;
    }
    __builtin_memcpy(&half, row + 2 * i, 2);
    to[i] = r.part.code == Code::f16 ? half_to_float(half) : bf16_to_float(half);
  }
}

// The first n numbers of a row as floats, zero-padded.
void unpack_row(const KvRows& r, const Spread& p, i64 head, i64 slot, i64 n, float* to) {
  const std::byte* row = r.data + head * r.head_stride + slot * r.row_stride;
  switch (r.part.code) {
    case Code::int8:
      if (r.part.asym)
        unpack(p, 0, row, n, to,
               [](const std::byte* at, V s, V m) { return fma(value_field<0, 8>(at), s, m); });
      else
        unpack(p, 0, row, n, to, [](const std::byte* at, V s, V) { return mul(value_i8(at), s); });
      break;
    case Code::e4m3:
      unpack(p, 0, row, n, to, [](const std::byte* at, V s, V) { return mul(value_e4m3(at), s); });
      break;
    case Code::int4:
      unpack_fields<4>(p, row, r.width, n, to);
      break;
    case Code::int2:
      unpack_fields<2>(p, row, r.width, n, to);
      break;
    default:
      unpack_floats(r, row, n, to);
      break;
  }
  for (i64 i = n; i < vectors(n); i++) to[i] = 0;
}

// Rows [slot, slot + count) to `to`, vectors(n) apart.
void unpack_rows(const KvRows& r, Spread& p, i64 head, i64 slot, i64 count, i64 n, float* to) {
  const i64 share = r.part.grouping == KvGrouping::channel ? r.part.count : 1;
  for (i64 k = 0; k < count; k++) {
    const bool next = k == 0 || (slot + k) % share == 0;
    if (next && r.part.grouping != KvGrouping::none) spread(r, head, slot + k, p);
    unpack_row(r, p, head, slot + k, n, to + k * vectors(n));
  }
}

template <int N>
struct Count {};

struct Buffers {
  float *q, *k, *v, *turned, *scores, *out, *top, *total;
  Spread k_spread, v_spread;
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
  b.turned = take(attend_keys * b.qk);
  b.scores = take(queries * attend_keys);
  b.out = take(queries * b.vd);
  b.top = take(queries);
  b.total = take(queries);
  i64 width = 0;
  for (i64 s = 0; s < j.segment_count; s++) {
    const KvSegment& segment = j.segments[s];
    width = segment.k.width > width ? segment.k.width : width;
    width = segment.v.width > width ? segment.v.width : width;
  }
  for (Spread* p : {&b.k_spread, &b.v_spread}) {
    p->scale = take(width + attend_padding);
    p->minimum = take(width + attend_padding);
  }
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

// Keys side by side, (qk, attend_keys): with many queries a lane is a key of its own, and nothing
// is summed across lanes.
void turn_keys(const Buffers& b, i64 keys) {
  for (i64 k = 0; k < keys; k += L)
    for (i64 d = 0; d < b.qk; d += L) {
      V square[L];
      for (int i = 0; i < L; i++) square[i] = load(b.k + (k + i) * b.qk + d);
      transpose(square);
      for (int i = 0; i < L; i++) store(b.turned + (d + i) * attend_keys + k, square[i]);
    }
}

constexpr i64 many_queries = 16;  // from which turning pays

// As score_rows, from turned keys.
template <int R>
void score_turned(const Buffers& b, i64 query, i64 keys) {
  const float* q = b.q + query * b.qk;
  for (i64 k = 0; k < keys; k += 2 * L) {
    V acc[2 * R];
    unrolled<2 * R>([&](auto i) { acc[i] = set1(0.0f); });
    const float* at = b.turned + k;
    for (i64 d = 0; d < b.qk; d++, at += attend_keys) {
      const V near = load(at), far = load(at + L);
      unrolled<R>([&](auto r) {
        const V x = set1(q[r * b.qk + d]);
        acc[2 * r] = fma(x, near, acc[2 * r]);
        acc[2 * r + 1] = fma(x, far, acc[2 * r + 1]);
      });
    }
    unrolled<R>([&](auto r) {
      float* to = b.scores + (query + r) * attend_keys + k;
      store(to, acc[2 * r]);
      store(to + L, acc[2 * r + 1]);
    });
  }
}

i64 packed_end(const AttendJob& j, i64 query) {
  const i64 old = query + 1 - j.wait - j.kept;
  return j.kept + (old > 0 ? old / j.group_positions * j.group_positions : 0);
}

bool visible(const AttendJob& j, KvForm form, i64 end, i64 key, i64 query) {
  if (form != KvForm::only && (key < end) != (form == KvForm::packed)) return false;
  return key <= query && (j.window == 0 || key > query - j.window || key < j.sinks);
}

i64 position_of(const KvSegment& s, i64 slot) {
  return s.positions != nullptr ? s.positions[slot] : s.first + slot;
}

// Of a segment nothing is hidden but what comes after a query.
bool causal(const AttendJob& j, const KvSegment& s) {
  return s.form == KvForm::only && s.positions == nullptr && j.window == 0;
}

// Scaling, soft cap, mask, running maximum and sum; scores become weights.
void soften(const AttendJob& j, const Buffers& b, const KvSegment& s, i64 slot0, i64 keys,
            bool all_visible) {
  const i64 queries = j.group * j.tokens, width = (keys + L - 1) / L * L;
  for (i64 r = 0; r < queries; r++) {
    float* row = b.scores + r * attend_keys;
    const i64 query = j.first_position + r / j.group;
    V most = set1(minus_infinity);
    for (i64 k = 0; k < width; k += L) {
      V x = mul(load(row + k), set1(j.scale));
      if (j.softcap > 0) x = mul(set1(j.softcap), tanh_of(div(x, set1(j.softcap))));
      store(row + k, x);
    }
    for (i64 k = keys; k < width; k++) row[k] = minus_infinity;
    if (!all_visible && causal(j, s)) {
      const i64 seen = query + 1 - s.first - slot0;
      for (i64 k = seen > 0 ? seen : 0; k < keys; k++) row[k] = minus_infinity;
    } else if (!all_visible) {
      const i64 end = packed_end(j, query);
      for (i64 k = 0; k < keys; k++)
        if (!visible(j, s.form, end, position_of(s, slot0 + k), query)) row[k] = minus_infinity;
    }
    for (i64 k = 0; k < width; k += L) most = max(most, load(row + k));
    const float top = largest(most);
    if (top == minus_infinity) {  // no key of this block is seen: weights are zero
      for (i64 k = 0; k < width; k += L) store(row + k, set1(0.0f));
      continue;
    }
    const float before = b.top[r], now = top > before ? top : before;
    const float shrink = before == minus_infinity ? 0.0f : __builtin_expf(before - now);
    V part = set1(0.0f);
    for (i64 k = 0; k < width; k += L) {
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

template <int R, int N>
void mix_columns(const Buffers& b, i64 query, i64 keys, i64 d) {
  V acc[R * N];
  float* out = b.out + query * b.vd + d;
  const float *weights = b.scores + query * attend_keys, *value = b.v + d;
  unrolled<R * N>([&](auto i) { acc[i] = load(out + i / N * b.vd + i % N * L); });
  for (i64 k = 0; k < keys; k++, value += b.vd) {
    V part[N];
    unrolled<N>([&](auto n) { part[n] = load(value + n * L); });
    unrolled<R>([&](auto r) {
      const V weight = set1(weights[r * attend_keys + k]);
      unrolled<N>([&](auto n) { acc[r * N + n] = fma(weight, part[n], acc[r * N + n]); });
    });
  }
  unrolled<R * N>([&](auto i) { store(out + i / N * b.vd + i % N * L, acc[i]); });
}

template <int R>
void mix_rows(const Buffers& b, i64 query, i64 keys) {
  i64 d = 0;
  for (; d + 2 * L <= b.vd; d += 2 * L) mix_columns<R, 2>(b, query, keys, d);
  for (; d < b.vd; d += L) mix_columns<R, 1>(b, query, keys, d);
}

enum class Seen { nobody, some, everybody };

// Which queries of the item see a block of keys.
Seen seen(const AttendJob& j, const KvSegment& s, i64 slot0, i64 keys) {
  const i64 first_query = j.first_position, last_query = j.first_position + j.tokens - 1;
  i64 lowest = position_of(s, slot0), highest = lowest;
  for (i64 k = 1; k < keys; k++) {
    const i64 p = position_of(s, slot0 + k);
    lowest = p < lowest ? p : lowest;
    highest = p > highest ? p : highest;
  }
  const i64 first_end = packed_end(j, first_query), last_end = packed_end(j, last_query);
  const bool too_new = lowest > last_query;
  const bool too_old = j.window > 0 && highest <= first_query - j.window && lowest >= j.sinks;
  const bool other_form = (s.form == KvForm::packed && lowest >= last_end) ||
                          (s.form == KvForm::recent && highest < first_end);
  if (too_new || too_old || other_form) return Seen::nobody;
  const bool in_window =
      highest <= first_query && (j.window == 0 || lowest > last_query - j.window);
  const bool in_form = s.form == KvForm::only ||
                       (s.form == KvForm::packed && highest < first_end) ||
                       (s.form == KvForm::recent && lowest >= last_end);
  return in_window && in_form ? Seen::everybody : Seen::some;
}

// Some rows at a time: six while there are, then two, then one.
template <class F>
void each_rows(i64 queries, const F& f) {
  i64 r = 0;
  for (; r + 6 <= queries; r += 6) f(Count<6>{}, r);
  for (; r + 2 <= queries; r += 2) f(Count<2>{}, r);
  for (; r < queries; r++) f(Count<1>{}, r);
}

void attend_block(const AttendJob& j, Buffers& b, const KvSegment& s, i64 slot0, i64 keys) {
  const Seen by = seen(j, s, slot0, keys);
  if (by == Seen::nobody) return;
  if (causal(j, s)) {  // what comes after the last query is never looked at
    const i64 most = j.first_position + j.tokens - s.first - slot0;
    keys = keys < most ? keys : most;
  }
  unpack_rows(s.k, b.k_spread, j.kv_head, slot0, keys, j.qk_dim, b.k);
  unpack_rows(s.v, b.v_spread, j.kv_head, slot0, keys, j.v_dim, b.v);
  const i64 queries = j.group * j.tokens;
  if (queries >= many_queries) {
    turn_keys(b, keys);
    each_rows(queries, [&]<int R>(Count<R>, i64 r) { score_turned<R>(b, r, keys); });
  } else {
    i64 r = 0;
    for (; r + 4 <= queries; r += 4) score_rows<4>(b, r, keys);
    for (; r < queries; r++) score_rows<1>(b, r, keys);
  }
  soften(j, b, s, slot0, keys, by == Seen::everybody);
  each_rows(queries, [&]<int R>(Count<R>, i64 r) { mix_rows<R>(b, r, keys); });
}

void attend_job(const AttendJob& j) {
  Buffers b = buffers_of(j);
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
