#include "file/hub.h"

#include "file/io.h"
#include "file/safetensors.h"
#include "file/test_support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Error error_of(const std::string& argument) {
  try {
    resolve_model(argument);
  } catch (const Error& e) {
    return e;
  }
  return Error(Exit::ok, "", "none");
}

// A cache with org/tiny at commit abc, as its own tools lay it out.
void make_cache(const fs::path& home) {
  const fs::path repository = home / "models--org--tiny";
  for (const char* folder : {"snapshots/abc", "blobs", "refs/refs/pr"})
    fs::create_directories(repository / folder);
  write_text(repository / "refs" / "main", "abc");
  write_text(repository / "refs" / "refs" / "pr" / "1", "abc\n");
  write_text(repository / "blobs" / "1", "{}");
  const std::string header = safetensors_header({{"x", Dtype::U8, {3}}}, {});
  write_text(repository / "blobs" / "2", header + "abc");
  fs::create_symlink("../../blobs/1", repository / "snapshots" / "abc" / "config.json");
  fs::create_symlink("../../blobs/2", repository / "snapshots" / "abc" / "model.safetensors");
}

TEST(Hub, FindsPathsAndCachedModels) {
  TemporaryFolder home;
  make_cache(home.path());
  const Environment cache("HF_HUB_CACHE", home.path().string());
  const fs::path snapshot = home / "models--org--tiny/snapshots/abc";
  for (const char* name : {"org/tiny", "org/tiny@main", "org/tiny@abc", "org/tiny@refs/pr/1"})
    EXPECT_EQ(resolve_model(name), snapshot) << name;
  EXPECT_EQ(read_text_file_in(snapshot, "config.json", 100), "{}");
  EXPECT_EQ(open_safetensors_folder(snapshot).size(), 1u);
  EXPECT_EQ(resolve_model(home.path().string()), home.path());
  EXPECT_EQ(resolve_model((home / "models--org--tiny/blobs/1").string()),
            home / "models--org--tiny/blobs/1");
}

TEST(Hub, TheEnvironmentSaysWhereTheCacheLies) {
  TemporaryFolder home;
  const Environment user("HOME", home.path().string());
  const Environment xdg("XDG_CACHE_HOME", "");
  {
    const Environment hub("HF_HUB_CACHE", ""), root("HF_HOME", "");
    EXPECT_EQ(hub_cache_folder(), home / ".cache/huggingface/hub");
    const Environment nobody("HOME", "");
    EXPECT_EQ(hub_cache_folder(), fs::path());
    EXPECT_EQ(error_of("org/tiny").code, "HB-001");
  }
  const Environment root("HF_HOME", "~/hf");
  {
    const Environment hub("HF_HUB_CACHE", "");
    EXPECT_EQ(hub_cache_folder(), home / "hf/hub");
  }
  const Environment hub("HF_HUB_CACHE", "/somewhere");
  EXPECT_EQ(hub_cache_folder(), fs::path("/somewhere"));
}

TEST(Hub, SaysWhatIsMissing) {
  TemporaryFolder home;
  make_cache(home.path());
  const Environment cache("HF_HUB_CACHE", home.path().string());
  EXPECT_EQ(error_of("org/absent-model").code, "HB-002");
  EXPECT_NE(error_of("org/tinny").hint.find("org/tiny"), std::string::npos);
  EXPECT_EQ(error_of("org/tiny@nope").code, "HB-003");
  EXPECT_NE(error_of("org/tiny@nope").hint.find("main"), std::string::npos);
  EXPECT_EQ(error_of("org/tiny@..").code, "HB-003");
  EXPECT_EQ(error_of("org/tiny@../../x").code, "HB-003");
  EXPECT_EQ(error_of("org/tiny@").code, "HB-003");
  EXPECT_EQ(error_of("../no/such").code, "HB-001");
  EXPECT_EQ(error_of("/no/such/model").code, "HB-001");
  EXPECT_EQ(error_of("nothing-here").code, "HB-001");
  EXPECT_EQ(error_of("").exit, Exit::usage);
  EXPECT_EQ(error_of(std::string("a\0b", 3)).exit, Exit::usage);
  write_text(home / "models--org--tiny/refs/bad", "../../../etc");
  EXPECT_EQ(error_of("org/tiny@bad").code, "HB-004");
  fs::create_directory(home / "my-model");
  const Error near = error_of((home / "my-modle").string());
  EXPECT_EQ(near.code, "HB-001");
  EXPECT_NE(near.hint.find("my-model"), std::string::npos);
  const Error half = error_of((home / "absent/deeper").string());
  EXPECT_NE(half.hint.find(home.path().string()), std::string::npos);
  fs::create_symlink("nowhere", home / "dangling");
  EXPECT_EQ(error_of((home / "dangling").string()).code, "HB-001");
  for (const char* text : {"org/absent-model", "/no/such/model", "nothing-here"})
    EXPECT_EQ(std::string(error_of(text).what()).find("repo"), std::string::npos);
}

}  // namespace
}  // namespace pare
