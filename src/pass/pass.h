// Pass: a technique as a function from model to model, with two faces.
//
//   plan   Spec -> Spec: pure, instant, shapes and formats only
//   run    Model -> Model: the work; weights stay promises, so a pass streams one tensor at a time
//
// They are bound by one property, held by a test for every pass on every tiny model:
// run(m).spec == plan(m.spec). A pass is a value: its options are bound when it is made.
#pragma once

#include <functional>
#include <string>

#include "base/log.h"
#include "base/pool.h"
#include "model/model.h"

namespace pare {

class WorkFolder;
struct MatrixReport;

// Everything a pass may touch besides its model.
struct Context {
  Pool& pool;
  const Log& log;
  std::uint64_t seed = 0;
  i64 ram_bytes = 0;           // memory that work may take, for schedules; 0: half of what is free
  WorkFolder* work = nullptr;  // where finished pieces are kept; none: a kill loses all
  std::vector<MatrixReport>* report = nullptr;
};

struct Pass {
  std::string name;  // "quantize"
  std::string line;  // with its options, as the history keeps it
  std::function<Spec(Spec)> plan;
  std::function<Model(Model, Context&)> run;  // leaves spec == plan(spec) and at least one Evidence
};

}  // namespace pare
