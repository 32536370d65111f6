#include "recipe/ledger.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <fstream>
#include <set>
#include <thread>

#include "support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

RunRecord sample_run(const std::string& model = "out") {
  RunRecord r;
  r.command = "prove";
  r.version = "0.1.0";
  r.machine = {"a processor", "avx2", 2};
  r.model = model;
  r.identity = "0123";
  r.base = "base";
  r.base_identity = "4567";
  r.recipe = "quantize int4:g128";
  r.protocol = "window 512";
  r.predictor = "limits";
  r.figures = {{"decode_tokens_per_second", "tokens/s", 100, 200, 110, 180},
               {"kl_mean", "nats", std::nullopt, 0.01, std::nullopt, std::nullopt}};
  return r;
}

std::vector<RunRecord> all(Ledger& ledger, const RunFilter& filter = {}) {
  std::vector<RunRecord> runs;
  ledger.visit(filter, [&](const RunRecord& r) { runs.push_back(r); });
  return runs;
}

// SQL by hand, as another program would run it.
struct Raw {
  explicit Raw(const fs::path& path) { EXPECT_EQ(sqlite3_open(path.c_str(), &handle), SQLITE_OK); }
  ~Raw() { sqlite3_close(handle); }
  void operator()(const char* sql) {
    EXPECT_EQ(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(handle);
  }
  sqlite3* handle = nullptr;
};

void sql(const fs::path& path, const char* text) { Raw{path}(text); }

TEST(Ledger, AddsFindsListsRemoves) {
  TemporaryFolder folder;
  const fs::path path = folder / "deep" / "runs.sqlite";
  {
    Ledger none(path);  // missing: empty, and reading makes no file
    EXPECT_TRUE(all(none).empty());
    EXPECT_FALSE(none.find(1).has_value());
    EXPECT_FALSE(none.remove(1));
    EXPECT_FALSE(fs::exists(path));
  }
  i64 first = 0, second = 0;
  {
    Ledger ledger(path, true);
    first = ledger.add(sample_run());
    RunRecord other = sample_run("/models/tales");
    other.time = "2026-01-02T03:04:05Z";
    other.identity = "89ab";
    second = ledger.add(other);
  }
  Ledger ledger(path);
  const std::vector<RunRecord> runs = all(ledger);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].id, second);
  EXPECT_EQ(runs[0].time, "2026-01-02T03:04:05Z");
  EXPECT_EQ(runs[1].figures, sample_run().figures);
  EXPECT_EQ(runs[1].machine.threads, 2);
  EXPECT_EQ(runs[1].base_identity, "4567");
  EXPECT_EQ(runs[1].recipe, "quantize int4:g128");
  EXPECT_EQ(runs[1].time.size(), 20u);
  EXPECT_EQ(all(ledger, {1, ""}).at(0).id, second);
  EXPECT_EQ(all(ledger, {0, "tales"}).size(), 1u);
  EXPECT_EQ(all(ledger, {0, "89ab"}).size(), 1u);
  EXPECT_TRUE(all(ledger, {0, "' OR 1 --"}).empty());
  EXPECT_EQ(ledger.find(first)->model, "out");
  EXPECT_TRUE(ledger.remove(second));
  EXPECT_FALSE(ledger.remove(second));
  EXPECT_EQ(ledger.add(sample_run()), second + 1);  // an id is never given twice
  EXPECT_EQ(all(ledger).size(), 2u);
}

TEST(Ledger, HostileTextIsKeptAndShownPrintable) {
  TemporaryFolder folder;
  Ledger ledger(folder / "r", true);
  RunRecord r = sample_run("'; DROP TABLE runs; -- \x1b[31m");
  r.figures[0].metric = std::string("a\0b", 3);
  r.figures[0].out = std::nan("");
  const RunRecord back = *ledger.find(ledger.add(r));
  EXPECT_EQ(back.model.find('\x1b'), std::string::npos);
  EXPECT_NE(back.model.find("DROP TABLE"), std::string::npos);
  EXPECT_EQ(back.figures[0].metric.find('\0'), std::string::npos);
  EXPECT_FALSE(back.figures[0].out.has_value());
  EXPECT_EQ(parse_json(to_json(back).dump(), "x"), to_json(back));
}

TEST(Ledger, TwoWriters) {
  TemporaryFolder folder;
  const fs::path path = folder / "runs.sqlite";
  constexpr int each = 8;
  const auto write = [&](const char* name) {
    for (int i = 0; i < each; i++) Ledger(path, true, 60000).add(sample_run(name));
  };
  std::thread a(write, "a"), b(write, "b");
  a.join();
  b.join();
  Ledger ledger(path);
  std::set<i64> ids;
  int of_a = 0;
  for (const RunRecord& r : all(ledger)) {
    ids.insert(r.id);
    of_a += r.model == "a" ? 1 : 0;
    EXPECT_EQ(r.figures.size(), 2u);
  }
  EXPECT_EQ(ids.size(), 2u * each);
  EXPECT_EQ(of_a, each);
}

TEST(Ledger, LockedByAnother) {
  TemporaryFolder folder;
  const fs::path path = folder / "runs.sqlite";
  { Ledger(path, true).add(sample_run()); }
  Raw raw(path);
  raw("BEGIN EXCLUSIVE");
  EXPECT_EQ(code_of([&] { Ledger(path, true, 20).add(sample_run()); }), "LG-004");
  raw("ROLLBACK");
  EXPECT_EQ(code_of([&] { Ledger(path, true, 20).add(sample_run()); }), "");
}

TEST(Ledger, DamagedForeignAndNewer) {
  TemporaryFolder folder;
  const fs::path path = folder / "runs.sqlite";
  std::ofstream(path) << "not a database at all, but long enough to be looked at as one ..........";
  EXPECT_EQ(code_of([&] { Ledger ledger(path, true); }), "LG-001");
  EXPECT_EQ(code_of([&] { Ledger ledger(path); }), "LG-001");
  fs::remove(path);
  sql(path, "CREATE TABLE bookmarks (x)");
  EXPECT_EQ(code_of([&] { Ledger ledger(path, true); }), "LG-001");  // not ours: left alone
  fs::remove(path);
  { Ledger(path, true).add(sample_run()); }
  sql(path, "PRAGMA user_version = 2");
  EXPECT_EQ(code_of([&] { Ledger ledger(path, true); }), "LG-002");
  EXPECT_EQ(code_of([&] { Ledger ledger(path); }), "LG-002");
  sql(path, "PRAGMA user_version = 1; ALTER TABLE runs RENAME COLUMN model TO place");
  EXPECT_EQ(code_of([&] {
              Ledger ledger(path);
              all(ledger);
            }),
            "LG-001");
}

// Any cut and any overwritten page: an error or runs, never a crash.
TEST(Ledger, BytesOverwritten) {
  TemporaryFolder folder;
  const fs::path path = folder / "runs.sqlite";
  {
    Ledger ledger(path, true);
    for (int i = 0; i < 40; i++) ledger.add(sample_run());
  }
  std::ifstream in(path, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); at += 509) {
    std::string bad = at % 2 == 0 ? good : good.substr(0, at);
    for (std::size_t i = at; i < std::min(bad.size(), at + 64); i++) bad[i] = '\xa5';
    std::ofstream(path, std::ios::binary) << bad;
    const std::string code = code_of([&] {
      Ledger ledger(path);
      all(ledger);
      ledger.find(3);
      ledger.remove(4);
    });
    EXPECT_TRUE(code.empty() || code == "LG-001" || code == "LG-002" || code == "LG-003") << code;
    refused += code.empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 0);
}

TEST(Ledger, TriggersDoNotRun) {
  TemporaryFolder folder;
  const fs::path path = folder / "runs.sqlite";
  { Ledger(path, true).add(sample_run()); }
  sql(path, "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END");
  Ledger ledger(path, true);
  ledger.add(sample_run());
  EXPECT_EQ(all(ledger).size(), 2u);
}

TEST(Ledger, CannotBeWritten) {
  TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  EXPECT_EQ(code_of([&] { Ledger ledger(folder / "file" / "runs.sqlite", true); }), "LG-003");
  EXPECT_EQ(code_of([&] { Ledger ledger(folder.path(), true); }), "LG-003");  // a folder
}

TEST(Ledger, PathAndRecording) {
  TemporaryFolder folder;
  setenv("PARE_LEDGER", "off", 1);
  EXPECT_TRUE(ledger_path().empty());
  record_run(sample_run(), {});
  setenv("PARE_LEDGER", (folder / "runs.sqlite").c_str(), 1);
  record_run(sample_run(), {});
  Ledger ledger(folder / "runs.sqlite");
  EXPECT_EQ(all(ledger).size(), 1u);
  ::testing::internal::CaptureStderr();
  setenv("PARE_LEDGER", folder.path().c_str(), 1);
  record_run(sample_run(), {});  // a folder: a warning
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("not recorded"), std::string::npos);
  setenv("PARE_LEDGER", "", 1);
  setenv("XDG_DATA_HOME", "/data", 1);
  EXPECT_EQ(ledger_path(), "/data/pare/runs.sqlite");
  unsetenv("XDG_DATA_HOME");
  setenv("HOME", "/home/x", 1);
  EXPECT_EQ(ledger_path(), "/home/x/.local/share/pare/runs.sqlite");
  setenv("PARE_LEDGER", "off", 1);
}

TEST(Ledger, PredictionErrors) {
  TemporaryFolder folder;
  Ledger ledger(folder / "r", true);
  RunRecord r = sample_run();
  r.figures = {{"speed", "", 100, 200, 110, 180}, {"memory", "", 50, std::nullopt, 100, 7}};
  ledger.add(r);
  r.figures = {{"speed", "", std::nullopt, 100, 5, 100}, {"zero", "", 0, 1, 1, 0}};
  ledger.add(r);
  r.machine.threads = 1;
  r.figures = {{"speed", "", 10, 10, 40, 40}};
  ledger.add(r);
  r.machine.processor = "another";
  ledger.add(r);
  const auto errors = prediction_errors(ledger, {"a processor", "avx2", 2}).metrics;
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0].metric, "memory");
  EXPECT_EQ(errors[0].points, 1);
  EXPECT_DOUBLE_EQ(errors[0].median, 1.0);
  EXPECT_DOUBLE_EQ(errors[0].correction, 0.5);
  EXPECT_EQ(errors[1].points, 3);  // |110/100 - 1|, |180/200 - 1|, 0
  EXPECT_NEAR(errors[1].median, 0.1, 1e-12);
  EXPECT_NEAR(errors[1].p90, 0.1, 1e-12);
  EXPECT_NEAR(errors[1].correction, 1.0, 1e-12);
  EXPECT_EQ(prediction_errors(ledger, {"a processor", "avx2", 0}).metrics[1].points, 5);
  r = sample_run();
  r.predictor = "kernels";  // another way to predict: the older runs no longer count
  ledger.add(r);
  const PredictionErrors newer = prediction_errors(ledger, {"a processor", "avx2", 2});
  EXPECT_EQ(newer.predictor, "kernels");
  ASSERT_EQ(newer.metrics.size(), 1u);
  EXPECT_EQ(newer.metrics[0].points, 2);
}

}  // namespace
}  // namespace pare
