// Which positions a protocol scores.
#include "probe/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/model.h"
#include "support.h"

namespace pare {
namespace {

Log silent() {
  Log log;
  log.quiet = true;
  return log;
}

// -ln p of targets (first, last] of one window, from the window's own logits.
double expected(Engine& engine, std::vector<std::int32_t> ids, std::size_t first) {
  KvCache cache = engine.make_cache(static_cast<i64>(ids.size()));
  const Input input{&cache, ids};
  const Matrix<const float> logits = engine.step({&input, 1}, Want::all);
  double sum = 0;
  for (std::size_t t = first; t + 1 < ids.size(); t++)
    sum += negative_log_likelihood(logits.row(static_cast<i64>(t)), logits.cols, ids[t + 1]);
  return sum;
}

TEST(Protocol, SecondHalfIsLlamaCppsRule) {
  const Model model = load_model(fixture("families/llama2").string());
  Pool pool(1);
  Engine engine(model, pool, {});
  Sequence text;
  for (int i = 0; i < 50; i++)
    text.ids.push_back(static_cast<std::int32_t>((i * 37 + 11) % model.spec.vocab));
  Protocol protocol;
  protocol.window = 16;
  protocol.second_half = true;
  double sum = 0;
  for (int w = 0; w < 3; w++)
    sum += expected(engine, {text.ids.begin() + 16 * w, text.ids.begin() + 16 * w + 16}, 8);
  const EvalResult r = evaluate(engine, nullptr, {text}, protocol, pool, silent());
  EXPECT_EQ(r.score.tokens, 3 * 7);
  EXPECT_NEAR(r.score.nll, sum, 1e-6 * sum);

  protocol.begin_token = 3;  // in the place of each window's first
  sum = 0;
  for (int w = 0; w < 3; w++) {
    std::vector<std::int32_t> ids(text.ids.begin() + 16 * w, text.ids.begin() + 16 * w + 16);
    ids[0] = 3;
    sum += expected(engine, ids, 8);
  }
  EXPECT_NEAR(evaluate(engine, nullptr, {text}, protocol, pool, silent()).score.nll, sum,
              1e-6 * sum);
}

TEST(Protocol, SecondHalfRefusesOverlapsAndShortTexts) {
  const Model model = load_model(fixture("families/llama2").string());
  Pool pool(1);
  Engine engine(model, pool, {});
  Sequence text;
  text.ids.assign(10, 1);
  Protocol protocol;
  protocol.window = 16;
  protocol.second_half = true;
  EXPECT_THROW(evaluate(engine, nullptr, {text}, protocol, pool, silent()), Error);
  protocol.window = 8;
  protocol.stride = 4;
  EXPECT_THROW(evaluate(engine, nullptr, {text}, protocol, pool, silent()), Error);
}

}  // namespace
}  // namespace pare
