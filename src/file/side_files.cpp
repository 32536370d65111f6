// What travels with a model.
//
// A list of files to copy forgets what it does not know (a processor configuration, a licence), so
// the rule is the other way round: everything goes along but weights, their index, and what the
// saver writes anew. Code (.py) goes along too: it is never run here.
#include <algorithm>
#include <array>

#include "file/io.h"
#include "file/publish.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr std::array written = {"config.json",        "quantize_config.json", "quant_config.json",
                                "quant_log.csv",      "hf_quant_config.json", "recipe.yaml",
                                "pare_manifest.json", "pare_proof.json"};
constexpr std::array weights = {".safetensors", ".bin",       ".pt",   ".pth",   ".ckpt",
                                ".pkl",         ".gguf",      ".ggml", ".h5",    ".msgpack",
                                ".onnx",        ".onnx_data", ".npz",  ".tflite"};

bool is_side_file(const std::string& name) {
  if (name.starts_with(".") || name.ends_with(".index.json")) return false;
  if (std::find(written.begin(), written.end(), name) != written.end()) return false;
  if (name == "tokenizer.bin") return true;  // llama2.c
  return std::none_of(weights.begin(), weights.end(),
                      [&](const char* extension) { return name.ends_with(extension); });
}

}  // namespace

std::vector<std::string> side_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code status, ignored;
  for (fs::directory_iterator it(folder, status), end; !status && it != end; it.increment(status)) {
    const std::string name = it->path().filename().string();
    if (it->is_regular_file(ignored) && is_side_file(name)) names.push_back(name);
  }
  if (status)
    fail_input("IO-004", "cannot read a folder",
               {{"folder", folder.string()}, {"found", system_reason(status.value())}});
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> carry_side_files(const fs::path& from, const fs::path& to) {
  std::vector<std::string> names = side_files(from);
  for (const std::string& name : names) copy_file_from(from, name, to / name);
  return names;
}

}  // namespace pare
