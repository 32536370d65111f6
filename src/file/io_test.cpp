#include "file/io.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "file/test_support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

TEST(Io, ReadsRegularFilesOnly) {
  TemporaryFolder folder;
  write_text(folder / "f", "hello");
  write_text(folder / "empty", "");
  EXPECT_EQ(map_file(folder / "f").size(), 5u);
  EXPECT_EQ(map_file(folder / "empty").size(), 0u);
  EXPECT_EQ(read_text_file(folder / "f", 5), "hello");
  EXPECT_EQ(code_of([&] { read_text_file(folder / "f", 4); }), "IO-003");
  EXPECT_EQ(code_of([&] { map_file(folder / "absent"); }), "IO-001");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  const int socket_number = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (folder / "socket").c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(socket_number, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  for (const fs::path& path :
       {fs::path("/dev/null"), fs::path("/dev/zero"), folder.path(), folder / "pipe"})
    EXPECT_EQ(code_of([&] { map_file(path); }), "IO-002") << path;
  EXPECT_EQ(code_of([&] { map_file(folder / "socket"); }), "IO-001");
  close(socket_number);
}

TEST(Io, NamesStayBelowTheirFolder) {
  TemporaryFolder root;
  fs::create_directories(root / "m/inner");
  fs::create_directory(root / "outside");
  write_text(root / "m/f", "in");
  write_text(root / "m/inner/g", "in");
  write_text(root / "outside/f", "out");
  fs::create_symlink("f", root / "m/link");
  fs::create_symlink("inner/g", root / "m/deep");
  fs::create_symlink(root / "m/f", root / "m/absolute");
  fs::create_symlink("../outside/f", root / "m/escape");
  fs::create_symlink(root / "outside/f", root / "m/escape-absolute");
  fs::create_directory_symlink("../outside", root / "m/folder");
  fs::create_symlink("folder/f", root / "m/through");
  fs::create_symlink("nowhere", root / "m/dangling");
  fs::create_symlink("loop", root / "m/loop");
  const auto read = [&](const std::string& name) {
    return read_text_file_in(root / "m", name, 100);
  };
  for (const char* name : {"f", "link", "deep", "absolute"}) EXPECT_EQ(read(name), "in") << name;
  const struct {
    const char *name, *code;
  } cases[] = {{"escape", "IO-007"},   {"escape-absolute", "IO-007"},
               {"folder", "IO-007"},   {"through", "IO-007"},
               {"dangling", "IO-001"}, {"loop", "IO-001"},
               {"../m/f", "IO-007"},   {"..", "IO-007"},
               {"", "IO-007"},         {"/etc/passwd", "IO-007"},
               {"inner", "IO-002"},    {"inner/g", "IO-007"},
               {"absent", "IO-001"}};
  for (const auto& c : cases) EXPECT_EQ(code_of([&] { read(c.name); }), c.code) << c.name;
  // A folder that is itself reached by a link is no escape.
  fs::create_directory_symlink(root / "m", root / "alias");
  EXPECT_EQ(read_text_file_in(root / "alias", "link", 100), "in");
  EXPECT_EQ(code_of([&] { read_text_file_in(root / "alias", "escape", 100); }), "IO-007");
}

TEST(Io, PlainNames) {
  for (const char* name : {"a", "model-00001-of-00002.safetensors", "...", "\xc3\xa9", "a b"})
    EXPECT_TRUE(is_plain_name(name)) << name;
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a\\b"),
        std::string("a\0b", 3), std::string("a\nb"), std::string("\x7f"), std::string("\xff"),
        std::string("\xc0\x80"), std::string("\xed\xa0\x80"), std::string("\xc2\x9b"),
        std::string("\xf4\x90\x80\x80"), std::string("\xe2\x82"), std::string(256, 'a')})
    EXPECT_FALSE(is_plain_name(name)) << pare::quoted(name);
  EXPECT_TRUE(is_clean_text("\xe2\x82\xac \xf0\x9f\x99\x82"));
}

TEST(Io, AFileCutWhileMappedIsAnErrorNotASignal) {
  TemporaryFolder folder;
  write_text(folder / "f", std::string(1 << 20, 'x'));
  const Blob blob = map_file(folder / "f");
  touch(blob, "f");
  fs::resize_file(folder / "f", 4096);
  EXPECT_EQ(code_of([&] { touch(blob, "f"); }), "IO-006");
  EXPECT_EQ(code_of([&] { touch(blob.slice(0, 4096), "f"); }), "");
  EXPECT_EQ(code_of([&] { touch(blob_of(std::vector<char>(100000)), "memory"); }), "");
}

TEST(Io, WritingNeverTouchesTheOldFile) {
  TemporaryFolder folder;
  write_file(folder / "f", "old!");
  const Blob mapped = map_file(folder / "f");
  write_file(folder / "f", "new");
  EXPECT_EQ(read_text_file(folder / "f", 9), "new");
  EXPECT_EQ(std::memcmp(mapped.data(), "old!", 4), 0);
  write_text(folder / "victim", "precious");
  fs::create_symlink("victim", folder / "link");
  write_file(folder / "link", "x");
  EXPECT_EQ(read_text_file(folder / "victim", 99), "precious");
  EXPECT_EQ(code_of([&] { write_file(folder.path(), "x"); }), "IO-005");
  EXPECT_EQ(code_of([&] { write_file(folder / "no/such", "x"); }), "IO-005");
}

// Runs f in a child with a limit on file sizes; the exit class and whether "more bytes" was said.
template <class F>
int under_file_limit(rlim_t bytes, const F& f) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {bytes, bytes};
    setrlimit(RLIMIT_FSIZE, &limit);
    int code = 0;
    try {
      f();
    } catch (const Error& e) {
      const bool told = std::string(e.what()).find("more bytes") != std::string::npos;
      code = e.exit == Exit::resources && e.code == "IO-005" && told ? 42 : 2;
    }
    std::_Exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

TEST(Io, AFullDiskIsToldWithTheMissingBytes) {
  TemporaryFolder folder;
  EXPECT_EQ(under_file_limit(1 << 16,
                             [&] {
                               OutputFile file(folder / "f");
                               file.write_at(0, std::vector<std::byte>(1 << 20));
                             }),
            42);
  EXPECT_EQ(under_file_limit(1 << 16,
                             [&] {
                               OutputFile file(folder / "g");
                               file.reserve(1 << 20);
                             }),
            42);
  EXPECT_EQ(under_file_limit(1 << 20, [&] { write_file(folder / "h", std::string(1 << 20, 'x')); }),
            0);
  try {
    OutputFile full("/dev/full");
    full.write_at(0, std::vector<std::byte>(10));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "IO-005");
    EXPECT_NE(std::string(e.what()).find("ENOSPC"), std::string::npos);
  }
}

}  // namespace
}  // namespace pare
