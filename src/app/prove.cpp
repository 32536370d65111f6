// pare prove: a finished model beside its base.
//
// What can be said before any work is said first: the models can be compared, the options suit
// both, the gates can be read. A gate that fails changes the exit code and nothing else: the table
// is printed and the proof is kept, for a failure is evidence too.
#include <fmt/ranges.h>

#include <algorithm>

#include "app/figures.h"
#include "app/prove.h"
#include "app/record.h"
#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

void refuse_same(const ProveOptions& o, const Model& base, const Model& out) {
  std::error_code status;
  if (fs::equivalent(base.path, out.path, status))
    fail(Exit::usage, "PV-001", "base and finished model are the same",
         {{"found", o.base}, {"and", o.out}}, "`pare prove BASE OUT` compares two models");
}

void refuse_vocabularies(const Model& base, const Model& out) {
  if (base.spec.vocab != out.spec.vocab)
    fail_input("PR-002", "the models have different vocabularies and cannot be compared",
               {{"found", fmt::format("{} tokens", out.spec.vocab)},
                {"need", fmt::format("{} tokens as the base", base.spec.vocab)}});
}

// What is not given fits into half of the positions.
SpeedOptions fitting(SpeedOptions o, i64 positions) {
  if (o.generate == 0) o.generate = std::max<i64>(1, std::min<i64>(64, positions / 4));
  if (o.prompt == 0) o.prompt = std::max<i64>(1, std::min<i64>(256, positions / 2));
  return checked(o, positions);
}

// Of the flags; else of --recipe; else of the recipe that made the model.
Gates gates_of(const ProveOptions& o, const Model& out) {
  Gates gates;
  if (!o.recipe.empty())
    gates = find_recipe(o.recipe).gates;
  else if (!out.provenance.empty())
    gates = parse_recipe(out.provenance.back().recipe, "recipe of " + o.out).gates;
  if (o.max_kl) gates.max_kl = o.max_kl;
  if (o.min_speedup) gates.min_speedup = o.min_speedup;
  if (o.max_bytes) gates.max_bytes = static_cast<i64>(*o.max_bytes);
  return gates;
}

ProofJob prepare(const ProveOptions& o, const CommonOptions& common) {
  ProofJob job;
  job.base = load_model(o.base, {common.tokenizer});
  job.out = load_model(o.out, {common.tokenizer});
  refuse_same(o, job.base, job.out);
  refuse_vocabularies(job.base, job.out);
  job.positions = std::min(job.base.spec.max_positions, job.out.spec.max_positions);
  job.speed = fitting(o.speed, job.positions);
  job.protocol = o.protocol;
  job.gates = gates_of(o, job.out);
  if (o.text.empty() && o.protocol.second_half)
    fail(Exit::usage, "PV-002", "--score second-half needs a text of whole windows", {},
         "give --text FILE");
  if (!o.text.empty()) job.text = read_text_argument(o.text);
  return job;
}

// Bytes are counted as recipes count them, from schemes and shapes: what passed there passes here.
std::vector<ProofGate> judge(const Gates& gates, double counted, const Proof& proof) {
  std::vector<ProofGate> judged;
  const auto found = [&](const char* metric) { return find_row(proof, metric)->out.value(); };
  const auto at_most = [&](const char* name, double need, double value) {
    judged.push_back({name, need, value, value <= need});
  };
  if (gates.max_kl) at_most("max_kl", *gates.max_kl, found("kl_mean"));
  if (gates.max_bytes) at_most("max_bytes", static_cast<double>(*gates.max_bytes), counted);
  if (gates.min_speedup) {
    const double speedup = found("decode_speedup");
    judged.push_back({"min_speedup", *gates.min_speedup, speedup, speedup >= *gates.min_speedup});
  }
  return judged;
}

std::string line_of(const Model& model) {
  return fmt::format("{}", fmt::join(model.history, "; "));
}

// A model that says what it was made from, and says another: no error, for a proof against any
// model of one vocabulary means something.
void warn_of_another_base(const ProofJob& job, const ProofFigures& m, const Log& log) {
  const auto& made = job.out.provenance;
  const bool known = std::any_of(made.begin(), made.end(),
                                 [&](const Provenance& p) { return p.base == m.base_identity; });
  if (!made.empty() && !known)
    log.warning(fmt::format("the finished model was made from another base: {} instead of {}",
                            pare::quoted(made.front().base), m.base_identity));
}

std::string printable(const std::string& text) {
  return is_clean_text(text) ? text : pare::quoted(text);
}

std::string protocol_text(const ProofJob& job, const ProveOptions& o, const ProofFigures& m) {
  const std::string scored =
      o.text.empty()
          ? fmt::format("text that the base wrote itself, {} tokens scored", m.quality.score.tokens)
          : fmt::format("{} tokens scored", m.quality.score.tokens);
  return fmt::format(
      "{}; {}; prompt {}, {} steps x {} at context {}, {} rounds of base and out in turn; "
      "predicted by {}",
      scored, to_string(m.quality.protocol), job.speed.prompt, job.speed.generate, job.speed.batch,
      job.speed.context, job.speed.repeats, m.predictor);
}

Proof make_proof(const ProofJob& job, const ProveOptions& o, const ProofFigures& m) {
  Proof proof;
  proof.threads = m.threads;
  proof.version = PARE_VERSION;
  proof.time = utc_now();
  proof.base = printable(o.base);
  proof.out = printable(o.out);
  proof.recipe = job.out.provenance.empty() ? line_of(job.out) : job.out.provenance.back().recipe;
  proof.base_identity = m.base_identity;
  proof.out_identity = m.out_identity;
  proof.hardware = fmt::format("{}, {}", processor_name(), isa_name(isa_here()));
  proof.protocol = protocol_text(job, o, m);
  proof.text = o.text.empty() ? "self-written" : printable(o.text);
  proof.rows = rows_of(job, m);
  proof.gates = judge(job.gates, static_cast<double>(weight_bytes(job.out.spec)), proof);
  return proof;
}

// ---- what is said and kept ----

std::string gate_text(const ProofGate& g) {
  const std::string unit = g.name == "max_bytes" ? "bytes" : g.name == "max_kl" ? "nats" : "ratio";
  return fmt::format("gate {}: {} found, {} {} needed: {}\n", g.name, figure_text(g.found, unit),
                     figure_text(g.need, unit), g.name.starts_with("max") ? "at most" : "at least",
                     g.passed ? "passed" : "FAILED");
}

std::string proof_text(const Proof& p, const ProofFigures& m) {
  std::string text = fmt::format("{} -> {}\n\n{}\n", p.base, p.out, figures_text(p.rows));
  for (const ProofGate& gate : p.gates) text += gate_text(gate);
  text += fmt::format(
      "{}: {}\n{}, {} threads; speeds: medians of rounds, speedups: median ratio of "
      "a round, spreads: half of the range\n",
      p.text, p.protocol, p.hardware, p.threads);
  if (m.cached)
    text +=
        "the base's weights fit in the last-level cache, so memory bandwidth is not their "
        "limit and MBU may pass 100 %\n";
  return text;
}

// Where the proof went; empty when it could not be kept, and then why.
std::string keep(const Proof& proof, const ProveOptions& o, const Model& out,
                 std::optional<Error>& failure) {
  try {
    if (!o.proof.empty()) {
      write_proof(proof, o.proof);
      return o.proof;
    }
    if (!fs::is_directory(out.path))
      fail(Exit::resources, "PF-003", "the proof cannot be kept beside the model",
           {{"file", out.path.string()}, {"found", "a model of one file"}},
           "keep it elsewhere with --proof FILE");
    keep_proof(proof, out.path);
    return (out.path / proof_name).string();
  } catch (const Error& e) {
    failure = e;
    return {};
  }
}

void record(const Proof& p, const ProofJob& job, const std::string& predictor, const Log& log) {
  RunRecord run = run_here("prove", p.threads);
  run.time = p.time;
  run.model = p.out;
  run.identity = p.out_identity;
  run.base = p.base;
  run.base_identity = p.base_identity;
  run.recipe = line_of(job.out);
  run.protocol = fmt::format("{}: {}", p.text, p.protocol);
  run.predictor = predictor;
  run.figures = p.rows;
  record_run(std::move(run), log);
}

[[noreturn]] void fail_gates(const Proof& p) {
  std::vector<Fact> facts;
  for (const ProofGate& g : p.gates)
    if (!g.passed)
      facts.push_back(
          {g.name, fmt::format("found {:.6g}, need {} {:.6g}", g.found,
                               g.name.starts_with("max") ? "at most" : "at least", g.need)});
  fail(Exit::gate, "PV-004", "the model does not keep what was asked of it", std::move(facts),
       "the proof was made all the same");
}

}  // namespace

void command_prove(const ProveOptions& o, const CommonOptions& common, const Output& out) {
  ProofJob job = prepare(o, common);
  const ProofFigures figures = measure(job, o, common, out.log);
  warn_of_another_base(job, figures, out.log);
  const Proof proof = make_proof(job, o, figures);
  std::optional<Error> failure;
  const std::string kept = keep(proof, o, job.out, failure);
  record(proof, job, figures.predictor, out.log);
  if (out.json) {
    Json result = to_json(proof);
    result.set("kept", kept.empty() ? Json() : Json(kept));
    out.result("prove", result);
  } else {
    out.text(proof_text(proof, figures) +
             (kept.empty() ? "" : fmt::format("the proof is kept in {}\n", kept)));
  }
  const bool passed = std::all_of(proof.gates.begin(), proof.gates.end(),
                                  [](const ProofGate& g) { return g.passed; });
  if (!passed) {
    if (failure) out.log.warning(failure->what());
    fail_gates(proof);
  }
  if (failure) throw *failure;
}

}  // namespace pare
