// Filling in runs for the ledger.
//
// An identity costs one reading of all weights, so it is asked for only when a ledger is there to
// hold it; and a run is recorded after its result is safe, so nothing here may throw for a reason
// that is not an interruption.
#include "app/record.h"

#include "kernel/roof.h"

namespace pare {

RunRecord run_here(const char* command, int threads) {
  RunRecord run;
  run.command = command;
  run.version = PARE_VERSION;
  run.machine = {processor_name(), isa_name(isa_here()), threads};
  return run;
}

void record_made(const char* command, const Model& base, const std::string& out,
                 const std::string& recipe_line, const std::optional<EvalResult>& quality,
                 int threads, const Log& log) {
  if (ledger_path().empty()) return;
  try {
    const Model made = load_model(out);
    RunRecord run = run_here(command, threads);
    run.model = out;
    run.identity = identity(made, log);
    run.base = base.path.string();
    run.recipe = recipe_line;
    const auto bytes = [](const Model& m) { return static_cast<double>(weight_bytes(m.spec)); };
    run.figures.push_back({"weight_bytes", "bytes", bytes(base), bytes(made), {}, {}});
    if (quality) {
      run.protocol = to_string(quality->protocol);
      run.figures.push_back({"perplexity",
                             "",
                             quality->base_score->perplexity(),
                             quality->score.perplexity(),
                             {},
                             {}});
      run.figures.push_back({"kl_mean", "nats", {}, quality->divergence->kl_mean, {}, {}});
    }
    record_run(std::move(run), log);
  } catch (const Error& e) {
    if (e.exit == Exit::interrupted) throw;
    log.warning(fmt::format("the run was not recorded: {}", e.what()));
  }
}

}  // namespace pare
