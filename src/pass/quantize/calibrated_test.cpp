// The walk over the blocks: every method on every tiny Spec does what was planned; the schedule,
// the number of threads and interruptions change nothing.
#include "pass/quantize/calibrated.h"

#include <gtest/gtest.h>

#include "engine/test_specs.h"
#include "pass/quantize/calibrated_model.h"
#include "pass/quantize/calibration_text.h"
#include "pass/quantize/outliers.h"
#include "pass/quantize/quantize.h"
#include "pass/work.h"

namespace pare::testing {
namespace {

Log quiet() {
  Log log;
  log.quiet = true;
  return log;
}

std::shared_ptr<const Calibration> some_tokens(i64 vocab, std::size_t sequences = 3,
                                               std::size_t length = 12) {
  auto data = std::make_shared<Calibration>();
  Random random(5);
  for (std::size_t s = 0; s < sequences; s++) {
    auto& ids = data->sequences.emplace_back();
    for (std::size_t i = 0; i < length + s; i++)
      ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
  }
  data->source = "random tokens";
  return data;
}

QuantizeOptions options_for(Method method, const std::string& weights,
                            const std::string& activations,
                            std::shared_ptr<const Calibration> data) {
  QuantizeOptions o;
  o.weights = parse_scheme(weights);
  o.activations = parse_activation(activations);
  o.method.method = method;
  if (method != Method::hqq) o.method.data = std::move(data);
  return o;
}

// All planes of all weights, decoded.
std::map<std::string, std::vector<float>> contents(const Model& m) {
  std::map<std::string, std::vector<float>> all;
  for (const auto& [name, weight] : m.weights) all[name] = decode(weight.load());
  return all;
}

struct Case {
  Method method;
  const char* weights;
  const char* activations;
};
constexpr Case cases[] = {{Method::rtn, "int4:g32", "none"},
                          {Method::gptq, "int4:g32", "none"},
                          {Method::gptq, "int3:channel", "int8:token"},
                          {Method::awq, "nf4:g32", "none"},
                          {Method::smoothquant, "int8:channel", "int8:token"},
                          {Method::smoothquant, "int8:channel", "int8:tensor:static"},
                          {Method::llm_int8, "int8:channel", "int8:token"},
                          {Method::hqq, "int4:g32:asym", "none"},
                          {Method::automatic, "int4:g32:asym", "none"}};

// Rotated inputs for all that learn, companions for more companions.
bool refused(const Spec& spec, const QuantizeOptions& o) {
  for (const auto& [name, l] : linears(spec)) {
    if (name == "head") continue;
    if (l->rotation > 0 && o.method.data != nullptr) return true;
    const auto it = o.method.outliers.find(input_name(spec, name));
    const bool apart = it != o.method.outliers.end() && !it->second.empty();
    if (apart && (l->outliers > 0 || l->permuted)) return true;
  }
  return false;
}

TEST(Calibrated, DoesOnEverySpecWhatWasPlanned) {
  Pool pool(1);
  const Log log = quiet();
  int number = 0;
  for (const NamedSpec& named : all_specs())
    for (const Case& c : cases) {
      if (sanitized() && number++ % 7 != 0) continue;
      SCOPED_TRACE(fmt::format("{} {} {}", named.name, to_string(c.method), c.weights));
      const Model model = random_model(named.spec, 7, Code::f32);
      QuantizeOptions o =
          options_for(c.method, c.weights, c.activations, some_tokens(named.spec.vocab));
      std::vector<MatrixReport> report;
      Context context{pool, log, 0, 0, nullptr, &report};
      if (c.method == Method::llm_int8)
        collect_statistics(model, *o.method.data, false, context,
                           [&](const std::string& input, const InputStatistics& s) {
                             if (input != "head") o.method.outliers[input] = outlier_columns(s, 2);
                           });
      const Pass pass = quantize_pass(o);
      if (refused(model.spec, o)) {
        EXPECT_THROW(pass.run(model, context), Error);
        continue;
      }
      const Model out = pass.run(model, context);
      EXPECT_EQ(out.spec, pass.plan(model.spec));
      check(out);
      EXPECT_EQ(report.size(), choose_matrices(model.spec, o).size());
      for (const MatrixReport& m : report) EXPECT_TRUE(std::isfinite(m.error)) << m.name;
      Engine engine(out, pool, options_with(isa_here(), Code::f32));
      for (float x : logits_of(engine, {1, 2, 3})) ASSERT_TRUE(std::isfinite(x));
    }
}

// ---- schedules, on a small model ----

const Model& small_model() {
  static const Model model = random_model(llama_like(4, 48, 16, 96), 21, Code::f32);
  return model;
}

struct Outcome {
  Model model;
  std::vector<MatrixReport> report;
};

Outcome quantized(const Model& model, const QuantizeOptions& o, Pool& pool, i64 ram = 0,
                  WorkFolder* work = nullptr) {
  const Log log = quiet();
  Outcome outcome;
  Context context{pool, log, 0, ram, work, &outcome.report};
  outcome.model = quantize_pass(o).run(model, context);
  return outcome;
}

TEST(Calibrated, ScheduleAndThreadsChangeNothing) {
  Pool one(1), three(3);
  const auto data = some_tokens(small_model().spec.vocab, 5, 40);
  for (Method m : {Method::gptq, Method::automatic}) {
    const QuantizeOptions o = options_for(m, "int4:g32", "none", data);
    const auto whole = contents(quantized(small_model(), o, one).model);
    EXPECT_EQ(contents(quantized(small_model(), o, three).model), whole);
    // So little memory that every sequence is a batch of its own.
    EXPECT_EQ(contents(quantized(small_model(), o, three, 1).model), whole);
  }
}

TEST(Calibrated, WorkThatWasCutShortIsTakenUp) {
  Pool pool(1);
  const TemporaryFolder folder;
  QuantizeOptions o =
      options_for(Method::gptq, "int4:g32", "none", some_tokens(small_model().spec.vocab, 5, 40));
  o.head = parse_scheme("int8:channel");
  const auto undisturbed = contents(quantized(small_model(), o, pool).model);
  for (const char* at :
       {"blocks.0.attn.q.weight", "blocks.1.ffn.up.weight", "blocks.3.attn.o.weight"}) {
    const std::filesystem::path out = folder / at;
    Model broken = small_model();
    broken.weights.at(at).load = []() -> Tensor {
      fail(Exit::resources, "XX-001", "the power went");
    };
    {
      WorkFolder work(out, {"a run"}, false);
      EXPECT_THROW(quantized(broken, o, pool, 0, &work), Error);
    }
    WorkFolder work(out, {"a run"}, false);
    EXPECT_EQ(work.pieces().size(), static_cast<std::size_t>(at[7] - '0'));
    const Model resumed = quantized(small_model(), o, pool, 0, &work).model;
    EXPECT_EQ(contents(resumed), undisturbed) << at;
    EXPECT_EQ(resumed.spec, quantize_pass(o).plan(small_model().spec));
    work.remove();
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
}

double total_error(const Outcome& outcome) {
  double sum = 0;
  for (const MatrixReport& m : outcome.report) sum += m.error;
  return sum;
}

TEST(Calibrated, StatisticsFromAFileServeEveryMethod) {
  Pool pool(1);
  const Log log = quiet();
  const TemporaryFolder folder;
  const Model& model = small_model();
  const auto text = some_tokens(model.spec.vocab, 12, 40);
  Context context{pool, log};
  i64 tokens = 0;
  for (const auto& s : text->sequences) tokens += static_cast<i64>(s.size());
  {
    StatisticsWriter writer(folder / "stats", model.spec, true, tokens, "random");
    collect_statistics(
        model, *text, true, context,
        [&](const std::string& name, const InputStatistics& s) { writer.write(name, s); },
        [&](i64 block, const KvStatistics& s) {
          EXPECT_LT(s.k_min[0], s.k_max[0]);
          writer.write(block, s);
        });
    writer.finish();
  }
  auto data = std::make_shared<Calibration>();
  data->statistics = std::make_shared<StatisticsFile>(folder / "stats", model.spec);
  const double nearest =
      total_error(quantized(model, options_for(Method::rtn, "int3:g32", "none", data), pool));
  for (Method m : {Method::gptq, Method::awq, Method::automatic})
    EXPECT_LT(total_error(quantized(model, options_for(m, "int3:g32", "none", data), pool)),
              nearest)
        << to_string(m);
}

// ---- the embedded model ----

TEST(Calibrated, MethodsAreNearerToTheOriginalThanRounding) {
  if (sanitized()) GTEST_SKIP() << "arithmetic on a real model is slow under sanitizers";
  Pool pool(2);
  auto data = std::make_shared<Calibration>();
  data->sequences = cut_sequences(heldout_ids(), 1536, 128);
  data->source = "held-out text";
  const auto kl = [&](Method method) {
    const QuantizeOptions o = options_for(method, "int3:g128", "none", data);
    return divergence(tales().model, quantized(tales().model, o, pool).model, tales().rest, pool);
  };
  QuantizeOptions plain;
  plain.weights = parse_scheme("int3:g128");
  const double nearest =
      divergence(tales().model, quantized(tales().model, plain, pool).model, tales().rest, pool);
  const double gptq = kl(Method::gptq), awq = kl(Method::awq), both = kl(Method::automatic);
  std::printf("KL: nearest %.5f, gptq %.5f, awq %.5f, auto %.5f\n", nearest, gptq, awq, both);
  EXPECT_LT(gptq, nearest);
  EXPECT_LT(awq, nearest);
  EXPECT_LT(both, nearest);
}

TEST(Calibrated, AnInputThatIsAlwaysZeroHasNoGramMatrix) {
  Pool pool(1);
  const Log log = quiet();
  const Spec spec = llama_like(1);
  Model model = random_model(spec, 3, Code::f32);
  Weight& norm = model.weights.at("blocks.0.before_attn.weight");
  const std::vector<float> zeros(static_cast<std::size_t>(spec.dim));
  norm.load = [zeros] { return plain_tensor(zeros, {static_cast<i64>(zeros.size())}); };
  QuantizeOptions o = options_for(Method::gptq, "int4:g32", "none", some_tokens(spec.vocab));
  Context context{pool, log};
  const Model out = quantize_pass(o).run(model, context);
  check(out);
  for (const auto& [name, values] : contents(out))
    for (float x : values) ASSERT_TRUE(std::isfinite(x)) << name;
}

TEST(CalibrationText, IsSpreadEvenly) {
  std::vector<std::int32_t> ids(1000);
  for (std::size_t i = 0; i < ids.size(); i++) ids[i] = static_cast<std::int32_t>(i);
  const TokenSequences four = cut_sequences(ids, 40, 10);
  ASSERT_EQ(four.size(), 4u);
  EXPECT_EQ(four[0][0], 0);
  EXPECT_EQ(four[1][0], 250);
  EXPECT_EQ(four[3][9], 759);
  EXPECT_EQ(cut_sequences(ids, 100000, 300).size(), 4u);  // the rest of 100 too
  EXPECT_EQ(cut_sequences(std::span(ids).first(5), 40, 10).size(), 1u);
  EXPECT_THROW(cut_sequences({}, 40, 10), Error);
}

TEST(CalibrationText, OfTheModelIsTheSameForAnyPool) {
  Pool one(1), two(2);
  const Log log = quiet();
  const auto a = write_sequences(small_model(), 96, 24, 4, one, log);
  EXPECT_EQ(a, write_sequences(small_model(), 96, 24, 4, two, log));
  EXPECT_NE(a, write_sequences(small_model(), 96, 24, 5, two, log));
  ASSERT_EQ(a.size(), 4u);
  for (const auto& s : a) EXPECT_EQ(s.size(), 24u);
}

// ---- the work folder ----

TEST(Work, BelongsToOneRun) {
  const TemporaryFolder folder;
  const auto out = folder / "out";
  {
    WorkFolder work(out, {"a", "b"}, false);
    write_file(work.file("x"), "x");
    write_file(work.file("left-over"), "y");
    work.commit(Json::object({{"files", Json::array({Json("x")})}}));
    EXPECT_EQ(code_of([&] { WorkFolder(out, {"a", "b"}, false); }), "WK-003");
  }
  EXPECT_EQ(code_of([&] { WorkFolder(out, {"a", "c"}, false); }), "WK-001");
  {
    WorkFolder work(out, {"a", "b"}, false);
    ASSERT_EQ(work.pieces().size(), 1u);
    EXPECT_TRUE(std::filesystem::exists(work.file("x")));
    EXPECT_FALSE(std::filesystem::exists(work.file("left-over")));
    write_file(work.file("z"), "z");
    work.commit(Json::object({{"files", Json::array({Json("z")})}}), {"x"});
    EXPECT_FALSE(std::filesystem::exists(work.file("x")));
    work.enter("other");
    EXPECT_TRUE(work.pieces().empty());
    EXPECT_EQ(work.file("z").filename(), "other-z");
  }
  std::filesystem::remove(folder / "out.pare-work/z");
  EXPECT_EQ(code_of([&] { WorkFolder(out, {"a", "b"}, false); }), "WK-002");
  write_file(folder / "out.pare-work/journal.json", "{\"signature\"");
  EXPECT_EQ(code_of([&] { WorkFolder(out, {"a", "b"}, false); }), "WK-002");
  for (const char* journal :
       {"{}", R"({"signature": ["a", "b"], "pieces": [{"files": []}]})",
        R"({"signature": ["a", "b"], "pieces": [{"part": "", "files": ["../x"]}]})",
        R"({"signature": ["a", 1], "pieces": []})"}) {
    write_file(folder / "out.pare-work/journal.json", journal);
    EXPECT_EQ(code_of([&] { WorkFolder(out, {"a", "b"}, false); }), "WK-002") << journal;
  }
  {
    WorkFolder work(out, {"a", "c"}, true);
    EXPECT_TRUE(work.pieces().empty());
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out.pare-work"));  // nothing done, nothing kept
}

}  // namespace
}  // namespace pare::testing
