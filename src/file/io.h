// Files as bytes: mapping, reading, writing; every failure is one clear Error.
//
// Errors: IO-001 cannot open, IO-002 not a regular file, IO-003 too large, IO-004 cannot read,
// IO-005 cannot write (Exit::resources, with what was missing), IO-006 the file shrank while in
// use, IO-007 a name leads out of its folder.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/view.h"

namespace pare {

// Maps a regular file read-only; nothing is copied. The Blob keeps the mapping alive.
Blob map_file(const std::filesystem::path&);

// Makes sure that a mapped range can be read: a file that was cut after it was mapped gives IO-006
// here instead of SIGBUS later. Memory that is not a mapped file passes.
void touch(const Blob& range, std::string_view what);

std::string read_text_file(const std::filesystem::path&, std::size_t limit_bytes);

// The same for a name that another file gave, or that stands for one file of a folder from outside:
// symbolic links are followed, but the file must lie below the folder - or, for a snapshot of the
// Hugging Face cache (models--org--name/snapshots/revision), below its models--org--name, because
// every file there is a link into blobs/. Hard links cannot be told from files. Errors: IO-007 too.
Blob map_file_in(const std::filesystem::path& folder, const std::string& name);
std::string read_text_file_in(const std::filesystem::path& folder, const std::string& name,
                              std::size_t limit_bytes);

// The folder below which the files of `folder` may lie, by the rule above; links resolved.
std::filesystem::path containing_root(const std::filesystem::path& folder);

// Names of what lies in a folder, sorted; none of one that cannot be read.
std::vector<std::string> names_in(const std::filesystem::path& folder);

// True for `path` itself and all that lies below `root`; both without links (fs::canonical).
bool is_below(const std::filesystem::path& path, const std::filesystem::path& root);

// Copies one file of a folder (map_file_in's rule) to a new path and syncs it; memory stays
// constant.
void copy_file_from(const std::filesystem::path& folder, const std::string& name,
                    const std::filesystem::path& to);

// Writes and syncs a whole file. What was there is unlinked first, so a mapping of the old file
// keeps its bytes.
void write_file(const std::filesystem::path&, std::string_view bytes);

// A new file that is written at offsets. Short writes and EINTR are handled.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path&);  // what was there is unlinked first
  OutputFile(OutputFile&&) noexcept;
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  OutputFile& operator=(OutputFile&&) = delete;
  void write_at(i64 offset, std::span<const std::byte> bytes);
  void reserve(i64 bytes);  // of disk space; IO-005 when the disk is too full
  void sync_and_close();    // a failed sync is an error, never retried

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

void sync_folder(const std::filesystem::path&);

// Bytes that an ordinary user may still write to the disk of a path; -1 when that is unknown.
i64 free_bytes(const std::filesystem::path&);

// One plain file name: not empty, no separator, no "." or "..", valid UTF-8 without control
// characters, at most 255 bytes.
bool is_plain_name(std::string_view name);

// Valid UTF-8 without control characters.
bool is_clean_text(std::string_view text);

// "ENOENT: No such file or directory" of errno for messages.
std::string system_reason(int error_number);

}  // namespace pare
