// Block by block gives the bits of the whole: for every tiny Spec, several sequences in one batch,
// against the Engine with one sequence at a time.
#include "engine/segment.h"

#include <map>
#include <set>

#include "base/random.h"

#include "engine/statistics.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare::testing {
namespace {

std::vector<Ids> sequences_for(const Spec& spec) {
  std::vector<Ids> all(3);
  for (std::size_t s = 0; s < all.size(); s++)
    for (std::size_t i = 0; i < 7 + 3 * s; i++)
      all[s].push_back(
          static_cast<std::int32_t>((i * i + 5 * s + 1) % static_cast<std::size_t>(spec.vocab)));
  return all;
}

class Segments : public ::testing::TestWithParam<NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Segments, ::testing::ValuesIn(all_specs()),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_P(Segments, GiveTheLogitsOfTheEngine) {
  const Spec& spec = GetParam().spec;
  Pool pool(2);
  const Model model = random_model(spec, 11, Code::f32);
  const std::vector<Ids> all = sequences_for(spec);
  std::vector<i64> lengths;
  i64 tokens = 0;
  for (const Ids& s : all) lengths.push_back(static_cast<i64>(s.size())), tokens += lengths.back();
  std::vector<float> memory(static_cast<std::size_t>(tokens * spec.dim));
  const Matrix<float> hidden(memory.data(), tokens, spec.dim);
  Ends ends(model, pool);
  i64 row = 0;
  for (const Ids& s : all) {
    ends.embed(s, {hidden.row(row), static_cast<i64>(s.size()), spec.dim});
    row += static_cast<i64>(s.size());
  }
  i64 blocks = 0;
  for (const BlockRange& range : block_ranges(spec)) {
    Segment segment(model, range, pool);
    segment.run(hidden, lengths);
    EXPECT_EQ(range.first, blocks);
    blocks += range.count;
  }
  EXPECT_EQ(blocks, static_cast<i64>(spec.blocks.size()));
  Engine engine(model, pool, options_with(isa_here(), Code::f32));
  row = 0;
  for (const Ids& s : all) {
    const i64 n = static_cast<i64>(s.size());
    const std::vector<float> found = copy_of(ends.logits({hidden.row(row), n, spec.dim}));
    // Rows of a batch may take another kernel than those of a short sequence: rounding differs.
    EXPECT_LE(difference(found, logits_of(engine, s)), 1e-5);
    row += n;
  }
}

TEST_P(Segments, TapsSeeEachInputOnce) {
  const Spec& spec = GetParam().spec;
  Pool pool(1);
  const Model model = random_model(spec, 3, Code::f32);
  std::vector<float> memory(static_cast<std::size_t>(9 * spec.dim), 0.25f);
  std::set<std::string> seen;
  Tap tap;
  tap.input = [&](const std::string& name, Matrix<const float> x) {
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_EQ(x.rows, 9);
  };
  for (const BlockRange& range : block_ranges(spec)) {
    Segment segment(model, range, pool);
    segment.run({memory.data(), 9, spec.dim}, {4, 5}, &tap);
  }
  for (const InputSlot& input : input_slots(spec))
    EXPECT_TRUE(input.name == "head" || seen.contains(input.name)) << input.name;
}

TEST(Segment, AThrowingTapLeavesTheHiddenStates) {
  const Spec spec = llama_like();
  Pool pool(1);
  const Model model = random_model(spec, 3, Code::f32);
  std::vector<float> memory(static_cast<std::size_t>(5 * spec.dim), 0.5f);
  const std::vector<float> before = memory;
  Segment segment(model, {0, 1}, pool);
  Tap tap;
  tap.input = [](const std::string& name, Matrix<const float>) {
    if (name.ends_with("ffn.down")) throw 1;
  };
  EXPECT_THROW(segment.run({memory.data(), 5, spec.dim}, {5}, &tap), int);
  EXPECT_EQ(memory, before);
  segment.run({memory.data(), 5, spec.dim}, {5});
  std::vector<float> again = before;
  segment.run({again.data(), 5, spec.dim}, {5});
  EXPECT_EQ(memory, again);
  EXPECT_NE(memory, before);
}

TEST(Segment, RepackTakesWeightsAnewWithinAPass) {
  const Spec spec = llama_like();
  Pool pool(2);
  Model model = random_model(spec, 3, Code::f32);
  const auto other = random_model(spec, 4, Code::f32).weights.at("blocks.0.ffn.up.weight");
  std::vector<float> memory(static_cast<std::size_t>(5 * spec.dim), 0.5f), expected = memory;
  {
    Model changed = model;
    changed.weights.at("blocks.0.ffn.up.weight") = other;
    Segment segment(changed, {0, 1}, pool);
    segment.run({expected.data(), 5, spec.dim}, {5});
  }
  Segment segment(model, {0, 1}, pool);
  Tap tap;
  tap.input = [&](const std::string& name, Matrix<const float>) {
    if (name != "blocks.0.ffn.gate") return;
    model.weights.at("blocks.0.ffn.up.weight") = other;
    segment.repack("blocks.0.ffn.up");
  };
  segment.run({memory.data(), 5, spec.dim}, {5}, &tap);
  EXPECT_EQ(memory, expected);
}

// ---- statistics ----

TEST(Statistics, SumsAreThoseOfTheDefinition) {
  Pool pool(2);
  const i64 tokens = 700, n = 37;
  std::vector<float> x(static_cast<std::size_t>(tokens * n));
  Random random(9);
  for (float& v : x) v = static_cast<float>(random.normal());
  InputSum whole(n, true), cut(n, true);
  whole.add({x.data(), tokens, n}, pool);
  cut.add({x.data(), 123, n}, pool);
  cut.add({x.data() + 123 * n, tokens - 123, n}, pool);
  const InputStatistics a = whole.finish(pool), b = cut.finish(pool);
  EXPECT_EQ(a.gram, b.gram);
  EXPECT_EQ(a.sum_abs, b.sum_abs);
  EXPECT_EQ(a.sample, b.sample);
  for (i64 i = 0; i < n; i += 5)
    for (i64 k = 0; k < n; k += 3) {
      double sum = 0;
      for (i64 t = 0; t < tokens; t++)
        sum +=
            double{x[static_cast<std::size_t>(t * n + i)]} * x[static_cast<std::size_t>(t * n + k)];
      EXPECT_NEAR(a.gram_view().row(i)[k], sum / tokens, 1e-5);
    }
}

TEST(Statistics, FilesGiveBackWhatWasWritten) {
  const Spec spec = llama_like(1);
  const TemporaryFolder folder;
  Pool pool(1);
  std::map<std::string, InputStatistics> made;
  {
    StatisticsWriter writer(folder / "s", spec, true, 20, "a text");
    for (const InputSlot& input : input_slots(spec)) {
      InputSum sum(input.size, true);
      std::vector<float> x(static_cast<std::size_t>(20 * input.size));
      Random random(static_cast<std::uint64_t>(input.size));
      for (float& v : x) v = static_cast<float>(random.normal());
      sum.add({x.data(), 20, input.size}, pool);
      made[input.name] = sum.finish(pool);
      writer.write(input.name, made[input.name]);
    }
    const Attention& a = spec.blocks[0].attn;
    const std::vector<float> k(static_cast<std::size_t>(a.k.out)),
        v(static_cast<std::size_t>(a.v.out));
    writer.write(0, {k, k, v, v});
    writer.finish();
  }
  const StatisticsFile file(folder / "s", spec);
  EXPECT_EQ(file.tokens(), 20);
  EXPECT_EQ(file.source(), "a text");
  for (const auto& [name, s] : made) {
    const InputStatistics back = file.read(name);
    EXPECT_EQ(back.gram, s.gram);
    EXPECT_EQ(back.sum_square, s.sum_square);
    EXPECT_EQ(back.max_abs, s.max_abs);
    EXPECT_EQ(back.sample, s.sample);
  }
  EXPECT_THROW(StatisticsFile(folder / "s", llama_like(1, 28)), Error);
}

}  // namespace
}  // namespace pare::testing
