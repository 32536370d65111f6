// Publishing a model folder, whatever the form of its tensors. Internal to the model layer.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "file/safetensors.h"
#include "model/model.h"
#include "model/outputs.h"
#include "number/raw_plane.h"

namespace pare {

// config.json as the family writes it, with Pare's notes; none when the family cannot say the Spec
// (`why`, if given, receives the reason).
std::optional<Json> family_config(const Model&, const Family&, std::string* why = nullptr);

// "float32", "float16" or "bfloat16": what config.json says of the dense tensors.
std::string config_dtype(const Json& config);

// Modules that other programs know as a Linear of their own when the head is tied.
std::vector<std::string> tied_head_names(const Model&, const Family&);

struct FolderJob {
  std::string form;  // "dense", "gptq", ...
  std::vector<TensorPlan> plan;
  Json config;
  std::vector<std::pair<std::string, std::string>> files;  // name, text: beside config.json
  std::size_t steps = 0;                                   // of `write`
  std::function<void(ShardedWriter&, Progress&)> write;
  std::function<void(const std::filesystem::path&)> verify;  // before the folder gets its name
};
SaveReport publish_folder(const Model&, const FolderJob&, const std::filesystem::path& target,
                          bool force, const Log&);

// compressed-tensors or nothing: Error MO-030 names the first tensor that has no place there.
SaveReport save_compressed(const Model&, const std::filesystem::path& target, bool force,
                           const Log&);

// Error MO-030. `format` as --format names it; `command` makes the model fit, may be empty.
[[noreturn]] void no_place(const std::string& format, const std::string& tensor, const Misfit&);

}  // namespace pare
