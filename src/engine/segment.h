// Segments: some consecutive blocks of a model run on hidden states, for work that goes block by
// block (calibration, quantization, pruning, recovery) with the memory of a few blocks at a time.
//
// The same forward pass as the Engine's, with the same bits: a hidden state does not depend on how
// many rows run together.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/buffers.h"
#include "engine/engine.h"

namespace pare {

// Blocks [first, first + count).
struct BlockRange {
  i64 first = 0, count = 0;
};

// The blocks of a model in pieces that can run alone: single blocks, but for those that share
// caches.
std::vector<BlockRange> block_ranges(const Spec&);

class Segment {
 public:
  // Packs the blocks' matrices as they are in `model` now; the model must outlive the segment.
  // `buffers`: memory that segments hand on to each other; one at a time.
  Segment(const Model& model, BlockRange, Pool&, unsigned isa = isa_here(),
          std::shared_ptr<Buffers> buffers = std::make_shared<Buffers>());
  ~Segment();

  // Runs whole sequences, which lie one behind the other in `hidden` (sum of lengths, dim), in
  // place, all in one batch: the tap sees the input of every matrix once, with all tokens, before
  // the matrix multiplies; it may call `repack` for matrices that have not multiplied yet. When the
  // tap throws, `hidden` is as it was. Caches are in f32.
  void run(Matrix<float> hidden, const std::vector<i64>& lengths, const Tap* = nullptr);

  // Takes a Linear of the model anew (its weights or its Spec have changed).
  void repack(const std::string& linear);

  // Floats that `run` needs for each token besides the hidden states: for a memory limit.
  static i64 floats_per_token(const Spec&, BlockRange);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What lies before and behind the blocks.
class Ends {
 public:
  Ends(const Model&, Pool&, unsigned isa = isa_here());
  ~Ends();
  // Hidden states in front of the first block: positions count from 0. hidden (tokens, dim)
  void embed(std::span<const std::int32_t> tokens, Matrix<float> hidden);
  // The input of the head, some rows at a time in order: hidden states behind the last block,
  // normed.
  void normed(Matrix<const float> hidden, const std::function<void(Matrix<const float>)>& visit);
  // Logits of hidden states behind the last block: (rows, vocab), valid until the next call.
  Matrix<const float> logits(Matrix<const float> hidden);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pare
