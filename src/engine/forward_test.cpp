// CpuOps against RefOps on every feature of a Spec, and each against itself: however a sequence is
// cut into steps, chunks and batches, on any number of threads, the logits are the same.
//
// Tolerance. Every operation of CpuOps rounds like a sum of at most 64 terms in float: relative
// error (64 + 4) 2^-24. About forty follow one another between embedding and logits. Norms keep the
// stream of order one, so errors add and are not amplified: 40 * 68 * 6e-8 = 1.6e-4 of max(1,
// |logit|).
#include "base/random.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare {
namespace {

using testing::Ids;
using testing::NamedSpec;
constexpr double within = 1.6e-4;
constexpr std::uint64_t seed = 20240229;

Ids random_ids(i64 count, i64 vocab, std::uint64_t stream) {
  Random random(seed, stream);
  Ids ids;
  for (i64 i = 0; i < count; i++)
    ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
  return ids;
}

class Forward : public ::testing::TestWithParam<NamedSpec> {
 protected:
  Forward()
      : model_(random_model(GetParam().spec, seed, Code::f32)),
        pool_(1),
        ids_(random_ids(23, GetParam().spec.vocab, 1)) {
    Engine reference(model_, pool_, testing::reference_options());
    want_ = testing::logits_of(reference, ids_);
    for (float x : want_) largest_ = std::max(largest_, std::abs(x));
  }
  Model model_;
  Pool pool_;
  Ids ids_;
  std::vector<float> want_;  // RefOps, all at once
  float largest_ = 0;
};

TEST_P(Forward, EveryClassOfMachineGivesTheReference) {
  EXPECT_GT(largest_, 0.1f) << "a model that says nothing tests nothing";
  for (unsigned isa : testing::classes_here()) {
    SCOPED_TRACE(isa_name(isa));
    Engine engine(model_, pool_, testing::options_with(isa));
    EXPECT_LT(testing::difference(testing::logits_of(engine, ids_), want_), within);
    for (i64 tokens : {1, 2, 7})
      EXPECT_LT(testing::difference(testing::logits_of(engine, ids_, tokens), want_), within)
          << "in steps of " << tokens;
  }
}

TEST_P(Forward, TheReferenceDoesNotDependOnTheSteps) {
  Engine reference(model_, pool_, testing::reference_options());
  for (i64 tokens : {1, 5})
    EXPECT_LT(testing::difference(testing::logits_of(reference, ids_, tokens), want_), within);
}

TEST_P(Forward, ChunksAndBatchesChangeNothing) {
  EngineOptions options;
  options.chunk_tokens = 6;
  Engine engine(model_, pool_, options), reference(model_, pool_, testing::reference_options());
  EXPECT_LT(testing::difference(testing::logits_of(engine, ids_), want_), within);

  // Three sequences of different lengths, prefilled together, then a token each together.
  const i64 vocab = engine.spec().vocab;
  std::vector<Ids> all;
  std::vector<KvCache> caches;
  std::vector<Input> prompts, next;
  for (std::uint64_t s = 0; s < 3; s++) {
    all.push_back(random_ids(4 + 6 * static_cast<i64>(s), vocab, 10 + s));
    caches.push_back(engine.make_cache(32));
  }
  for (std::size_t s = 0; s < 3; s++) {
    const std::span<const std::int32_t> tokens(all[s]);
    prompts.push_back({&caches[s], tokens.first(tokens.size() - 1)});
    next.push_back({&caches[s], tokens.last(1)});
  }
  EXPECT_EQ(engine.step(prompts, Want::nothing).rows, 0);
  const std::vector<float> together = testing::copy_of(engine.step(next, Want::last));
  ASSERT_EQ(together.size(), static_cast<std::size_t>(3 * vocab));
  for (std::size_t s = 0; s < 3; s++) {
    const std::vector<float> alone = testing::logits_of(reference, all[s]);
    const std::vector<float> last(alone.end() - vocab, alone.end());
    const auto row = together.begin() + static_cast<std::ptrdiff_t>(s) * vocab;
    EXPECT_LT(testing::difference({row, row + vocab}, last), within) << "sequence " << s;
    EXPECT_EQ(caches[s].size(), static_cast<i64>(all[s].size()));
  }
}

// What a cache costs in accuracy. A stored number is off by at most eps of itself (of the largest
// of its row for int8). A score moves by eps |q||k| scale, some 3 eps for numbers of order one; a
// weight of the softmax twice that; the mix by 6 eps + eps; four blocks add up to 30 eps of the
// stream. A norm behind attention divides by the size of the mix, which averaging has made some
// four times smaller than the values it came from. CpuOps and RefOps may round a number to
// different neighbours, so they too agree to that.
TEST_P(Forward, CacheCodesCostWhatTheirRoundingCosts) {
  const std::pair<Code, double> codes[] = {
      {Code::f16, 0x1p-11}, {Code::bf16, 0x1p-8}, {Code::int8, 1.0 / 254}, {Code::e4m3, 0x1p-4}};
  double growth = 30;
  for (const Block& b : GetParam().spec.blocks) growth = b.after_attn ? 120 : growth;
  for (const auto& [code, eps] : codes) {
    SCOPED_TRACE(std::string(info(code).name));
    Engine reference(model_, pool_, testing::reference_options(code));
    const std::vector<float> rounded = testing::logits_of(reference, ids_);
    EXPECT_LT(testing::difference(rounded, want_), growth * eps);
    for (unsigned isa : testing::classes_here()) {
      Engine engine(model_, pool_, testing::options_with(isa, code));
      EXPECT_EQ(engine.kv(), code);
      EXPECT_LT(testing::difference(testing::logits_of(engine, ids_), rounded), growth * eps);
      EXPECT_LT(testing::difference(testing::logits_of(engine, ids_, 1), rounded), growth * eps);
    }
  }
}

TEST_P(Forward, ATruncatedCacheGoesOnAsIfNothingHadBeen) {
  Engine engine(model_, pool_);
  const i64 vocab = engine.spec().vocab;
  KvCache cache = engine.make_cache(40);
  const auto run = [&](std::span<const std::int32_t> tokens) {
    const Input input{&cache, tokens};
    return testing::copy_of(engine.step({&input, 1}, Want::all));
  };
  const std::span<const std::int32_t> ids(ids_);
  const Ids other = random_ids(9, vocab, 77);
  bool ring = false;
  for (const Block& b : engine.spec().blocks) ring |= b.attn.window > 0;
  run(ids.first(12));
  run(other);
  if (ring) {  // what the window has lost is lost; the last token is not
    EXPECT_THROW(cache.truncate(12), Error);
    EXPECT_EQ(cache.size(), 21);
    cache.truncate(20);
    cache.truncate(0);
    run(ids.first(12));
    run(other.empty() ? ids.first(1) : std::span<const std::int32_t>(other).first(1));
  }
  cache.truncate(12);
  const std::vector<float> rest = run(ids.subspan(12));
  EXPECT_LT(testing::difference(rest, {want_.begin() + 12 * vocab, want_.end()}), within);
}

INSTANTIATE_TEST_SUITE_P(Specs, Forward, ::testing::ValuesIn(testing::all_specs()),
                         [](const auto& row) { return row.param.name; });

// Large enough that products, attention and element-wise operations are really split.
TEST(Threads, AnyNumberGivesTheSameBits) {
  Spec plain = testing::llama_like(2, 160, 40, 320);
  plain.blocks[1].attn.window = 20;
  const Spec latent = testing::each_block(testing::llama_like(2, 160, 40, 320), [](Block& b) {
    b.attn.heads = b.attn.kv_heads = 5;
    b.attn.kv_rank = 64;
    b.attn.rope.dims = 16;
    b.attn.kv_down_norm = Norm{};
    b.attn.k.rank = 2;
  });
  Spec quantized = plain;
  for (auto& [name, linear] : linears(quantized)) {
    linear->scheme = parse_scheme("int4:g32");
    linear->activation = parse_activation("int8:token");
  }
  for (const Spec& spec : {plain, latent, quantized}) {
    const Model model = random_model(spec, seed, Code::f32);
    const Ids ids = random_ids(60, spec.vocab, 3);
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      Pool pool(threads);
      Engine engine(model, pool);
      std::vector<float> now = testing::logits_of(engine, ids);
      const std::vector<float> more =
          testing::logits_of(engine, Ids(ids.begin(), ids.begin() + 30), 1);
      now.insert(now.end(), more.begin(), more.end());
      if (first.empty()) first = now;
      EXPECT_TRUE(now == first) << threads << " threads";
    }
  }
}

// The switch of longrope: a sequence that crosses it is run again, so steps do not matter; one that
// is shortened below it goes back to the short factors.
TEST(LongRope, CrossingTheSwitchRunsTheSequenceAgain) {
  const Spec spec = testing::each_block(testing::llama_like(), [](Block& b) {
    Rope& r = b.attn.rope;
    r.scaling = RopeScaling::longrope;
    r.original_positions = 10;
    r.factor = 4;
    r.short_factor = {1, 1.1, 1.2, 1.3, 1.4};
    r.long_factor = {1.5, 2, 3, 4, 5};
  });
  const Model model = random_model(spec, seed, Code::f32);
  Pool pool(1);
  Engine engine(model, pool), reference(model, pool, testing::reference_options());
  const Ids ids = random_ids(16, spec.vocab, 5);
  const std::vector<float> at_once = testing::logits_of(reference, ids);
  const Ids head(ids.begin(), ids.begin() + 9);
  const std::vector<float> brief = testing::logits_of(reference, head);
  const auto start = static_cast<std::size_t>(10 * spec.vocab);
  for (i64 tokens : {1, 3, 9}) {
    const std::vector<float> stepped = testing::logits_of(engine, ids, tokens);
    EXPECT_LT(testing::difference(stepped, at_once,
                                  start + static_cast<std::size_t>((tokens - 1) * spec.vocab)),
              within);
  }
  EXPECT_GT(testing::difference(brief, {at_once.begin(), at_once.begin() + 9 * spec.vocab}), 1e-2);

  KvCache cache = engine.make_cache(32);
  const Input whole{&cache, ids}, again{&cache, std::span(ids).subspan(8, 1)};
  engine.step({&whole, 1}, Want::nothing);
  cache.truncate(8);
  const std::vector<float> last = testing::copy_of(engine.step({&again, 1}, Want::last));
  EXPECT_LT(testing::difference(last, {brief.end() - spec.vocab, brief.end()}), within);
  cache.truncate(0);  // a new sequence starts short
  const Input anew{&cache, head};
  EXPECT_LT(testing::difference(testing::copy_of(engine.step({&anew, 1}, Want::all)), brief),
            within);
}

// Keys keep the rotation they came with; the definition is Transformers'.
TEST(DynamicRope, FrequenciesFollowTheLengthOfTheSequence) {
  const Spec spec = testing::each_block(testing::llama_like(), [](Block& b) {
    b.attn.rope.scaling = RopeScaling::dynamic;
    b.attn.rope.original_positions = 8;
    b.attn.rope.factor = 3;
  });
  const Model model = random_model(spec, seed, Code::f32);
  Pool pool(1);
  EngineOptions chunked;
  chunked.chunk_tokens = 5;
  Engine engine(model, pool, chunked), reference(model, pool, testing::reference_options());
  const Ids ids = random_ids(20, spec.vocab, 6);
  const std::vector<float> at_once = testing::logits_of(reference, ids);
  EXPECT_LT(testing::difference(testing::logits_of(engine, ids), at_once), within)
      << "the chunks of one step have one length";
  for (i64 tokens : {1, 4})
    EXPECT_LT(testing::difference(testing::logits_of(engine, ids, tokens),
                                  testing::logits_of(reference, ids, tokens)),
              within);
  EXPECT_GT(testing::difference(testing::logits_of(engine, ids, 1), at_once), 1e-2);
}

TEST(Tap, SeesInputsAndStagesInOrder) {
  const Spec spec = testing::latent(24, 9);
  const Model model = random_model(spec, seed, Code::f32);
  Pool pool(1);
  for (bool use_reference : {false, true}) {
    EngineOptions options;
    options.reference = use_reference;
    options.chunk_tokens = 4;
    Engine engine(model, pool, options);
    std::map<std::string, i64> rows, cols;
    std::vector<std::string> stages;
    Tap tap;
    tap.input = [&](const std::string& name, Matrix<const float> x) {
      rows[name] += x.rows;
      cols[name] = x.cols;
    };
    tap.stage = [&](const std::string& name, Matrix<const float>) { stages.push_back(name); };
    KvCache cache = engine.make_cache(16);
    const Ids ids = random_ids(9, spec.vocab, 8);
    const Input input{&cache, ids};
    engine.step({&input, 1}, Want::all, &tap);
    for (const auto& [name, linear] : linears(engine.spec())) {
      EXPECT_EQ(rows[name], 9) << name;
      EXPECT_EQ(cols[name], linear->in) << name;
    }
    EXPECT_EQ(stages.front(), "embed");
    EXPECT_EQ(stages.back(), "logits");
    EXPECT_NE(std::find(stages.begin(), stages.end(), "blocks.2.attn.mix"), stages.end());
  }
}

}  // namespace
}  // namespace pare
