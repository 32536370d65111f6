// With all tokens in one batch a block is computed once: the pass stops at each input, the matrices
// that read it are solved, and it goes on with them. In several batches it is computed again up to
// each input in turn, which costs about two more passes through a block and no more memory than a
// batch.
#include "pass/quantize/flow.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"

namespace pare {
namespace {

struct Stop {};  // thrown by a tap that has seen enough

i64 free_memory() {
  const i64 pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? pages * page : i64{4} << 30;
}

}  // namespace

Flow::Flow(const Model& model, const std::vector<std::vector<std::int32_t>>& sequences,
           i64 ram_bytes, Pool& pool)
    : spec_(model.spec), pool_(pool), dim_(model.spec.dim) {
  ram_bytes_ = ram_bytes > 0 ? ram_bytes : free_memory() / 2;
  for (const auto& s : sequences) {
    PARE_CHECK(!s.empty());
    lengths_.push_back(static_cast<i64>(s.size()));
    tokens_ += lengths_.back();
  }
  hidden_.resize(static_cast<std::size_t>(tokens_ * dim_));
  Ends ends(model, pool);
  i64 row = 0;
  for (const auto& s : sequences) {
    const i64 n = static_cast<i64>(s.size());
    ends.embed(s, {hidden_.data() + row * dim_, n, dim_});
    row += n;
  }
}

std::vector<Flow::Batch> Flow::batches(BlockRange range) const {
  const i64 bytes = Segment::floats_per_token(spec_, range) * static_cast<i64>(sizeof(float));
  const i64 limit = std::max<i64>(1, ram_bytes_ / bytes);
  std::vector<Batch> list(1);
  for (i64 length : lengths_) {
    if (list.back().rows > 0 && list.back().rows + length > limit)
      list.push_back({list.back().row + list.back().rows, {}, 0});
    list.back().lengths.push_back(length);
    list.back().rows += length;
  }
  return list;
}

std::map<std::string, InputStatistics, std::less<>> Flow::observe(
    Segment& segment, BlockRange range, const std::vector<InputSlot>& wanted, bool gram) {
  std::map<std::string, InputSum, std::less<>> sums;
  for (const InputSlot& input : wanted) sums.emplace(input.name, InputSum(input.size, gram));
  std::size_t left = 0;
  Tap tap;
  tap.input = [&](const std::string& name, Matrix<const float> x) {
    const auto it = sums.find(name);
    if (it == sums.end()) return;
    stop_if_interrupted();
    it->second.add(x, pool_);
    if (--left == 0) throw Stop{};
  };
  for (const Batch& batch : batches(range)) {
    left = wanted.size();
    try {
      segment.run({hidden_.data() + batch.row * dim_, batch.rows, dim_}, batch.lengths, &tap);
    } catch (const Stop&) {
    }
    PARE_CHECK(left == 0);
  }
  std::map<std::string, InputStatistics, std::less<>> found;
  for (auto& [name, sum] : sums) found.emplace(name, sum.finish(pool_));
  return found;
}

void Flow::solve_inputs(Segment& segment, BlockRange range, const std::vector<InputSlot>& wanted,
                        bool gram, const Solve& solve, Tap tap, bool onwards) {
  const std::vector<Batch> all = batches(range);
  std::size_t left = wanted.size();
  if (all.size() == 1) {
    tap.input = [&](const std::string& name, Matrix<const float> x) {
      for (const InputSlot& input : wanted) {
        if (input.name != name) continue;
        stop_if_interrupted();
        InputSum sum(input.size, gram);
        sum.add(x, pool_);
        solve(input, sum.finish(pool_));
        if (--left == 0 && !onwards) throw Stop{};
      }
    };
  } else {
    for (const InputSlot& input : wanted) {
      auto found = observe(segment, range, {input}, gram);
      solve(input, std::move(found.begin()->second));
      left--;
    }
  }
  try {
    if (left > 0 || onwards)
      for (const Batch& batch : all)
        segment.run({hidden_.data() + batch.row * dim_, batch.rows, dim_}, batch.lengths, &tap);
  } catch (const Stop&) {
  }
  PARE_CHECK(left == 0);
}

void Flow::advance(Segment& segment, BlockRange range, const std::vector<InputSlot>& wanted,
                   bool gram, const Solve& solve, const Tap* also) {
  solve_inputs(segment, range, wanted, gram, solve, also == nullptr ? Tap() : *also, true);
}

void Flow::finish(Segment& segment, BlockRange range, const std::vector<InputSlot>& wanted,
                  bool gram, const Solve& solve) {
  solve_inputs(segment, range, wanted, gram, solve, Tap(), false);
}

}  // namespace pare
