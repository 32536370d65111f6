// Hashes of a folder.
//
// Files lie flat in a model folder, so names are plain file names; a manifest that says otherwise
// is damaged, and none of its names is opened. Files are mapped and hashed in pieces, each touched
// before it is read, so that a file cut meanwhile is an error and not a signal.
#include "model/manifest.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr const char* manifest_name = "pare_manifest.json";
constexpr const char* proof_name = "pare_proof.json";  // made later, of the files that are named

std::string hash_file(const fs::path& folder, const std::string& name, i64& bytes) {
  const Blob file = map_file_in(folder, name);
  Sha256 hash;
  constexpr std::size_t piece = std::size_t{1} << 24;
  for (std::size_t at = 0; at < file.size(); at += piece) {
    stop_if_interrupted();
    const Blob part = file.slice(at, std::min(piece, file.size() - at));
    touch(part, name);
    hash.add(part.bytes);
  }
  bytes = static_cast<i64>(file.size());
  return hash.finish();
}

std::set<std::string> files_of(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code status, ignored;
  for (fs::directory_iterator it(folder, status), end; !status && it != end; it.increment(status)) {
    const std::string name = it->path().filename().string();
    if (it->is_regular_file(ignored) && name != manifest_name && name != proof_name)
      names.insert(name);
  }
  if (status)
    fail_input("IO-004", "cannot read a folder",
               {{"folder", folder.string()}, {"found", system_reason(status.value())}});
  return names;
}

struct Entry {
  i64 bytes = 0;
  std::string sha256;
};

std::map<std::string, Entry> read_manifest(const fs::path& folder) {
  const fs::path path = folder / manifest_name;
  const auto demand = [&](bool good, const std::string& what) {
    if (!good)
      fail_input("MO-032", "the manifest of the folder is damaged",
                 {{"file", path.string()}, {"found", what}});
  };
  const Json json = parse_json(read_text_file_in(folder, manifest_name, 64u << 20), path.string());
  const Json* version = json.find("version");
  demand(version != nullptr && *version == Json(1), "another version than 1");
  const Json* files = json.find("files");
  demand(files != nullptr && files->is_object(), "no list of files");
  std::map<std::string, Entry> entries;
  for (const auto& [name, entry] : files->as_object()) {
    demand(is_plain_name(name), "the file name " + pare::quoted(name));
    const Json *bytes = entry.find("bytes"), *hash = entry.find("sha256");
    demand(bytes != nullptr && bytes->is_int() && hash != nullptr && hash->is_string() &&
               hash->as_string().size() == 64,
           "no size or hash of " + pare::quoted(name));
    entries[name] = {bytes->as_int(), hash->as_string()};
  }
  return entries;
}

}  // namespace

void write_manifest(const fs::path& folder) {
  Json files = Json::object();
  for (const std::string& name : files_of(folder)) {
    i64 bytes = 0;
    const std::string hash = hash_file(folder, name, bytes);
    files.set(name, Json::object({{"bytes", Json(bytes)}, {"sha256", Json(hash)}}));
  }
  const Json manifest = Json::object({{"version", Json(1)}, {"files", std::move(files)}});
  write_file(folder / manifest_name, manifest.dump(2) + "\n");
}

std::vector<RecordedFile> recorded_files(const fs::path& folder) {
  std::vector<RecordedFile> files;
  if (!fs::exists(folder / manifest_name)) return files;
  for (const auto& [name, entry] : read_manifest(folder))
    files.push_back({name, entry.sha256, entry.bytes});
  return files;
}

Manifest check_manifest(const fs::path& folder) {
  using State = ManifestFile::State;
  Manifest m;
  m.present = fs::exists(folder / manifest_name);
  if (!m.present) return m;
  const std::map<std::string, Entry> entries = read_manifest(folder);
  const std::set<std::string> there = files_of(folder);
  for (const auto& [name, entry] : entries) {
    ManifestFile file{name, State::same, {}, {}};
    if (!there.contains(name)) {
      file.state = State::missing;
    } else {
      i64 bytes = 0;
      const std::string hash = hash_file(folder, name, bytes);
      m.bytes += bytes;
      if (bytes != entry.bytes)
        file = {name, State::changed, fmt::format("{} bytes", bytes),
                fmt::format("{} bytes", entry.bytes)};
      else if (hash != entry.sha256)
        file = {name, State::changed, hash, entry.sha256};
    }
    m.files.push_back(std::move(file));
  }
  for (const std::string& name : there)
    if (!entries.contains(name)) m.files.push_back({name, State::added, {}, {}});
  return m;
}

}  // namespace pare
