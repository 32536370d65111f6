// The walk in vectors of `walk_lanes` floats, in the compiler's own vector types: what an ISA's
// flags make of them. Four columns at a time: their errors stay in registers while the later
// columns are moved.

using V = float __attribute__((vector_size(4 * walk_lanes)));

struct Lanes {
  V scale, inverse, minimum, low, high;
};

inline void subtract_stored(V& w, const Lanes& l) {
  const V magic = V{} + 12582912.0f;  // 1.5 * 2^23: adding and subtracting rounds to nearest even
  V q = (w + l.minimum) * l.inverse;
  q = q > l.low ? q : l.low;
  q = q < l.high ? q : l.high;
  q = (q + magic) - magic;
  w = w - (l.scale * q - l.minimum);
}

inline void walk(const float* from, Matrix<const float> u, const WalkLanes& lanes, float* error) {
  alignas(64) V w[walk_columns];
  Lanes l;
  std::memcpy(&l.scale, lanes.scale, sizeof l.scale);
  std::memcpy(&l.inverse, lanes.inverse, sizeof l.inverse);
  std::memcpy(&l.minimum, lanes.minimum, sizeof l.minimum);
  l.low = V{} + lanes.low;
  l.high = V{} + lanes.high;
  const std::int64_t n = u.rows;
  for (std::int64_t j = 0; j < n; j++) w[j] = V{} + from[j];
  V total = {};
  std::int64_t j = 0;
  for (; j + 4 <= n; j += 4) {
    const float* r[4] = {u.row(j), u.row(j + 1), u.row(j + 2), u.row(j + 3)};
    V e[4];
    for (int i = 0; i < 4; i++) {
      V x = w[j + i];
      for (int k = 0; k < i; k++) x = x - e[k] * r[k][j + i];
      subtract_stored(x, l);
      e[i] = x / r[i][j + i];
      total = total + e[i] * e[i];
    }
    const V e0 = e[0], e1 = e[1], e2 = e[2], e3 = e[3];
    for (std::int64_t k = j + 4; k < n; k++)
      w[k] = (((w[k] - e0 * r[0][k]) - e1 * r[1][k]) - e2 * r[2][k]) - e3 * r[3][k];
  }
  for (; j < n; j++) {
    const float* r = u.row(j);
    V e = w[j];
    subtract_stored(e, l);
    e = e / r[j];
    total = total + e * e;
    for (std::int64_t k = j + 1; k < n; k++) w[k] = w[k] - e * r[k];
  }
  std::memcpy(error, &total, sizeof total);
}
