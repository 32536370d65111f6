// Measuring the roof (Williams, Waterman, Patterson 2009): read bandwidth far outside the caches,
// and multiply-adds that never leave the registers. The best of the repeats counts: a limit is what
// is reached when nothing disturbs.
#include "kernel/roof.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/log.h"
#include "kernel/isa.h"
#include "kernel/roof_loops.h"

namespace pare {
namespace {

// The compiler may not drop a result that ends here.
void keep(double value) { __asm__ volatile("" : : "x"(value)); }

struct Buffer {
  std::byte* data = nullptr;
  i64 bytes = 0;
  explicit Buffer(i64 size) : bytes(size) {
    data = static_cast<std::byte*>(std::aligned_alloc(2u << 20, static_cast<std::size_t>(size)));
    if (data == nullptr) throw std::bad_alloc();
    madvise(data, static_cast<std::size_t>(size), MADV_HUGEPAGE);
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

std::uint64_t read_scalar(const std::byte* data, i64 bytes) {
  std::uint64_t sum[4] = {}, word = 0;
  for (i64 i = 0; i + 32 <= bytes; i += 32)
    for (int s = 0; s < 4; s++) {
      std::memcpy(&word, data + i + 8 * s, 8);
      sum[s] ^= word;
    }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

std::uint64_t read_bytes(const std::byte* data, i64 bytes, unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return roof_read_avx512(data, bytes);
  if (isa & isa_avx2) return roof_read_avx2(data, bytes);
#endif
  (void)isa;
  return read_scalar(data, bytes);
}

float f32_scalar(std::int64_t rounds) {
  float acc[12];
  for (float& v : acc) v = 1;
  for (std::int64_t i = 0; i < rounds; i++)
    for (float& v : acc) {
      v = v * 0.999f + 1e-3f;
      __asm__ volatile("" : "+x"(v));
    }
  float sum = 0;
  for (float v : acc) sum += v;
  return sum;
}

// Best operations (or bytes) a second over repeats that together take `seconds`.
template <class F>
double best_rate(double seconds, double work, const F& run) {
  double best = 0;
  const double start = now_seconds();
  do {
    const double begin = now_seconds();
    run();
    best = std::max(best, work / (now_seconds() - begin));
  } while (now_seconds() - start < seconds);
  return best;
}

struct Loop {
  const char* code;
  const char* isa;
  unsigned needs;
  double operations;  // a round of one accumulator, multiply-add = 2
  float (*run)(std::int64_t rounds);
};
constexpr Loop loops[] = {
    {"f32", "scalar", isa_scalar, 2, f32_scalar},
#if defined(__x86_64__)
    {"f32", "avx2", isa_avx2, 16, roof_f32_avx2},
    {"int8", "avx2", isa_avx2, 64, roof_int8_avx2},
    {"f32", "avx512", isa_avx512, 32, roof_f32_avx512},
    {"bf16", "avx512", isa_avx512, 64, roof_bf16_avx512},
    {"int8", "avx512", isa_avx512, 128, roof_int8_avx512},
    {"bf16", "amx", isa_amx, 2 * 16 * 16 * 32, roof_bf16_amx},
    {"bf16x3", "amx", isa_amx, 2 * 16 * 16 * 32 / 3.0, roof_bf16_amx},
    {"int8", "amx", isa_amx, 2 * 16 * 16 * 64, roof_int8_amx},
#endif
};

}  // namespace

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line, name = "unknown", family, model;
  while (std::getline(info, line)) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name"))
      name = line.substr(colon + 2);
    else if (line.starts_with("cpu family"))
      family = line.substr(colon + 2);
    else if (line.starts_with("model\t"))
      model = line.substr(colon + 2);
    if (line.starts_with("flags")) break;
  }
  return family.empty() ? name : fmt::format("{} (family {} model {})", name, family, model);
}

i64 last_level_cache_bytes() {
  i64 largest = 0;
  for (int index = 0; index < 8; index++) {
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/size", index));
    i64 size = 0;
    char unit = 0;
    if (file >> size >> unit)
      largest = std::max(largest, size << (unit == 'M' ? 20 : unit == 'K' ? 10 : 0));
  }
  return largest > 0 ? largest : i64{32} << 20;
}

Roof measure_roof(Pool& pool, double seconds) {
  Roof roof;
  roof.processor = processor_name();
  const unsigned isa = isa_here();
  roof.isa = isa_name(isa);
  roof.threads = pool.threads();
  roof.last_level_cache_bytes = last_level_cache_bytes();
  // At least four times the last-level cache, at most 1 GiB: some machines report the cache of a
  // whole package.
  const i64 bytes =
      std::clamp<i64>(4 * roof.last_level_cache_bytes, i64{128} << 20, i64{1} << 30) >> 21 << 21;
  const Buffer buffer(bytes);
  const i64 slice = bytes / pool.threads() >> 12 << 12;
  pool.each(
      [&](int t) { std::memset(buffer.data + t * slice, t + 1, static_cast<std::size_t>(slice)); });
  const double total = static_cast<double>(slice) * pool.threads();
  roof.read_bytes_per_second = best_rate(2 * seconds, total, [&] {
    pool.each(
        [&](int t) { keep(static_cast<double>(read_bytes(buffer.data + t * slice, slice, isa))); });
  });
  roof.read_bytes_per_second_single = best_rate(seconds, static_cast<double>(slice), [&] {
    keep(static_cast<double>(read_bytes(buffer.data, slice, isa)));
  });
  if (pool.threads() == 1)
    roof.read_bytes_per_second = roof.read_bytes_per_second_single =
        std::max(roof.read_bytes_per_second, roof.read_bytes_per_second_single);
  for (const Loop& loop : loops) {
    if ((loop.needs & ~isa) != 0) continue;
    // About a millisecond: short enough that some repeats are not disturbed.
    const std::int64_t rounds = loop.needs == isa_amx ? 10000 : 200000;
    const double work = static_cast<double>(rounds) * roof_chains * loop.operations;
    Roof::Peak peak{loop.code, loop.isa, 0, 0};
    peak.flops_per_second_single = best_rate(seconds, work, [&] { keep(loop.run(rounds)); });
    peak.flops_per_second = best_rate(seconds, work * pool.threads(),
                                      [&] { pool.each([&](int) { keep(loop.run(rounds)); }); });
    roof.peaks.push_back(peak);
  }
  return roof;
}

}  // namespace pare
