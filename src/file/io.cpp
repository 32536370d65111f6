// System calls with their errors.
//
// Two things are less obvious than they look. A mapped file may be cut by another process at any
// time; reading past the new end raises SIGBUS, which no C++ code can catch in a sound way. Linux
// can be asked beforehand (MADV_POPULATE_READ answers EFAULT; before Linux 5.14, process_vm_readv
// on the own process does), which `touch` does where a range is about to be used. And names that
// come from a file must not lead out of the model's folder: the path is resolved first, compared
// with the allowed root, and then opened below that root with no link allowed at all, so nothing
// that happens in between can redirect it.
#include "file/io.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace pare {
namespace {

namespace fs = std::filesystem;

struct Descriptor {
  int number = -1;
  explicit Descriptor(int n) : number(n) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

[[noreturn]] void open_failed(const fs::path& path, int error) {
  const bool ours = error == EMFILE || error == ENFILE || error == ENOMEM;
  fail(ours ? Exit::resources : Exit::input, "IO-001", "cannot open a file",
       {{"file", path.string()}, {"found", system_reason(error)}});
}

// Size of an open file that must be a regular one.
i64 regular_size(int number, const fs::path& path) {
  struct stat status = {};
  if (fstat(number, &status) != 0 || !S_ISREG(status.st_mode))
    fail_input("IO-002", "not a regular file", {{"file", path.string()}});
  return status.st_size;
}

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int read_flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

int open_plain(const fs::path& path) {
  const int number = open(path.c_str(), read_flags);
  if (number < 0) open_failed(path, errno);
  return number;
}

// Opens root/relative without following any link; -1 and errno on failure.
int open_without_links(const fs::path& root, const fs::path& relative) {
  const Descriptor folder(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (folder.number < 0) return -1;
  struct open_how how = {};
  how.flags = read_flags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long number = syscall(SYS_openat2, folder.number, relative.c_str(), &how, sizeof how);
  // Before Linux 5.6, or under a filter of system calls: only the last component is protected.
  if (number < 0 && (errno == ENOSYS || errno == EPERM))
    return openat(folder.number, relative.c_str(), read_flags | O_NOFOLLOW);
  return static_cast<int>(number);
}

int open_contained(const fs::path& folder, const std::string& name) {
  const fs::path path = folder / name;
  if (!is_plain_name(name))
    fail_input("IO-007", "not a plain file name",
               {{"folder", folder.string()}, {"found", pare::quoted(name)}});
  std::error_code status;
  const fs::path real = fs::canonical(path, status);
  if (status) open_failed(path, status.value());
  const fs::path root = containing_root(folder);
  if (!is_below(real, root))
    fail_input("IO-007", "a symbolic link leads out of the model's folder",
               {{"file", path.string()}, {"found", real.string()}, {"need", root.string()}},
               "copy the file into the folder, or give the folder that it lies in");
  const int number = open_without_links(root, real.lexically_relative(root));
  if (number < 0) open_failed(path, errno);
  return number;
}

[[noreturn]] void write_failed(const fs::path& path, int error, i64 to_write) {
  std::string found = system_reason(error), hint;
  std::vector<Fact> facts = {{"file", path.string()}};
  i64 missing = to_write;
  if (error == ENOSPC || error == EDQUOT) {
    const i64 left = free_bytes(path);
    if (left >= 0) found += fmt::format("; {} bytes are free", left);
    if (left > 0 && left < to_write) missing = to_write - left;
    hint = "free space or choose another disk";
  } else if (error == EFBIG) {
    hint = "raise the limit of file sizes (ulimit -f), or choose another file system";
  }
  facts.push_back({"found", std::move(found)});
  if (missing > 0) facts.push_back({"need", fmt::format("{} more bytes", missing)});
  fail(Exit::resources, "IO-005", "cannot write a file", std::move(facts), std::move(hint));
}

Blob map_open(const Descriptor& file, const fs::path& path) {
  const i64 bytes = regular_size(file.number, path);
  if (bytes == 0) return {};
  const std::size_t size = static_cast<std::size_t>(bytes);
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.number, 0);
  if (address == MAP_FAILED)
    fail(Exit::resources, "IO-004", "cannot map a file",
         {{"file", path.string()}, {"found", system_reason(errno)}});
  std::shared_ptr<const void> owner(address,
                                    [size](const void* p) { munmap(const_cast<void*>(p), size); });
  return {std::move(owner), {static_cast<const std::byte*>(address), size}};
}

// Reads until the buffer is full or the file ends; how many bytes were read.
std::size_t read_some(int number, const fs::path& path, char* buffer, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = read(number, buffer + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail_input("IO-004", "cannot read a file",
                 {{"file", path.string()}, {"found", system_reason(errno)}});
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::string read_open(const Descriptor& file, const fs::path& path, std::size_t limit) {
  const i64 bytes = regular_size(file.number, path);
  if (static_cast<std::size_t>(bytes) > limit)
    fail_input("IO-003", "a file is too large",
               {{"file", path.string()},
                {"found", fmt::format("{} bytes", bytes)},
                {"need", fmt::format("at most {}", limit)}});
  std::string text(static_cast<std::size_t>(bytes), '\0');
  text.resize(read_some(file.number, path, text.data(), text.size()));
  return text;
}

// True when one byte of every page of the range can be read. One call of process_vm_readv takes
// 1024 (IOV_MAX) addresses.
bool readable(std::uintptr_t begin, std::uintptr_t end, std::uintptr_t page) {
  constexpr std::size_t most = 1024;
  char sink[most];
  iovec from[most];
  for (std::uintptr_t at = begin; at < end;) {
    std::size_t n = 0;
    for (; n < most && at < end; at += page) from[n++] = {reinterpret_cast<void*>(at), 1};
    const iovec to = {sink, n};
    const ssize_t got = process_vm_readv(getpid(), &to, 1, from, n, 0);
    if (got < 0) return errno != EFAULT;  // not permitted: nothing can be said
    if (static_cast<std::size_t>(got) != n) return false;
  }
  return true;
}

}  // namespace

std::string system_reason(int error_number) {
  const char *name = strerrorname_np(error_number), *text = strerrordesc_np(error_number);
  if (name == nullptr || text == nullptr) return fmt::format("error {}", error_number);
  return fmt::format("{}: {}", name, text);
}

Blob map_file(const fs::path& path) { return map_open(Descriptor(open_plain(path)), path); }

Blob map_file_in(const fs::path& folder, const std::string& name) {
  return map_open(Descriptor(open_contained(folder, name)), folder / name);
}

void touch(const Blob& range, std::string_view what) {
  if (range.size() == 0) return;
  const std::uintptr_t page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(range.data()) / page * page;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(range.data()) + range.size();
  bool good = true;
  if (madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) != 0) {
    if (errno == EFAULT || errno == EHWPOISON)
      good = false;
    else if (errno == EINVAL)  // an old kernel
      good = readable(begin, end, page);
  }
  if (!good)
    fail_input("IO-006",
               fmt::format("{} cannot be read: the file was cut while it was in use", what), {},
               "copy or download the file again");
}

std::string read_text_file(const fs::path& path, std::size_t limit) {
  return read_open(Descriptor(open_plain(path)), path, limit);
}

std::string read_text_file_in(const fs::path& folder, const std::string& name, std::size_t limit) {
  return read_open(Descriptor(open_contained(folder, name)), folder / name, limit);
}

fs::path containing_root(const fs::path& folder) {
  std::error_code status;
  const fs::path real = fs::canonical(folder, status);
  if (status) open_failed(folder, status.value());
  const fs::path snapshots = real.parent_path(), model = snapshots.parent_path();
  const bool hub =
      snapshots.filename() == "snapshots" && model.filename().string().starts_with("models--");
  return hub ? model : real;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code status;
  for (fs::directory_iterator it(folder, status), end; !status && it != end; it.increment(status))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool is_below(const fs::path& path, const fs::path& root) {
  const auto [at, unused] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return at == root.end();
}

void copy_file_from(const fs::path& folder, const std::string& name, const fs::path& to) {
  const Descriptor from(open_contained(folder, name));
  regular_size(from.number, folder / name);
  OutputFile out(to);
  std::string buffer(std::size_t{1} << 18, '\0');
  for (i64 at = 0;;) {
    const std::size_t n = read_some(from.number, folder / name, buffer.data(), buffer.size());
    out.write_at(at, std::as_bytes(std::span(buffer.data(), n)));
    at += static_cast<i64>(n);
    if (n < buffer.size()) break;
  }
  out.sync_and_close();
}

void write_file(const fs::path& path, std::string_view bytes) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(bytes.data(), bytes.size())));
  file.sync_and_close();
}

OutputFile::OutputFile(const fs::path& path) : path_(path) {
  struct stat status = {};
  const bool exists = lstat(path.c_str(), &status) == 0;
  // A device is written to; a file or a link is never opened but replaced.
  const bool device = exists && (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode));
  if (exists && (S_ISREG(status.st_mode) || S_ISLNK(status.st_mode))) unlink(path.c_str());
  descriptor_ =
      open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | (device ? 0 : O_CREAT | O_EXCL), 0666);
  if (descriptor_ < 0) write_failed(path_, errno, 0);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void OutputFile::reserve(i64 bytes) {
  if (bytes <= 0) return;
  // Not posix_fallocate: where the file system cannot reserve, glibc would write every block twice.
  while (fallocate(descriptor_, 0, 0, bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT) write_failed(path_, errno, bytes);
    return;
  }
}

void OutputFile::write_at(i64 offset, std::span<const std::byte> bytes) {
  // Linux writes at most 2^31 - 4096 bytes a call; the rest comes back as a short write.
  while (!bytes.empty()) {
    const ssize_t n = pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) write_failed(path_, n < 0 ? errno : ENOSPC, static_cast<i64>(bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
}

void OutputFile::sync_and_close() {
  // EINVAL: a device has nothing to sync.
  if (fsync(descriptor_) != 0 && errno != EINVAL) write_failed(path_, errno, 0);
  if (close(std::exchange(descriptor_, -1)) != 0) write_failed(path_, errno, 0);
}

void sync_folder(const fs::path& path) {
  const Descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // EINVAL: some network file systems cannot sync folders.
  if (folder.number < 0 || (fsync(folder.number) != 0 && errno != EINVAL))
    write_failed(path, errno, 0);
}

i64 free_bytes(const fs::path& path) {
  struct statvfs disk = {};
  if (statvfs(path.c_str(), &disk) != 0) return -1;
  std::uint64_t bytes = 0;
  if (!mul_ok(disk.f_bavail, disk.f_frsize, bytes) ||
      bytes > static_cast<std::uint64_t>(std::numeric_limits<i64>::max()))
    return std::numeric_limits<i64>::max();
  return static_cast<i64>(bytes);
}

bool is_clean_text(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    const unsigned lead = byte(0);
    if (lead < 0x20 || lead == 0x7f) return false;
    if (lead < 0x80) {
      i++;
      continue;
    }
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4) return false;
    for (std::size_t k = 1; k < length; k++)
      if ((byte(k) & 0xc0) != 0x80) return false;
    // Overlong forms, surrogates, beyond U+10FFFF (Unicode table 3-7), and the controls U+0080..9F.
    const unsigned next = byte(1);
    if ((lead == 0xe0 && next < 0xa0) || (lead == 0xed && next > 0x9f) ||
        (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next > 0x8f) ||
        (lead == 0xc2 && next < 0xa0))
      return false;
    i += length;
  }
  return true;
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of("/\\") == std::string_view::npos && is_clean_text(name);
}

}  // namespace pare
