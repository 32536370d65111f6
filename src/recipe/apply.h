// A recipe applied: base model and recipe in, published folder out.
//
// Steps run in order. A step learns when its method needs data, or when data are given and its
// method can use them (all but hqq) and it changes a matrix that is multiplied; the same sequences
// go through the model that the steps before it have made. Each finished block of each step is
// committed to the work folder "<out>.pare-work" (pass/work.h): a killed run loses at most the
// block in hand, and the same call goes on and publishes the same bytes. A recipe that only rounds
// to nearest without data streams from input to output and keeps no such folder. Bytes depend on
// the recipe, the model, the data and the version alone: not on threads, memory or interruptions.
//
// The output holds, in its notes (model/model.h), the recipe's text, what it began with and learnt
// from, one line a step, and the evidence of every step.
//
// Errors: those of the passes and of the work folder; QU-021 `strict` and a method gave way; QU-023
// a second step that learns from statistics, which are of the model before the first; QU-024 data
// and no step that learns; QU-026 (Exit::gate) the outcome is beyond max_kl; QU-028 (Exit::gate)
// its weights are beyond max_bytes: said before any work.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "probe/perplexity.h"
#include "recipe/data.h"
#include "recipe/recipe.h"

namespace pare {

struct ApplyOptions {
  DataSource data;                       // its wish goes before the recipe's
  std::optional<std::string> eval_text;  // measure perplexity and KL on it
  std::string eval_name;                 // of its file, for the record
  i64 ram_bytes = 0;                     // 0: half of what is free
  bool strict = false, restart = false, force = false;
};

// Of the outcome against the base.
struct Quality {
  EvalResult result;
  std::string text;  // what it was measured on
};

struct Applied {
  Model model;  // what was published
  SaveReport saved;
  std::string line;  // the steps, as the history has them, with "; " between
  i64 bytes_before = 0;
  std::vector<MatrixReport> matrices;  // solved in this run
  std::optional<Quality> quality;      // with eval_text or the gate max_kl
};

Applied apply(const Model& base, const Recipe&, const ApplyOptions&,
              const std::filesystem::path& out, Pool&, const Log&);

// The Spec of the outcome: all steps planned. Errors as above, before any weight is read.
Spec plan(const Recipe&, Spec);

}  // namespace pare
