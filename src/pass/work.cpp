// The journal protocol: write the piece's files, sync them and the folder, write journal.json
// beside the old one, sync, rename over it, sync the folder. At every moment the journal names only
// files that are whole; a kill leaves at most files that it does not name.
#include "pass/work.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr const char* journal_name = "journal.json";
constexpr const char* part_key = "part";
constexpr const char* lock_name = "lock";

// The files that a piece names, as they lie in the folder.
std::vector<std::string> files_of(const Json& piece) {
  std::vector<std::string> names;
  if (const Json* files = piece.find("files"))
    for (const Json& name : files->as_array()) names.push_back(name.as_string());
  return names;
}

int take_lock(const fs::path& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0)
    fail(Exit::resources, "IO-005", "cannot write a file",
         {{"file", path.string()}, {"reason", system_reason(errno)}});
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(file, F_OFD_SETLK, &lock) != 0) {
    close(file);
    fail(Exit::busy, "WK-003", "another run works on this output", {{"file", path.string()}},
         "wait for it, or choose another output");
  }
  return file;
}

[[noreturn]] void damaged(const fs::path& path, const std::string& found) {
  fail_input("WK-002", "the journal of unfinished work is damaged",
             {{"file", path.string()}, {"found", found}}, "start again with --restart");
}

// Its names are opened and removed, so they may not lead out of the folder.
Json read_journal(const fs::path& path) {
  try {
    const Json journal = parse_json(read_text_file(path, std::size_t{1} << 28), path.string());
    for (const Json& line : journal.at("signature").as_array()) line.as_string();
    for (const Json& piece : journal.at("pieces").as_array()) {
      piece.at(part_key).as_string();
      for (const std::string& name : files_of(piece))
        if (!is_plain_name(name)) damaged(path, "the file name " + pare::quoted(name));
    }
    return journal;
  } catch (const Error& e) {
    if (e.code == "WK-002") throw;
    damaged(path, e.message);
  }
}

}  // namespace

WorkFolder::WorkFolder(const fs::path& output, const std::vector<std::string>& signature,
                       bool restart)
    : signature_(signature) {
  fs::path name = output;
  if (!name.has_filename()) name = name.parent_path();  // "out/"
  folder_ = name.string() + ".pare-work";
  std::error_code status;
  fs::create_directory(folder_, status);
  if (!fs::is_directory(folder_))
    fail(Exit::resources, "IO-005", "cannot make a folder for unfinished work",
         {{"folder", folder_.string()}, {"reason", status.message()}});
  lock_.file = take_lock(folder_ / lock_name);
  const fs::path journal = folder_ / journal_name;
  if (!restart && fs::exists(journal)) {
    const Json content = read_journal(journal);
    const Json::Array& lines = content.at("signature").as_array();
    std::vector<std::string> found;
    for (const Json& line : lines) found.push_back(line.as_string());
    if (found != signature_) {
      std::size_t i = 0;
      while (i < found.size() && i < signature_.size() && found[i] == signature_[i]) i++;
      fail(Exit::usage, "WK-001", "unfinished work of another run is in the way",
           {{"folder", folder_.string()},
            {"found", i < found.size() ? found[i] : "nothing"},
            {"now", i < signature_.size() ? signature_[i] : "nothing"}},
           "repeat that run's command to finish it, or give --restart to drop its work");
    }
    pieces_ = content.at("pieces").as_array();
  }
  std::set<std::string> named = {lock_name, journal_name};
  for (const Json& piece : pieces_)
    for (const std::string& file : files_of(piece)) named.insert(file);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_))
    if (!named.contains(entry.path().filename().string())) fs::remove_all(entry.path(), status);
  for (const std::string& file : named)
    if (!pieces_.empty() && !fs::exists(folder_ / file))
      fail_input("WK-002", "a file of unfinished work is missing",
                 {{"file", (folder_ / file).string()}}, "start again with --restart");
  if (pieces_.empty()) write_journal();
}

WorkFolder::~WorkFolder() {
  // Nothing was committed: nothing is worth keeping.
  std::error_code ignored;
  if (lock_.file >= 0 && pieces_.empty()) fs::remove_all(folder_, ignored);
}

void WorkFolder::Lock::release() {
  if (file >= 0) close(file);
  file = -1;
}

void WorkFolder::write_journal() {
  Json::Array lines, pieces(pieces_.begin(), pieces_.end());
  for (const std::string& line : signature_) lines.emplace_back(line);
  const Json journal =
      Json::object({{"signature", Json(std::move(lines))}, {"pieces", Json(std::move(pieces))}});
  const fs::path fresh = folder_ / "journal.new";
  write_file(fresh, journal.dump(1) + "\n");
  sync_folder(folder_);
  if (std::rename(fresh.c_str(), (folder_ / journal_name).c_str()) != 0)
    fail(Exit::resources, "IO-005", "cannot rename a file",
         {{"file", fresh.string()}, {"reason", system_reason(errno)}});
  sync_folder(folder_);
}

std::vector<Json> WorkFolder::pieces() const {
  std::vector<Json> list;
  for (const Json& piece : pieces_)
    if (piece.at(part_key).as_string() == part_) list.push_back(piece);
  return list;
}

fs::path WorkFolder::file(const std::string& name) const { return folder_ / full_name(name); }

std::string WorkFolder::full_name(const std::string& name) const {
  return part_.empty() ? name : part_ + "-" + name;
}

void WorkFolder::commit(Json piece, const std::vector<std::string>& unneeded) {
  std::set<std::string> dropped;
  for (const std::string& name : unneeded) dropped.insert(full_name(name));
  for (Json& earlier : pieces_) {
    Json::Array kept;
    for (const std::string& file : files_of(earlier))
      if (!dropped.contains(file)) kept.emplace_back(file);
    earlier.set("files", Json(std::move(kept)));
  }
  Json::Array files;
  for (const std::string& name : files_of(piece)) files.emplace_back(full_name(name));
  piece.set("files", Json(std::move(files)));
  piece.set(part_key, part_);
  pieces_.push_back(std::move(piece));
  write_journal();
  std::error_code ignored;
  for (const std::string& file : dropped) fs::remove(folder_ / file, ignored);
}

void WorkFolder::remove() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
  lock_.release();
}

}  // namespace pare
