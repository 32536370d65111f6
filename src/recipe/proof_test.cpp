#include "recipe/proof.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "file/publish.h"
#include "support.h"

namespace pare {
namespace {

Proof sample_proof() {
  Proof p;
  p.version = "0.1.0";
  p.time = "2026-11-26T23:59:59Z";
  p.base = "base";
  p.out = "out \"quoted\" \xc3\xa4";
  p.recipe = "about = \"x\"\n[[quantize]]\n";
  p.base_identity = "b1";
  p.out_identity = "o1";
  p.hardware = "a machine, avx2";
  p.protocol = "window 512";
  p.text = "heldout.txt";
  p.threads = 2;
  p.rows = {{"weight_bytes", "bytes", 8e6, 3e6, 8e6, 3e6},
            {"kl_mean", "nats", std::nullopt, 0.01, std::nullopt, std::nullopt}};
  p.gates = {{"max_kl", 0.05, 0.01, true}, {"min_speedup", 2, 1.5, false}};
  return p;
}

std::string json_error(const Json& json) {
  try {
    parse_proof(json, "p.json");
  } catch (const Error& e) {
    return e.code + " " + e.what();
  }
  return "none";
}

TEST(Proof, RoundTrip) {
  const Proof p = sample_proof();
  EXPECT_EQ(parse_proof(parse_json(to_json(p).dump(2), "x"), "x"), p);
  EXPECT_EQ(find_row(p, "kl_mean"), &p.rows[1]);
  EXPECT_EQ(find_row(p, "mbu"), nullptr);
}

TEST(Proof, NumbersThatAreNoneBecomeNull) {
  Proof p = sample_proof();
  p.rows[0].base = std::nan("");
  p.gates[0].found = INFINITY;
  const Proof back = parse_proof(parse_json(to_json(p).dump(), "x"), "x");
  EXPECT_FALSE(back.rows[0].base.has_value());
  EXPECT_TRUE(std::isnan(back.gates[0].found));
}

TEST(Proof, UnknownMembersArePassedOver) {
  Json json = to_json(sample_proof());
  json.set("later", Json(1));
  json.find("rows")->as_array()[0].set("later", "x");
  EXPECT_EQ(parse_proof(json, "x"), sample_proof());
}

// Every member, missing or of another type: an error that names it.
TEST(Proof, HostileMembers) {
  const Json good = to_json(sample_proof());
  for (const Json::Member& member : good.as_object()) {
    Json missing = good, wrong = good;
    missing.erase(member.first);
    wrong.set(member.first, Json::object());
    EXPECT_NE(json_error(missing).find(member.first), std::string::npos) << json_error(missing);
    EXPECT_EQ(json_error(wrong).substr(0, 6), "PF-001") << member.first;
    EXPECT_NE(json_error(wrong).find(member.first), std::string::npos) << json_error(wrong);
  }
  for (const char* list : {"rows", "gates"})
    for (const Json::Member& member : good.find(list)->as_array()[0].as_object()) {
      Json wrong = good;
      wrong.find(list)->as_array()[0].set(member.first, Json::array());
      const std::string name = fmt::format("{}[0].{}", list, member.first);
      EXPECT_NE(json_error(wrong).find(name), std::string::npos) << json_error(wrong);
    }
}

TEST(Proof, HostileDocuments) {
  for (const char* text : {"[]", "null", "1", "\"x\"", "{}"})
    EXPECT_EQ(json_error(parse_json(text, "x")).substr(0, 6), "PF-001") << text;
  Json newer = to_json(sample_proof());
  newer.set("format_version", 2);
  EXPECT_EQ(json_error(newer).substr(0, 6), "PF-002");
  Json control = to_json(sample_proof());
  control.set("base", "a\x1b[31mb");
  EXPECT_EQ(json_error(control).substr(0, 6), "PF-001");
  Json rows = to_json(sample_proof());
  rows.find("rows")->as_array()[1] = Json(3);
  EXPECT_NE(json_error(rows).find("rows[1]"), std::string::npos) << json_error(rows);
  Json many = to_json(sample_proof());
  many.set("rows", Json(Json::Array(10001, many.find("rows")->as_array()[0])));
  EXPECT_NE(json_error(many).find("at most 10000"), std::string::npos);
}

TEST(Proof, KeptAndRead) {
  TemporaryFolder folder;
  EXPECT_FALSE(read_proof(folder.path()).has_value());
  keep_proof(sample_proof(), folder.path());
  Proof second = sample_proof();
  second.threads = 7;
  keep_proof(second, folder.path());
  EXPECT_EQ(read_proof(folder.path()), second);
  const auto begin = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin, std::filesystem::directory_iterator()), 1);  // no leftovers
  EXPECT_TRUE(side_files(folder.path()).empty());
  std::ofstream(folder / proof_name) << "{\"format\": \"pare";
  EXPECT_THROW(read_proof(folder.path()), Error);
  try {
    keep_proof(second, folder / "nowhere");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "PF-003");
    EXPECT_EQ(e.exit, Exit::resources);
  }
}

}  // namespace
}  // namespace pare
