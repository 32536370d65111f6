// How many weights a second are fitted, snapped, decoded and re-packed, one thread.
#include <benchmark/benchmark.h>

#include "base/random.h"
#include "number/encode.h"
#include "number/ggml.h"

namespace {

std::vector<float> gaussian(pare::i64 n) {
  pare::Random random(1);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(random.normal() * 0.05);
  return x;
}

constexpr pare::i64 rows = 64, cols = 4096;
const char* const schemes[] = {
    "int4:g128", "int4:g32",   "int4:g32:asym", "int8:channel",  "int3:g128", "int4:g32:min",
    "nf4:g64",   "nf4:g64:dq", "e4m3:channel",  "e4m3:b128x128", "mxfp4",     "nvfp4",
    "q4_k",      "q6_k",       "iq4_xs",        "e4m3",          "bf16"};

void quantize_mse(benchmark::State& state) {
  const std::vector<float> x = gaussian(rows * cols);
  const pare::Scheme scheme = pare::parse_scheme(schemes[state.range(0)]);
  for (auto _ : state)
    benchmark::DoNotOptimize(pare::quantize({x.data(), rows, cols}, scheme).codes.size());
  state.SetItemsProcessed(state.iterations() * rows * cols);
  state.SetLabel(schemes[state.range(0)]);
}
BENCHMARK(quantize_mse)->DenseRange(0, std::size(schemes) - 1);

void quantize_absmax(benchmark::State& state) {
  const std::vector<float> x = gaussian(rows * cols);
  const pare::Scheme scheme = pare::parse_scheme(schemes[state.range(0)]);
  pare::FitOptions options;
  options.range = pare::Range::absmax;
  for (auto _ : state)
    benchmark::DoNotOptimize(pare::quantize({x.data(), rows, cols}, scheme, options).codes.size());
  state.SetItemsProcessed(state.iterations() * rows * cols);
  state.SetLabel(schemes[state.range(0)]);
}
BENCHMARK(quantize_absmax)->DenseRange(0, std::size(schemes) - 1);

void decode_rows(benchmark::State& state) {
  const std::vector<float> x = gaussian(rows * cols);
  pare::FitOptions options;
  options.range = pare::Range::absmax;
  const pare::Tensor t =
      pare::quantize({x.data(), rows, cols}, pare::parse_scheme(schemes[state.range(0)]), options);
  std::vector<float> out(cols);
  for (auto _ : state)
    for (pare::i64 r = 0; r < rows; r++) {
      pare::decode_row(t, r, out);
      benchmark::DoNotOptimize(out.data());
    }
  state.SetItemsProcessed(state.iterations() * rows * cols);
  state.SetLabel(schemes[state.range(0)]);
}
BENCHMARK(decode_rows)->DenseRange(0, std::size(schemes) - 1);

void ggml_blocks(benchmark::State& state) {
  static constexpr std::uint32_t types[] = {2, 8, 10, 11, 12, 13, 14, 23, 39};
  const std::uint32_t type = types[state.range(0)];
  const std::vector<float> x = gaussian(rows * cols);
  pare::FitOptions options;
  options.range = pare::Range::absmax;
  const pare::Scheme scheme = pare::scheme_of_ggml(type);
  const pare::Blob blocks =
      pare::blocks_from_tensor(pare::quantize({x.data(), rows, cols}, scheme, options), type);
  for (auto _ : state)
    benchmark::DoNotOptimize(pare::tensor_from_ggml(type, rows, cols, blocks).codes.size());
  state.SetItemsProcessed(state.iterations() * rows * cols);
  state.SetLabel(pare::to_string(scheme));
}
BENCHMARK(ggml_blocks)->DenseRange(0, 8);

}  // namespace
