// quantization_config of compressed-tensors: which modules are stored how. Internal to the model
// layer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "number/kv_scheme.h"
#include "number/scheme.h"
#include "text/regex.h"

namespace pare {

// A module by exact name, by the class "Linear", or by a pattern matched from the start of its name
// ("re:..."). The patterns come from the file: they run under PCRE2's limits.
struct ModuleTarget {
  std::string text;
  std::optional<Regex> pattern;
  bool by_class() const { return text == "Linear"; }
  bool matches(const std::string& module) const;  // by_class matches every module
};

struct CompressedGroup {
  std::vector<ModuleTarget> targets;
  Scheme scheme;  // the code of its scales comes from the file's tensors
  Activation activation;
  std::string format;  // "pack-quantized"
};

struct CompressedConfig {
  std::vector<CompressedGroup> groups;
  std::vector<ModuleTarget> ignore;
  bool quantizes_cache = false;
  std::optional<KvScheme> kv;

  // Exact names and patterns go before the class; among equals the first group wins. Null: dense.
  const CompressedGroup* group_of(const std::string& module) const;
};

// No groups when config.json has no quantization_config. Errors: MO-010 a pattern that cannot be
// used, MO-011 a method, format or part that cannot be read; NU-031 from the arguments.
CompressedConfig parse_compressed_config(const Json& config);

// A module as it will be written; `format` empty: dense, so on the list of ignored ones.
struct CompressedModule {
  std::string name, format;
  Scheme scheme;
  Activation activation;
};
// kv_cache_scheme says the cache where it can (`says_cache`) and nothing of others.
Json compressed_section(const std::vector<CompressedModule>& modules,
                        const std::optional<KvScheme>& kv);

// Its readers know one code of caches: e4m3, with a scale for all keys and one for all values,
// which are 1 when no tensor gives them. The codes of Pare's e4m3 rows differ by their scale alone.
bool says_cache(const KvScheme&);

}  // namespace pare
