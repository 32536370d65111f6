// Generation: prompts in, tokens out.
#pragma once

#include <functional>
#include <vector>

#include "engine/engine.h"
#include "engine/sample.h"

namespace pare {

struct GenerateOptions {
  i64 tokens = 128;  // at most; fewer when the model's positions are used up
  SampleOptions sampling;
  std::uint64_t seed = 0;          // sequence i draws from stream i of this seed
  std::vector<std::int32_t> stop;  // ids that end a sequence (and are its last token)
};

// Runs all prompts as one batch; returns the new tokens of each. `on_token` sees them as they come.
// Errors: EN-002 a prompt longer than the model's positions, EN-010 sampling options.
std::vector<std::vector<std::int32_t>> generate(
    Engine&, const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions&,
    const std::function<void(std::size_t sequence, std::int32_t id)>& on_token = {});

}  // namespace pare
