// Element-wise operations: one text, compiled for each ISA over the vectors of kernel/simd_*.h.
//
// Loops run over whole vectors and finish with a padded copy of the tail, so every element goes
// through the same arithmetic wherever it lies. Sums are kept in several lanes and joined at the
// end in a fixed order.

using i64 = std::int64_t;

template <class F>
void each(i64 n, const F& f) {  // f(offset, count), count = L but at the end
  i64 i = 0;
  for (; i + L <= n; i += L) f(i, L);
  if (i < n) f(i, static_cast<int>(n - i));
}

V load_some(const float* p, int count) {
  if (count == L) return load(p);
  alignas(64) float tail[L] = {};
  for (int i = 0; i < count; i++) tail[i] = p[i];
  return load(tail);
}
void store_some(float* p, V v, int count) {
  if (count == L) return store(p, v);
  alignas(64) float tail[L];
  store(tail, v);
  for (int i = 0; i < count; i++) p[i] = tail[i];
}

float dot(const float* a, const float* b, i64 n) {
  V total = set1(0.0f);
  each(n, [&](i64 i, int count) {
    total = fma(load_some(a + i, count), load_some(b + i, count), total);
  });
  return sum(total);
}

void rms_norm(const float* x, const float* weight, float plus, float eps, i64 n, float* y) {
  const float scale = 1.0f / __builtin_sqrtf(dot(x, x, n) / static_cast<float>(n) + eps);
  each(n, [&](i64 i, int count) {
    const V w = add(load_some(weight + i, count), set1(plus));
    store_some(y + i, mul(mul(load_some(x + i, count), set1(scale)), w), count);
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, i64 n,
                float* y) {
  V total = set1(0.0f);
  each(n, [&](i64 i, int count) { total = add(total, load_some(x + i, count)); });
  const float mean = sum(total) / static_cast<float>(n);
  V squares = set1(0.0f);
  each(n, [&](i64 i, int count) {
    V d = sub(load_some(x + i, count), set1(mean));
    if (count < L) {  // the padding is not part of the row
      alignas(64) float tail[L];
      store(tail, d);
      for (int k = count; k < L; k++) tail[k] = 0;
      d = load(tail);
    }
    squares = fma(d, d, squares);
  });
  const float scale = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps);
  each(n, [&](i64 i, int count) {
    V v = mul(mul(sub(load_some(x + i, count), set1(mean)), set1(scale)),
              load_some(weight + i, count));
    if (bias != nullptr) v = add(v, load_some(bias + i, count));
    store_some(y + i, v, count);
  });
}

float magnitude(const float* x, i64 n) {
  V most = set1(0.0f);
  each(n, [&](i64 i, int count) { most = max(most, abs(load_some(x + i, count))); });
  return largest(most);
}

void to_int8(const float* x, float inverse, float top, i64 n, std::int8_t* y) {
  each(n, [&](i64 i, int count) {
    const V q = min(max(mul(load_some(x + i, count), set1(inverse)), set1(-top)), set1(top));
    if (count == L) return store_int8(y + i, q);
    std::int8_t tail[L];
    store_int8(tail, q);
    for (int k = 0; k < count; k++) y[i + k] = tail[k];
  });
}

i64 sum_int8(const std::int8_t* x, i64 n) {
  constexpr i64 step = sizeof(I);
  i64 i = 0, total = 0;
  I sums = {};
  for (; i + step <= n; i += step) sums = add_offset_bytes(sums, x + i);
  alignas(64) std::uint64_t lanes[step / 8];
  __builtin_memcpy(lanes, &sums, sizeof lanes);
  for (std::uint64_t lane : lanes) total += static_cast<i64>(lane);
  total -= 128 * i;
  for (; i < n; i++) total += x[i];
  return total;
}

V sigmoid(V x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(set1(0.0f), x)))); }

// The exact form, lane by lane: erf has no short polynomial, and the families that use it are
// small.
V gelu_exact(V x) {
  alignas(64) float lanes[L];
  store(lanes, x);
  for (int i = 0; i < L; i++)
    lanes[i] = 0.5f * lanes[i] * (1.0f + __builtin_erff(lanes[i] * 0.70710678118654752f));
  return load(lanes);
}

V activation(Act act, V x) {
  switch (act) {
    case Act::silu:
      return mul(x, sigmoid(x));
    case Act::gelu:
      return gelu_exact(x);
    case Act::gelu_tanh: {
      const V inner = mul(set1(0.79788456080286536f), fma(mul(mul(x, x), x), set1(0.044715f), x));
      return mul(mul(set1(0.5f), x), add(set1(1.0f), tanh_of(inner)));
    }
    case Act::relu:
      return max(x, set1(0.0f));
    default: {
      const V r = max(x, set1(0.0f));
      return mul(r, r);
    }
  }
}

void activate(Act act, const float* gate, const float* up, i64 n, float* y) {
  each(n, [&](i64 i, int count) {
    V v = activation(act, load_some(gate + i, count));
    if (up != nullptr) v = mul(v, load_some(up + i, count));
    store_some(y + i, v, count);
  });
}

void add_scaled(const float* x, const float* more, float scale, i64 n, float* y) {
  each(n, [&](i64 i, int count) {
    store_some(y + i, fma(load_some(more + i, count), set1(scale), load_some(x + i, count)), count);
  });
}

void rope(float* x, const float* cosine, const float* sine, i64 dims, bool interleaved) {
  const i64 half = dims / 2;
  if (interleaved) {
    for (i64 i = 0; i < half; i++) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosine[i] - b * sine[i];
      x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
    return;
  }
  each(half, [&](i64 i, int count) {
    const V a = load_some(x + i, count), b = load_some(x + half + i, count),
            c = load_some(cosine + i, count), s = load_some(sine + i, count);
    store_some(x + i, sub(mul(a, c), mul(b, s)), count);
    store_some(x + half + i, add(mul(b, c), mul(a, s)), count);
  });
}

void softcap(const float* x, float cap, i64 n, float* y) {
  each(n, [&](i64 i, int count) {
    store_some(y + i, mul(set1(cap), tanh_of(div(load_some(x + i, count), set1(cap)))), count);
  });
}

double log_sum_exp(const float* x, i64 n) {
  float top = x[0];
  V most = set1(x[0]);
  i64 i = 0;
  for (; i + L <= n; i += L) most = max(most, load(x + i));
  top = largest(most);
  for (; i < n; i++) top = x[i] > top ? x[i] : top;
  double total = 0;
  for (i = 0; i + L <= n;) {
    V part = set1(0.0f);
    for (int k = 0; k < 64 && i + L <= n; k++, i += L)
      part = add(part, exp(sub(load(x + i), set1(top))));
    total += static_cast<double>(sum(part));
  }
  for (; i < n; i++) total += __builtin_exp(static_cast<double>(x[i]) - top);
  return top + __builtin_log(total);
}
