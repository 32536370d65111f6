// The cache's layout: models--org--name/{blobs,refs,snapshots}; files of a snapshot are symbolic
// links into blobs, so links must be followed here. What is never followed is a name from a file:
// shard names are plain (file/safetensors).
#include "file/hub.h"

#include <cstdlib>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

fs::path cache_folder() {
  if (const char* hub = std::getenv("HF_HUB_CACHE"); hub != nullptr && *hub != '\0') return hub;
  if (const char* home = std::getenv("HF_HOME"); home != nullptr && *home != '\0')
    return fs::path(home) / "hub";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != '\0' ? fs::path(home) / ".cache" / "huggingface" / "hub"
                                          : fs::path();
}

bool looks_like_repository(const std::string& text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == text.size() ||
      text.find('/', slash + 1) != std::string::npos)
    return false;
  return text[0] != '.' && text[0] != '~' && text.find('\\') == std::string::npos;
}

std::string neighbour(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code status;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, status))
    names.push_back(entry.path().filename().string());
  const std::string best = nearest(path.filename().string(), names);
  return best.empty() ? best : (path.has_parent_path() ? (folder / best).string() : best);
}

}  // namespace

fs::path resolve_model(const std::string& argument) {
  std::error_code status;
  if (argument.empty()) fail(Exit::usage, "HB-001", "the model's name is empty");
  if (fs::exists(argument, status)) return argument;
  const std::size_t at = argument.find('@');
  const std::string name = argument.substr(0, at);
  const fs::path cache = cache_folder();
  if (!looks_like_repository(name) || cache.empty()) {
    const std::string near = neighbour(argument);
    fail_input("HB-001", "there is no such file or folder", {{"path", argument}},
               near.empty() ? "" : fmt::format("did you mean {}?", near));
  }
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path repository = cache / folder;
  if (!fs::is_directory(repository, status)) {
    const std::string near = neighbour(argument);
    fail_input("HB-002", "there is no such folder, and no such model in the local hub cache",
               {{"path", argument}, {"cache", repository.string()}},
               near.empty() ? "download it first; Pare does not use the network"
                            : fmt::format("did you mean {}?", near));
  }
  std::string revision = at == std::string::npos ? "main" : argument.substr(at + 1);
  if (!is_plain_name(revision))
    fail_input("HB-003", "the revision is not a plain name", {{"found", pare::quoted(revision)}});
  if (const fs::path ref = repository / "refs" / revision; fs::is_regular_file(ref, status)) {
    revision = read_text_file(ref, 4096);
    while (!revision.empty() &&
           (revision.back() == '\n' || revision.back() == ' ' || revision.back() == '\r'))
      revision.pop_back();
  }
  const fs::path snapshot = repository / "snapshots" / revision;
  if (!is_plain_name(revision) || !fs::is_directory(snapshot, status))
    fail_input("HB-003", "the cache does not hold that revision of the model",
               {{"path", snapshot.string()}});
  return snapshot;
}

}  // namespace pare
