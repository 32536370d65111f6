// Peak loops of the AMX class.
#include <immintrin.h>

#include <cstring>

#include "kernel/roof_loops.h"
#include "kernel/tiles_amx.h"

namespace pare {
namespace {

// Six tiles of sums, and two operands of ones.
void begin(const void* ones) {
  __asm__ volatile("" : : "r"(ones) : "memory");
  TileShapes shapes;
  for (int t = 0; t < 8; t++) shapes.set(t, 16, 64);
  configure(shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_loadd(6, ones, 64);
  _tile_loadd(7, ones, 64);
}

// Something that depends on the work of every tile.
float end() {
  alignas(64) std::int32_t sums[6][square];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  _tile_stored(4, sums[4], 64);
  _tile_stored(5, sums[5], 64);
  _tile_release();
  std::int32_t mixed = 0;
  for (const auto& tile : sums) mixed ^= tile[17];
  return static_cast<float>(mixed);
}

}  // namespace

float roof_int8_amx(std::int64_t rounds) {
  alignas(64) std::int8_t ones[4 * square];
  std::memset(ones, 1, sizeof ones);
  begin(ones);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 2
    for (int twice = 0; twice < 2; twice++) {
      _tile_dpbssd(0, 6, 7);
      _tile_dpbssd(1, 6, 7);
      _tile_dpbssd(2, 6, 7);
      _tile_dpbssd(3, 6, 7);
      _tile_dpbssd(4, 6, 7);
      _tile_dpbssd(5, 6, 7);
    }
  return end();
}

float roof_bf16_amx(std::int64_t rounds) {
  alignas(64) std::uint16_t ones[2 * square];
  for (std::uint16_t& v : ones) v = 0x3f80;
  begin(ones);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 2
    for (int twice = 0; twice < 2; twice++) {
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_dpbf16ps(3, 6, 7);
      _tile_dpbf16ps(4, 6, 7);
      _tile_dpbf16ps(5, 6, 7);
    }
  return end();
}

}  // namespace pare
