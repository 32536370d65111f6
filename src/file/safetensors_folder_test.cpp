#include <sys/resource.h>
#include <sys/stat.h>

#include "file/safetensors.h"
#include "file/test_support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

TEST(SafetensorsFolder, WrittenFilesAndShardsReadBack) {
  TemporaryFolder folder;
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 7; i++)
    plan.push_back({fmt::format("t{}", i), i % 2 ? Dtype::F32 : Dtype::U8, {i + 1, 4}});
  for (i64 limit : {i64{1000000}, i64{40}}) {
    const auto dir = folder / std::to_string(limit);
    fs::create_directory(dir);
    ShardedWriter writer(dir, plan, limit, {{"format", "pt"}, {"made_by", "a test"}});
    for (auto t = plan.rbegin(); t != plan.rend(); ++t)
      writer.write(t->name, std::vector<std::byte>(static_cast<std::size_t>(t->bytes()),
                                                   static_cast<std::byte>(t->name[1])));
    writer.finish();
    EXPECT_EQ(fs::exists(dir / "model.safetensors"), limit > 40);
    std::vector<std::string> warnings;
    const auto tensors = open_safetensors_folder(dir, &warnings);
    EXPECT_TRUE(warnings.empty());
    EXPECT_EQ(tensors.size(), 7u);
    for (const StoredTensor& t : tensors)
      for (std::byte b : t.bytes.bytes) ASSERT_EQ(b, static_cast<std::byte>(t.name[1]));
  }
  // Greedy: t0 (4 bytes) and t1 (32) fit 40, t2 (12) begins the second shard, ...
  const SafetensorsIndex index = parse_safetensors_index(
      read_text_file(folder / "40" / "model.safetensors.index.json", 10000), "index");
  ASSERT_EQ(index.shard_of.size(), 7u);
  EXPECT_EQ(index.shard_of[1].second, index.shard_of[0].second);
  EXPECT_NE(index.shard_of[2].second, index.shard_of[1].second);
  EXPECT_EQ(index.shard_of[0].second, "model-00001-of-00006.safetensors");
  EXPECT_EQ(index.total_size, 4 + 32 + 12 + 64 + 20 + 96 + 28);
}

TEST(SafetensorsFolder, MoreShardsThanOpenFiles) {
  TemporaryFolder folder;
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit few = {40, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &few);
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 60; i++) plan.push_back({fmt::format("t{}", i), Dtype::U8, {1}});
  const std::string code = code_of([&] {
    ShardedWriter writer(folder.path(), plan, 1);
    for (const TensorPlan& t : plan) writer.write(t.name, std::vector<std::byte>(1));
    writer.finish();
    EXPECT_EQ(open_safetensors_folder(folder.path()).size(), plan.size());
  });
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(code, "");
}

TEST(SafetensorsFolder, AModelWithoutTensorsIsAFile) {
  TemporaryFolder folder;
  ShardedWriter(folder.path(), {}).finish();
  EXPECT_EQ(open_safetensors_folder(folder.path()).size(), 0u);
}

std::string file_with(const std::vector<std::string>& names) {
  std::vector<TensorPlan> plan;
  for (const std::string& name : names) plan.push_back({name, Dtype::U8, {2}});
  return safetensors_header(plan, {{"format", "pt"}}) + std::string(2 * names.size(), 'q');
}

void write_index(const TemporaryFolder& folder, const std::string& map,
                 const std::string& more = "") {
  write_text(folder / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}" + more + "}");
}

std::string open_code(const TemporaryFolder& folder) {
  return code_of([&] { open_safetensors_folder(folder.path()); });
}

TEST(SafetensorsFolder, ShardNamesArePlain) {
  for (const std::string& name :
       {std::string("../x.safetensors"), std::string("/etc/passwd"), std::string("a/../b"),
        std::string("a//b"), std::string("."), std::string(), std::string("..\\\\x"),
        std::string("a\\u0000b"), std::string(5000, 'a')}) {
    TemporaryFolder folder;
    write_index(folder, fmt::format(R"("a":"{}")", name));
    EXPECT_EQ(open_code(folder), "ST-022") << name;
  }
  TemporaryFolder folder;
  write_index(folder, R"("a":7)");
  EXPECT_EQ(open_code(folder), "ST-022");
  write_index(folder, "");
  EXPECT_EQ(open_code(folder), "ST-021");
  write_text(folder / "model.safetensors.index.json", "{}");
  EXPECT_EQ(open_code(folder), "ST-021");
  write_text(folder / "model.safetensors.index.json", "[");
  EXPECT_EQ(open_code(folder), "JS-001");
}

TEST(SafetensorsFolder, ShardsAreRegularFilesOfTheFolder) {
  TemporaryFolder folder, outside;
  write_text(outside / "s", file_with({"x"}));
  write_text(folder / "inside", file_with({"x"}));
  fs::create_symlink(outside / "s", folder / "out.safetensors");
  fs::create_symlink("inside", folder / "in.safetensors");
  fs::create_symlink("nowhere", folder / "dangling.safetensors");
  fs::create_symlink("loop.safetensors", folder / "loop.safetensors");
  fs::create_directory(folder / "folder.safetensors");
  fs::create_symlink("/dev/zero", folder / "zero.safetensors");
  ASSERT_EQ(mkfifo((folder / "pipe.safetensors").c_str(), 0600), 0);
  const struct {
    const char *name, *code;
  } cases[] = {{"in", ""},         {"out", "IO-007"},    {"zero", "IO-007"}, {"dangling", "IO-001"},
               {"loop", "IO-001"}, {"folder", "IO-002"}, {"pipe", "IO-002"}, {"absent", "ST-023"}};
  for (const auto& c : cases) {
    write_index(folder, fmt::format(R"("x":"{}.safetensors")", c.name));
    EXPECT_EQ(open_code(folder), c.code) << c.name;
  }
  fs::remove(folder / "model.safetensors.index.json");
  fs::create_symlink(outside / "s", folder / "model.safetensors");
  EXPECT_EQ(open_code(folder), "IO-007");
}

TEST(SafetensorsFolder, IndexAndShardsAgree) {
  TemporaryFolder folder;
  write_text(folder / "one.safetensors", file_with({"x", "y"}));
  write_text(folder / "two.safetensors", file_with({"z"}));
  write_index(folder, R"("x":"one.safetensors","y":"one.safetensors","z":"two.safetensors")");
  EXPECT_EQ(open_code(folder), "");
  write_index(folder, R"("x":"one.safetensors","z":"two.safetensors")");
  EXPECT_EQ(open_code(folder), "ST-024");
  write_index(folder, R"("x":"one.safetensors","y":"two.safetensors","z":"two.safetensors")");
  EXPECT_EQ(open_code(folder), "ST-024");
  write_index(
      folder,
      R"("x":"one.safetensors","y":"one.safetensors","z":"two.safetensors","w":"two.safetensors")");
  EXPECT_EQ(open_code(folder), "ST-025");
  write_text(folder / "two.safetensors", file_with({"y", "z"}));  // y is in both shards
  write_index(folder, R"("x":"one.safetensors","y":"one.safetensors","z":"two.safetensors")");
  EXPECT_EQ(open_code(folder), "ST-024");
}

TEST(SafetensorsFolder, StaleFilesAreNamed) {
  TemporaryFolder folder;
  const std::string shard = "model-00001-of-00001.safetensors";
  write_text(folder / shard, file_with({"x"}));
  write_index(folder, fmt::format(R"("x":"{}")", shard));
  EXPECT_EQ(open_code(folder), "");
  write_text(folder / "consolidated.safetensors", "another format beside it");
  EXPECT_EQ(open_code(folder), "");
  write_text(folder / "model-00002-of-00003.safetensors", file_with({"y"}));
  EXPECT_EQ(open_code(folder), "ST-027");
  fs::remove(folder / "model-00002-of-00003.safetensors");
  write_text(folder / "model.safetensors", file_with({"x"}));
  EXPECT_EQ(open_code(folder), "ST-026");
  write_index(folder, R"("x":"model.safetensors")");
  EXPECT_EQ(open_code(folder), "ST-027");
  fs::remove(folder / shard);
  EXPECT_EQ(open_code(folder), "");
}

TEST(SafetensorsFolder, AWrongTotalIsAWarning) {
  TemporaryFolder folder;
  write_text(folder / "one.safetensors", file_with({"x"}));
  std::vector<std::string> warnings;
  write_index(folder, R"("x":"one.safetensors")", R"(,"metadata":{"total_size":2})");
  open_safetensors_folder(folder.path(), &warnings);
  EXPECT_TRUE(warnings.empty());
  for (const char* total : {"3", "2.5", "1e30"}) {
    write_index(folder, R"("x":"one.safetensors")",
                fmt::format(R"(,"metadata":{{"total_size":{}}})", total));
    warnings.clear();
    open_safetensors_folder(folder.path(), &warnings);
    EXPECT_EQ(warnings.size(), 1u) << total;
  }
}

TEST(SafetensorsFolder, PickledWeightsAreRefusedUnopened) {
  TemporaryFolder folder;
  const auto error = [&] {
    try {
      open_safetensors_folder(folder.path());
    } catch (const Error& e) {
      return e;
    }
    return Error(Exit::ok, "", "none");
  };
  EXPECT_EQ(error().code, "ST-020");
  write_text(folder / "m.gguf", "x");
  EXPECT_NE(error().hint.find(".gguf"), std::string::npos);
  fs::remove(folder / "m.gguf");
  // Opening a FIFO for reading would show: its writer would get past open().
  ASSERT_EQ(mkfifo((folder / "pytorch_model.bin").c_str(), 0600), 0);
  EXPECT_EQ(error().code, "ST-020");
  EXPECT_NE(error().hint.find("save_pretrained"), std::string::npos);
  EXPECT_EQ(code_of([&] { open_safetensors_folder(folder / "absent"); }), "ST-020");
}

}  // namespace
}  // namespace pare
