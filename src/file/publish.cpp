// The protocol: lock, write beside, sync files and folder, rename, sync the parent.
//
// The lock is an open-file-description lock on `<target>.lock`, which the kernel drops with its
// holder, so a killed run leaves nothing that blocks the next one; its temporary folder is
// recognized by the dead process number and removed.
#include "file/publish.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

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

bool inside(fs::path inner, const fs::path& outer) {
  std::error_code status;
  inner = fs::absolute(inner, status).lexically_normal();
  for (; inner.has_relative_path(); inner = inner.parent_path())
    if (same_place(inner, outer)) return true;
  return false;
}

fs::path parent_of(const fs::path& target) {
  return target.has_parent_path() ? target.parent_path() : fs::path(".");
}

// Temporaries of runs that are gone.
void clean(const fs::path& target) {
  std::error_code status;
  const std::string prefix = target.filename().string() + ".tmp-";
  for (const auto& entry : fs::directory_iterator(parent_of(target), status)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    int pid = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), end, pid);
    if (parsed.ec == std::errc() && parsed.ptr == end && pid > 0 && kill(pid, 0) != 0 &&
        errno == ESRCH)
      fs::remove_all(entry.path(), status);
  }
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const int file = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    const bool good = file >= 0 && fsync(file) == 0;
    const int error = errno;
    if (file >= 0) close(file);
    if (!good)
      fail(Exit::resources, "IO-005", "cannot sync a file",
           {{"file", entry.path().string()}, {"found", system_reason(error)}});
  }
  sync_folder(folder);
}

}  // namespace

Publisher::Publisher(const fs::path& target, bool force, Kind kind, const fs::path& source,
                     i64 need_bytes)
    : target_(target), kind_(kind), force_(force) {
  if (!target_.has_filename() && target_.has_parent_path())
    target_ = target_.parent_path();  // "out/"
  std::error_code status;
  const std::string name = target_.filename().string();
  if (!is_plain_name(name) || name.size() > 200)
    fail(Exit::usage, "PB-003", "the output's name cannot be used",
         {{"found", pare::quoted(target.string())}});
  const fs::path parent = parent_of(target_);
  if (!fs::is_directory(parent, status))
    fail(Exit::usage, "PB-003", "the output's folder does not exist", {{"folder", parent.string()}},
         "make it first");
  const bool exists = fs::exists(fs::symlink_status(target_, status));
  if (!source.empty() &&
      (inside(source, target_) || inside(parent, source) || same_place(source, target_)))
    fail(Exit::usage, "PB-002", "the output is the input itself, or one lies inside the other",
         {{"output", target_.string()}, {"input", source.string()}}, "choose another name");
  if (exists && !force)
    fail(Exit::usage, "PB-001", "the output exists already", {{"output", target_.string()}},
         "choose another name, or replace it with --force");
  if (access(parent.c_str(), W_OK | X_OK) != 0)
    fail(Exit::resources, "PB-003", "the output's folder cannot be written to",
         {{"folder", parent.string()}, {"found", system_reason(errno)}});
  struct statvfs disk = {};
  if (need_bytes > 0 && statvfs(parent.c_str(), &disk) == 0) {
    const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    if (free < static_cast<double>(need_bytes))
      fail(Exit::resources, "PB-006", "the disk is too full for the output",
           {{"folder", parent.string()},
            {"found", fmt::format("{:.0f} bytes free", free)},
            {"need", fmt::format("{} bytes", need_bytes)}});
  }
  lock_path_ = parent / ("." + name + ".lock");
  lock_ = open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  struct flock region = {};
  region.l_type = F_WRLCK;
  if (lock_ < 0 || fcntl(lock_, F_OFD_SETLK, &region) != 0) {
    const bool held = lock_ >= 0 && (errno == EAGAIN || errno == EACCES);
    if (lock_ >= 0) close(lock_);
    lock_ = -1;
    if (held) {
      std::string holder = "another process";
      try {
        holder = "process " + read_text_file(lock_path_, 64);
      } catch (const Error&) {
      }
      fail(Exit::busy, "PB-004", "another run is writing this output",
           {{"output", target_.string()}, {"found", holder}});
    }
    fail(Exit::resources, "PB-003", "cannot lock the output",
         {{"file", lock_path_.string()}, {"found", system_reason(errno)}});
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(lock_, 0) != 0 || pwrite(lock_, pid.data(), pid.size(), 0) < 0) {
    // The lock holds without the number in it; only another run's message is poorer.
  }
  clean(target_);
  temporary_ = parent / (name + ".tmp-" + pid);
  fs::remove_all(temporary_, status);
  if (kind_ == Kind::folder && !fs::create_directory(temporary_, status))
    fail(Exit::resources, "PB-003", "cannot make a temporary folder",
         {{"folder", temporary_.string()}, {"found", status.message()}});
}

Publisher::~Publisher() {
  std::error_code status;
  if (!committed_) fs::remove_all(temporary_, status);
  if (lock_ >= 0) {
    unlink(lock_path_.c_str());
    close(lock_);
  }
}

void Publisher::commit() {
  if (kind_ == Kind::folder) sync_tree(temporary_);
  const fs::path parent = parent_of(target_);
  int result = rename_with(temporary_, target_, rename_no_replace);
  if (result != 0 && errno == EEXIST && force_) {
    result = rename_with(temporary_, target_, rename_exchange);
    if (result == 0) {  // the old output now has the temporary's name
      std::error_code status;
      sync_folder(parent);
      fs::remove_all(temporary_, status);
      committed_ = true;
      return;
    }
  }
  if (result != 0 && (errno == EINVAL || errno == ENOSYS) && !fs::exists(target_))
    result = rename(temporary_.c_str(), target_.c_str());
  if (result != 0)
    fail(Exit::resources, "PB-005", "cannot give the output its name",
         {{"output", target_.string()}, {"found", system_reason(errno)}});
  committed_ = true;
  sync_folder(parent);
}

std::vector<std::string> side_files(const fs::path& folder) {
  static const std::vector<std::string> written = {"config.json",
                                                   "model.safetensors.index.json",
                                                   "quantize_config.json",
                                                   "quant_config.json",
                                                   "hf_quant_config.json",
                                                   "recipe.yaml",
                                                   "pytorch_model.bin.index.json"};
  static const std::vector<std::string> weights = {
      ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"};
  std::vector<std::string> names;
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(folder, status)) {
    const std::string name = entry.path().filename().string(),
                      ext = entry.path().extension().string();
    if (!entry.is_regular_file(status) || name[0] == '.') continue;
    const bool weight =
        std::find(weights.begin(), weights.end(), ext) != weights.end() && name != "tokenizer.bin";
    if (weight || std::find(written.begin(), written.end(), name) != written.end()) continue;
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace pare
