// System calls with their errors.
//
// A mapped file may be cut by another process at any time; reading past the new end raises SIGBUS.
// Linux can be asked beforehand (MADV_POPULATE_READ reports EFAULT), which `touch` does where a
// range is about to be used.
#include "file/io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace pare {
namespace {

struct Descriptor {
  int number = -1;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

int open_regular(const std::filesystem::path& path, i64& bytes) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int number = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (number < 0)
    fail_input("IO-001", "cannot open a file",
               {{"file", path.string()}, {"found", system_reason(errno)}});
  struct stat status = {};
  if (fstat(number, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(number);
    fail_input("IO-002", "not a regular file", {{"file", path.string()}});
  }
  bytes = status.st_size;
  return number;
}

[[noreturn]] void write_failed(const std::filesystem::path& path, int error, i64 missing) {
  std::vector<Fact> facts = {{"file", path.string()}, {"found", system_reason(error)}};
  if (missing > 0) facts.push_back({"need", fmt::format("{} more bytes", missing)});
  fail(Exit::resources, "IO-005", "cannot write a file", std::move(facts),
       error == ENOSPC || error == EFBIG || error == EDQUOT ? "free space or choose another disk"
                                                            : "");
}

}  // namespace

std::string system_reason(int error_number) { return std::strerror(error_number); }

Blob map_file(const std::filesystem::path& path) {
  i64 bytes = 0;
  const Descriptor file{open_regular(path, bytes)};
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

void touch(const Blob& range, std::string_view what) {
  if (range.size() == 0) return;
  const std::uintptr_t page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(range.data()) / page * page;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(range.data()) + range.size();
  if (madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) == 0) return;
  if (errno == EFAULT || errno == EHWPOISON)
    fail_input("IO-006",
               fmt::format("{} cannot be read: the file was cut while it was in use", what), {},
               "copy or download the file again");
}  // other answers (an old kernel, heap memory) mean that nothing can be said

std::string read_text_file(const std::filesystem::path& path, std::size_t limit) {
  i64 bytes = 0;
  const Descriptor file{open_regular(path, bytes)};
  if (static_cast<std::size_t>(bytes) > limit)
    fail_input("IO-003", "a file is too large",
               {{"file", path.string()},
                {"found", fmt::format("{} bytes", bytes)},
                {"need", fmt::format("at most {}", limit)}});
  std::string text(static_cast<std::size_t>(bytes), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = read(file.number, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail_input("IO-004", "cannot read a file",
                 {{"file", path.string()}, {"found", system_reason(errno)}});
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  text.resize(done);
  return text;
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(bytes.data(), bytes.size())));
  file.sync_and_close();
}

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) write_failed(path_, errno, 0);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void OutputFile::reserve(i64 bytes) {
  if (bytes <= 0) return;
  const int error = posix_fallocate(descriptor_, 0, bytes);
  if (error != 0 && error != EOPNOTSUPP && error != EINVAL && error != ENOSYS)
    write_failed(path_, error, bytes);
}

void OutputFile::write_at(i64 offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) write_failed(path_, n < 0 ? errno : ENOSPC, static_cast<i64>(bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
}

void OutputFile::sync_and_close() {
  if (fsync(descriptor_) != 0) write_failed(path_, errno, 0);
  const int number = descriptor_;
  descriptor_ = -1;
  if (close(number) != 0) write_failed(path_, errno, 0);
}

void sync_folder(const std::filesystem::path& path) {
  const Descriptor folder{open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.number < 0 || fsync(folder.number) != 0) write_failed(path, errno, 0);
}

bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  for (unsigned char c : name)
    if (c == '/' || c == '\\' || c < 0x20 || c == 0x7f) return false;
  return true;
}

}  // namespace pare
