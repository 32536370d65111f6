// Products of many float inputs: one text, compiled for each ISA. Follows kernel/linear.inl; the
// including file also defines transpose(V (&)[L]), block_vectors and tile_inputs.
//
// A tile of rows is decoded and turned, the weights of a column beside each other, so that a lane
// of a sum is an output of its own and an input is one broadcast: nothing is summed across lanes.
// Columns come in pieces that stay in the second-level cache while all inputs pass; between two
// pieces the sums rest in y. Each output is one chain of multiply-adds over k, as elsewhere.

// Where the column that is decoded to place p of a piece belongs.
template <int kind>
i64 column_of(i64 p) {
  if constexpr (kind != Packed::nib4) return p;
  constexpr i64 chunk = 8 * L;
  return p / chunk * chunk + p % chunk % L * 8 + p % chunk / L;
}

template <int kind>
void turn_piece(const Packed& w, i64 row, i64 rows, i64 begin, i64 end, const LaneScales& lanes,
                float* decoded, float* tile) {
  for (i64 first = 0; first < rows; first += L) {
    for (i64 r = 0; r < L; r++) {
      if (first + r < rows)
        decode_columns<kind>(w, row + first + r, begin, end, lanes, decoded + r * piece_stride);
      else
        __builtin_memset(decoded + r * piece_stride, 0, sizeof(float) * (end - begin));
    }
    for (i64 p = 0; p < end - begin; p += L) {
      V square[L];
      for (int r = 0; r < L; r++) square[r] = load(decoded + r * piece_stride + p);
      transpose(square);
      for (int i = 0; i < L; i++)
        store(tile + column_of<kind>(p + i) * tile_rows + first, square[i]);
    }
  }
}

// Where vectors are short, the rows of a tile take several rounds over the inputs; so many lie in
// the second-level cache beside the tile. A multiple of the inputs of every multiply_piece.
constexpr i64 inputs_at_once = 48;

struct Piece {
  const float* tile;  // (columns, tile_rows)
  i64 row, rows, begin, end;
};

V load_outputs(const float* y, i64 count) {
  if (count >= L) return load(y);
  alignas(64) float some[L] = {};
  for (i64 i = 0; i < count; i++) some[i] = y[i];
  return load(some);
}
void store_outputs(float* y, V v, i64 count) {
  if (count >= L) return store(y, v);
  alignas(64) float some[L];
  store(some, v);
  for (i64 i = 0; i < count; i++) y[i] = some[i];
}

// `vectors` times L rows by N inputs.
template <int vectors, int N>
void multiply_piece(const PackedCall& c, const Piece& p, i64 first, i64 input) {
  constexpr int count = N * vectors;  // input by input
  const float* x[N];
  for (int n = 0; n < N; n++) x[n] = c.x + (input + n) * c.x_stride + p.begin;
  const i64 left = p.rows - first;
  float* y = c.y + input * c.y_stride + p.row + first;
  V sums[count];
  unrolled<count>([&](auto i) {
    constexpr int n = i / vectors, v = i % vectors;
    sums[i] = p.begin == 0 ? set1(0.0f) : load_outputs(y + n * c.y_stride + v * L, left - v * L);
  });
  const float* at = p.tile + first;
  for (i64 k = 0; k < p.end - p.begin; k++, at += tile_rows) {
    V a[vectors];
    unrolled<vectors>([&](auto v) { a[v] = load(at + v * L); });
    unrolled<N>([&](auto n) {
      const V b = set1(x[n][k]);
      unrolled<vectors>(
          [&](auto v) { sums[n * vectors + v] = fma(a[v], b, sums[n * vectors + v]); });
    });
  }
  unrolled<count>([&](auto i) {
    constexpr int n = i / vectors, v = i % vectors;
    store_outputs(y + n * c.y_stride + v * L, sums[i], left - v * L);
  });
}

template <int vectors>
void multiply_inputs(const PackedCall& c, const Piece& p, i64 first, i64 n, i64 end) {
  constexpr int many = block_vectors * tile_inputs / vectors;
  for (; n + many <= end; n += many) multiply_piece<vectors, many>(c, p, first, n);
  for (; n + 2 <= end; n += 2) multiply_piece<vectors, 2>(c, p, first, n);
  for (; n < end; n++) multiply_piece<vectors, 1>(c, p, first, n);
}

// Inputs [n, end) with all rows of a piece.
void multiply_rows(const PackedCall& c, const Piece& p, i64 n, i64 end) {
  for (i64 first = 0; first < p.rows;) {
    const i64 left = (p.rows - first + L - 1) / L;
    if (left >= block_vectors) {
      multiply_inputs<block_vectors>(c, p, first, n, end);
      first += block_vectors * L;
    } else if (left >= 2) {
      multiply_inputs<2>(c, p, first, n, end);
      first += 2 * L;
    } else {
      multiply_inputs<1>(c, p, first, n, end);
      first += L;
    }
  }
}

template <int kind>
void run_tiles(const PackedCall& c) {
  const Packed& w = *c.w;
  const LaneScales lanes(w, 8 * L, 8);
  float* tile = c.tile;
  float* decoded = tile + tile_rows * piece_columns;
  for (i64 row = c.row0; row < c.row1; row += tile_rows) {
    Piece p{tile, row, least(c.row1 - row, tile_rows), 0, 0};
    for (; p.begin < w.in_padded; p.begin = p.end) {
      p.end = least(p.begin + piece_columns, w.in_padded);
      turn_piece<kind>(w, row, p.rows, p.begin, p.end, lanes, decoded, tile);
      for (i64 n = 0; n < c.batch; n += inputs_at_once)
        multiply_rows(c, p, n, least(n + inputs_at_once, c.batch));
    }
  }
}
