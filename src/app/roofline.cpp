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

namespace pare {
namespace {

constexpr double quick_seconds = 0.05;

std::optional<Roof> remembered(Pool& pool) {
  const std::string path = roof_file();
  if (path.empty() || !std::filesystem::exists(path)) return std::nullopt;
  try {
    Roof roof = parse_roof(parse_json(read_text_file(path, std::size_t{1} << 20), path));
    if (roof.processor == processor_name() && roof.threads == pool.threads() &&
        roof.isa == isa_name(isa_here()))
      return roof;
  } catch (const Error&) {
    return std::nullopt;
  }
  return std::nullopt;
}

void remember(const Roof& roof, const Log& log) {
  const std::string path = roof_file();
  if (path.empty()) return;
  std::error_code status;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), status);
  const std::string part = fmt::format("{}.{}", path, getpid());
  std::ofstream file(part);
  file << roof_json(roof).dump(2) << "\n";
  file.close();
  if (file) std::filesystem::rename(part, path, status);
  if (!file || status) {
    log.warning(fmt::format("the roof could not be kept in {}", path));
    std::filesystem::remove(part, status);
  }
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

Roof measure_and_remember(Pool& pool, double seconds, const Log& log) {
  Roof roof = measure_roof(pool, seconds);
  remember(roof, log);
  return roof;
}

Roof roof_here(Pool& pool, const Log& log) {
  if (std::optional<Roof> roof = remembered(pool)) return *roof;
  log.info("measuring this machine's limits (`pare roof` does it more carefully)");
  return measure_and_remember(pool, quick_seconds, log);
}

double peak_flops(const Roof& roof, bool integer_activations) {
  double best = 0;
  for (const Roof::Peak& peak : roof.peaks)
    if (peak.code == (integer_activations ? "int8" : "f32"))
      best = std::max(best, peak.flops_per_second);
  return best > 0 ? best : 1;
}

bool integer_activations(const Spec& spec) {
  return std::any_of(spec.blocks.begin(), spec.blocks.end(), [](const Block& b) {
    return b.attn.q.activation.per != Activation::Per::none &&
           info(b.attn.q.activation.code).integer;
  });
}

Shares shares_of(const SpeedResult& speed, const Roof& roof, const Spec& spec) {
  return {speed.read_bytes_per_second / roof.read_bytes_per_second,
          speed.prefill_flops_per_second / peak_flops(roof, integer_activations(spec))};
}

}  // namespace pare
