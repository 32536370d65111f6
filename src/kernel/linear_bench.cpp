// Benchmarks of the product rows: bytes a second of one input, FLOP a second of many.
#include <benchmark/benchmark.h>

#include "base/random.h"
#include "kernel/linear.h"
#include "kernel/panels.h"
#include "number/encode.h"

namespace pare {
namespace {

Tensor matrix(const char* scheme, i64 rows, i64 cols) {
  Random random(1);
  std::vector<float> w(static_cast<std::size_t>(rows * cols));
  for (float& v : w) v = static_cast<float>(random.uniform() - 0.5);
  FitOptions absmax;
  absmax.range = Range::absmax;
  return quantize({w.data(), rows, cols}, parse_scheme(scheme), absmax);
}

void product(benchmark::State& state, const char* scheme, const char* input) {
  const i64 rows = 8192, cols = 2048, batch = state.range(0);
  Pool pool(static_cast<int>(state.range(1)));
  // Enough copies that the weights do not stay in the last-level cache.
  std::vector<PackedLinear> copies;
  const Tensor t = matrix(scheme, rows, cols);
  i64 bytes = 0;
  while (bytes < (i64{256} << 20) && copies.size() < 16) {
    copies.emplace_back(t, parse_activation(input), 0, isa_here(), pool);
    bytes += copies.back().bytes_streamed(batch);
  }
  Panels<float> x(static_cast<std::size_t>(batch * cols), 0.5f),
      y(static_cast<std::size_t>(batch * rows));
  std::size_t next = 0;
  for (auto _ : state) {
    copies[next++ % copies.size()].apply({x.data(), batch, cols}, {y.data(), batch, rows}, pool);
    benchmark::DoNotOptimize(y.data());
  }
  const double count = static_cast<double>(state.iterations());
  state.counters["GB/s"] =
      benchmark::Counter(count * static_cast<double>(copies[0].bytes_streamed(batch)) * 1e-9,
                         benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(
      count * 2e-9 * static_cast<double>(rows * cols * batch), benchmark::Counter::kIsRate);
  state.SetLabel(std::string(copies[0].kernel_name(batch)));
}

const bool registered = [] {
  for (const auto& [scheme, input] : {std::pair{"f32", "none"},
                                      {"bf16", "none"},
                                      {"int8:channel", "none"},
                                      {"int4:g32", "none"},
                                      {"int4:g128", "none"},
                                      {"nf4:g64", "none"},
                                      {"e4m3:channel", "none"},
                                      {"int3:g128", "none"},
                                      {"int8:channel", "int8:token"},
                                      {"int4:g128", "int8:token"}})
    benchmark::RegisterBenchmark(
        (std::string(scheme) + "/" + input).c_str(),
        [scheme = scheme, input = input](benchmark::State& s) { product(s, scheme, input); })
        ->ArgNames({"batch", "threads"})
        ->ArgsProduct({{1, 64, 2048}, {1, 2}})
        ->UseRealTime()
        ->MinTime(0.2);
  return true;
}();

}  // namespace
}  // namespace pare
