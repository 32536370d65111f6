// Where no text is given the model's own is not a bad one: its inputs are then those that it makes
// when it generates (self-generated calibration: Liu et al. 2023, LLM-QAT, arXiv:2305.17888).
#include "pass/quantize/calibration_text.h"

#include <algorithm>

#include "base/random.h"
#include "engine/generate.h"

namespace pare {
namespace {

constexpr i64 shortest = 16;

// bos_token_id of the configuration, if it is a token.
std::optional<std::int32_t> begin_token(const Model& model) {
  const Json* id = model.config.find("bos_token_id");
  if (id == nullptr || !id->is_int()) return std::nullopt;
  const i64 value = id->as_int();
  if (value < 0 || value >= model.spec.vocab) return std::nullopt;
  return static_cast<std::int32_t>(value);
}

}  // namespace

TokenSequences cut_sequences(std::span<const std::int32_t> ids, i64 tokens, i64 length) {
  PARE_CHECK(tokens > 0 && length > 0);
  const i64 have = static_cast<i64>(ids.size());
  const i64 pieces = have / length;  // whole ones
  const i64 wanted = (tokens + length - 1) / length;
  TokenSequences sequences;
  const auto take = [&](i64 from, i64 count) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(from);
    sequences.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  const i64 count = std::min(pieces, wanted);
  for (i64 i = 0; i < count; i++) take(i * pieces / count * length, length);
  const i64 rest = have - pieces * length;
  if (count < wanted && (rest >= shortest || (count == 0 && rest > 0))) take(pieces * length, rest);
  if (sequences.empty())
    fail_input("QU-022", "there are no tokens to calibrate with",
               {{"need", "a text of some length"}});
  return sequences;
}

TokenSequences write_sequences(const Model& model, i64 tokens, i64 length, std::uint64_t seed,
                               Pool& pool, const Log& log) {
  constexpr i64 at_once = 32;  // sequences
  Engine engine(model, pool);
  const i64 room = model.spec.max_positions > 0 ? model.spec.max_positions : length;
  length = std::max<i64>(2, std::min(length, room));
  const i64 count = (tokens + length - 1) / length;
  const std::optional<std::int32_t> begin = begin_token(model);
  Random random(seed, 0x7e87);
  Progress progress(log, "write calibration text", static_cast<double>(count * length), "tokens");
  TokenSequences sequences;
  for (i64 first = 0; first < count; first += at_once) {
    TokenSequences prompts;
    for (i64 i = first; i < std::min(count, first + at_once); i++)
      prompts.push_back({begin ? *begin
                               : static_cast<std::int32_t>(
                                     random.below(static_cast<std::uint64_t>(model.spec.vocab)))});
    GenerateOptions options;
    options.tokens = length - 1;
    options.seed = mix64(seed + static_cast<std::uint64_t>(first));
    const TokenSequences written =
        generate(engine, prompts, options, [&](std::size_t, std::int32_t) { progress.add(1); });
    for (std::size_t i = 0; i < prompts.size(); i++) {
      prompts[i].insert(prompts[i].end(), written[i].begin(), written[i].end());
      sequences.push_back(std::move(prompts[i]));
    }
  }
  return sequences;
}

}  // namespace pare
