// Multiple choice by log-likelihood.
//
// A JSONL file, one item a line, in one of two forms:
//   {"prompt": "The sky is", "choices": [" blue", " loud"], "answer": 0}
//   {"sentence_good": "...", "sentence_bad": "..."}            (BLiMP: minimal pairs; chance is
//   0.5)
// A choice's score is the sum of ln p of its tokens given the prompt (all of its tokens after the
// first when there is no prompt and no begin token). Protocol of BLiMP: Warstadt et al. 2020.
#pragma once

#include <filesystem>

#include "base/log.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace pare {

struct TaskItem {
  std::string prompt;
  std::vector<std::string> choices;
  i64 answer = 0;
};
std::vector<TaskItem> read_tasks(const std::filesystem::path&);  // Errors TA-001.. name the line

struct TaskResult {
  i64 items = 0, correct = 0, correct_normalized = 0;  // normalized: ln p per byte of the choice
  double accuracy() const {
    return items > 0 ? static_cast<double>(correct) / static_cast<double>(items) : 0;
  }
  double accuracy_normalized() const {
    return items > 0 ? static_cast<double>(correct_normalized) / static_cast<double>(items) : 0;
  }
  double standard_error() const;  // of the accuracy
};
TaskResult run_tasks(Engine&, const Tokenizer&, const std::vector<TaskItem>&, Pool&, const Log&);

}  // namespace pare
