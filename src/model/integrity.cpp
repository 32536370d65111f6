// One pass over the decoded values, rows split over the pool.
#include "model/integrity.h"

#include <atomic>
#include <cmath>

namespace pare {

i64 count_non_finite(const Tensor& t, Pool& pool) {
  std::atomic<i64> bad{0};
  pool.run(t.rows(), 16, [&](i64 begin, i64 end) {
    std::vector<float> row(static_cast<std::size_t>(t.cols()));
    i64 local = 0;
    for (i64 r = begin; r < end; r++) {
      decode_row(t, r, row);
      for (float x : row) local += std::isfinite(x) ? 0 : 1;
    }
    bad += local;
  });
  return bad;
}

Integrity integrity(const Model& model, Pool& pool, const Log& log) {
  Integrity result;
  double total = 0;
  for (const Slot& slot : slots(model.spec)) {
    double n = 1;
    for (i64 d : slot.shape) n *= static_cast<double>(d);
    total += n;
  }
  Progress progress(log, "read", total, "values");
  for (const Slot& slot : slots(model.spec)) {
    stop_if_interrupted();
    const Tensor t = model.weights.find(slot.name)->second.load();
    std::atomic<i64> bad{0}, zeros{0};
    pool.run(t.rows(), 16, [&](i64 begin, i64 end) {
      std::vector<float> row(static_cast<std::size_t>(t.cols()));
      i64 local_bad = 0, local_zeros = 0;
      for (i64 r = begin; r < end; r++) {
        decode_row(t, r, row);
        for (float x : row) {
          local_bad += std::isfinite(x) ? 0 : 1;
          local_zeros += x == 0 ? 1 : 0;
        }
      }
      bad += local_bad;
      zeros += local_zeros;
    });
    if (bad > 0 && result.non_finite == 0) result.first_bad = slot.name;
    result.non_finite += bad;
    result.zeros += zeros;
    result.values += t.count();
    progress.add(static_cast<double>(t.count()), slot.name);
  }
  return result;
}

}  // namespace pare
