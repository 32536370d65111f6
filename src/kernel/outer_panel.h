// Between kernel/outer.cpp and the files of the ISAs: panels and who multiplies them.
//
// A panel holds `width` columns of a matrix, row after row, padded with zeros: (depth, width).
#pragma once

#include <cstdint>

#include "kernel/isa.h"

namespace pare {

// The elements of C that two panels make: rows x cols of them, at most width x width.
template <class T, class C>
struct PanelCall {
  const T *a, *b;  // panels (depth, width)
  std::int64_t depth;
  C* c;
  std::int64_t stride;  // of c
  int rows, cols;
  bool subtract;
};

template <class T, class C>
struct PanelKernel {
  int width;  // divides outer_tile
  void (*run)(const PanelCall<T, C>&);
};

constexpr std::int64_t outer_tile = 192;  // edge of the piece of C that one thread takes at a time

template <class T, class C>
PanelKernel<T, C> panel_kernel(unsigned isa);
template <>
PanelKernel<float, float> panel_kernel(unsigned isa);
template <>
PanelKernel<float, double> panel_kernel(unsigned isa);
template <>
PanelKernel<double, double> panel_kernel(unsigned isa);

#if defined(__x86_64__)
void panel_f32_avx2(const PanelCall<float, float>&);
void panel_f32_f64_avx2(const PanelCall<float, double>&);
void panel_f64_avx2(const PanelCall<double, double>&);
void subtract_scaled_avx2(const float* x, float scale, std::int64_t n, float* y);
void panel_f32_avx512(const PanelCall<float, float>&);
void panel_f32_f64_avx512(const PanelCall<float, double>&);
void panel_f64_avx512(const PanelCall<double, double>&);
void subtract_scaled_avx512(const float* x, float scale, std::int64_t n, float* y);
#endif

}  // namespace pare
