// The SHA-256 of every file of a model folder, so that damage can be told from intention.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace pare {

// "pare_manifest.json": {"version": 1, "files": {"config.json": {"bytes": 812, "sha256": "..."}}}.
// Names in order, so the same folder gives the same bytes. Written last; not in itself.
void write_manifest(const std::filesystem::path& folder);

struct ManifestFile {
  std::string name;
  enum class State { same, missing, changed, added } state = State::same;
  std::string found, need;  // when changed: size or hash
};
struct Manifest {
  bool present = false;
  i64 bytes = 0;                    // hashed
  std::vector<ManifestFile> files;  // of the manifest, then those it does not name
};

// What the manifest says, without reading the files; empty when there is none. Error MO-032.
struct RecordedFile {
  std::string name, sha256;
  i64 bytes = 0;
};
std::vector<RecordedFile> recorded_files(const std::filesystem::path& folder);

// Reads every file that the manifest names. Error MO-032: the manifest itself is damaged.
Manifest check_manifest(const std::filesystem::path& folder);

}  // namespace pare
