// Publishing: an output appears whole under its final name, or not at all.
//
// The work is done in `<target>.tmp-<pid>` beside the target; commit() syncs everything and
// renames. An existing target is refused without `force` and exchanged atomically with it. Errors:
// PB-001 the target exists, PB-002 the target is the input or holds it or lies in it, PB-003 its
// folder is missing or not writable, or its name unusable, PB-004 another run holds it
// (Exit::busy), PB-005 a rename failed, PB-006 the disk is too small, PB-007 what would be replaced
// is not what a run makes (a folder that holds no model, a device).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace pare {

class Publisher {
 public:
  enum class Kind { file, folder };
  // `source`, when given, is the input that must survive: a file, or a folder with all that its
  // links lead to. `need_bytes`: what will be written, for the disk check.
  Publisher(const std::filesystem::path& target, bool force, Kind kind = Kind::file,
            const std::filesystem::path& source = {}, i64 need_bytes = 0);
  ~Publisher();  // removes the temporary when not committed
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  const std::filesystem::path& path() const { return temporary_; }  // where to write
  void commit();

  // Temporaries of runs that died, removed by this one; for a message.
  const std::vector<std::string>& removed() const { return removed_; }

 private:
  std::filesystem::path target_, temporary_, parent_, lock_path_;
  Kind kind_;
  bool force_ = false, committed_ = false;
  int lock_ = -1;
  std::vector<std::string> removed_;
};

// Names of the files of a model folder that are neither weights, nor their index, nor
// configurations that the saver writes itself: tokenizer, generation config, chat template,
// licence, ... Sorted.
std::vector<std::string> side_files(const std::filesystem::path& folder);

// Copies all side files of `from` into the folder `to` (replacing what is there) and syncs them;
// their names. Links are followed by map_file_in's rule (file/io.h).
std::vector<std::string> carry_side_files(const std::filesystem::path& from,
                                          const std::filesystem::path& to);

}  // namespace pare
