#include "file/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "base/random.h"
#include "support.h"

namespace pare {
namespace {

Blob file_of(std::string_view header, std::string_view data = "") {
  std::vector<std::uint8_t> bytes(8);
  const std::uint64_t n = header.size();
  std::memcpy(bytes.data(), &n, 8);
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return blob_of(std::move(bytes));
}

std::string error_code(const Blob& file) {
  try {
    parse_safetensors(file, "f");
  } catch (const Error& e) {
    EXPECT_EQ(e.exit, Exit::input);
    return e.code;
  }
  return "";
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const Safetensors s = parse_safetensors(
      file_of(
          R"( {"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"},"a":{"dtype":"I8","shape":[],"data_offsets":[8,9]},)"
          R"("e":{"dtype":"F16","shape":[0,5],"data_offsets":[9,9]}}  )",
          "12345678x"),
      "f");
  ASSERT_EQ(s.tensors.size(), 3u);
  EXPECT_EQ(s.tensors[0].name, "b");
  EXPECT_EQ(s.tensors[0].shape, (std::vector<i64>{1, 2}));
  EXPECT_EQ(static_cast<char>(s.tensors[1].bytes.bytes[0]), 'x');
  EXPECT_EQ(s.tensors[2].bytes.size(), 0u);
  EXPECT_EQ(s.metadata[0].second, "pt");
}

TEST(Safetensors, RefusesEveryKindOfDamage) {
  const struct {
    const char *header, *data, *code;
  } cases[] = {
      {"[]", "", "ST-004"},
      {"{ ", "", "JS-001"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "1234", "JS-001"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234", "JS-001"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345", "ST-013"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "123", "ST-012"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "12345678", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234", "ST-011"},
      {R"({"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4]}})",
       "1234", "ST-008"},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234", "ST-006"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "12", "ST-009"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551617],"data_offsets":[0,4]}})", "1234",
       "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "1234",
       "ST-007"},
      {R"({"__metadata__":{"a":1}})", "", "ST-014"},
      {R"({"__metadata__":[]})", "", "ST-014"},
      {R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234", "ST-004"},
      {"{\"a\\u0007\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "1234", "ST-004"},
      {R"({"a":{"dtype":"F32","shape":[[[[1]]]],"data_offsets":[0,4]}})", "1234", "JS-001"},
  };
  for (const auto& c : cases) EXPECT_EQ(error_code(file_of(c.header, c.data)), c.code) << c.header;
  for (std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3},
                          std::uint64_t{100'000'001}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    std::vector<std::uint8_t> bytes(10);
    std::memcpy(bytes.data(), &n, 8);
    bytes[8] = '{', bytes[9] = '}';
    EXPECT_NE(error_code(blob_of(bytes)), "") << n;
  }
}

std::string sample_file() {
  const std::string header = safetensors_header(
      {{"x", Dtype::F32, {2, 3}}, {"y", Dtype::BF16, {4}}, {"z", Dtype::U8, {5}}},
      {{"format", "pt"}});
  return header + std::string(24 + 8 + 5, 'q');
}

TEST(Safetensors, TruncationAtEveryByteIsAnError) {
  const std::string whole = sample_file();
  EXPECT_EQ(error_code(blob_of(std::vector<char>(whole.begin(), whole.end()))), "");
  for (std::size_t n = 0; n < whole.size(); n++)
    EXPECT_NE(error_code(blob_of(std::vector<char>(
                  whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)))),
              "")
        << n;
}

TEST(Safetensors, HeaderBitFlipsNeverCrash) {
  const std::string whole = sample_file();
  for (std::size_t bit = 0; bit < 8 * (whole.size() - 37); bit++) {
    std::vector<char> bytes(whole.begin(), whole.end());
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    error_code(blob_of(bytes));  // an Error or another valid file; nothing else
  }
}

TEST(Safetensors, WriterMakesTheReferenceHeaders) {
  const auto length = [](const std::string& header) {
    std::uint64_t n = 0;
    std::memcpy(&n, header.data(), 8);
    return n;
  };
  EXPECT_EQ(length(safetensors_header({{"attn.0", Dtype::F32, {1, 2, 3}}}, {})), 64u);
  EXPECT_EQ(length(safetensors_header({{"attn0", Dtype::F32, {1, 1, 2, 3}}}, {})), 72u);
  EXPECT_EQ(length(safetensors_header({}, {})), 8u);
  EXPECT_EQ(length(safetensors_header({}, {{"framework", "pt"}})), 40u);
  EXPECT_EQ(length(safetensors_header({{"attn.0", Dtype::F4, {1, 2}}}, {})), 64u);
}

TEST(Safetensors, WrittenFilesAndShardsReadBack) {
  TemporaryFolder folder;
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 7; i++)
    plan.push_back({fmt::format("t{}", i), i % 2 ? Dtype::F32 : Dtype::U8, {i + 1, 4}});
  for (i64 limit : {i64{1000000}, i64{40}}) {
    const auto dir = folder / std::to_string(limit);
    std::filesystem::create_directory(dir);
    ShardedWriter writer(dir, plan, limit);
    for (auto t = plan.rbegin(); t != plan.rend(); ++t)
      writer.write(t->name,
                   std::vector<std::byte>(static_cast<std::size_t>(t->bytes()), std::byte{7}));
    writer.finish();
    EXPECT_EQ(std::filesystem::exists(dir / "model.safetensors"), limit > 40);
    const auto tensors = open_safetensors_folder(dir);
    EXPECT_EQ(tensors.size(), 7u);
    for (const StoredTensor& t : tensors)
      for (std::byte b : t.bytes.bytes) ASSERT_EQ(b, std::byte{7});
  }
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST(Safetensors, ShardNamesStayInTheFolder) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a/../b", "a//b", ".", "", "..\\\\x",
                           "missing.safetensors"}) {
    TemporaryFolder folder;
    write_text(folder / "model.safetensors.index.json",
               fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name));
    EXPECT_THROW(open_safetensors_folder(folder.path()), Error) << name;
  }
  TemporaryFolder folder;
  const std::string file = sample_file();
  write_text(folder / "one.safetensors", file);
  const auto index = [&](const std::string& map) {
    write_text(folder / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
    try {
      open_safetensors_folder(folder.path());
    } catch (const Error& e) {
      return e.code;
    }
    return std::string();
  };
  EXPECT_EQ(index(R"("x":"one.safetensors","y":"one.safetensors","z":"one.safetensors")"), "");
  EXPECT_EQ(index(R"("x":"one.safetensors","y":"one.safetensors")"), "ST-024");
  EXPECT_EQ(
      index(
          R"("x":"one.safetensors","y":"one.safetensors","z":"one.safetensors","w":"one.safetensors")"),
      "ST-025");
  write_text(folder / "model.safetensors", file);
  EXPECT_EQ(index(R"("x":"one.safetensors","y":"one.safetensors","z":"one.safetensors")"),
            "ST-026");
  std::filesystem::remove(folder / "model.safetensors");
  ASSERT_EQ(mkfifo((folder / "pipe.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(index(R"("x":"pipe.safetensors")"), "IO-002");
}

TEST(Safetensors, PickledWeightsAreRefusedUnopened) {
  TemporaryFolder folder;
  write_text(folder / "pytorch_model.bin", "\x80\x02");
  try {
    open_safetensors_folder(folder.path());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "ST-020");
    EXPECT_NE(e.hint.find("save_pretrained"), std::string::npos);
  }
}

TEST(Io, AFileCutWhileMappedIsAnErrorNotASignal) {
  TemporaryFolder folder;
  write_text(folder / "f", std::string(1 << 20, 'x'));
  const Blob blob = map_file(folder / "f");
  touch(blob, "f");
  std::filesystem::resize_file(folder / "f", 4096);
  EXPECT_THROW(touch(blob, "f"), Error);
}

TEST(Io, AFullDiskIsToldWithTheMissingBytes) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {1 << 16, 1 << 16};
    setrlimit(RLIMIT_FSIZE, &limit);
    TemporaryFolder folder;
    int code = 1;
    try {
      OutputFile file(folder / "f");
      file.write_at(0, std::vector<std::byte>(1 << 20));
    } catch (const Error& e) {
      code = e.exit == Exit::resources && e.code == "IO-005" ? 42 : 2;
    }
    std::_Exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_THROW(map_file("/dev/null"), Error);
  EXPECT_THROW(map_file("/tmp"), Error);
  EXPECT_THROW(read_text_file("/etc/passwd", 3), Error);
}

}  // namespace
}  // namespace pare
