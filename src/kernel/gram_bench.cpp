// FLOP a second of the Gram sum and of the updates that solvers make, beside the peak of `pare
// roof`. A symmetric product counts n (n + 1) operations a token.
#include <benchmark/benchmark.h>

#include "base/random.h"
#include "kernel/gram.h"
#include "kernel/outer.h"

namespace pare {
namespace {

template <class T>
std::vector<T> uniform(i64 n) {
  Random random(1);
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& v : x) v = static_cast<T>(random.uniform() - 0.5);
  return x;
}

void rate(benchmark::State& state, double operations) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * operations * 1e-9, benchmark::Counter::kIsRate);
}

void gram_sum(benchmark::State& state) {
  const i64 n = state.range(0), tokens = 512;
  Pool pool(static_cast<int>(state.range(1)));
  const auto x = uniform<float>(tokens * n);
  GramSum sum(n);
  for (auto _ : state) sum.add({x.data(), tokens, n}, pool);
  rate(state, static_cast<double>(n * (n + 1) * tokens));
}
BENCHMARK(gram_sum)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{512, 2048, 4096}, {1, 2}})
    ->UseRealTime();

template <class T>
void outer_product(benchmark::State& state) {
  const i64 n = state.range(0), k = 128;
  Pool pool(static_cast<int>(state.range(1)));
  const auto a = uniform<T>(k * n), b = uniform<T>(k * n);
  std::vector<T> c(static_cast<std::size_t>(n * n));
  for (auto _ : state)
    outer(Outer::subtract, Matrix<T>(c.data(), n, n), Matrix<const T>(a.data(), k, n),
          Matrix<const T>(b.data(), k, n), false, pool);
  rate(state, static_cast<double>(2 * n * n * k));
}
BENCHMARK_TEMPLATE(outer_product, float)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{2048}, {1, 2}})
    ->UseRealTime();
BENCHMARK_TEMPLATE(outer_product, double)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{2048}, {1, 2}})
    ->UseRealTime();

}  // namespace
}  // namespace pare
