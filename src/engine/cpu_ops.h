// CpuOps: the fast operations. Packed matrices, vector units, threads.
//
// Threads split rows, heads or outputs, never a sum: the same bits with any number of threads.
#pragma once

#include "engine/buffers.h"
#include "engine/forward.h"
#include "engine/tally.h"
#include "kernel/ops.h"

namespace pare {

class CpuOps {
 public:
  using Array = pare::Array;
  using Linear = LinearSite<PackedLinear>;
  using Block = BlockSite<PackedLinear>;
  using Net = pare::Net<PackedLinear>;

  // Buffers may be shared with operations that run before and after.
  CpuOps(const Net&, Pool&, unsigned isa, std::shared_ptr<Buffers> = std::make_shared<Buffers>());
  void begin(const Chunk&);  // must live until the pass is over
  void count(Tally* tally) { tally_ = tally; }
  void time(PartTimes* times) { times_ = times; }

  Array embed();
  Array copy(Matrix<const float>);  // an Array of what lies elsewhere
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
  struct RopeTable {
    std::vector<double> frequencies;  // (dims / 2); empty when they depend on the length
    std::vector<float> cosine, sine;  // (tokens, dims / 2)
  };
  void apply(const Linear&, Matrix<const float> x, Matrix<float> y, Pool*, Buffers&);
  void normalise(const NormSite&, Matrix<float> x, Matrix<float> y, const Part&);
  void store(const Block&, const Array& k, const Array* v);
  void run_calls();
  void attend_absorbed(const Block&, const Block& lender, const Array& q, Array& mix,
                       std::span<const Piece>);
  void attend_materialised(const Block&, const Block& lender, const Array& q, Array& mix,
                           const Piece&);
  void commit(const Block&);
  template <class Work>
  void rows(i64 count, i64 floats_each, const Work& work);

  void multiply(const PackedLinear&, Matrix<const float> x, Matrix<float> y, Pool*) const;
  void count_vectors(const Linear&) const;
  void count_writes(const Block&, bool values) const;

  const Net& net_;
  Tally* tally_ = nullptr;
  PartTimes* times_ = nullptr;
  Pool& pool_;
  unsigned isa_;
  const VectorOps& vector_;
  const Chunk* chunk_ = nullptr;
  std::vector<RopeTable> ropes_;  // as Net::ropes
  std::vector<AttendCall> calls_;
  std::shared_ptr<Buffers> shared_;
  Buffers& buffers_;
  std::vector<std::unique_ptr<Buffers>> thread_buffers_;
};

}  // namespace pare
