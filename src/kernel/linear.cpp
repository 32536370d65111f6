// The row table and what surrounds a kernel: quantizing and arranging the inputs, splitting the
// outputs.
//
// Rows of the ISA files multiply packed matrices. Three rows at the end work everywhere: one
// decodes rows and multiplies floats, one multiplies integers code by code. They are the truth that
// the others are tested against as well as the fallback.
#include "kernel/linear.h"

#include <algorithm>
#include <cmath>

#include "kernel/ops.h"
#include "kernel/panels.h"
#include "kernel/rows.h"
#include "number/encode.h"

namespace pare {
namespace {

constexpr i64 many = i64{1} << 40;
constexpr i64 few = 12;  // inputs from which turning the weights pays

// name, isa, work, kind, batch range, input order, function
#define PARE_KIND_ROWS(kind, isa, order)                                                          \
  {"linear_" #kind "_" #isa "_vector", isa_##isa, LinearWork::floats, Packed::kind, 1, 1, order,  \
   linear_##kind##_##isa##_vector},                                                               \
      {"linear_" #kind "_" #isa "_matrix",                                                        \
       isa_##isa,                                                                                 \
       LinearWork::floats,                                                                        \
       Packed::kind,                                                                              \
       2,                                                                                         \
       few - 1,                                                                                   \
       order,                                                                                     \
       linear_##kind##_##isa##_matrix},                                                           \
  {                                                                                               \
    "linear_" #kind "_" #isa "_tiles", isa_##isa, LinearWork::floats, Packed::kind, few, many, 0, \
        linear_##kind##_##isa##_tiles                                                             \
  }
#define PARE_ISA_ROWS(isa, lanes)                                                                  \
  PARE_KIND_ROWS(f32, isa, 0), PARE_KIND_ROWS(f16, isa, 0), PARE_KIND_ROWS(bf16, isa, 0),          \
      PARE_KIND_ROWS(e4m3, isa, 0), PARE_KIND_ROWS(e5m2, isa, 0), PARE_KIND_ROWS(i8, isa, 0),      \
      PARE_KIND_ROWS(nib4, isa, lanes),                                                            \
      {"linear_i8_" #isa "_integers", isa_##isa, LinearWork::integers, Packed::i8, 1, many, 0,     \
       linear_i8_##isa##_integers},                                                                \
  {                                                                                                \
    "linear_nib4_" #isa "_integers", isa_##isa, LinearWork::integers, Packed::nib4, 1, many, -128, \
        linear_nib4_##isa##_integers                                                               \
  }

#define PARE_TERM_ROW(kind)                                                             \
  {                                                                                     \
    "linear_" #kind "_amx_tiles", isa_amx, LinearWork::floats, Packed::kind, few, many, \
        order_terms, linear_##kind##_amx_tiles, 64                                      \
  }

constexpr LinearKernel table[] = {
#if defined(__x86_64__)
    {"linear_i8_amx_integer_tiles", isa_amx, LinearWork::integers, Packed::i8, few, many, 0,
     linear_i8_amx_integer_tiles, 64},
    {"linear_nib4_amx_integer_tiles", isa_amx, LinearWork::integers, Packed::nib4, few, many, -8,
     linear_nib4_amx_integer_tiles, 64},
    PARE_TERM_ROW(bf16),
    PARE_TERM_ROW(e4m3),
    PARE_TERM_ROW(e5m2),
    PARE_TERM_ROW(i8),
    PARE_TERM_ROW(nib4),
    {"linear_i8_avx512_integer_tiles", isa_avx512, LinearWork::integers, Packed::i8, few, many, 0,
     linear_i8_avx512_integer_tiles},
    {"linear_nib4_avx512_integer_tiles", isa_avx512, LinearWork::integers, Packed::nib4, few, many,
     -8, linear_nib4_avx512_integer_tiles},
    PARE_ISA_ROWS(avx512, 16),
    PARE_ISA_ROWS(avx2, 8),
#endif
    {"linear_any_scalar_decode", isa_scalar, LinearWork::floats, -1, 1, many, 0, nullptr},
    {"linear_any_scalar_integers", isa_scalar, LinearWork::integers, -1, 1, many, 0, nullptr},
};

// Products of a byte and an int8 that a 32-bit sum of tiles can hold: 255 * 127 each.
constexpr i64 most_summed = i64{1} << 16;

bool integer_product(const Scheme& s, const Activation& a) {
  return a.per != Activation::Per::none && info(a.code).integer && !s.plain() &&
         info(s.code).integer;
}

// Packed integer rows want one scale a token; inputs in groups go through the code-by-code
// fallback.
bool packed_integers(const Scheme& s, const Activation& a) {
  return integer_product(s, a) && a.per != Activation::Per::group && bits(s.code) <= 8;
}

// Whether a row of the table has a way with the codes and groups of a scheme.
bool takes(const LinearKernel& k, const Scheme& s, i64 in) {
  const bool grouped = s.grouping == Grouping::group || s.grouping == Grouping::block;
  if (grouped && s.cols < in && s.cols % k.group_step != 0) return false;
  if (k.order != order_terms || k.kind != Packed::nib4) return true;
  const std::span<const float> all = values(s.code);  // bf16 holds other codes
  return std::all_of(all.begin(), all.end(), [](float v) { return from_bf16(to_bf16(v)) == v; });
}

// --- inputs
// ------------------------------------------------------------------------------------------

// Lanes x Each elements: element k of a chunk goes to place k % Lanes * Each + k / Lanes.
template <int Lanes, int Each, class T>
void deal(const T* x, T* to) {
  for (int lane = 0; lane < Lanes; lane++)
    for (int i = 0; i < Each; i++) to[lane * Each + i] = x[i * Lanes + lane];
}

template <int Lanes, int Each, class T>
void deal_all(const T* x, i64 n, i64 padded, T* to) {
  constexpr i64 chunk = Lanes * Each;
  i64 k = 0;
  for (; k + chunk <= n; k += chunk) deal<Lanes, Each>(x + k, to + k);
  if (k < n) {
    T last[chunk] = {};
    std::copy(x + k, x + n, last);
    deal<Lanes, Each>(last, to + k);
    k += chunk;
  }
  std::fill(to + k, to + padded, T{});
}

// A row in a kernel's order, zeros behind it.
template <class T>
void arrange(const T* x, i64 n, i64 padded, int order, T* to) {
  switch (order) {
    case -8:
      return deal_all<2, 4>(x, n, padded, to);
    case -128:
      return deal_all<2, 64>(x, n, padded, to);
    case 8:
      return deal_all<8, 8>(x, n, padded, to);
    case 16:
      return deal_all<8, 16>(x, n, padded, to);
    default:
      PARE_CHECK(order == 0);
      std::fill(std::copy_n(x, n, to), to + padded, T{});
  }
}

template <class Sum>
void group_sums(i64 n, const Packed& p, float* sums, const Sum& sum) {
  for (i64 g = 0; g < p.groups; g++) {
    const i64 from = g * p.group, count = std::min(n, from + p.group) - from;
    sums[g] = count > 0 ? static_cast<float>(sum(from, count)) : 0;
  }
}

// In double, so that the sum is as good as the products; four that need not wait for each other.
double sum_of(const float* x, i64 n) {
  double sum[4] = {};
  i64 i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; k++) sum[k] += static_cast<double>(x[i + k]);
  for (; i < n; i++) sum[0] += static_cast<double>(x[i]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

struct Scratch {
  Panels<float> x, sums, scales, simulated;
  Panels<std::uint8_t> codes;
  Panels<std::int8_t> row, arranged;
  Panels<float> tile;
  Panels<std::uint16_t> terms;
};
Scratch& scratch() {
  thread_local Scratch mine;  // grows to the largest input seen by the thread
  return mine;
}

template <class T>
T* room(Panels<T>& v, i64 n) {
  if (v.size() < static_cast<std::size_t>(n)) v.resize(static_cast<std::size_t>(n));
  return v.data();
}

// Bytes from the codes of an input to the next: an odd number of cache lines, so that the same
// columns of some inputs do not lie in the same cache set.
i64 code_stride(const Packed& p) { return p.in_padded + 64; }

// The same for terms, each of two bytes; an input has three rows of them.
i64 term_stride(const Packed& p) { return p.in_padded + 32; }

void split_terms(const float* x, i64 n, i64 padded, std::uint16_t* terms, i64 apart) {
#if defined(__x86_64__)
  split_terms_amx(x, n, padded, terms, apart);
#endif
}

void split(Pool* pool, i64 count, i64 grain, const std::function<void(i64, i64)>& work) {
  if (pool != nullptr)
    pool->run(count, grain, work);
  else if (count > 0)
    work(0, count);
}

// --- fallbacks
// ---------------------------------------------------------------------------------------

float dot(const float* a, const float* b, i64 n) {
  double sum = 0;
  for (i64 i = 0; i < n; i++) sum += static_cast<double>(a[i]) * b[i];
  return static_cast<float>(sum);
}

void decode_and_multiply(const Tensor& w, Matrix<const float> x, Matrix<float> y, Pool* pool) {
  split(pool, w.rows(), 8, [&](i64 begin, i64 end) {
    float* row = room(scratch().tile, w.cols());
    for (i64 r = begin; r < end; r++) {
      decode_row(w, r, {row, static_cast<std::size_t>(w.cols())});
      for (i64 b = 0; b < x.rows; b++) y.row(b)[r] = dot(row, x.row(b), w.cols());
    }
  });
}

// Exact integer sums over the runs where both scales are constant.
void multiply_integers(const Tensor& w, const Activation& a, Matrix<const std::uint8_t> codes,
                       Matrix<const float> scales, Matrix<float> y, Pool* pool) {
  const Scheme& s = w.scheme;
  const i64 n = w.cols();
  const i64 weight_run =
      s.grouping == Grouping::group || s.grouping == Grouping::block ? s.cols : n;
  const i64 input_run = a.per == Activation::Per::group ? a.group : n;
  const int lowest = s.offset == Offset::minimum ? 1 << (bits(s.code) - 1) : 0;
  split(pool, w.rows(), 8, [&](i64 begin, i64 end) {
    std::vector<int> row(static_cast<std::size_t>(n));
    for (i64 r = begin; r < end; r++) {
      for (i64 c = 0; c < n; c++) row[static_cast<std::size_t>(c)] = code_at(w, r, c);
      for (i64 b = 0; b < codes.rows; b++) {
        double sum = 0;
        for (i64 c = 0; c < n;) {
          const i64 stop =
              std::min({n, (c / weight_run + 1) * weight_run, (c / input_run + 1) * input_run});
          const i64 first = c;
          std::int64_t products = 0, inputs = 0;
          for (; c < stop; c++) {
            const std::int8_t q = static_cast<std::int8_t>(codes.row(b)[c]);
            products += static_cast<std::int64_t>(row[static_cast<std::size_t>(c)]) * q;
            inputs += q;
          }
          const double scale = scale_at(w, r, first);
          double offset = s.offset == Offset::zero ? scale * zero_at(w, r, first) : 0;
          if (s.offset == Offset::minimum)
            offset = static_cast<double>(min_at(w, r, first)) - scale * lowest;
          sum += (scale * static_cast<double>(products) - offset * static_cast<double>(inputs)) *
                 scales.row(b)[first / input_run];
        }
        y.row(b)[r] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace

std::span<const LinearKernel> linear_kernels() { return table; }

const LinearKernel& pick(const Scheme& s, const Activation& a, i64 in, i64 batch, unsigned isa) {
  const int kind = packed_kind(s, in);
  const LinearWork work = integer_product(s, a) ? LinearWork::integers : LinearWork::floats;
  const bool packable = work == LinearWork::floats || packed_integers(s, a);
  for (const LinearKernel& k : table) {
    if (k.work != work || (k.isa & ~isa) != 0 || batch < k.batch_min || batch > k.batch_max)
      continue;
    if (k.work == LinearWork::integers && k.batch_min > 1 && in > most_summed) continue;
    if (k.kind == -1 || (packable && k.kind == kind && takes(k, s, in))) return k;
  }
  PARE_CHECK(false);
}

bool in_terms(const Scheme& s, i64 in, unsigned isa) {
  return pick(s, {}, in, 512, isa).order == order_terms;
}

PackedLinear::PackedLinear(Tensor weights, const Activation& activation, float static_scale,
                           unsigned isa, Pool& pool)
    : tensor_(std::move(weights)),
      activation_(activation),
      static_scale_(static_scale),
      isa_(isa),
      in_(tensor_.cols()),
      out_(tensor_.rows()) {
  packed_bytes_ = tensor_.bytes();
  if (chosen(1).kind < 0) return;
  packed_ = pack(tensor_, pool, packed_bytes_);
  PARE_CHECK(packed_ != nullptr);
  for (Blob Tensor::*plane : {&Tensor::codes, &Tensor::scales, &Tensor::zeros, &Tensor::mins,
                              &Tensor::super_scales, &Tensor::super_mins})
    tensor_.*plane = {};
}

const LinearKernel& PackedLinear::chosen(i64 batch) const {
  return pick(tensor_.scheme, activation_, in_, batch, isa_);
}

i64 PackedLinear::bytes_streamed(i64) const { return packed_bytes_; }
std::string_view PackedLinear::kernel_name(i64 batch) const { return chosen(batch).name; }

void PackedLinear::apply(Matrix<const float> x, Matrix<float> y, Pool& pool) const {
  run(x, y, &pool);
}
void PackedLinear::apply(Matrix<const float> x, Matrix<float> y) const { run(x, y, nullptr); }

// Rows of inputs whose rearranged copies a thread keeps at a time.
constexpr i64 scratch_rows = 2 * 1024;

void PackedLinear::run(Matrix<const float> x, Matrix<float> y, Pool* pool) const {
  PARE_CHECK(x.cols == in_ && y.cols == out_ && x.rows == y.rows);
  // A scale that all tokens share is found from all of them.
  const bool shared = activation_.per == Activation::Per::tensor && !activation_.is_static;
  const i64 held = shared ? std::max<i64>(1, x.rows) : scratch_rows;
  for (i64 r = 0; r < x.rows; r += held) {
    const i64 count = std::min(held, x.rows - r);
    run_rows({x.row(r), count, x.cols, x.stride}, {y.row(r), count, y.cols, y.stride}, pool);
  }
}

// What quantize_activations says, vectors at a time; then each row in the kernel's order, and its
// sums.
void PackedLinear::prepare_integers(Matrix<const float> x, int order, std::int8_t* arranged,
                                    float* scales, float* sums, Pool* pool) const {
  const Packed& p = *packed_;
  const VectorOps& ops = vector_ops(isa_);
  const float top = top_code(activation_.code);
  const bool whole = activation_.per == Activation::Per::tensor;
  float shared = static_scale_;
  if (whole && !activation_.is_static) {
    shared = 0;
    for (i64 b = 0; b < x.rows; b++) shared = std::max(shared, ops.magnitude(x.row(b), in_));
    shared /= top;
  }
  split(pool, x.rows, 4, [&](i64 begin, i64 end) {
    std::int8_t* codes = room(scratch().row, in_);
    for (i64 b = begin; b < end; b++) {
      const float scale = whole ? shared : ops.magnitude(x.row(b), in_) / top;
      scales[b] = scale;
      ops.to_int8(x.row(b), scale > 0 ? 1.0f / scale : 0.0f, top, in_, codes);
      arrange(codes, in_, p.in_padded, order, arranged + b * code_stride(p));
      group_sums(in_, p, sums + b * p.groups,
                 [&](i64 from, i64 count) { return ops.sum_int8(codes + from, count); });
    }
  });
}

// Inputs as they are or in the kernel's order, and with `sums` those of each row's groups.
void PackedLinear::prepare_floats(Matrix<const float> x, int order, float* sums, PackedCall& call,
                                  Pool* pool) const {
  const Packed& p = *packed_;
  if (order == 0 && in_ == p.in_padded && sums == nullptr) {
    call.x = x.data;
    call.x_stride = x.stride;
    return;
  }
  Scratch& mine = scratch();
  const bool terms = order == order_terms;
  if (terms) call.x_stride = term_stride(p);
  const i64 each = terms ? 3 * call.x_stride : p.in_padded;
  std::uint16_t* split_to = terms ? room(mine.terms, x.rows * each) : nullptr;
  float* to = terms ? nullptr : room(mine.x, x.rows * each);
  split(pool, x.rows, 4, [&](i64 begin, i64 end) {
    for (i64 b = begin; b < end; b++) {
      if (terms)
        split_terms(x.row(b), in_, p.in_padded, split_to + b * each, call.x_stride);
      else
        arrange(x.row(b), in_, p.in_padded, order, to + b * each);
      if (sums != nullptr)
        group_sums(in_, p, sums + b * p.groups,
                   [&](i64 from, i64 count) { return sum_of(x.row(b) + from, count); });
    }
  });
  call.terms = split_to;
  call.x = to;
}

void PackedLinear::run_rows(Matrix<const float> x, Matrix<float> y, Pool* pool) const {
  const LinearKernel& kernel = chosen(x.rows);
  Scratch& mine = scratch();
  const bool integers = kernel.work == LinearWork::integers;
  const i64 input_group = activation_.per == Activation::Per::group ? activation_.group : in_;
  const i64 input_groups = (in_ + input_group - 1) / input_group;
  if (!integers && activation_.per != Activation::Per::none) {
    // Codes that are not integers: products of their values are exact in float, so decoding first
    // is no simulation of the arithmetic, only of the unit that would do it.
    float* simulated = room(mine.simulated, x.rows * in_);
    simulate_activations(x, activation_, static_scale_, {simulated, x.rows, in_});
    x = {simulated, x.rows, in_};
  }
  if (kernel.kind < 0) {
    if (!integers) return decode_and_multiply(tensor_, x, y, pool);
    const Matrix<std::uint8_t> codes = {room(mine.codes, x.rows * in_), x.rows, in_};
    const Matrix<float> scales = {room(mine.scales, x.rows * input_groups), x.rows, input_groups};
    quantize_activations(x, activation_, static_scale_, codes, scales);
    return multiply_integers(tensor_, activation_, codes, scales, y, pool);
  }
  const Packed& p = *packed_;
  PackedCall call{};
  call.w = &p;
  call.batch = x.rows;
  call.x_stride = p.in_padded;
  call.y = y.data;
  call.y_stride = y.stride;
  const bool scaled_sums = x.rows == 1 || kernel.order == order_terms;
  const bool needs_sums = integers || (p.bias != nullptr && scaled_sums);
  float* sums = needs_sums ? room(mine.sums, x.rows * p.groups) : nullptr;
  call.sums = sums;
  if (integers) {
    call.x_stride = code_stride(p);
    std::int8_t* arranged = room(mine.arranged, x.rows * call.x_stride);
    float* scales = room(mine.scales, x.rows);
    prepare_integers(x, kernel.order, arranged, scales, sums, pool);
    call.codes = arranged;
    call.code_scales = scales;
  } else {
    prepare_floats(x, kernel.order, sums, call, pool);
  }
  // With many inputs a thread takes rows by whole tiles: it reads the inputs once for each.
  split(pool, out_, x.rows < 64 ? 16 : tile_rows, [&](i64 begin, i64 end) {
    PackedCall part = call;
    part.row0 = begin;
    part.row1 = end;
    part.tile = room(scratch().tile, tile_floats(p.in_padded));
    kernel.run(part);
  });
}

void linear_reference(const Tensor& w, const Activation& activation, float static_scale,
                      Matrix<const float> x, Matrix<float> y) {
  PARE_CHECK(x.cols == w.cols() && y.cols == w.rows() && x.rows == y.rows);
  std::vector<float> simulated;
  if (activation.per != Activation::Per::none) {
    simulated.resize(static_cast<std::size_t>(x.rows * x.cols));
    simulate_activations(x, activation, static_scale, {simulated.data(), x.rows, x.cols});
    x = {simulated.data(), x.rows, x.cols};
  }
  std::vector<float> row(static_cast<std::size_t>(w.cols()));
  for (i64 r = 0; r < w.rows(); r++) {
    decode_row(w, r, row);
    for (i64 b = 0; b < x.rows; b++) {
      double sum = 0;
      for (i64 c = 0; c < w.cols(); c++)
        sum += static_cast<double>(row[static_cast<std::size_t>(c)]) * x.row(b)[c];
      y.row(b)[r] = static_cast<float>(sum);
    }
  }
}

}  // namespace pare
