// RefOps: the scalar operations, sums in double, no threads. The oracle of CpuOps.
#pragma once

#include "engine/forward.h"
#include "kernel/ops.h"

namespace pare {

class RefOps {
 public:
  struct Array {
    std::vector<float> data;
    i64 rows = 0, cols = 0;
    Matrix<float> view() { return {data.data(), rows, cols}; }
    Matrix<const float> view() const { return {data.data(), rows, cols}; }
  };
  using Linear = LinearSite<Tensor>;
  using Block = BlockSite<Tensor>;
  using Net = pare::Net<Tensor>;

  explicit RefOps(const Net& net) : net_(net) {}
  void begin(const Chunk& chunk) { chunk_ = &chunk; }

  Array embed();
  Array norm(const NormSite&, const Array& x);
  Array norm_part(const NormSite&, Array x, const Part&);
  Array linear(const Linear&, const Array& x);
  Array rope(const Block&, Array x, const Part&);
  Array attend(const Block&, const Array& q, const Array* k, const Array* v);
  Array attend_latent(const Block&, const Array& q, const Array* latent);
  Array act(Act, Array gate, const Array* up);
  Array add(Array x, const Array& y, float scale);
  Array select(const Array& x, std::span<const i64> rows);
  Array cap(Array x, float scale, float cap);
  Matrix<const float> view(const Array& x) const { return x.view(); }

 private:
  void store(const Block&, const Array& k, const Array* v);
  void commit(const Block&);
  const Net& net_;
  const Chunk* chunk_ = nullptr;
};

}  // namespace pare
