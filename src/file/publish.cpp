// The protocol: check, lock, write beside, sync files and folders, rename, sync the parent.
//
// The lock is an open-file-description lock on `.<target>.lock`, which the kernel drops with its
// holder, so a killed run leaves nothing that blocks the next one; its temporary is recognized by
// the dead process number and removed. The lock file itself is removed by its holder; a run that
// locked the removed file notices that the name has another inode and tries again. What --force may
// replace is limited to what a run can have made, so that a slip of the hand costs no home folder.
#include "file/publish.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr unsigned rename_no_replace = 1, rename_exchange = 2;

int rename_with(const fs::path& from, const fs::path& to, unsigned flags) {
  return static_cast<int>(
      syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}

bool same_place(const fs::path& a, const fs::path& b) {
  struct stat x = {}, y = {};
  return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

// True when `inner` or a folder above it is `outer`; links resolved, compared by device and inode.
bool inside(const fs::path& inner, const fs::path& outer) {
  std::error_code status;
  fs::path at = fs::weakly_canonical(inner, status);
  if (status) return false;
  for (; at.has_relative_path(); at = at.parent_path())
    if (same_place(at, outer)) return true;
  return same_place(at, outer);
}

// True when replacing or writing the target would touch the source: one is the other or lies in it,
// or (hub cache, links) the target holds a file of the source.
bool collides(const fs::path& target, const fs::path& parent, const fs::path& source) {
  if (same_place(source, target) || inside(source, target)) return true;
  std::error_code status;
  if (!fs::is_directory(source, status)) return false;
  if (inside(parent, containing_root(source))) return true;
  for (fs::directory_iterator it(source, status), end; !status && it != end; it.increment(status))
    if (inside(it->path(), target)) return true;
  return false;
}

bool holds_model(const fs::path& folder) {
  std::error_code status;
  if (fs::is_empty(folder, status)) return true;
  for (fs::directory_iterator it(folder, status), end; !status && it != end; it.increment(status)) {
    const std::string name = it->path().filename().string();
    if (name == "config.json" || name.ends_with(".safetensors")) return true;
  }
  return false;
}

// What force would replace must be what a run of this kind can have made.
void check_replaceable(const fs::path& target, Publisher::Kind kind) {
  std::error_code status;
  const fs::file_status what = fs::symlink_status(target, status);
  if (fs::is_symlink(what)) return;  // only the link is replaced
  const char* problem = nullptr;
  if (kind == Publisher::Kind::file && !fs::is_regular_file(what))
    problem = "is not a file";
  else if (kind == Publisher::Kind::folder && !fs::is_directory(what))
    problem = "is not a folder";
  else if (kind == Publisher::Kind::folder && !holds_model(target))
    problem = "is a folder that holds no model";
  else if (kind == Publisher::Kind::folder && inside(fs::current_path(status), target))
    problem = "is the current folder, or holds it";
  if (problem != nullptr)
    fail(Exit::usage, "PB-007", fmt::format("the output exists, and it {}", problem),
         {{"output", target.string()}}, "choose another name");
}

// Temporaries of runs that are gone.
std::vector<std::string> clean(const fs::path& target, const fs::path& parent) {
  std::vector<fs::path> stale;
  std::error_code status;
  const std::string prefix = target.filename().string() + ".tmp-";
  for (fs::directory_iterator it(parent, status), end; !status && it != end; it.increment(status)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    int pid = 0;
    const char* end_of_name = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), end_of_name, pid);
    if (parsed.ec != std::errc() || parsed.ptr != end_of_name || pid <= 0) continue;
    if (pid == getpid() || (kill(pid, 0) != 0 && errno == ESRCH)) stale.push_back(it->path());
  }
  std::vector<std::string> names;
  for (const fs::path& path : stale) {
    fs::remove_all(path, status);
    names.push_back(path.filename().string());
  }
  return names;
}

void sync_file(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  const bool good = file >= 0 && fsync(file) == 0;
  const int error = errno;
  if (file >= 0) close(file);
  if (!good)
    fail(Exit::resources, "IO-005", "cannot sync a file",
         {{"file", path.string()}, {"found", system_reason(error)}});
}

void sync_tree(const fs::path& folder) {
  std::error_code status, ignored;
  fs::recursive_directory_iterator it(folder, status), end;
  for (; !status && it != end; it.increment(status)) {
    if (it->is_symlink(ignored)) continue;
    if (it->is_regular_file(ignored)) sync_file(it->path());
    if (it->is_directory(ignored)) sync_folder(it->path());
  }
  if (status)
    fail(Exit::resources, "IO-005", "cannot sync a folder",
         {{"folder", folder.string()}, {"found", system_reason(status.value())}});
  sync_folder(folder);
}

[[noreturn]] void lock_failed(const fs::path& path, int error) {
  fail(Exit::resources, "PB-003", "cannot lock the output",
       {{"file", path.string()}, {"found", system_reason(error)}});
}

[[noreturn]] void held_by_other(const fs::path& target, const fs::path& lock) {
  std::string holder = "another process";
  try {
    if (const std::string text = read_text_file(lock, 64); !text.empty() && is_clean_text(text))
      holder = "process " + text;
  } catch (const Error&) {  // its holder has just removed it
  }
  fail(Exit::busy, "PB-004", "another run is writing this output",
       {{"output", target.string()}, {"found", holder}}, "wait for it, or choose another name");
}

int take_lock(const fs::path& target, const fs::path& path) {
  for (;;) {
    const int lock = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (lock < 0) lock_failed(path, errno);
    struct flock region = {};
    region.l_type = F_WRLCK;
    if (fcntl(lock, F_OFD_SETLK, &region) != 0) {
      const int error = errno;
      close(lock);
      if (error == EAGAIN || error == EACCES) held_by_other(target, path);
      lock_failed(path, error);
    }
    struct stat ours = {}, named = {};
    if (fstat(lock, &ours) == 0 && stat(path.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
      return lock;
    close(lock);  // the previous holder removed the file between open and lock
  }
}

// Who holds the lock, for the message of another run.
void sign_lock(int lock) {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  char since[32] = {};
  std::strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S UTC", &utc);
  const std::string text = fmt::format("{} (since {})", getpid(), since);
  if (ftruncate(lock, 0) != 0 || pwrite(lock, text.data(), text.size(), 0) < 0) {
    // The lock holds without the text in it; only another run's message is poorer.
  }
}

void check_target(const fs::path& target, const fs::path& parent, const fs::path& source,
                  Publisher::Kind kind, bool force) {
  std::error_code status;
  const std::string name = target.filename().string();
  if (!is_plain_name(name) || name.size() > 200)
    fail(Exit::usage, "PB-003", "the output's name cannot be used",
         {{"found", pare::quoted(target.string())},
          {"need", "a name of at most 200 bytes, valid UTF-8"}});
  if (!fs::is_directory(parent, status))
    fail(Exit::usage, "PB-003", "the output's folder does not exist",
         {{"folder", pare::quoted(parent.string())}}, "make it first");
  if (!source.empty() && collides(target, parent, source))
    fail(Exit::usage, "PB-002", "the output is the input itself, or one lies inside the other",
         {{"output", target.string()}, {"input", source.string()}}, "choose another name");
  if (fs::exists(fs::symlink_status(target, status))) {
    if (!force)
      fail(Exit::usage, "PB-001", "the output exists already", {{"output", target.string()}},
           "choose another name, or replace it with --force");
    check_replaceable(target, kind);
  }
  if (access(parent.c_str(), W_OK | X_OK) != 0)
    fail(Exit::resources, "PB-003", "the output's folder cannot be written to",
         {{"folder", parent.string()}, {"found", system_reason(errno)}});
}

void check_space(const fs::path& parent, i64 need_bytes) {
  const i64 left = free_bytes(parent);
  if (left < 0 || left >= need_bytes) return;
  fail(Exit::resources, "PB-006", "the disk is too full for the output",
       {{"folder", parent.string()},
        {"found", fmt::format("{} bytes free", left)},
        {"need", fmt::format("{} bytes, {} more", need_bytes, need_bytes - left)}},
       "free space or choose another disk");
}

// Without renameat2's flags (some network file systems): a link refuses what exists; a folder can
// be renamed onto an empty one only.
int rename_plainly(const fs::path& from, const fs::path& to, Publisher::Kind kind) {
  if (kind == Publisher::Kind::folder) return rename(from.c_str(), to.c_str());
  if (link(from.c_str(), to.c_str()) != 0) return -1;
  return unlink(from.c_str());
}

// Puts `from` in the place of `to`; afterwards `from` is what was there, or nothing.
int replace(const fs::path& from, const fs::path& to, Publisher::Kind kind) {
  if (rename_with(from, to, rename_exchange) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (kind == Publisher::Kind::file) return rename(from.c_str(), to.c_str());
  const fs::path aside = from.string() + "-old";
  if (rename(to.c_str(), aside.c_str()) != 0) return -1;
  if (rename(from.c_str(), to.c_str()) == 0) return rename(aside.c_str(), from.c_str());
  const int error = errno;
  if (rename(aside.c_str(), to.c_str()) != 0)
    fail(Exit::resources, "PB-005", "the old output could not be put back",
         {{"output", to.string()}, {"found", "it is now " + aside.string()}});
  errno = error;
  return -1;
}

}  // namespace

Publisher::Publisher(const fs::path& target, bool force, Kind kind, const fs::path& source,
                     i64 need_bytes)
    : target_(target), kind_(kind), force_(force) {
  while (!target_.has_filename() && target_.has_relative_path())
    target_ = target_.parent_path();  // "out/"
  parent_ = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  check_target(target_, parent_, source, kind, force);
  check_space(parent_, need_bytes);
  const std::string name = target_.filename().string();
  lock_path_ = parent_ / ("." + name + ".lock");
  lock_ = take_lock(target_, lock_path_);
  sign_lock(lock_);
  try {
    check_target(target_, parent_, source, kind, force);  // a run may have ended meanwhile
    removed_ = clean(target_, parent_);
    temporary_ = parent_ / fmt::format("{}.tmp-{}", name, getpid());
    if (kind_ == Kind::folder && mkdir(temporary_.c_str(), 0777) != 0)
      fail(Exit::resources, "PB-003", "cannot make a temporary folder",
           {{"folder", temporary_.string()}, {"found", system_reason(errno)}});
  } catch (...) {
    unlink(lock_path_.c_str());
    close(lock_);
    throw;
  }
}

Publisher::~Publisher() {
  std::error_code status;
  if (!committed_) fs::remove_all(temporary_, status);
  unlink(lock_path_.c_str());  // before the lock goes: after it the file could be another run's
  close(lock_);
}

void Publisher::commit() {
  PARE_CHECK(!committed_);
  if (kind_ == Kind::folder)
    sync_tree(temporary_);
  else
    sync_file(temporary_);
  int result = rename_with(temporary_, target_, rename_no_replace);
  if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
    std::error_code status;
    const bool exists = fs::exists(fs::symlink_status(target_, status));
    if (!exists) result = rename_plainly(temporary_, target_, kind_);
    if (exists) errno = EEXIST;
  }
  bool replaced = false;
  if (result != 0 && errno == EEXIST) {
    if (!force_)
      fail(Exit::usage, "PB-001", "the output has appeared meanwhile",
           {{"output", target_.string()}}, "choose another name, or replace it with --force");
    check_replaceable(target_, kind_);
    result = replace(temporary_, target_, kind_);
    replaced = result == 0;
  }
  if (result != 0)
    fail(Exit::resources, "PB-005", "cannot give the output its name",
         {{"output", target_.string()}, {"found", system_reason(errno)}});
  committed_ = true;
  sync_folder(parent_);
  std::error_code status;
  if (replaced) fs::remove_all(temporary_, status);  // the old output
}

}  // namespace pare
