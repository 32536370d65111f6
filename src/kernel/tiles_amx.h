// AMX tile registers as the products use them. Internal linkage only; for files with the suffix
// _amx.
//
// A thread gives its registers shapes before it uses them and releases them when it is done. Four
// hold sums, of one or two tiles of inputs with one or two times 16 rows of weights; two hold
// inputs and two weights, so four products need four loads.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernel/packed.h"

namespace pare {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

constexpr int side = 16, square = side * side;  // sums of a register

// As the processor reads it.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {};  // of a row
  std::uint8_t rows[16] = {};
  void set(int tile, std::int64_t row_count, std::int64_t row_bytes) {
    rows[tile] = static_cast<std::uint8_t>(row_count);
    bytes[tile] = static_cast<std::uint16_t>(row_bytes);
  }
};

void configure(const TileShapes& shapes) {
  // The intrinsic of GCC 12 names 8 of the 64 bytes that it reads.
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

// What memory holds before, tiles loaded after see: _tile_loadd of GCC 12 does not say that it
// reads.
void settle_memory() { __asm__ volatile("" : : : "memory"); }

// The inputs of a call as tiles of equal height. The last reaches back over inputs of the one
// before it rather than being lower.
struct Cut {
  std::int64_t batch, tiles, inputs;
  explicit Cut(std::int64_t n)
      : batch(n), tiles((n + side - 1) / side), inputs((n + tiles - 1) / tiles) {}
  std::int64_t first(std::int64_t tile) const { return std::min(tile * inputs, batch - inputs); }
  // How many of a tile's inputs the one before it has.
  std::int64_t repeated(std::int64_t tile) const { return tile * inputs - first(tile); }
};

// Registers 0 to 3: sums; 4 and 5: inputs; 6 and 7: weights. `step_bytes` of an input a step.
void configure(const Cut& cut, std::int64_t step_bytes) {
  TileShapes shapes;
  for (int t = 0; t < 4; t++) shapes.set(t, cut.inputs, 64);
  for (int t : {4, 5}) shapes.set(t, cut.inputs, step_bytes);
  for (int t : {6, 7}) shapes.set(t, step_bytes / 4, 64);
  configure(shapes);
}

// Sums lie tile by tile: the first 16 rows with one tile of inputs, then with the other; then the
// next 16 rows.
template <int inputs, int vectors>
void clear_sums() {
  _tile_zero(0);
  if constexpr (inputs > 1) _tile_zero(1);
  if constexpr (vectors > 1) _tile_zero(2);
  if constexpr (inputs > 1 && vectors > 1) _tile_zero(3);
}

template <int inputs, int vectors, class T>
void store_sums(T* sums) {
  _tile_stored(0, sums, 64);
  if constexpr (inputs > 1) _tile_stored(1, sums + square, 64);
  if constexpr (vectors > 1) _tile_stored(2, sums + inputs * square, 64);
  if constexpr (inputs > 1 && vectors > 1) _tile_stored(3, sums + 3 * square, 64);
}

// One or two tiles of inputs, and one or two times 16 rows: 16 v on.
struct Block {
  std::int64_t tile;
  int inputs, v, vectors;
};

// Sums of a block that wait to be scaled: that is done beside the products of the next, for vectors
// are idle while tiles multiply, and ends before the next are stored. A portion is a tile of sums.
//
// scaling(v, input, count, at): `count` inputs from `input` on with rows 16 v to 16 v + 15, whose
// sums begin `at` places behind the first of the block.
template <class Scaling>
class Waiting {
 public:
  explicit Waiting(const Cut& cut) : cut_(cut) {}
  void begin(const Block& b, const Scaling& scaling) {
    block_ = b;
    scaling_ = scaling;
    left_ = b.inputs * b.vectors;
  }
  void scale(int portions) {
    for (; portions > 0 && left_ > 0; portions--) {
      left_--;
      const std::int64_t tile = block_.tile + left_ % block_.inputs, skip = cut_.repeated(tile);
      scaling_(block_.v + left_ / block_.inputs, cut_.first(tile) + skip, cut_.inputs - skip,
               left_ * square + skip * side);
    }
  }

 private:
  const Cut& cut_;
  Block block_{};
  Scaling scaling_{};
  int left_ = 0;
};
constexpr int all_portions = 4;

#pragma GCC diagnostic pop

}  // namespace
}  // namespace pare
