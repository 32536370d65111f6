// Products with a stored matrix: the row table, `pick`, and a packed matrix ready to multiply.
//
// y = W x for a batch of inputs. W (out, in) has any scheme; x is float, or is quantized first when
// the activation says so, and then integers are multiplied (no simulation). Everything that
// multiplies is a row of one table; declaration, dispatch, tests and benchmarks come from it.
#pragma once

#include <span>
#include <string_view>

#include "base/pool.h"
#include "base/view.h"
#include "kernel/isa.h"
#include "number/tensor.h"

namespace pare {

// One call computes outputs [row0, row1) for all inputs of the batch.
struct LinearCall {
  const std::byte* weights;   // what the row's repack wrote
  const Tensor* tensor;       // the planes, for rows that need no repacking
  const float* x;             // (batch, in), rows x_stride apart
  const std::uint8_t* codes;  // (batch, in) quantized inputs, or null
  const float* code_scales;   // (batch, groups)
  float* y;                   // (batch, out), rows y_stride apart
  i64 batch, in, out, x_stride, y_stride, row0, row1;
};

struct LinearKernel {
  std::string_view name;  // linear_<family>_<isa>[_<what>]
  unsigned isa;           // class required
  // True when the row can multiply this scheme with this activation at this input width.
  bool (*accepts)(const Scheme&, const Activation&, i64 in);
  i64 batch_min, batch_max;
  std::string_view
      layout;  // "" = works on the tensor's planes; rows with one word share packed bytes
  std::size_t (*packed_bytes)(const Tensor&);
  void (*repack)(const Tensor&, i64 row0, i64 row1,
                 std::byte* out);  // out: start of the whole buffer
  void (*run)(const LinearCall&) noexcept;
  i64 row_grain;   // outputs are split in multiples of this
  int preference;  // higher wins among rows that fit
};

std::span<const LinearKernel> linear_kernels();

// Pure, and never fails: the fallback row decodes a tile and multiplies.
const LinearKernel& pick(const Scheme&, const Activation&, i64 in, i64 batch, unsigned isa);

// A matrix packed for the rows that will be used with it: one for batch 1, one for larger batches.
class PackedLinear {
 public:
  PackedLinear() = default;
  PackedLinear(Tensor weights, const Activation&, float static_scale, unsigned isa, Pool&);

  // y (batch, out) = x (batch, in) W^T. Outputs are split over the pool; same bits for any team.
  void apply(Matrix<const float> x, Matrix<float> y, Pool&) const;

  i64 in() const { return in_; }
  i64 out() const { return out_; }
  i64 bytes_streamed(i64 batch) const;  // bytes of weights read from memory by one apply
  std::string_view kernel_name(i64 batch) const;
  const Tensor& tensor() const { return tensor_; }

 private:
  struct Packed {
    const LinearKernel* kernel = nullptr;
    Blob bytes;
  };
  const Packed& chosen(i64 batch) const;
  Tensor tensor_;
  Activation activation_;
  float static_scale_ = 0;
  i64 in_ = 0, out_ = 0;
  std::vector<Packed> packed_;  // by ascending batch_min
};

// The meaning of a product, in double: y = W decode(quantize(x)). Used by RefOps and every test.
void linear_reference(const Tensor& weights, const Activation&, float static_scale,
                      Matrix<const float> x, Matrix<float> y);

}  // namespace pare
