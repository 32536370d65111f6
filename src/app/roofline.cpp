// The remembered roof.
//
// The file is a cache: a damaged or foreign one is measured anew, never an error. It is replaced by
// rename, so two runs at once leave a whole file.
#include "app/roofline.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "file/io.h"
#include "kernel/isa.h"
#include "kernel/linear.h"
#include "probe/rates.h"

namespace pare {
namespace {

constexpr double quick_seconds = 0.05;

struct Remembered {
  std::optional<Roof> roof;
  std::shared_ptr<const EngineRates> rates;
};

// A roof without a peak of its own ISA was measured before Pare multiplied with those units.
bool knows_its_units(const Roof& roof) {
  return std::any_of(roof.peaks.begin(), roof.peaks.end(),
                     [&](const Roof::Peak& p) { return p.isa == roof.isa; });
}

// What the file holds of this processor and ISA.
Remembered remembered() {
  Remembered found;
  const std::string path = roof_file();
  if (path.empty() || !std::filesystem::exists(path)) return found;
  try {
    const Json json = parse_json(read_text_file(path, std::size_t{4} << 20), path);
    Roof roof = parse_roof(json);
    if (roof.processor != processor_name() || roof.isa != isa_name(isa_here()) ||
        !knows_its_units(roof))
      return found;
    found.roof = std::move(roof);
    if (const Json* engine = json.find("engine"))
      found.rates = std::make_shared<EngineRates>(parse_engine_rates(*engine, path));
  } catch (const Error&) {
  }
  return found;
}

void remember(const Roof& roof, const EngineRates* rates, const Log& log) {
  const std::string path = roof_file();
  if (path.empty()) return;
  std::error_code status;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), status);
  const std::string part = fmt::format("{}.{}", path, getpid());
  std::ofstream file(part);
  Json json = roof_json(roof);
  if (rates != nullptr) json.set("engine", to_json(*rates));
  file << json.dump(2) << "\n";
  file.close();
  if (file) std::filesystem::rename(part, path, status);
  if (!file || status) {
    log.warning(fmt::format("the roof could not be kept in {}", path));
    std::filesystem::remove(part, status);
  }
}

// Bytes of memory that this process may use: the machine's, or those of a control group.
double memory_here() {
  const double pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  double bytes = pages * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    double limit = 0;
    if (file >> limit && limit > 0) bytes = std::min(bytes, limit);  // "max" is no number
  }
  return bytes;
}

}  // namespace

std::string roof_file() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/pare/roof.json";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return std::string(home) + "/.cache/pare/roof.json";
}

Json roof_json(const Roof& roof) {
  Json flops = Json::object();
  for (const Roof::Peak& peak : roof.peaks) {
    if (flops.find(peak.code) == nullptr) flops.set(peak.code, Json::object());
    flops.find(peak.code)->set(peak.isa,
                               Json::object({{"all_threads", Json(peak.flops_per_second)},
                                             {"one_thread", Json(peak.flops_per_second_single)}}));
  }
  return Json::object(
      {{"processor", Json(roof.processor)},
       {"isa", Json(roof.isa)},
       {"threads", Json(roof.threads)},
       {"last_level_cache_bytes", Json(roof.last_level_cache_bytes)},
       {"read_bytes_per_second", Json(roof.read_bytes_per_second)},
       {"read_bytes_per_second_one_thread", Json(roof.read_bytes_per_second_single)},
       {"flops_per_second", std::move(flops)}});
}

Roof parse_roof(const Json& json) {
  Roof roof;
  roof.processor = json.at("processor").as_string();
  roof.isa = json.at("isa").as_string();
  roof.threads = static_cast<int>(json.at("threads").as_int());
  roof.last_level_cache_bytes = json.at("last_level_cache_bytes").as_int();
  roof.read_bytes_per_second = json.at("read_bytes_per_second").as_number();
  roof.read_bytes_per_second_single = json.at("read_bytes_per_second_one_thread").as_number();
  for (const Json::Member& code : json.at("flops_per_second").as_object())
    for (const Json::Member& isa : code.second.as_object())
      roof.peaks.push_back({code.first, isa.first, isa.second.at("all_threads").as_number(),
                            isa.second.at("one_thread").as_number()});
  if (!(roof.read_bytes_per_second > 0) || roof.peaks.empty())
    fail_input("RO-001", "the remembered roof is damaged");
  return roof;
}

std::optional<Roof> remembered_roof(int threads) {
  std::optional<Roof> roof = remembered().roof;
  if (roof && threads > 0 && roof->threads != threads) return std::nullopt;
  return roof;
}

Hardware hardware_here(const Roof& roof) {
  Hardware h;
  h.name = roof.processor;
  h.kind = "cpu";
  h.aliases = {"here", "this machine"};
  h.measured = true;
  h.note = fmt::format("measured with {} threads, ISA {}", roof.threads, roof.isa);
  h.memory_bytes = memory_here();
  h.bytes_per_second = roof.read_bytes_per_second;
  h.cache_bytes = static_cast<double>(roof.last_level_cache_bytes);
  for (const Roof::Peak& peak : roof.peaks) {
    double& rate = h.rate[peak.code];
    rate = std::max(rate, peak.flops_per_second);
  }
  h.sources["memory_gb"] = "this machine, or the control group of this process (read)";
  h.sources["bandwidth_gbs"] = "pare roof (measured)";
  for (const auto& [code, rate] : h.rate) h.sources[code] = "pare roof (measured)";
  if (const auto measured = rates_here()) {
    auto rates = std::make_shared<EngineRates>(*measured);
    for (TeamRates& team : rates->teams) {
      if (team.threads == 1) team.bytes_per_second = roof.read_bytes_per_second_single;
      if (team.threads == roof.threads) team.bytes_per_second = roof.read_bytes_per_second;
    }
    h.engine = std::move(rates);
  }
  return h;
}

Roof measure_and_remember(Pool& pool, double seconds, const Log& log) {
  const Roof roof = measure_roof(pool, seconds);
  remember(roof, remembered().rates.get(), log);
  return roof;
}

std::shared_ptr<const EngineRates> rates_here() { return remembered().rates; }

std::shared_ptr<const EngineRates> measure_rates_and_remember(
    Pool& pool, double seconds, int rounds, const std::vector<std::string>& products,
    const Log& log) {
  RateOptions options;
  options.seconds = seconds;
  options.rounds = rounds;
  if (pool.threads() > 1) options.teams.push_back(pool.threads());
  const Remembered before = remembered();
  options.products = products;
  auto rates = std::make_shared<EngineRates>();
  if (!products.empty() && before.rates != nullptr) {
    *rates = *before.rates;
    renew_products(*rates, options, log);
  } else {
    options.products.clear();
    *rates = measure_rates(options, log);
  }
  remember(before.roof ? *before.roof : measure_roof(pool, quick_seconds), rates.get(), log);
  return rates;
}

Roof roof_here(Pool& pool, const Log& log) {
  if (std::optional<Roof> roof = remembered_roof(pool.threads())) return *roof;
  log.info("measuring this machine's limits (`pare roof` does it more carefully)");
  return measure_and_remember(pool, quick_seconds, log);
}

double peak_flops(const Roof& roof, std::string_view code) {
  double best = 0, f32 = 0;
  for (const Roof::Peak& peak : roof.peaks) {
    if (peak.code == code) best = std::max(best, peak.flops_per_second);
    if (peak.code == "f32") f32 = std::max(f32, peak.flops_per_second);
  }
  return best > 0 ? best : f32 > 0 ? f32 : 1;
}

std::string main_code(const Spec& spec) {
  bool terms = false;
  for (const Block& b : spec.blocks) {
    const Linear& q = b.attn.q;
    if (q.activation.per != Activation::Per::none && info(q.activation.code).integer) return "int8";
    terms = terms || in_terms(q.scheme, q.in, isa_here());
  }
  return terms ? "bf16x3" : "f32";
}

Shares shares_of(const SpeedResult& speed, const Roof& roof, const Spec& spec) {
  return {speed.read_bytes_per_second / roof.read_bytes_per_second,
          speed.prefill_flops_per_second / peak_flops(roof, main_code(spec))};
}

}  // namespace pare
