// The ledger: what was run and what it measured, in one SQLite file of the user's.
//
// Commands that measure or make a model add a run (record_run, which never fails them); `pare runs`
// reads. File: $PARE_LEDGER ("off": none), else $XDG_DATA_HOME/pare/runs.sqlite, else
// ~/.local/share/pare/runs.sqlite. It may be removed at any time; nothing depends on it.
//
// Errors: LG-001 not a ledger, or a damaged one; LG-002 a ledger of a newer version; LG-003 it
// cannot be opened or written (Exit::resources); LG-004 another program holds it (Exit::busy).
#pragma once

#include <functional>
#include <memory>

#include "base/log.h"
#include "recipe/proof.h"

namespace pare {

// Runs are compared with predictions only on the machine that they ran on.
struct Machine {
  std::string processor, isa;
  int threads = 0;  // in a filter: 0 is any number
};

struct RunRecord {
  i64 id = 0;        // given by the ledger
  std::string time;  // UTC; empty: now
  std::string command, version;
  Machine machine;
  std::string model, identity;      // the model it made or measured: path, hash of the weights
  std::string base, base_identity;  // what it came from or was compared with; may be empty
  std::string recipe;               // what made it, one line; may be empty
  std::string protocol;             // how it was measured
  std::string predictor;            // what its predictions stand on; empty: it has none
  std::vector<ProofRow> figures;    // of a single model: in `out`
};
Json to_json(const RunRecord&);

struct RunFilter {
  i64 limit = 0;      // the newest; 0: all
  std::string model;  // runs whose model's path contains this, or whose identity it is
};

class Ledger {
 public:
  // With `create` the file and its folder are made where they are missing; without, a missing file
  // is an empty ledger. Waits at most `patience` milliseconds for other programs.
  explicit Ledger(const std::filesystem::path&, bool create = false, int patience = 3000);
  ~Ledger();
  Ledger(Ledger&&) noexcept;

  i64 add(const RunRecord&);  // all of it or nothing; the id
  // Newest first. The visitor may not use the ledger.
  void visit(const RunFilter&, const std::function<void(const RunRecord&)>&);
  std::optional<RunRecord> find(i64 id);
  bool remove(i64 id);  // false: there is no such run

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Where the ledger lies; empty: turned off, or no home.
std::filesystem::path ledger_path();

// Adds the run to the user's ledger. What goes wrong is a warning.
void record_run(RunRecord, const Log&);

// How well predictions of one metric held on a machine: |predicted / measured - 1| over all figures
// that have both and the predictor of the newest run that has one, and by what a prediction should
// be multiplied (median of measured / predicted).
struct PredictionError {
  std::string metric;
  i64 points = 0;
  double median = 0, p90 = 0;
  double correction = 1;
};
struct PredictionErrors {
  std::string predictor;
  std::vector<PredictionError> metrics;  // by name
};
PredictionErrors prediction_errors(Ledger&, const Machine&);

}  // namespace pare
