// What each method does at the two places of the walk where methods differ (calibrated.cpp): to the
// scales of a block, and to one matrix.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/segment.h"
#include "pass/quantize/block.h"
#include "pass/quantize/calibrated.h"

namespace pare {

bool moves_scales(Method);
bool needs_gram(Method);

// Chooses scales by the method and applies them to the values, the Spec (stored scales) and the
// statistics. Returns notes for the record.
std::vector<std::string> move_scales(BlockValues&, Spec&, i64 block, Statistics&,
                                     const std::vector<Target>&, const MethodOptions&, Pool&);

Solution solve_matrix(const MatrixTask&, const MethodOptions&, Pool&);

// Ranges of what a block caches, from the projections of keys and values.
class KvRanges {
 public:
  KvRanges(const Spec&, BlockRange);
  Tap tap();  // must not outlive this
  std::vector<std::pair<i64, KvStatistics>> finish();

 private:
  std::map<std::string, KvStatistics*, std::less<>> by_stage_;
  std::vector<std::pair<i64, KvStatistics>> list_;
};

}  // namespace pare
