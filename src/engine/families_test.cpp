// Every family against Transformers: the checkpoints of tests/fixtures/families hold the logits
// that Transformers computed in float32 (tools/make_family_fixtures.py). The tolerance, 1e-4 of
// max(1, |logit|), is five times what float32 rounding moved there (that script refuses a case
// that rounding moves by more than 2e-5), which leaves room for another order of summation.
#include <cstring>

#include "engine/testing.h"
#include "file/safetensors.h"

namespace pare {
namespace {

using testing::Ids;
constexpr double tolerance = 1e-4;

struct Expected {
  Ids ids;
  std::vector<float> logits;  // (tokens, vocab)
};

std::vector<Expected> read_expected(const std::filesystem::path& folder) {
  const auto path = folder / "expected.safetensors";
  const Safetensors file = parse_safetensors(map_file(path), path.string());
  std::vector<Expected> all(2);
  for (const StoredTensor& t : file.tensors) {
    Expected& e = all.at(t.name.back() == '0' ? 0 : 1);
    if (t.dtype == Dtype::I64) {
      std::vector<std::int64_t> ids(t.bytes.size() / 8);
      std::memcpy(ids.data(), t.bytes.data(), t.bytes.size());
      e.ids.assign(ids.begin(), ids.end());
    } else {
      e.logits.resize(t.bytes.size() / 4);
      std::memcpy(e.logits.data(), t.bytes.data(), t.bytes.size());
    }
  }
  return all;
}

// The first position from which running token by token must give what one prefill gives. Where
// frequencies follow the length, what came before the sequence grew long was computed with others.
std::size_t comparable_from(const Spec& spec, std::size_t length) {
  std::size_t first = 0;
  for (const Block& b : spec.blocks) {
    const Rope& r = b.attn.rope;
    const auto original = static_cast<std::size_t>(r.original_positions);
    if (!rope_depends_on_length(r) || length <= original) continue;
    first = std::max(first, r.scaling == RopeScaling::dynamic ? length : original);
  }
  return first;
}

class Families : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> folders() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("families")))
    if (std::filesystem::exists(entry.path() / "expected.safetensors"))
      names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Of all engines of one test, for its report (--gtest_output=json:FILE).
struct Largest {
  double prefill = 0, one_by_one = 0;
};

void compare(Engine& engine, const std::vector<Expected>& expected, Largest& largest) {
  const auto vocab = static_cast<std::size_t>(engine.spec().vocab);
  for (const Expected& e : expected) {
    const double prefill = testing::difference(testing::logits_of(engine, e.ids), e.logits);
    EXPECT_LT(prefill, tolerance) << "prefill of " << e.ids.size();
    largest.prefill = std::max(largest.prefill, prefill);
    const std::size_t first = comparable_from(engine.spec(), e.ids.size()) * vocab;
    for (i64 tokens : {1, 5}) {
      const double steps =
          testing::difference(testing::logits_of(engine, e.ids, tokens), e.logits, first);
      EXPECT_LT(steps, tolerance) << "in steps of " << tokens << ", " << e.ids.size() << " tokens";
      if (tokens == 1) largest.one_by_one = std::max(largest.one_by_one, steps);
    }
  }
}

TEST_P(Families, LogitsAreThoseOfTransformers) {
  const auto folder = fixture("families") / GetParam();
  const Model model = load_model(folder.string());
  const std::vector<Expected> expected = read_expected(folder);
  Pool pool(2);
  Largest largest;
  // bf16 checkpoints would be given an f16 cache, which is another model's rounding.
  for (unsigned isa : testing::classes_here()) {
    SCOPED_TRACE(isa_name(isa));
    Engine engine(model, pool, testing::options_with(isa, Code::f32));
    compare(engine, expected, largest);
  }
  SCOPED_TRACE("reference");
  Engine reference(model, pool, testing::reference_options(Code::f32));
  compare(reference, expected, largest);
  RecordProperty("prefill", fmt::format("{:.1e}", largest.prefill));
  RecordProperty("one_by_one", fmt::format("{:.1e}", largest.one_by_one));
}

TEST_P(Families, SequencesInOneStepDoNotSeeEachOther) {
  const auto folder = fixture("families") / GetParam();
  const Model model = load_model(folder.string());
  const std::vector<Expected> expected = read_expected(folder);
  Pool pool(2);
  EngineOptions options = testing::options_with(isa_here(), Code::f32);
  options.chunk_tokens = 13;  // cuts both sequences
  Engine engine(model, pool, options);
  KvCache first = engine.make_cache(64), second = engine.make_cache(64);
  const Input inputs[] = {{&first, expected[0].ids}, {&second, expected[1].ids}};
  std::vector<float> want = expected[0].logits;
  want.insert(want.end(), expected[1].logits.begin(), expected[1].logits.end());
  EXPECT_LT(testing::difference(testing::copy_of(engine.step(inputs, Want::all)), want), tolerance);
}

INSTANTIATE_TEST_SUITE_P(All, Families, ::testing::ValuesIn(folders()),
                         [](const auto& row) { return row.param; });

}  // namespace
}  // namespace pare
