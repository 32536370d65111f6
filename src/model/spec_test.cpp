// Slots and the sums over them, what check refuses, rotary frequencies, and Specs as JSON.
#include "model/spec.h"

#include <set>

#include "base/random.h"
#include "model/checkpoint.h"
#include "model/test_models.h"

namespace pare {
namespace {

// DeepSeek-V3's attention on a dense MLP.
Spec latent_spec() {
  Spec spec;
  spec.dim = 7168;
  spec.vocab = 1000;
  spec.max_positions = 4096;
  Block b;
  Attention& a = b.attn;
  a.heads = a.kv_heads = 128;
  a.qk_dim = 192, a.v_dim = 128, a.q_rank = 1536, a.kv_rank = 512;
  a.rope.dims = 64;
  a.scale = 0.1f;
  a.q_down_norm = a.kv_down_norm = b.before_attn = b.before_ffn = Norm{};
  resize(a.q_down, 7168, 1536), resize(a.q, 1536, 128 * 192), resize(a.kv_down, 7168, 576);
  resize(a.k, 512, 128 * 128), resize(a.v, 512, 128 * 128), resize(a.o, 128 * 128, 7168);
  resize(b.ffn.gate, 7168, 256), resize(b.ffn.up, 7168, 256), resize(b.ffn.down, 256, 7168);
  spec.blocks.assign(61, b);
  resize(spec.head, 7168, 1000);
  return spec;
}

TEST(Slots, KvBytesOfPublishedModels) {
  // Keys and values in 16 bits, all blocks: 2 L G d b (or L (c + r) b for latent attention).
  const struct {
    const char* name;
    i64 bytes;
  } rows[] = {{"llama-2-7b", 524288},  {"llama-3-8b", 131072}, {"llama-3-70b", 327680},
              {"qwen2.5-0.5b", 12288}, {"qwen2.5-7b", 57344},  {"qwen3-0.6b", 114688},
              {"qwen3-1.7b", 114688},  {"qwen3-8b", 147456},   {"smollm2-135m", 23040},
              {"mistral-7b", 131072}};
  for (const auto& row : rows)
    EXPECT_EQ(kv_bytes_per_token(known_spec(row.name), Code::bf16), row.bytes) << row.name;
  EXPECT_EQ(kv_bytes_per_token(latent_spec(), Code::bf16), 61 * 576 * 2);
}

TEST(Slots, KvBytesOfSharedAndEightBitCaches) {
  Spec spec = tiny_spec();
  const i64 one = 2 * 2 * 32 * 2;  // keys and values of two heads of 32, 2 bytes each
  EXPECT_EQ(kv_bytes_per_token(spec, Code::f16), 2 * one);
  spec.blocks[1].attn.kv_from = 0;
  spec.blocks[1].attn.k = spec.blocks[1].attn.v = Linear{};
  check(spec);
  EXPECT_EQ(kv_bytes_per_token(spec, Code::f16), one);
  // Eight bits a value and one f32 scale a row of a head.
  EXPECT_EQ(kv_bytes_per_token(spec, Code::int8), 2 * 2 * (32 + 4));
}

TEST(Slots, ParametersOfPublishedModels) {
  const struct {
    const char* name;
    i64 count;
  } rows[] = {
      {"llama-3.2-1b", 1235814400}, {"llama-3.2-3b", 3212749824}, {"llama-3-8b", 8030261248},
      {"llama-3-70b", 70553706496}, {"llama-2-7b", 6738415616},   {"llama-2-13b", 13015864320},
      {"smollm2-135m", 134515008},  {"mistral-7b", 7241732096},   {"qwen2.5-0.5b", 494032768},
      {"qwen2.5-1.5b", 1543714304}, {"qwen2.5-7b", 7615616512},   {"qwen3-0.6b", 596049920},
      {"qwen3-1.7b", 1720574976},   {"qwen3-8b", 8190735360},     {"gemma-2-2b", 2614341888},
      {"phi-3-mini", 3821079552},   {"gpt2", 124439808},          {"pythia-160m", 162322944},
      {"falcon-7b", 6921720704}};
  std::set<std::string> seen;
  for (const auto& row : rows) {
    const Spec spec = known_spec(row.name);
    check(spec);
    EXPECT_EQ(parameters(spec), row.count) << row.name;
    // 16 bits a weight; learned positions count as f32.
    EXPECT_EQ(weight_bytes(spec), 2 * (row.count + spec.learned_positions * spec.dim)) << row.name;
    seen.insert(row.name);
  }
  for (const std::string& name : known_specs()) EXPECT_TRUE(seen.contains(name)) << name;
  EXPECT_NE(error_of([] { known_spec("llama-3.2-1B"); }).find("llama-3.2-1b"), std::string::npos);
}

TEST(Slots, ListNamesOnceInOrderAndPointsAtLinears) {
  Spec spec = latent_spec();
  Linear& q = spec.blocks[3].attn.q;
  q.bias = q.permuted = q.input_scaled = true;
  q.rank = 4, q.outliers = 3;
  q.activation = parse_activation("int8:tensor:static");
  std::set<std::string> names;
  std::map<std::string, std::vector<i64>> shapes;
  for (const Slot& slot : slots(spec)) {
    EXPECT_TRUE(names.insert(slot.name).second) << slot.name;
    shapes[slot.name] = slot.shape;
    EXPECT_EQ(slot.vector, slot.shape.size() == 1) << slot.name;
  }
  for (const auto& [name, l] : linears(static_cast<const Spec&>(spec)))
    EXPECT_EQ(shapes[name + ".weight"], (std::vector<i64>{l->out, l->in})) << name;
  const std::string at = "blocks.3.attn.q.";
  EXPECT_EQ(shapes[at + "bias"], std::vector<i64>{q.out});
  EXPECT_EQ(shapes[at + "low_rank_a"], (std::vector<i64>{4, q.in}));
  EXPECT_EQ(shapes[at + "low_rank_b"], (std::vector<i64>{q.out, 4}));
  EXPECT_EQ(shapes[at + "outlier_weight"], (std::vector<i64>{q.out, 3}));
  EXPECT_EQ(shapes[at + "outlier_index"], std::vector<i64>{3});
  EXPECT_EQ(shapes[at + "permutation"], std::vector<i64>{q.in});
  EXPECT_EQ(shapes[at + "input_scale"], std::vector<i64>{q.in});
  EXPECT_EQ(shapes[at + "static_scale"], std::vector<i64>{1});
  EXPECT_EQ(slots(spec).front().name, "embed.weight");
  EXPECT_EQ(slots(spec).back().name, "head.weight");
  spec.tied = true;
  EXPECT_EQ(slots(spec).back().name, "norm.weight");
}

TEST(Slots, ContradictionsAreNamed) {
  const auto text = [](const auto& change) {
    Spec spec = tiny_spec();
    change(spec);
    return error_of([&] { check(spec); });
  };
  EXPECT_EQ(text([](Spec&) {}), "");
  const auto refuses = [&](const char* field, const auto& change) {
    const std::string found = text(change);
    EXPECT_TRUE(found.starts_with("SP-001") && found.find(field) != std::string::npos)
        << field << ": " << found;
  };
  refuses("attn.kv_heads", [](Spec& s) { s.blocks[1].attn.kv_heads = 4; });
  refuses("attn.rope.dims", [](Spec& s) { s.blocks[1].attn.rope.dims = 33; });
  refuses("ffn.down", [](Spec& s) { s.blocks[1].ffn.down.in = 7; });
  refuses("attn.kv_from", [](Spec& s) { s.blocks[0].attn.kv_from = 0; });
  refuses("attn.scale", [](Spec& s) { s.blocks[0].attn.scale = 0; });
  refuses("number of blocks", [](Spec& s) { s.blocks.clear(); });
  refuses("head", [](Spec& s) { s.head.scheme = parse_scheme("int8:channel"); });
  refuses("attn.heads", [](Spec& s) { s.blocks[0].attn.heads = i64{1} << 60; });
  refuses("rotation", [](Spec& s) { s.blocks[0].attn.q.rotation = 48; });
  refuses("eps", [](Spec& s) { s.blocks[0].before_attn->eps = -1; });
  refuses("eps", [](Spec& s) { s.final_norm.eps = NAN; });
  const auto rope = [&](const char* field, const auto& change) {
    refuses(field, [&](Spec& s) { change(s.blocks[1].attn.rope); });
  };
  rope("theta", [](Rope& r) { r.theta = 0; });
  rope("factor", [](Rope& r) { r.scaling = RopeScaling::linear, r.factor = 0; });
  rope("original_positions", [](Rope& r) { r.scaling = RopeScaling::llama3; });
  rope("high_freq_factor",
       [](Rope& r) { r.scaling = RopeScaling::llama3, r.original_positions = 64; });
  rope("short_factor",
       [](Rope& r) { r.scaling = RopeScaling::longrope, r.original_positions = 64; });
  EXPECT_TRUE(text([](Spec& s) { s.blocks[0].ffn.experts = 8; }).starts_with("SP-002"));
}

// ---- rotary frequencies ----

Rope scaled(RopeScaling scaling, i64 dims, double theta, double factor, i64 original) {
  Rope r;
  r.dims = dims;
  r.theta = theta;
  r.scaling = scaling;
  r.factor = factor;
  r.original_positions = original;
  return r;
}

TEST(Rope, PlainLinearAndDynamic) {
  const auto plain = rope_frequencies(scaled(RopeScaling::none, 8, 10000, 1, 0), 1);
  const double expected[] = {1, 0.1, 0.01, 0.001};
  for (std::size_t i = 0; i < 4; i++) EXPECT_NEAR(plain[i], expected[i], 1e-15);
  const auto linear = rope_frequencies(scaled(RopeScaling::linear, 8, 10000, 4, 0), 1);
  for (std::size_t i = 0; i < 4; i++) EXPECT_NEAR(linear[i], expected[i] / 4, 1e-15);
  // Up to the trained length nothing changes; at twice the length and factor 2 the base becomes
  // 10000 * 3^(8/6).
  const Rope dynamic = scaled(RopeScaling::dynamic, 8, 10000, 2, 512);
  EXPECT_TRUE(rope_depends_on_length(dynamic));
  EXPECT_EQ(rope_frequencies(dynamic, 100), plain);
  EXPECT_EQ(rope_frequencies(dynamic, 512), plain);
  const auto stretched = rope_frequencies(dynamic, 1024);
  const double base = 43267.48710922225;
  for (std::size_t i = 0; i < 4; i++)
    EXPECT_NEAR(stretched[i], std::pow(base, -static_cast<double>(i) / 4), 1e-12) << i;
}

TEST(Rope, Llama3DivisorsOfThePublishedModels) {
  Rope r = scaled(RopeScaling::llama3, 128, 500000, 8, 8192);
  r.low_freq_factor = 1;
  r.high_freq_factor = 4;
  Rope plain = r;
  plain.scaling = RopeScaling::none;
  const auto frequencies = rope_frequencies(r, 1), base = rope_frequencies(plain, 1);
  const double expected[] = {1.207484, 1.553415, 2.026313, 2.69453, 3.684253, 5.257327};
  for (std::size_t i = 0; i < 64; i++) {
    const double divisor = base[i] / frequencies[i];
    EXPECT_NEAR(divisor, i < 29 ? 1 : i > 34 ? 8 : expected[i - 29], 2e-6) << i;
  }
}

TEST(Rope, YarnRamp) {
  // d 64, theta 10000, original 4096: from index 10 (not yet) to 23 (wholly) divided by the factor.
  Rope r = scaled(RopeScaling::yarn, 64, 10000, 40, 4096);
  const auto a = rope_frequencies(r, 1);
  for (std::size_t i = 0; i < 32; i++) {
    const double inverse = std::pow(10000.0, -static_cast<double>(i) / 32);
    const double ramp = std::clamp((static_cast<double>(i) - 10) / 13, 0.0, 1.0);
    EXPECT_NEAR(a[i] / inverse, ramp / 40 + 1 - ramp, 1e-12) << i;
  }
  // Without rounding the corners lie inside: low 10.4, high 22.5.
  r.truncate = false;
  const auto b = rope_frequencies(r, 1);
  EXPECT_EQ(a[10], b[10]);
  EXPECT_GT(b[11], a[11]);
  EXPECT_LT(b[22], a[22]);
}

TEST(Rope, LongropeSwitchesLists) {
  Rope r = scaled(RopeScaling::longrope, 4, 100, 4, 16);
  r.short_factor = {1, 2};
  r.long_factor = {4, 5};
  EXPECT_TRUE(rope_depends_on_length(r));
  EXPECT_NEAR(rope_frequencies(r, 16)[1], 0.1 / 2, 1e-15);
  EXPECT_NEAR(rope_frequencies(r, 17)[0], 1.0 / 4, 1e-15);
  EXPECT_NEAR(rope_frequencies(r, 17)[1], 0.1 / 5, 1e-15);
}

// ---- a Spec as JSON ----

TEST(SpecJson, EveryFixtureAndEveryFieldComeBack) {
  for (const auto& entry : std::filesystem::directory_iterator(fixture("families"))) {
    const Spec spec = spec_of_folder(entry.path());
    EXPECT_EQ(spec_from_json(parse_json(spec_to_json(spec).dump(), "spec")), spec) << entry.path();
  }
  for (const std::string& name : known_specs())
    EXPECT_EQ(spec_from_json(spec_to_json(known_spec(name))), known_spec(name)) << name;
  Spec spec = latent_spec();
  spec.blocks[5].attn.window = 100;
  spec.blocks[5].attn.sinks = 4;
  spec.blocks[5].attn.sink_logits = true;
  spec.blocks[6].residual_scale = 0.3f;
  spec.blocks[7].attn.kv_from = 3;
  spec.blocks[7].attn.k = spec.blocks[7].attn.v = spec.blocks[7].attn.kv_down = Linear{};
  spec.blocks[8].ffn.act = Act::relu2;
  Linear& q = spec.blocks[9].attn.q;
  q.scheme = parse_scheme("nf4:g64:dq");
  q.activation = parse_activation("int8:g128");
  q.rank = 8, q.outliers = 2, q.permuted = q.input_scaled = true, q.rotation = 64;
  spec.kv = Code::e4m3;
  spec.logit_cap = 30.5f;
  check(spec);
  const Json json = spec_to_json(spec);
  EXPECT_EQ(spec_from_json(json), spec);
  EXPECT_LT(json.dump().size(), 12000u);  // equal blocks are written once
}

TEST(SpecJson, DamageIsNamed) {
  const Json good = spec_to_json(tiny_spec());
  const auto text = [&](const std::string& from, const std::string& to) {
    std::string changed = good.dump();
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    return error_of([&] { spec_from_json(parse_json(changed, "spec")); });
  };
  EXPECT_EQ(text("\"dim\":64", "\"dim\":64"), "");
  EXPECT_NE(text("\"dim\":64", "\"dim\":\"64\"").find("spec.dim"), std::string::npos);
  EXPECT_NE(text("\"dim\":64", "\"dims\":64").find("spec.dims"), std::string::npos);
  EXPECT_TRUE(text("\"dim\":64", "\"dim\":65").starts_with("SP-001"));
  EXPECT_NE(text("\"count\":2", "\"count\":5000").find("blocks"), std::string::npos);
  EXPECT_TRUE(text("\"scheme\":\"bf16\"", "\"scheme\":\"bf17\"").starts_with("SC-"));
}

}  // namespace
}  // namespace pare
