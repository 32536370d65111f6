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

#include <filesystem>
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

  // A run has parts ("step-0"), each with pieces and names of files of its own; at first the one
  // without a name is entered. The name is plain.
  void enter(const std::string& part) { part_ = part; }
  const std::string& part() const { return part_; }

  std::vector<Json> pieces() const;  // of the part, committed, in order
  // Where a piece's file is to be written; `name` is plain.
  std::filesystem::path file(const std::string& name) const;
  // The piece is done: its files (member "files") are written and synced. Files of earlier pieces
  // of the part that are `unneeded` from now on are removed.
  void commit(Json piece, const std::vector<std::string>& unneeded = {});
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
  std::string full_name(const std::string& name) const;
  std::filesystem::path folder_;
  std::vector<std::string> signature_;
  std::string part_;
  std::vector<Json> pieces_;  // of all parts
  Lock lock_;
};

}  // namespace pare
