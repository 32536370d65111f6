// The product of two panels: one text, compiled for each ISA.
//
// The including file includes the vectors of its ISA and defines tile_rows and tile_vectors, chosen
// so that a tile of sums, one row of B and a broadcast fill the registers. A row of A is broadcast
// element by element: per step tile_vectors + tile_rows loads feed tile_vectors * tile_rows
// multiply-adds.

struct F32 {
  using T = float;
  using V = pare::V;
  static constexpr int L = pare::L;
};
struct F64 {
  using T = double;
  using V = D;
  static constexpr int L = DL;
};

template <class T, class Vector>
void accumulate(T* c, Vector v, bool subtract) {
  const auto old = load(c);
  store(c, subtract ? sub(old, v) : add(old, v));
}
void accumulate(double* c, pare::V v, bool subtract) {
  accumulate(c, low_half(v), subtract);
  accumulate(c + DL, high_half(v), subtract);
}

template <class F, class C>
void add_edge(const PanelCall<typename F::T, C>& call, i64 row, int r,
              const typename F::V (&sums)[tile_vectors]) {
  alignas(64) typename F::T values[tile_vectors * F::L];
  for (int v = 0; v < tile_vectors; v++) store(values + v * F::L, sums[v]);
  C* c = call.c + (row + r) * call.stride;
  for (int j = 0; j < call.cols; j++) {
    const C value = static_cast<C>(values[j]);
    c[j] = call.subtract ? c[j] - value : c[j] + value;
  }
}

template <class F, class C>
void panel_tile(const PanelCall<typename F::T, C>& call, i64 row) {
  constexpr int width = tile_vectors * F::L;
  typename F::V sums[tile_rows][tile_vectors];
  for (auto& line : sums)
    for (auto& v : line) v = set1(typename F::T{0});
  // What is added to comes from far away; it arrives while the products are made.
  for (int r = 0; r < tile_rows && row + r < call.rows; r++) {
    const char* c = reinterpret_cast<const char*>(call.c + (row + r) * call.stride);
    for (i64 byte = 0; byte < call.cols * static_cast<i64>(sizeof(C)); byte += 64)
      _mm_prefetch(c + byte, _MM_HINT_T0);
  }
  const typename F::T *a = call.a + row, *b = call.b;
  for (i64 k = 0; k < call.depth; k++, a += width, b += width) {
    typename F::V right[tile_vectors];
    for (int v = 0; v < tile_vectors; v++) right[v] = load(b + v * F::L);
    for (int r = 0; r < tile_rows; r++) {
      const typename F::V left = set1(a[r]);
      for (int v = 0; v < tile_vectors; v++) sums[r][v] = fma(left, right[v], sums[r][v]);
    }
  }
  const bool whole = call.cols == width;
  for (int r = 0; r < tile_rows; r++) {  // unrolled: `sums` must stay in registers
    if (row + r >= call.rows) continue;
    if (!whole) {
      add_edge<F, C>(call, row, r, sums[r]);
      continue;
    }
    C* c = call.c + (row + r) * call.stride;
    for (int v = 0; v < tile_vectors; v++) accumulate(c + v * F::L, sums[r][v], call.subtract);
  }
}

template <class F, class C>
void panel(const PanelCall<typename F::T, C>& call) {
  for (i64 row = 0; row < call.rows; row += tile_rows) panel_tile<F, C>(call, row);
}

void subtract_row(const float* x, float scale, i64 n, float* y) {
  const typename F32::V minus = set1(-scale);
  i64 i = 0;
  for (; i + F32::L <= n; i += F32::L) store(y + i, fma(minus, load(x + i), load(y + i)));
  if (i == n) return;
  alignas(64) float xs[F32::L] = {}, ys[F32::L] = {};
  for (i64 k = i; k < n; k++) xs[k - i] = x[k], ys[k - i] = y[k];
  store(ys, fma(minus, load(xs), load(ys)));
  for (i64 k = i; k < n; k++) y[k] = ys[k - i];
}
