// Files as bytes: mapping, reading, writing; every failure is one clear Error.
//
// Errors: IO-001 cannot open, IO-002 not a regular file, IO-003 too large, IO-004 cannot read,
// IO-005 cannot write (Exit::resources, with what was missing), IO-006 the file shrank while in
// use.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/view.h"

namespace pare {

// Maps a regular file read-only; nothing is copied. The Blob keeps the mapping alive.
Blob map_file(const std::filesystem::path&);

// Makes sure that a mapped range can be read: a file that was cut after it was mapped gives IO-006
// here instead of SIGBUS later.
void touch(const Blob& range, std::string_view what);

std::string read_text_file(const std::filesystem::path&, std::size_t limit_bytes);

// Writes and syncs a whole file; replaces what is there.
void write_file(const std::filesystem::path&, std::string_view bytes);

// An open file that is written at offsets. Short writes and EINTR are handled.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path&);  // created or truncated
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write_at(i64 offset, std::span<const std::byte> bytes);
  void reserve(i64 bytes);  // of disk space; IO-005 when the disk is too full
  void sync_and_close();    // a failed sync is an error, never retried

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

void sync_folder(const std::filesystem::path&);

// One plain file name: not empty, no separator, no "." or "..", no control character, at most 255
// bytes.
bool is_plain_name(std::string_view name);

// "E: reason" of errno for messages.
std::string system_reason(int error_number);

}  // namespace pare
