// Seconds of the solvers, part by part, beside the floor: the operations at the speed of the panel
// kernels (bench_kernel). Weights and inputs are random; the work does not depend on them.
#include <benchmark/benchmark.h>

#include <numeric>

#include "base/random.h"
#include "kernel/factor.h"
#include "pass/quantize/solver.h"

namespace pare {
namespace {

std::vector<float> uniform(i64 n, double scale) {
  Random random(1);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>((random.uniform() - 0.5) * scale);
  return x;
}

// Ones on the diagonal, small numbers elsewhere: positive definite.
InputStatistics inputs(i64 n) {
  InputStatistics in;
  in.tokens = 1;
  in.sum_square.assign(static_cast<std::size_t>(n), 1.0);
  in.gram = uniform(n * n, 0.5 / static_cast<double>(n));
  for (i64 i = 0; i < n; i++)
    for (i64 j = 0; j <= i; j++)
      in.gram[static_cast<std::size_t>(i * n + j)] =
          i == j ? 1 : in.gram[static_cast<std::size_t>(j * n + i)];
  in.sum_abs.assign(static_cast<std::size_t>(n), 1.0);
  in.max_abs.assign(static_cast<std::size_t>(n), 1.0f);
  return in;
}

void rate(benchmark::State& state, double operations) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * operations * 1e-9, benchmark::Counter::kIsRate);
}

void inverse_factor(benchmark::State& state) {
  const i64 n = state.range(0);
  Pool pool(static_cast<int>(state.range(1)));
  const InputStatistics in = inputs(n);
  std::vector<i64> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const std::vector<double> added(static_cast<std::size_t>(n), 0.01);
  for (auto _ : state) {
    InverseFactor factor;
    benchmark::DoNotOptimize(
        InverseFactor::make({in.gram.data(), n, n}, order, added, pool, factor));
  }
  const double m = static_cast<double>(n);
  rate(state, 2 * m * m * m / 3);
}
BENCHMARK(inverse_factor)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{2048, 4096}, {1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void solver(benchmark::State& state, int method) {
  const i64 rows = state.range(0), cols = state.range(1);
  Pool pool(static_cast<int>(state.range(2)));
  const std::vector<float> weights = uniform(rows * cols, 0.1);
  const InputStatistics in = inputs(cols);
  const MatrixTask task{"m",
                        {weights.data(), rows, cols},
                        parse_scheme(method == 3 ? "int4:g128:min" : "int4:g128"),
                        {},
                        &in};
  const Tensor stored = solve_rtn(task, pool).tensor;
  for (auto _ : state) {
    if (method == 0) benchmark::DoNotOptimize(solve_rtn(task, pool).tensor.codes.size());
    if (method == 1) benchmark::DoNotOptimize(solve_gptq(task, {}, pool).tensor.codes.size());
    if (method == 2) benchmark::DoNotOptimize(output_loss(task, stored, pool));
    if (method == 3) benchmark::DoNotOptimize(solve_hqq(task, {}, pool).tensor.codes.size());
  }
  const double m = static_cast<double>(rows), n = static_cast<double>(cols);
  if (method == 1) rate(state, 2 * n * n * n / 3 + m * n * n);
  if (method == 2) rate(state, 2 * m * n * n);
}

const bool registered = [] {
  constexpr const char* names[] = {"rtn", "gptq", "output_loss", "hqq"};
  for (int method = 0; method < 4; method++)
    benchmark::RegisterBenchmark(names[method],
                                 [method](benchmark::State& s) { solver(s, method); })
        ->ArgNames({"rows", "cols", "threads"})
        ->Args({2048, 2048, 1})
        ->Args({2048, 2048, 2})
        ->Args({2048, 8192, 2})
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  return true;
}();

}  // namespace
}  // namespace pare
