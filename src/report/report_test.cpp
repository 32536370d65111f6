// The page: what came from outside stays text, what is not known is said, the same gives the same.
#include "report/report.h"

#include <gtest/gtest.h>

#include <fstream>

#include "model/model.h"
#include "report/html.h"
#include "support.h"

namespace pare {
namespace {

constexpr const char* hostile = "</title><script>alert(\"1\")</script>' onload='x";

ReportModel plain(const std::string& name, i64 bytes) {
  ReportModel m;
  m.name = m.path = name;
  m.family = "llama";
  m.parameters = 1000;
  m.weight_bytes = bytes;
  m.part_bytes = {100, 200, 300, 0, 10, 50};
  m.cache_positions = 512;
  m.kv = "f16";
  m.schemes = {{"int4:g128", 1000, bytes}};
  return m;
}

Proof proof_of(double bytes, double kl, double speed) {
  Proof p;
  p.version = "0.1.0", p.time = "2026-11-26T23:59:59Z", p.base = "some/base",
  p.text = "heldout.txt";
  p.hardware = "a machine", p.protocol = "window 512", p.threads = 2;
  p.rows = {{"weight_bytes", "bytes", 8000, bytes, 8000, bytes},
            {"perplexity", "", 10, 10 + kl, {}, {}},
            {"kl_mean", "nats", {}, kl, {}, {}},
            {"decode_tokens_per_second", "tokens/s", 100, speed, 98, speed * 1.2}};
  p.gates = {{"max_kl", 0.02, kl, kl <= 0.02}};
  return p;
}

// Start and end tags match; nothing of a name became an element or an attribute.
void expect_sound(const std::string& html) {
  std::vector<std::string> open;
  const std::string text = html.substr(html.find("<html"));
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const std::size_t end = text.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = text.substr(at + 1, end - at - 1);
    const bool closes = tag[0] == '/';
    const std::string name = tag.substr(closes, tag.find_first_of(" >/", 1) - closes);
    if (closes) {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), name);
      open.pop_back();
    } else if (!tag.ends_with('/') && name != "meta" && name != "link") {
      open.push_back(name);
    }
    EXPECT_NE(name, "script");
    EXPECT_EQ(tag.find(" on"), std::string::npos) << tag;
    EXPECT_EQ(tag.find("style="), std::string::npos) << tag;
  }
  EXPECT_TRUE(open.empty());
}

Report hostile_report() {
  Report r;
  r.title = hostile;
  r.base = plain(hostile, 8000);
  for (int i = 0; i < 10; i++) {
    ReportModel m = plain(fmt::format("{}{}", hostile, i), 2000 + 100 * i);
    m.family = m.kv = hostile;
    m.schemes[0].scheme = hostile;
    m.history = {hostile, "`unclosed", "a `code` b"};
    m.evidence = {
        {"quantize", "blocks.0.attn.q", "relative output error", 0.1, 0.02},
        {"quantize", fmt::format("blocks.1.{}", hostile), "relative output error", 0.1, 0.02},
        {hostile, hostile, hostile, 1, 2}};
    m.recipes = {{hostile, hostile, hostile, hostile, hostile}};
    m.files = {{hostile, hostile, 5}};
    m.identity = hostile;
    if (i != 3) m.proof = proof_of(2000 + 100 * i, 0.001 * (10 - i), 100 + i);
    if (i == 4)
      m.proof->text = m.proof->protocol = m.proof->hardware = m.proof->base = m.proof->recipe =
          hostile;
    if (i == 5) m.proof->rows.push_back({hostile, hostile, 1, 2, 3, 4});
    if (i == 6) m.proof->gates.push_back({hostile, 1, 2, false});
    if (i == 3) m.proof_problem = hostile;
    r.models.push_back(m);
  }
  r.machine = ReportMachine{hostile, hostile, 1e9, {{hostile, 1e12}}, {}};
  for (int series : {0, 1, 10})
    r.machine->operations.push_back(
        {hostile, hostile, hostile, hostile, series, 1e6, 1e5, 1e-4, hostile});
  return r;
}

TEST(Page, HostileNamesStayText) {
  const Report r = hostile_report();
  const std::string html = report_html(r);
  expect_sound(html);
  EXPECT_NE(html.find("&lt;script&gt;alert(&quot;1&quot;)"), std::string::npos);
  EXPECT_EQ(html, report_html(r));
}

TEST(Page, SaysWhatIsNotKnown) {
  Report r;
  r.title = "A title";
  r.models = {plain("out", 2000)};
  const std::string html = report_html(r);
  expect_sound(html);
  for (const char* words :
       {"Not proved yet: run <code>pare prove BASE out</code>.",
        "measure this one with <code>pare roof</code>", "No errors are noted in out",
        "No proof here holds a prediction", "name it with --base MODEL", "no hashes are known"})
    EXPECT_NE(html.find(words), std::string::npos) << words;
  EXPECT_EQ(html.find("Pareto"), std::string::npos);  // of one model there is no front
}

TEST(Page, FiguresOfAProof) {
  Report r;
  r.base = plain("base", 8000);
  r.models = {plain("out", 2000), plain("other", 3000)};
  r.models[0].proof = proof_of(2000, 0.0123, 250);
  r.models[1].proof = proof_of(3000, 0.0456, 300);
  const std::string html = report_html(r);
  expect_sound(html);
  for (const char* words : {"instead of 8 kB, 4.00 times less",
                            "Perplexity goes from 10.000 to 10.012, with a mean KL of 0.0123 nats",
                            "It decodes 250 tokens a second, 2.50 times the base&#39;s speed",
                            "<b>Passed</b> max_kl", "<b>Failed</b> max_kl", "+20.0 %", "-2.0 %"})
    EXPECT_NE(html.find(words), std::string::npos) << words;
}

TEST(Page, OtherConditionsAreSaid) {
  Report r;
  r.models = {plain("a", 2000), plain("b", 3000)};
  r.models[0].proof = proof_of(2000, 0.01, 250);
  r.models[1].proof = proof_of(3000, 0.01, 250);
  EXPECT_EQ(report_html(r).find("different conditions"), std::string::npos);
  r.models[1].proof->threads = 8;
  EXPECT_NE(report_html(r).find("different conditions"), std::string::npos);
}

TEST(Page, NamesAreToldApart) {
  std::vector<ReportModel> models = {plain("w4", 1), plain("w4", 1), plain("w8", 1)};
  models[0].path = "x/w4", models[1].path = "y/w4";
  name_models(models);
  EXPECT_EQ(models[0].name, "x/w4");
  EXPECT_EQ(models[1].name, "y/w4");
  EXPECT_EQ(models[2].name, "w8");
  models = {plain("w4", 1), plain("w4", 1)};
  name_models(models);
  EXPECT_EQ(models[1].name, "w4 (2)");
}

TEST(Collect, OfTheEmbeddedModel) {
  const Model model = load_model(source_path("models/pare-tales").string());
  const ReportModel m = collect(model, "models/pare-tales/", "abc");
  EXPECT_EQ(m.name, "pare-tales");
  EXPECT_EQ(m.parameters, parameters(model.spec));
  double weights = 0;
  for (std::size_t p = 0; p < 5; p++) weights += m.part_bytes[p];
  EXPECT_EQ(weights, static_cast<double>(m.weight_bytes));
  EXPECT_EQ(m.part_bytes[3], 0);  // a tied head
  EXPECT_EQ(m.part_bytes[5],
            512.0 * 4 * 2 * 4 * 32 * 2);  // positions, blocks, keys and values, heads, width, bytes
  EXPECT_FALSE(m.proof);
  Report r;
  r.base = m;
  r.models = {m};
  r.machine = machine_of(find_hardware(known_hardware(), "h100"), r);
  // q, k, v, o, gate, up, down, the attention itself and the head, in two passes of two models.
  EXPECT_EQ(r.machine->operations.size() % 4, 0u);
  double flops = 0;
  for (const ReportOperation& o : r.machine->operations)
    if (o.series == 0 && o.kind == "decode" && o.name == "attn.q") flops = o.flops;
  EXPECT_EQ(flops, 2.0 * 256 * 256);
  EXPECT_EQ(r.machine->operations[0].blocks, "0-3");
  expect_sound(report_html(r));
}

// A proof counts only for the weights it was made of.
TEST(Collect, AStaleProofIsNotUsed) {
  TemporaryFolder folder;
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy(source_path("models/pare-tales") / name, folder.path() / name);
  Proof proof = proof_of(1, 0.01, 5);
  proof.out_identity = "0123";
  keep_proof(proof, folder.path());
  const Model model = load_model(folder.path().string());
  EXPECT_TRUE(collect(model, "x", "0123").proof.has_value());
  const ReportModel stale = collect(model, "x", "4567");
  EXPECT_FALSE(stale.proof.has_value());
  EXPECT_NE(stale.proof_problem.find("4567"), std::string::npos);
  std::ofstream(folder.path() / "pare_proof.json") << "{";
  EXPECT_THROW(collect(model, "x", "0123"), Error);
}

}  // namespace
}  // namespace pare
