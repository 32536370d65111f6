// Finding a model: a path first, the local hub cache second.
//
// The cache's layout: models--org--name/{blobs,refs,snapshots}; files of a snapshot are symbolic
// links into blobs, so links must be followed there (file/io.h says how far). An argument that is
// neither is nearly always a mistyped path, so the message speaks of paths and shows the nearest
// name that exists.
#include "file/hub.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <vector>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// "~/x" as the cache's own tools read it.
fs::path expanded(const std::string& text) {
  const std::string home = variable("HOME");
  if (home.empty() || (text != "~" && !text.starts_with("~/"))) return text;
  return fs::path(home) / fs::path(text.substr(std::min<std::size_t>(2, text.size())));
}

struct Reference {
  std::string name, revision;  // "org/name", "main"
};

// org/name[@revision] or name[@revision]; nothing when it can only be a path.
std::optional<Reference> parse_reference(const std::string& text) {
  const std::size_t at = text.find('@');
  Reference r{text.substr(0, at), at == std::string::npos ? "main" : text.substr(at + 1)};
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  const auto slashes = std::count(r.name.begin(), r.name.end(), '/');
  const bool good = !r.name.empty() && r.name.size() <= 96 && slashes <= 1 &&
                    std::all_of(r.name.begin(), r.name.end(), allowed) && r.name.front() != '/' &&
                    r.name.front() != '.' && r.name.back() != '/' &&
                    r.name.find("..") == std::string::npos;
  return good ? std::optional(r) : std::nullopt;
}

std::string cache_entry(const std::string& name) {
  std::string entry = "models--" + name;
  if (const std::size_t slash = entry.find('/'); slash != std::string::npos)
    entry.replace(slash, 1, "--");
  return entry;
}

// The nearest thing that exists: beside the path, or in the cache.
std::string suggestion(const std::string& argument, const fs::path& cache) {
  std::error_code status;
  fs::path path = argument;
  if (!path.has_filename() && path.has_parent_path()) path = path.parent_path();
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (fs::is_directory(folder, status)) {
    const std::string near = nearest(path.filename().string(), names_in(folder));
    if (!near.empty())
      return fmt::format("did you mean {}?",
                         path.has_parent_path() ? (folder / near).string() : near);
  }
  std::vector<std::string> cached;
  for (const std::string& name : names_in(cache)) {
    if (!name.starts_with("models--")) continue;
    std::string model = name.substr(8);
    if (const std::size_t dashes = model.find("--"); dashes != std::string::npos)
      model.replace(dashes, 2, "/");
    cached.push_back(std::move(model));
  }
  const std::string near = nearest(argument.substr(0, argument.find('@')), cached);
  if (!near.empty()) return fmt::format("did you mean {}, which is in the hub cache?", near);
  fs::path parent = folder;
  while (!fs::is_directory(parent, status) && parent.has_parent_path() &&
         parent != parent.parent_path())
    parent = parent.parent_path();
  if (parent != folder && fs::is_directory(parent, status))
    return fmt::format("the path exists only up to {}", parent.string());
  return "";
}

// Every component is a plain name ("main", "refs/pr/1", a commit).
bool is_plain_path(const std::string& text) {
  std::size_t begin = 0;
  for (;;) {
    const std::size_t slash = text.find('/', begin);
    if (!is_plain_name(text.substr(begin, slash == std::string::npos ? slash : slash - begin)))
      return false;
    if (slash == std::string::npos) return true;
    begin = slash + 1;
  }
}

fs::path snapshot_of(const fs::path& repository, const Reference& r) {
  std::error_code status;
  if (!is_plain_path(r.revision))
    fail_input("HB-003", "the revision is not a plain name", {{"found", pare::quoted(r.revision)}});
  std::string commit = r.revision;
  const fs::path ref = repository / "refs" / r.revision;
  if (fs::is_regular_file(ref, status)) {
    commit = read_text_file(ref, 4096);
    commit.erase(commit.find_last_not_of(" \t\r\n") + 1);
    if (!is_plain_name(commit))
      fail_input("HB-004", "the cache's reference holds no commit",
                 {{"file", ref.string()}, {"found", pare::quoted(commit)}});
  }
  const fs::path snapshot = repository / "snapshots" / commit;
  if (is_plain_name(commit) && fs::is_directory(snapshot, status)) return snapshot;
  std::vector<std::string> known = names_in(repository / "refs");
  for (std::string& name : names_in(repository / "snapshots")) known.push_back(std::move(name));
  std::string list;
  for (std::size_t i = 0; i < known.size() && i < 8; i++) list += (i > 0 ? ", " : "") + known[i];
  fail_input("HB-003", "the cache does not hold that revision of the model",
             {{"path", snapshot.string()}},
             list.empty() ? "download the model again" : "there are: " + list);
}

}  // namespace

fs::path hub_cache_folder() {
  if (const std::string hub = variable("HF_HUB_CACHE"); !hub.empty()) return expanded(hub);
  if (const std::string home = variable("HF_HOME"); !home.empty()) return expanded(home) / "hub";
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty())
    return expanded(cache) / "huggingface" / "hub";
  const std::string home = variable("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "huggingface" / "hub";
}

fs::path resolve_model(const std::string& argument) {
  if (argument.empty()) fail(Exit::usage, "HB-001", "the model's name is empty");
  if (argument.find('\0') != std::string::npos)
    fail(Exit::usage, "HB-001", "the model's name is no path", {{"found", pare::quoted(argument)}});
  std::error_code status;
  if (fs::exists(argument, status)) return argument;
  if (status == std::errc::permission_denied)
    fail_input("HB-001", "the path cannot be read",
               {{"path", argument}, {"found", system_reason(status.value())}});
  if (fs::is_symlink(fs::symlink_status(argument, status)))
    fail_input("HB-001", "the path is a symbolic link to nothing",
               {{"path", argument}, {"found", fs::read_symlink(argument, status).string()}});
  const std::optional<Reference> r = parse_reference(argument);
  const fs::path cache = hub_cache_folder();
  const std::string near = suggestion(argument, cache);
  if (!r || cache.empty())
    fail_input("HB-001", "there is no such file or folder", {{"path", argument}}, near);
  const fs::path repository = cache / cache_entry(r->name);
  if (fs::is_directory(repository, status)) return snapshot_of(repository, *r);
  if (r->name.find('/') == std::string::npos)
    fail_input("HB-001", "there is no such file or folder", {{"path", argument}}, near);
  fail_input("HB-002", "there is no such folder, and no such model in the local hub cache",
             {{"path", argument}, {"cache", repository.string()}},
             near.empty() ? "download it first; Pare does not use the network" : near);
}

}  // namespace pare
