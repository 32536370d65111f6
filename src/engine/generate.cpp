// One prefill for all prompts, then a step a token for all sequences that are still going.
#include "engine/generate.h"

#include <algorithm>

#include "base/log.h"

namespace pare {

std::vector<std::vector<std::int32_t>> generate(
    Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& o,
    const std::function<void(std::size_t, std::int32_t)>& on_token) {
  check(o.sampling);
  const i64 positions = engine.spec().max_positions;
  std::vector<KvCache> caches;
  std::vector<Random> random;
  std::vector<i64> room;  // tokens a sequence may still get
  std::vector<Input> inputs;
  for (std::size_t s = 0; s < prompts.size(); s++) {
    const i64 length = static_cast<i64>(prompts[s].size());
    if (length > positions)
      fail_input("EN-002", "a prompt is longer than the model's context",
                 {{"sequence", std::to_string(s)},
                  {"found", fmt::format("{} tokens", length)},
                  {"need", fmt::format("at most {}", positions)}});
    // The last token needs no place in the cache: nothing follows it.
    room.push_back(std::min(o.tokens, positions - length + 1));
    caches.push_back(
        engine.make_cache(std::min(positions, length + std::max<i64>(1, room.back()))));
    random.emplace_back(o.seed, s);
  }
  std::vector<std::vector<std::int32_t>> out(prompts.size());
  std::vector<std::size_t> active;
  for (std::size_t s = 0; s < prompts.size(); s++)
    if (room[s] > 0) active.push_back(s);
  std::vector<std::int32_t> last(prompts.size());
  for (bool first = true; !active.empty(); first = false) {
    stop_if_interrupted();
    inputs.clear();
    for (std::size_t s : active)
      inputs.push_back({&caches[s], first ? std::span<const std::int32_t>(prompts[s])
                                          : std::span<const std::int32_t>(&last[s], 1)});
    const Matrix<const float> logits = engine.step(inputs, Want::last);
    std::vector<std::size_t> going;
    for (std::size_t i = 0; i < active.size(); i++) {
      const std::size_t s = active[i];
      last[s] = sample(logits.span(static_cast<i64>(i)), o.sampling, random[s]);
      out[s].push_back(last[s]);
      if (on_token) on_token(s, last[s]);
      const bool ended = std::find(o.stop.begin(), o.stop.end(), last[s]) != o.stop.end();
      if (!ended && static_cast<i64>(out[s].size()) < room[s]) going.push_back(s);
    }
    active = std::move(going);
  }
  return out;
}

}  // namespace pare
