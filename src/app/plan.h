// What `pare plan` computes, between the command and its printing.
#pragma once

#include <string>
#include <vector>

#include "app/output.h"
#include "cost/advice.h"
#include "cost/compare.h"

namespace pare {

// Something that might be done to the model; the first is the model as it is.
struct PlanCase {
  std::string name;
  Spec spec;
  Use use;
};

struct Outcome {
  Prediction prediction;
  std::vector<SchemeShare> schemes;  // of the blocks
  std::vector<Faster> than;          // for each case, itself included
  std::vector<Advice> advice;
  i64 largest_context = 0;
};

struct MachinePlan {
  const Hardware* hardware = nullptr;
  std::vector<Outcome> outcomes;  // for each case
};

MachinePlan plan_on(const Hardware&, const std::vector<PlanCase>&);

std::string plan_text(const std::vector<PlanCase>&, const std::vector<MachinePlan>&);
std::string fit_text(const std::vector<PlanCase>&, const std::vector<MachinePlan>&);
std::string plan_plots(const std::vector<PlanCase>&, const std::vector<MachinePlan>&);
Json plan_json(const std::vector<PlanCase>&, const std::vector<MachinePlan>&);

}  // namespace pare
