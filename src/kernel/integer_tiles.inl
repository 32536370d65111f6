// What the integer tiles of every ISA share: weights turned into bytes, and sums scaled. The
// including file defines `height`, the most rows of a tile.
#include "kernel/scale.inl"

struct Tile {
  u8* bytes;      // codes plus `offset`, four columns of a row beside four of the next
  float* scales;  // (groups, height)
  float* bias;    // the same, or null
  float* behind;  // the first float of the scratch that is free
  int offset;
  i64 row;
  int rows;
};

// Where turned bytes lie: from four columns to the next four, from 16 rows to the next 16.
struct Places {
  i64 quad, sixteen;
};

// `lift` is added to the bytes as they are stored.
template <int kind>
void turn_sixteen(const Packed& w, i64 row, int rows, I lift, u8* to, i64 apart) {
  const I zero = _mm512_setzero_si512(), mask = _mm512_set1_epi8(15);
  constexpr i64 chunk = kind == Packed::nib4 ? 128 : 64;
  for (i64 k = 0; k < w.in_padded; k += chunk, to += chunk / 4 * apart) {
    I low[16], high[16];
    for (int r = 0; r < 16; r++) {
      const u8* p = w.codes + (row + r) * w.row_bytes + (kind == Packed::nib4 ? k / 2 : k);
      const I bytes = r < rows ? _mm512_loadu_si512(p) : zero;
      if constexpr (kind == Packed::nib4) {
        low[r] = _mm512_add_epi8(_mm512_and_si512(bytes, mask), lift);
        high[r] = _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask), lift);
      } else {
        low[r] = _mm512_add_epi8(bytes, lift);
      }
    }
    transpose(low);
    if constexpr (kind == Packed::nib4) transpose(high);
    for (int i = 0; i < 16; i++) {
      if constexpr (kind == Packed::nib4) {
        _mm512_store_si512(to + 2 * i * apart, low[i]);
        _mm512_store_si512(to + (2 * i + 1) * apart, high[i]);
      } else {
        _mm512_store_si512(to + i * apart, low[i]);
      }
    }
  }
}

// What the bytes as they are stored have more than the codes: patterns count from the lowest.
template <int kind>
int stored_offset(const Packed& w) {
  return kind == Packed::nib4 ? static_cast<int>(-w.table[0]) : 0;
}

template <int kind>
Tile turn(const PackedCall& c, i64 row, int rows, int offset, const Places& places) {
  const Packed& w = *c.w;
  Tile t{};
  t.bytes = reinterpret_cast<u8*>(c.tile);
  t.scales = reinterpret_cast<float*>(t.bytes + w.in_padded * height);
  t.bias = w.bias == nullptr ? nullptr : t.scales + w.groups * height;
  t.behind = t.scales + (w.bias == nullptr ? 1 : 2) * w.groups * height;
  t.offset = offset;
  t.row = row;
  t.rows = rows;
  const I lift = _mm512_set1_epi8(static_cast<char>(offset - stored_offset<kind>(w)));
  for (int r = 0; r < rows; r += 16)
    turn_sixteen<kind>(w, row + r, std::min(16, rows - r), lift, t.bytes + r / 16 * places.sixteen,
                       places.quad);
  for (i64 g = 0; g < w.groups; g++)
    for (int r = 0; r < height; r++) {
      const i64 k = (row + r) * w.groups + g;
      t.scales[g * height + r] = r < rows ? scale_of(w, k) : 0;
      if (t.bias != nullptr) t.bias[g * height + r] = r < rows ? w.bias[k] : 0;
    }
  return t;
}

// float(v * scale), rounded once. Nearly all sums have at most 24 bits and are floats as they are.
V scaled(I v, const float* scale) {
  const I most = _mm512_set1_epi32(1 << 24);
  if (_mm512_cmpgt_epu32_mask(_mm512_add_epi32(v, most), _mm512_add_epi32(most, most)) == 0)
    return mul(_mm512_cvtepi32_ps(v), load(scale));
  const auto half = [](__m256i n, const float* s) {
    return _mm512_cvtpd_ps(
        _mm512_mul_pd(_mm512_cvtepi32_pd(n), _mm512_cvtps_pd(_mm256_loadu_ps(s))));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(half(_mm512_castsi512_si256(v), scale)),
                            half(_mm512_extracti64x4_epi64(v, 1), scale + 8), 1);
}
