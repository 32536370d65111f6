// Unfinished work on disk: a folder beside the output to which each finished piece is committed, so
// that a killed run loses at most the piece in hand and the same command goes on from there.
//
// The folder "<output>.pare-work" holds the pieces' files and journal.json, which names them and
// the run they belong to. A piece counts once the journal that names it has been renamed into
// place; its files were synced before. What the journal does not name is left over from a kill and
// is removed.
//
// Errors: WK-001 the folder belongs to another run (other input, recipe, text or version), WK-002
// it is damaged, WK-003 another run works in it (Exit::busy).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace pare {

class WorkFolder {
 public:
  // Opens or makes the folder for the run that `signature` describes, one line an item ("recipe
  // ...", "input ..."). With `restart` what is there is dropped.
  WorkFolder(const std::filesystem::path& output, const std::vector<std::string>& signature,
             bool restart);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const std::vector<Json>& pieces() const { return pieces_; }  // committed, in order
  // Where a piece's file is to be written; `name` is plain.
  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  // The piece is done: its files are written and synced. Files of earlier pieces that `keep` does
  // not name are no longer needed and are removed.
  void commit(Json piece, const std::vector<std::string>& keep);
  // The output is published; nothing here is needed any more.
  void remove();

 private:
  // Held until the end, however the constructor ends.
  struct Lock {
    int file = -1;
    ~Lock() { release(); }
    void release();
  };
  void write_journal();
  std::filesystem::path folder_;
  std::vector<std::string> signature_;
  std::vector<Json> pieces_;
  Lock lock_;
};

// A hash of bytes for comparing what was with what is; not against malice.
std::uint64_t fingerprint(std::span<const std::byte> bytes, std::uint64_t seed = 0);

}  // namespace pare
