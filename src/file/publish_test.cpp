#include "file/publish.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "file/io.h"
#include "file/safetensors.h"
#include "file/test_support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using Kind = Publisher::Kind;

void publish(const fs::path& target, const std::string& text, bool force) {
  Publisher p(target, force, Kind::folder);
  write_text(p.path() / "config.json", text);
  p.commit();
}

TEST(Publisher, AFolderAppearsWholeOrNotAtAll) {
  TemporaryFolder folder;
  const auto target = folder / "out";
  {
    Publisher p(target, false, Kind::folder);
    write_text(p.path() / "x", "1");
    EXPECT_FALSE(fs::exists(target));
  }  // not committed
  EXPECT_TRUE(fs::is_empty(folder.path()));
  publish(target, "1", false);
  EXPECT_EQ(read_text_file(target / "config.json", 9), "1");
  EXPECT_EQ(code_of([&] { publish(target, "2", false); }), "PB-001");
  {
    Publisher p(target, true, Kind::folder);
    fs::create_directories(p.path() / "deep" / "er");
    write_text(p.path() / "deep" / "er" / "y", "2");
    EXPECT_TRUE(fs::exists(target / "config.json"));
    p.commit();
  }
  EXPECT_FALSE(fs::exists(target / "config.json"));
  EXPECT_EQ(read_text_file(target / "deep" / "er" / "y", 9), "2");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"out"});
}

TEST(Publisher, AFileAppearsWholeOrNotAtAll) {
  TemporaryFolder folder;
  const auto target = folder / "out.bin";
  for (const char* text : {"1", "2"}) {
    Publisher p(target, *text == '2');
    write_file(p.path(), text);
    p.commit();
  }
  EXPECT_EQ(read_text_file(target, 9), "2");
  EXPECT_EQ(code_of([&] { Publisher p(target, false); }), "PB-001");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"out.bin"});
}

TEST(Publisher, AnExceptionLeavesTheOldOutput) {
  TemporaryFolder folder;
  publish(folder / "out", "old", false);
  try {
    Publisher p(folder / "out", true, Kind::folder);
    write_text(p.path() / "config.json", "half");
    throw std::runtime_error("as Ctrl-C does");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(read_text_file(folder / "out" / "config.json", 9), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"out"});
}

TEST(Publisher, ATrailingSlashAndARelativeNameWork) {
  TemporaryFolder folder;
  publish((folder / "a").string() + "/", "1", false);
  EXPECT_TRUE(fs::exists(folder / "a" / "config.json"));
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  publish("b", "1", false);
  EXPECT_EQ(code_of([] { publish("./b//", "1", false); }), "PB-001");
  fs::current_path(before);
  EXPECT_TRUE(fs::exists(folder / "b" / "config.json"));
}

TEST(Publisher, RefusesWhatCannotBeATarget) {
  TemporaryFolder folder;
  const auto code = [&](const fs::path& target, bool force = false, Kind kind = Kind::folder) {
    return code_of([&] { Publisher p(target, force, kind); });
  };
  EXPECT_EQ(code(folder / "no" / "such"), "PB-003");
  EXPECT_EQ(code(folder / std::string(201, 'x')), "PB-003");
  EXPECT_EQ(code(folder / "a\xff"), "PB-003");
  EXPECT_EQ(code(folder / "a\nb"), "PB-003");
  EXPECT_EQ(code(folder / ".."), "PB-003");
  EXPECT_EQ(code(""), "PB-003");
  EXPECT_EQ(code("/"), "PB-003");
  write_text(folder / "file", "precious");
  EXPECT_EQ(code(folder / "file" / "x"), "PB-003");
  EXPECT_EQ(code(folder / "file"), "PB-001");
  EXPECT_EQ(code(folder / "file", true), "PB-007");
  fs::create_directory(folder / "home");
  write_text(folder / "home" / "letter.txt", "precious");
  EXPECT_EQ(code(folder / "home", true), "PB-007");
  EXPECT_EQ(code(folder / "home", true, Kind::file), "PB-007");
  EXPECT_EQ(code("/dev/null", true, Kind::file), "PB-007");
  EXPECT_EQ(read_text_file(folder / "home" / "letter.txt", 99), "precious");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"file", "home"}));
}

TEST(Publisher, ProtectsTheInput) {
  TemporaryFolder folder;
  const auto input = folder / "in";
  fs::create_directory(input);
  write_text(input / "config.json", "{}");
  fs::create_directory_symlink(input, folder / "link");
  const auto code = [&](const fs::path& target, const fs::path& source) {
    return code_of([&] { Publisher p(target, true, Kind::folder, source); });
  };
  EXPECT_EQ(code(input, input), "PB-002");
  EXPECT_EQ(code(input / "sub", input), "PB-002");
  EXPECT_EQ(code(folder.path(), input), "PB-002");
  EXPECT_EQ(code(folder / "link", input), "PB-002");
  EXPECT_EQ(code(input, folder / "link"), "PB-002");
  EXPECT_EQ(code(folder / "link" / "sub", input), "PB-002");
  write_text(folder / "m.gguf", "x");
  EXPECT_EQ(code(folder / "m.gguf", folder / "m.gguf"), "PB-002");
  EXPECT_EQ(code(folder.path(), folder / "m.gguf"), "PB-002");
  EXPECT_EQ(code(folder / "out", folder / "m.gguf"), "");
  EXPECT_EQ(code(folder / "out", input), "");
}

TEST(Publisher, ProtectsWhatTheInputsLinksLeadTo) {
  TemporaryFolder cache;
  const auto repository = cache / "models--org--m";
  fs::create_directories(repository / "snapshots" / "abc");
  fs::create_directories(repository / "blobs");
  write_text(repository / "blobs" / "1", "{}");
  fs::create_symlink("../../blobs/1", repository / "snapshots" / "abc" / "config.json");
  const auto code = [&](const fs::path& target) {
    return code_of(
        [&] { Publisher p(target, true, Kind::folder, repository / "snapshots" / "abc"); });
  };
  EXPECT_EQ(code(repository / "blobs"), "PB-002");
  EXPECT_EQ(code(repository / "snapshots"), "PB-002");
  EXPECT_EQ(code(repository / "new"), "PB-002");
  EXPECT_EQ(code(cache / "out"), "");
}

TEST(Publisher, ForceOnALinkReplacesTheLinkOnly) {
  TemporaryFolder folder;
  publish(folder / "real", "real", false);
  fs::create_directory_symlink("real", folder / "link");
  publish(folder / "link", "new", true);
  EXPECT_FALSE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_text_file(folder / "link" / "config.json", 9), "new");
  EXPECT_EQ(read_text_file(folder / "real" / "config.json", 9), "real");
}

TEST(Publisher, ASecondRunIsToldWhoHoldsTheOutput) {
  TemporaryFolder folder;
  Publisher first(folder / "out", false, Kind::folder);
  try {
    Publisher second(folder / "out", false, Kind::folder);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit, Exit::busy);
    EXPECT_NE(std::string(e.what()).find(std::to_string(getpid())), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("since 2"), std::string::npos);
  }
  first.commit();
  EXPECT_TRUE(fs::exists(folder / "out"));
}

TEST(Publisher, OfEightRunsAtOnceExactlyOneWins) {
  TemporaryFolder folder;
  for (int round = 0; round < 5; round++) {
    std::vector<pid_t> children;
    for (int i = 0; i < 8; i++) {
      const pid_t child = fork();
      if (child == 0) {
        int code = 0;
        try {
          Publisher p(folder / "out", false, Kind::folder);
          write_text(p.path() / "config.json", std::to_string(getpid()));
          usleep(2000);
          p.commit();
        } catch (const Error& e) {
          code = e.exit == Exit::busy || e.code == "PB-001" ? 1 : 2;
        }
        std::_Exit(code);
      }
      children.push_back(child);
    }
    int won = 0, odd = 0;
    pid_t winner = 0;
    for (pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      if (WEXITSTATUS(status) == 0) won++, winner = child;
      if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) odd++;
    }
    EXPECT_EQ(won, 1);
    EXPECT_EQ(odd, 0);
    EXPECT_EQ(read_text_file(folder / "out" / "config.json", 99), std::to_string(winner));
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"out"});
    fs::remove_all(folder / "out");
  }
}

TEST(Publisher, CleansUpAfterAKilledRun) {
  TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    Publisher p(folder / "out", false, Kind::folder);
    write_text(p.path() / "x", "1");
    (void)!write(ready[1], "x", 1);
    for (;;) pause();
  }
  char c = 0;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  EXPECT_EQ(code_of([&] { Publisher p(folder / "out", false, Kind::folder); }), "PB-004");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const std::string temporary = fmt::format("out.tmp-{}", child);
  EXPECT_TRUE(fs::exists(folder / temporary));
  EXPECT_FALSE(fs::exists(folder / "out"));
  fs::create_directory(folder / "out.tmp-keep");  // not ours: no process number
  {
    Publisher p(folder / "out", false, Kind::folder);
    EXPECT_EQ(p.removed(), std::vector<std::string>{temporary});
    EXPECT_FALSE(fs::exists(folder / temporary));
    p.commit();
  }
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"out", "out.tmp-keep"}));
}

TEST(Publisher, ATargetThatAppearsMeanwhileIsNotReplaced) {
  TemporaryFolder folder;
  Publisher p(folder / "out", false, Kind::folder);
  write_text(p.path() / "config.json", "new");
  fs::create_directory(folder / "out");
  write_text(folder / "out" / "letter.txt", "precious");
  EXPECT_EQ(code_of([&] { p.commit(); }), "PB-001");
  EXPECT_EQ(read_text_file(folder / "out" / "letter.txt", 99), "precious");
}

TEST(Publisher, AFullDiskIsToldBeforeWork) {
  TemporaryFolder folder;
  try {
    Publisher p(folder / "out", false, Kind::folder, {}, i64{1} << 60);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "PB-006");
    EXPECT_EQ(e.exit, Exit::resources);
    EXPECT_NE(std::string(e.what()).find(" more"), std::string::npos);
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

// The file size limit cuts the output after every 4 KiB in turn; each time the run must fail with
// Exit::resources and leave the old output.
TEST(Publisher, ADiskThatFillsUpAtAnyByteLeavesTheOldOutput) {
  TemporaryFolder folder;
  publish(folder / "out", "old", false);
  for (rlim_t limit = 0; limit < 40000; limit += 4096) {
    const pid_t child = fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      int code = 1;
      try {
        Publisher p(folder / "out", true, Kind::folder);
        const rlimit most = {limit, limit};
        setrlimit(RLIMIT_FSIZE, &most);
        ShardedWriter writer(p.path(), {{"a", Dtype::F32, {10000}}});
        writer.write("a", std::vector<std::byte>(40000));
        writer.finish();
        p.commit();
        code = 0;
      } catch (const Error& e) {
        code = e.exit == Exit::resources && e.code == "IO-005" ? 42 : 2;
      }
      std::_Exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 42) << limit;
    EXPECT_EQ(read_text_file(folder / "out" / "config.json", 9), "old");
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"out"});
  }
}

TEST(SideFiles, AreWhatIsNeitherWeightsNorConfiguration) {
  TemporaryFolder folder;
  fs::create_directory(folder / "m");
  fs::create_directory(folder / "m" / "subfolder");
  fs::create_directory(folder / "to");
  for (const char* name :
       {"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "chat_template.jinja", "LICENSE", "pytorch_model.bin", "generation_config.json", ".hidden",
        "preprocessor_config.json", "consolidated.00.pth", "tokenizer.model"})
    write_text(folder / "m" / name, name);
  const std::vector<std::string> expected = {
      "LICENSE",        "chat_template.jinja", "generation_config.json", "preprocessor_config.json",
      "tokenizer.json", "tokenizer.model"};
  EXPECT_EQ(side_files(folder / "m"), expected);
  EXPECT_EQ(carry_side_files(folder / "m", folder / "to"), expected);
  EXPECT_EQ(names_in(folder / "to"), expected);
  EXPECT_EQ(read_text_file(folder / "to" / "LICENSE", 99), "LICENSE");
  EXPECT_EQ(code_of([&] { side_files(folder / "absent"); }), "IO-004");
}

TEST(SideFiles, AreNotReadFromOutside) {
  TemporaryFolder folder;
  fs::create_directory(folder / "m");
  fs::create_directory(folder / "to");
  write_text(folder / "secret", "precious");
  fs::create_symlink("../secret", folder / "m" / "tokenizer.json");
  EXPECT_EQ(code_of([&] { carry_side_files(folder / "m", folder / "to"); }), "IO-007");
  EXPECT_TRUE(fs::is_empty(folder / "to"));
}

}  // namespace
}  // namespace pare
