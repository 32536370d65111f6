// The arithmetic of the field, and the defects of other tools' cost models.
#include <gtest/gtest.h>

#include "cost/compare.h"
#include "cost/predict.h"
#include "cost/rates.h"
#include "model/model.h"

namespace pare {
namespace {

const Hardware& known(const char* name) { return find_hardware(known_hardware(), name); }

Spec stored(Spec spec, const char* scheme) {
  for (auto& [name, linear] : linears(spec)) linear->scheme = parse_scheme(scheme);
  spec.embed = parse_scheme(scheme);
  return spec;
}

// One product with a matrix of so many weights.
StepProducts one_product(const char* scheme, const char* activation, i64 out, i64 in,
                         const Hardware& h) {
  Operation op;
  op.product = true;
  op.rows = 1;
  op.in = in;
  op.out = out;
  op.scheme = parse_scheme(scheme);
  op.activation = parse_activation(activation);
  op.flops = 2.0 * static_cast<double>(out) * static_cast<double>(in);
  op.weight_bytes = static_cast<double>(stored_bytes(op.scheme, out, in));
  return {{op}, {1}, {executed_rate(op.scheme, op.activation, h)}, op.weight_bytes};
}

// 70e9 weights read once a token.
TEST(Chapter, SeventyBillionWeightsOnAnH100) {
  const Hardware& h100 = known("h100");
  const auto seconds = [&](const char* scheme) {
    return products_seconds(one_product(scheme, "none", 700000, 100000, h100), h100, 1, 0);
  };
  EXPECT_NEAR(seconds("bf16"), 0.042, 0.0005);
  EXPECT_NEAR(seconds("int4:tensor"), 0.0104, 0.0001);
}

TEST(Chapter, ScalesOfGroupsOf32) {
  const Scheme s = parse_scheme("int4:g32");
  EXPECT_EQ(scale_rows(s, 2048) * scale_cols(s, 2048), 131072);
}

Spec attention_only(i64 heads, i64 kv_heads) {
  Spec spec = known_spec("llama-2-7b");
  spec.blocks.resize(2);
  for (Block& b : spec.blocks) {
    b.attn.heads = heads;
    b.attn.kv_heads = kv_heads;
    b.attn.qk_dim = b.attn.v_dim = 128;
  }
  return spec;
}

TEST(Chapter, CacheOfHeads) {
  const KvScheme half = Code::f16;
  const double mha = kv_bytes_per_token(attention_only(64, 64), half) / 2;
  EXPECT_EQ(mha, 32768);
  EXPECT_EQ(kv_bytes_per_token(attention_only(32, 32), half) /
                kv_bytes_per_token(attention_only(32, 1), half),
            32);
  EXPECT_EQ(kv_bytes_per_token(attention_only(32, 32), half) /
                kv_bytes_per_token(attention_only(32, 8), half),
            4);
  Spec shared = attention_only(64, 64);
  shared.blocks[1].attn.kv_from = 0;
  EXPECT_EQ(kv_bytes_per_token(shared, half), mha);
}

TEST(Chapter, HeadOfLargeVocabulary) {
  EXPECT_NEAR(static_cast<double>(stored_bytes(parse_scheme("bf16"), 128000, 4096)), 1.05e9, 1e7);
}

TEST(Chapter, EightBitsMoveTheRidge) {
  const Hardware& h100 = known("h100");
  EXPECT_NEAR(*h100.rate_of("bf16") / 1e12, 990, 2);
  EXPECT_NEAR(*h100.rate_of("int8") / 1e12, 1979, 1);
  EXPECT_NEAR(ridge(h100, "bf16"), 295, 1);
  EXPECT_NEAR(ridge(h100, "int8"), 591, 1);
}

// Bytes a token of well-known models, 16 bits.
TEST(Table, CacheBytesPerToken) {
  struct Row {
    const char* name;
    double bytes;
  };
  for (const Row& row : {Row{"llama-2-7b", 524288},
                         {"llama-3-8b", 131072},
                         {"mistral-7b", 131072},
                         {"llama-3-70b", 327680},
                         {"smollm2-135m", 23040}})
    EXPECT_EQ(kv_bytes_per_token(known_spec(row.name), Code::f16), row.bytes) << row.name;
}

// The batch where arithmetic takes over, as published rates give it.
TEST(Ridge, MovesWithTheSchemeOfWeightsAndActivations) {
  struct Row {
    const char* hardware;
    double bf16, w8a16, w4a16, w8a8;
  };
  const Activation none, int8 = parse_activation("int8:token");
  for (const Row& row : {Row{"h100", 295, 148, 83, 295},
                         {"h200", 206, 103, 58, 206},
                         {"a100-80", 153, 77, 43, 153},
                         {"b200", 281, 141, 79, 281},
                         {"mi300x", 247, 123, 69, 247},
                         {"xeon-6980p", 310, 155, 87, 310}}) {
    const Hardware& h = known(row.hardware);
    EXPECT_NEAR(ridge_batch(parse_scheme("bf16"), none, h), row.bf16, 1) << row.hardware;
    EXPECT_NEAR(ridge_batch(parse_scheme("int8:channel"), none, h), row.w8a16, 1);
    EXPECT_NEAR(ridge_batch(parse_scheme("int4:g32"), none, h), row.w4a16, 1);  // 4.5 bits
    EXPECT_NEAR(ridge_batch(parse_scheme("int8:channel"), int8, h), row.w8a8, 1);
  }
}

// Weight-only 4 bits against W8A8: QServe reports about 78 on an A100.
TEST(Crossover, FourBitWeightsAgainstEightBitProducts) {
  const Hardware& a100 = known("a100-80");
  const Faster w4 = faster(one_product("int4:tensor", "none", 8192, 8192, a100),
                           one_product("int8:tensor", "int8:token", 8192, 8192, a100), a100, 0);
  ASSERT_TRUE(w4.from && w4.until);
  EXPECT_EQ(*w4.from, 1);
  EXPECT_NEAR(*w4.until, 76.5, 0.2);
}

TEST(Concurrency, CacheLimitsIt) {
  const auto largest = [](const char* scheme, const char* kv) {
    Use use;
    use.context = 8192;
    use.prompt = 512;
    use.kv = parse_kv_scheme(kv);
    return predict(stored(known_spec("llama-3-8b"), scheme), known("h100"), use).largest_batch;
  };
  const double free16 = 0.9 * 80e9 - 16.06e9, row = 131072.0 * 8192;
  EXPECT_NEAR(static_cast<double>(largest("bf16", "f16")), free16 / row, 1.5);
  EXPECT_GT(largest("int4:g128", "f16"), largest("bf16", "f16"));
  EXPECT_NEAR(static_cast<double>(largest("int4:g128", "int8")),
              2 * static_cast<double>(largest("int4:g128", "f16")), 6);
}

// Defects of other cost models, each a case.
TEST(Defects, HeadCountsTwiceAndOnlyTheLastPosition) {
  const Spec spec = known_spec("llama-3-8b");
  Load load;
  load.tokens = 100;
  const auto ops = operations(spec, load);
  const Operation& head =
      *std::find_if(ops.begin(), ops.end(), [](const Operation& o) { return o.name == "head"; });
  EXPECT_EQ(head.flops, 2.0 * 4096 * 128256);
}

TEST(Defects, BatchCounts) {
  const Spec spec = known_spec("smollm2-135m");
  Load one, eight;
  one.context = eight.context = 100;
  eight.batch = 8;
  const Count a = sum(operations(spec, one)), b = sum(operations(spec, eight));
  EXPECT_EQ(b.flops, 8 * a.flops);
  EXPECT_EQ(b.kv_read_bytes, 8 * a.kv_read_bytes);
  EXPECT_EQ(b.kv_write_bytes, 8 * a.kv_write_bytes);
  EXPECT_LT(b.weight_bytes, 1.01 * a.weight_bytes) << "weights are read once for all";
}

TEST(Defects, CausalAttentionIsHalved) {
  Attention a;
  EXPECT_EQ(visible_pairs(a, 1000, 0), 1000.0 * 1001 / 2);
  EXPECT_EQ(visible_pairs(a, 10, 90), 10 * 90 + 55);
}

TEST(Defects, GroupedHeadsReadGroupedCaches) {
  Load load;
  load.context = 999;
  const Count mha = sum(operations(attention_only(32, 32), load));
  const Count gqa = sum(operations(attention_only(32, 8), load));
  EXPECT_EQ(mha.kv_read_bytes, 4 * gqa.kv_read_bytes);
}

TEST(Defects, HeadSizeIsNotWidthOverHeads) {
  Spec spec = known_spec("llama-2-7b");
  for (Block& b : spec.blocks) b.attn.qk_dim = b.attn.v_dim = 256;
  EXPECT_EQ(kv_bytes_per_token(spec, Code::f16),
            2 * kv_bytes_per_token(known_spec("llama-2-7b"), Code::f16));
}

TEST(Defects, ThreeMatricesInAGatedMlp) {
  const Spec spec = known_spec("llama-2-7b");
  double ffn = 0;
  for (const Operation& op : operations(spec, {}))
    if (op.section == Section::ffn) ffn += op.flops;
  EXPECT_EQ(ffn, 32 * 6.0 * 4096 * 11008);
}

TEST(Defects, WeightOnlyRunsOnTheUnitsOfSixteenBits) {
  const Hardware& h100 = known("h100");
  EXPECT_EQ(executed_code(parse_scheme("int4:g128"), {}, h100), "bf16");
  EXPECT_EQ(executed_code(parse_scheme("e4m3:channel"), {}, h100), "bf16");
  const Activation int8 = parse_activation("int8:token"), fp8 = parse_activation("e4m3:token");
  EXPECT_EQ(executed_code(parse_scheme("int8:channel"), int8, h100), "int8");
  EXPECT_EQ(executed_code(parse_scheme("int4:g128"), int8, h100), "int8");
  EXPECT_EQ(executed_code(parse_scheme("e4m3:channel"), fp8, h100), "fp8");
  EXPECT_EQ(executed_code(parse_scheme("e4m3:channel"), fp8, known("a100")), "bf16")
      << "no such unit there";
}

TEST(Defects, RatesAreDenseAndDecimal) {
  EXPECT_EQ(*known("l40s").rate_of("fp8"), 733e12);
  EXPECT_EQ(known("h100").bytes_per_second, 3350e9);
  EXPECT_EQ(known("h100").memory_bytes, 80e9);
  for (const Hardware& h : known_hardware())
    for (const char* figure : {"memory_gb", "bandwidth_gbs"})
      EXPECT_TRUE(h.sources.contains(figure)) << h.name;
}

TEST(Defects, TiedHeadsAreReadButNotStoredTwice) {
  const Spec tied = known_spec("llama-3.2-1b");
  const Count count = sum(operations(tied, {}));
  EXPECT_NEAR(count.weight_bytes, static_cast<double>(weight_bytes(tied)), 2.0 * 2048 * 2);
}

TEST(Defects, WindowsBoundTheCacheAndItsReading) {
  Spec spec = known_spec("llama-2-7b");
  for (Block& b : spec.blocks) b.attn.window = 1000;
  const KvScheme half = Code::f16;
  EXPECT_EQ(kv_cache_bytes(spec, half, 500), 500.0 * 524288);
  EXPECT_EQ(kv_cache_bytes(spec, half, 4000), 1000.0 * 524288);
  EXPECT_EQ(kv_bytes_read(spec, half, 3999), 1000 * 524288);
}

TEST(Identities, GroupedWithAsManyHeadsIsMultiHead) {
  Load load;
  load.tokens = 7;
  load.context = 50;
  Spec wide = attention_only(32, 32), windowed = wide;
  for (Block& b : windowed.blocks) b.attn.window = 57;
  EXPECT_EQ(sum(operations(wide, load)).flops, sum(operations(windowed, load)).flops);
  EXPECT_EQ(sum(operations(wide, load)).kv_read_bytes,
            sum(operations(windowed, load)).kv_read_bytes);
}

TEST(Hardware, NamesAreFoundAsPeopleWriteThem) {
  EXPECT_EQ(known("H100").name, "H100 SXM5");
  EXPECT_EQ(known("rtx 4090").name, "RTX 4090");
  try {
    known("H1000");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "HW-005");
    EXPECT_NE(std::string(e.what()).find("h100"), std::string::npos);
  }
}

TEST(Hardware, FilesAreReadStrictly) {
  const auto code_of = [](const std::string& text) -> std::string {
    try {
      parse_hardware(text, "mine.json");
    } catch (const Error& e) {
      return e.code;
    }
    return "";
  };
  const auto file = [](const std::string& row) {
    return R"({"sources": {"s": {"text": "t", "confidence": "read"}}, "hardware": [)" + row + "]}";
  };
  const std::string good =
      R"({"name": "X", "kind": "cpu", "memory_gb": [1, "s"], "bandwidth_gbs": [2, "s"],
          "rate_tflops": {"f32": [3, "s"]}})";
  EXPECT_EQ(code_of(file(good)), "");
  EXPECT_EQ(code_of(file(good + "," + good)), "HW-004");
  const auto changed = [&](const char* from, const char* to) {
    std::string row = good;
    return file(row.replace(row.find(from), std::string(from).size(), to));
  };
  EXPECT_EQ(code_of(changed("[2, \"s\"]", "2")), "HW-002");
  EXPECT_EQ(code_of(changed("[2, \"s\"]", "[-2, \"s\"]")), "HW-002");
  EXPECT_EQ(code_of(changed("[2, \"s\"]", "[2, \"t\"]")), "HW-003");
  EXPECT_EQ(code_of(changed("bandwidth_gbs", "bandwith_gbs")), "HW-001");
  EXPECT_EQ(code_of(changed("f32", "f33")), "HW-001");
  EXPECT_EQ(code_of(changed("cpu", "npu")), "HW-002");
  EXPECT_EQ(code_of("[]"), "HW-002");
}

}  // namespace
}  // namespace pare
