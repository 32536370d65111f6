// Products with a stored matrix: the row table, `pick`, and a packed matrix ready to multiply.
//
// y = W x for a batch of inputs. W (out, in) has any scheme; x is float, or is quantized first when
// the activation says so, and then integers are multiplied (no simulation). Everything that
// multiplies is a row of one table; dispatch, tests and benchmarks come from it.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/pool.h"
#include "base/view.h"
#include "kernel/isa.h"
#include "kernel/packed.h"
#include "number/tensor.h"

namespace pare {

enum class LinearWork : std::uint8_t {
  floats,    // float inputs
  integers,  // int8 inputs: integer products, exact sums
};

constexpr int order_terms = 3;

struct LinearKernel {
  std::string_view name;  // linear_<kind>_<isa>_<what>
  unsigned isa;           // class required; isa_scalar runs everywhere
  LinearWork work;
  int kind;  // Packed::Kind, or -1: multiplies any tensor by decoding it (the fallback)
  i64 batch_min, batch_max;
  // Order of the inputs within a chunk: 0 natural; n > 0: element n' = 8 i + s of a chunk of 8 n
  // elements lies at s n + i (nib4 floats); -n: even elements of n, then odd ones (nib4 integers).
  // order_terms: three rows of bf16 that add up to the input.
  int order;
  void (*run)(const PackedCall&);  // null for the fallbacks, which work on the tensor
  i64 group_step = 1;  // weights that share a scale, if not a whole row: a multiple of this
};

std::span<const LinearKernel> linear_kernels();

// Pure, and never fails: the last rows decode and multiply anything.
const LinearKernel& pick(const Scheme&, const Activation&, i64 in, i64 batch, unsigned isa);

// Whether many float inputs are multiplied with this scheme as three terms of bf16.
bool in_terms(const Scheme&, i64 in, unsigned isa);

// How `scheme` is packed, or -1 when only the fallback can multiply it.
int packed_kind(const Scheme&, i64 in);

// Bytes of a matrix as the vector rows stream it; as stored when only the fallback can.
i64 packed_bytes(const Scheme&, i64 out, i64 in);

// A matrix packed for the rows that will be used with it.
class PackedLinear {
 public:
  PackedLinear() = default;
  PackedLinear(Tensor weights, const Activation&, float static_scale, unsigned isa, Pool&);

  // y (batch, out) = x (batch, in) W^T. Outputs are split over the pool; same bits for any team.
  // Not from inside a worker of the same pool.
  void apply(Matrix<const float> x, Matrix<float> y, Pool&) const;
  // The same on the calling thread alone.
  void apply(Matrix<const float> x, Matrix<float> y) const;

  i64 in() const { return in_; }
  i64 out() const { return out_; }
  i64 bytes_streamed(i64 batch) const;  // bytes of weights read from memory by one apply
  std::string_view kernel_name(i64 batch) const;
  // Scheme and shape of the weights; the planes are dropped when a packed copy has replaced them.
  const Tensor& tensor() const { return tensor_; }

 private:
  void run(Matrix<const float> x, Matrix<float> y, Pool*) const;
  void run_rows(Matrix<const float> x, Matrix<float> y, Pool*) const;
  void prepare_integers(Matrix<const float> x, int order, std::int8_t* arranged, float* scales,
                        float* sums, Pool*) const;
  void prepare_floats(Matrix<const float> x, int order, float* sums, PackedCall&, Pool*) const;
  const LinearKernel& chosen(i64 batch) const;
  Tensor tensor_;
  Activation activation_;
  float static_scale_ = 0;
  unsigned isa_ = 0;
  i64 in_ = 0, out_ = 0, packed_bytes_ = 0;
  std::shared_ptr<const Packed> packed_;  // null: the fallback works on the tensor
};

// The meaning of a product, in double: y = W decode(quantize(x)). Used by RefOps and every test.
void linear_reference(const Tensor& weights, const Activation&, float static_scale,
                      Matrix<const float> x, Matrix<float> y);

// Packs a tensor; null when packed_kind is -1. `bytes` gets the size of what is streamed.
std::shared_ptr<const Packed> pack(const Tensor&, Pool&, i64& bytes);

}  // namespace pare
