// The scalar truth of a walk, and the choice of ISA.
#include "kernel/walk.h"

#include <algorithm>

#include "kernel/walk_isa.h"

namespace pare {
namespace {

constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23

void walk_scalar(const float* from, Matrix<const float> u, const WalkLanes& lanes, float* error) {
  const i64 n = u.rows;
  float w[walk_columns][walk_lanes], e[walk_lanes];
  for (i64 j = 0; j < n; j++) std::fill_n(w[j], walk_lanes, from[j]);
  std::fill_n(error, walk_lanes, 0.0f);
  for (i64 j = 0; j < n; j++) {
    const float* r = u.row(j);
    for (int c = 0; c < walk_lanes; c++) {
      float q = (w[j][c] + lanes.minimum[c]) * lanes.inverse[c];
      q = q > lanes.low ? q : lanes.low;
      q = q < lanes.high ? q : lanes.high;
      q = (q + round_magic) - round_magic;
      e[c] = (w[j][c] - (lanes.scale[c] * q - lanes.minimum[c])) / r[j];
      error[c] += e[c] * e[c];
    }
    for (i64 k = j + 1; k < n; k++)
      for (int c = 0; c < walk_lanes; c++) w[k][c] -= e[c] * r[k];
  }
}

}  // namespace

void walk_errors(const float* w, Matrix<const float> u, const WalkLanes& lanes, float* error,
                 unsigned isa) {
  PARE_CHECK(u.rows == u.cols && u.rows <= walk_columns);
#if defined(__x86_64__)
  if (isa & isa_avx512) return walk_avx512(w, u, lanes, error);
  if (isa & isa_avx2) return walk_avx2(w, u, lanes, error);
#endif
  (void)isa;
  walk_scalar(w, u, lanes, error);
}

}  // namespace pare
