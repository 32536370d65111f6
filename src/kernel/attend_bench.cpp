// Benchmarks of one decode query over a long cache, per way of storing it: what a position costs;
// and of a prompt.
#include <benchmark/benchmark.h>

#include "base/random.h"
#include "kernel/attend.h"

namespace pare {
namespace {

constexpr i64 heads = 32, kv_heads = 8, dim = 64, positions = 8192;  // a block of llama-3.2-1b

struct Rows {
  std::vector<std::byte> data, parameters;
  KvRows view;
  explicit Rows(const KvPart& part) {
    const i64 share = part.positions();
    view.part = part;
    view.width = dim;
    view.row_stride = kv_row_bytes(part, dim);
    view.head_stride = positions * view.row_stride;
    view.parameter_stride = kv_parameter_bytes(part, dim);
    view.parameter_head_stride = positions / share * view.parameter_stride;
    data.resize(static_cast<std::size_t>(kv_heads * view.head_stride));
    parameters.resize(static_cast<std::size_t>(kv_heads * view.parameter_head_stride));
    Random random(1);
    std::vector<float> x(static_cast<std::size_t>(share * dim));
    for (float& v : x) v = static_cast<float>(random.normal());
    for (i64 unit = 0; unit < kv_heads * positions / share; unit++) {
      std::byte* to = data.data() + unit * share * view.row_stride;
      std::byte* scales = parameters.data() + unit * view.parameter_stride;
      if (part.grouping == KvGrouping::channel)
        store_kv_group(part, {x.data(), share, dim}, to, view.row_stride, scales);
      else
        store_kv_row(part, x.data(), dim, to, scales);
    }
    view.data = data.data();
    view.parameters = parameters.data();
  }
};

void decode_query(benchmark::State& state, const char* text) {
  const KvScheme scheme = parse_kv_scheme(text);
  const i64 bytes = kv_heads * (kv_packed_bytes(scheme.keys, dim, positions) +
                                kv_packed_bytes(scheme.values, dim, positions));
  // Enough blocks that none stays in the last-level cache.
  std::vector<std::pair<Rows, Rows>> blocks;
  for (i64 sum = 0; sum < (i64{192} << 20); sum += bytes)
    blocks.emplace_back(Rows(scheme.keys), Rows(scheme.values));
  std::vector<float> q(heads * dim, 0.1f), out(heads * dim);
  AttendCall call;
  call.q = {q.data(), 1, heads * dim};
  call.out = {out.data(), 1, heads * dim};
  call.heads = heads, call.kv_heads = kv_heads, call.qk_dim = call.v_dim = dim;
  call.first_position = positions;
  call.segments.resize(1);
  call.segments[0].count = positions;
  std::size_t next = 0;
  for (auto _ : state) {
    const auto& [k, v] = blocks[next++ % blocks.size()];
    call.segments[0].k = k.view;
    call.segments[0].v = v.view;
    attend(call, 0, attend_items(call), isa_here());
    benchmark::DoNotOptimize(out.data());
  }
  const double count = static_cast<double>(state.iterations());
  state.counters["GB/s"] =
      benchmark::Counter(count * 1e-9 * static_cast<double>(bytes), benchmark::Counter::kIsRate);
  state.counters["MB"] = static_cast<double>(bytes) * 1e-6;
}

// Each query sees those before it, so half of the products are made.
void prompt(benchmark::State& state) {
  const i64 tokens = state.range(0);
  const KvScheme scheme = parse_kv_scheme("f16");
  const Rows k(scheme.keys), v(scheme.values);
  std::vector<float> q(static_cast<std::size_t>(tokens * heads * dim), 0.1f), out(q.size());
  AttendCall call;
  call.q = {q.data(), tokens, heads * dim};
  call.out = {out.data(), tokens, heads * dim};
  call.heads = heads, call.kv_heads = kv_heads, call.qk_dim = call.v_dim = dim;
  call.segments.resize(1);
  call.segments[0].count = tokens;
  call.segments[0].k = k.view;
  call.segments[0].v = v.view;
  for (auto _ : state) {
    attend(call, 0, attend_items(call), isa_here());
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 2e-9 *
                             static_cast<double>(tokens * (tokens + 1) * heads * dim),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(prompt)->Arg(64)->Arg(512)->Arg(2048)->Unit(benchmark::kMillisecond);

const bool registered = [] {
  for (const char* text :
       {"f32", "f16", "bf16", "int8", "e4m3", "int8:k=channel", "int4", "int4:asym",
        "int4:g32:asym", "int4:asym:k=channel", "int2:g32:asym:k=channel"})
    benchmark::RegisterBenchmark((std::string("attend/") + text).c_str(), [text](
                                                                              benchmark::State& s) {
      decode_query(s, text);
    })->Unit(benchmark::kMillisecond);
  return true;
}();

}  // namespace
}  // namespace pare
