// Hidden states of calibration sequences on their way through the blocks.
//
// All sequences go through a segment as one batch when memory allows, else in several; what is
// computed for a token does not depend on its batch, so a memory limit changes the schedule alone.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/segment.h"
#include "engine/statistics.h"

namespace pare {

class Flow {
 public:
  // Embeds the sequences; ram_bytes <= 0: half of the memory that is free now.
  Flow(const Model&, const std::vector<std::vector<std::int32_t>>& sequences, i64 ram_bytes, Pool&);

  i64 tokens() const { return tokens_; }
  Matrix<float> hidden() { return {hidden_.data(), tokens_, dim_}; }

  // Blocks of a model for what follows, one at a time: they share the memory of activations.
  Segment segment(const Model& model, BlockRange range) {
    return Segment(model, range, pool_, isa_here(), buffers_);
  }

  // The inputs of `wanted` (their names) as the segment's weights make them. The hidden states
  // stay.
  std::map<std::string, InputStatistics, std::less<>> observe(Segment&, BlockRange,
                                                              const std::vector<InputSlot>& wanted,
                                                              bool gram);

  // Takes the hidden states through the segment. On the way `solve` gets each input of `wanted`, in
  // order, with its statistics, before the matrices that read it multiply; it may repack these.
  using Solve = std::function<void(const InputSlot&, InputStatistics)>;
  void advance(Segment&, BlockRange, const std::vector<InputSlot>& wanted, bool gram, const Solve&,
               const Tap* also = nullptr);
  // The same where nobody asks for what comes behind the last of these inputs.
  void finish(Segment&, BlockRange, const std::vector<InputSlot>& wanted, bool gram, const Solve&);

 private:
  struct Batch {
    i64 row = 0;
    std::vector<i64> lengths;
    i64 rows = 0;
  };
  std::vector<Batch> batches(BlockRange) const;
  void solve_inputs(Segment&, BlockRange, const std::vector<InputSlot>& wanted, bool gram,
                    const Solve&, Tap, bool onwards);
  const Spec& spec_;
  Pool& pool_;
  std::shared_ptr<Buffers> buffers_ = std::make_shared<Buffers>();
  std::vector<i64> lengths_;
  std::vector<float> hidden_;
  i64 tokens_ = 0, dim_ = 0, ram_bytes_ = 0;
};

}  // namespace pare
