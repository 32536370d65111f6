// pare prove: a finished model beside its base.
//
// What can be said before any work is said first: the models can be compared, the options suit
// both, the gates can be read. Memory is asked for next, in child processes, while this one has no
// threads yet. Then both engines live side by side, because speeds on a machine that others use are
// comparable only when they are taken in turn. A gate that fails changes the exit code and nothing
// else: the table is printed and the proof is kept, for a failure is evidence too.
#include <fmt/ranges.h>

#include <algorithm>

#include "app/commands.h"
#include "app/figures.h"
#include "app/record.h"
#include "app/roofline.h"
#include "file/io.h"
#include "file/publish.h"
#include "probe/memory.h"
#include "probe/sensitivity.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr i64 written_tokens = 2048, written_length = 256;  // of text that the base writes

struct Gates {
  std::optional<double> max_kl, min_speedup;
  std::optional<i64> max_bytes;
};

// Both models and what is asked of them.
struct Job {
  Model base, out;
  SpeedOptions speed;
  Protocol protocol;
  i64 positions = 0;  // that both have
  std::string text;   // of the file; empty: the base writes
  Gates gates;
};

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

Gates gates_of(const ProveOptions& o) {
  Gates gates;
  if (o.max_kl) gates.max_kl = o.max_kl;
  if (o.min_speedup) gates.min_speedup = o.min_speedup;
  if (o.max_bytes) gates.max_bytes = static_cast<i64>(*o.max_bytes);
  return gates;
}

Job prepare(const ProveOptions& o, const CommonOptions& common) {
  Job job;
  job.base = load_model(o.base, {common.tokenizer});
  job.out = load_model(o.out, {common.tokenizer});
  refuse_same(o, job.base, job.out);
  refuse_vocabularies(job.base, job.out);
  job.positions = std::min(job.base.spec.max_positions, job.out.spec.max_positions);
  job.speed = fitting(o.speed, job.positions);
  job.protocol = o.protocol;
  job.gates = gates_of(o);
  if (o.text.empty() && o.protocol.second_half)
    fail(Exit::usage, "PV-002", "--score second-half needs a text of whole windows", {},
         "give --text FILE");
  if (!o.text.empty()) job.text = read_text_argument(o.text);
  return job;
}

// ---- what is scored ----

std::optional<Tokenizer> tokenizer_of(const Model& model) {
  if (model.tokenizer.empty()) return std::nullopt;
  return load_tokenizer(model.tokenizer);
}

// Two vocabularies of one size may still be of different tokens.
void refuse_tokenizers(const std::string& text, const std::vector<std::int32_t>& ids,
                       const std::optional<Tokenizer>& other) {
  if (!other || other->encode(text) == ids) return;
  fail_input("PV-003", "the models read the text as different tokens and cannot be compared", {},
             "the finished model carries another tokenizer than its base");
}

std::vector<Sequence> sequences_of_text(Job& job) {
  std::optional<Tokenizer> tokenizer = tokenizer_of(job.base), other = tokenizer_of(job.out);
  if (!tokenizer) std::swap(tokenizer, other);
  if (!tokenizer)
    fail_input("RN-001", "the models have no tokenizer, so text cannot be scored", {},
               "give --tokenizer FILE, or leave --text out");
  const std::vector<std::int32_t> ids = tokenizer->encode(job.text);
  refuse_tokenizers(job.text, ids, other);
  for (std::int32_t id : ids)
    if (id >= job.base.spec.vocab)
      fail_input("CL-005", "a token id is outside the model's vocabulary",
                 {{"found", std::to_string(id)},
                  {"need", fmt::format("0 to {}", job.base.spec.vocab - 1)}});
  const std::vector<std::int32_t> empty = tokenizer->encode("");
  if (job.protocol.second_half && !empty.empty() && empty[0] == tokenizer->bos())
    job.protocol.begin_token = empty[0];
  return {{ids, static_cast<i64>(job.text.size())}};
}

std::vector<Sequence> sequences_of_base(Job& job, Engine& base) {
  const i64 tokens = job.protocol.limit > 0 ? job.protocol.limit : written_tokens;
  const i64 length = job.protocol.window > 0 ? job.protocol.window
                                             : std::min({written_length, tokens, job.positions});
  if (length > job.positions || tokens < 2)
    fail(Exit::usage, "PR-003", "the window does not suit the model",
         {{"found", fmt::format("{} tokens of {}", length, tokens)},
          {"need", fmt::format("2 to {} tokens", job.positions)}});
  job.protocol.limit = 0;  // of each sequence; they are as many as wanted
  const std::optional<Tokenizer> tokenizer = tokenizer_of(job.base);
  return self_written(base, tokenizer ? tokenizer->bos() : -1, tokens, length, 0);
}

// ---- what is measured ----

struct Measured {
  std::optional<MemoryUse> base_memory, out_memory;
  std::string base_identity, out_identity;
  EvalResult quality;
  SpeedPair speed;
  Shares base_shares, out_shares;
  bool cached = false;  // the base's weights fit in the last-level cache
};

std::optional<MemoryUse> memory_of(const std::string& argument, const Job& job,
                                   const CommonOptions& common) {
  return measure_memory([&](const std::function<void()>& holding_all) {
    const Model model = load_model(argument, {common.tokenizer});
    Pool pool(common.threads);
    Engine engine(model, pool);
    std::vector<KvCache> caches;
    const std::vector<std::int32_t> prompt(static_cast<std::size_t>(job.speed.context), 0);
    const std::vector<std::int32_t> next(1, 0);
    std::vector<Input> prompts, steps;
    for (i64 b = 0; b < job.speed.batch; b++)
      caches.push_back(engine.make_cache(job.speed.context + job.speed.generate));
    for (KvCache& cache : caches) {
      prompts.push_back({&cache, prompt});
      steps.push_back({&cache, next});
    }
    engine.step(prompts, Want::last);
    engine.step(steps, Want::last);
    holding_all();
  });
}

Measured measure(Job& job, const ProveOptions& o, const CommonOptions& common, Proof& proof,
                 const Log& log) {
  Measured m;
  m.base_memory = memory_of(o.base, job, common);
  m.out_memory = memory_of(o.out, job, common);
  if (!m.base_memory || !m.out_memory)
    log.warning("the system does not say how much memory it took");
  Pool pool(common.threads);
  const Roof roof = roof_here(pool, log);
  m.base_identity = identity_hash(job.base, log);
  m.out_identity = identity_hash(job.out, log);
  Engine base(job.base, pool), out(job.out, pool);
  const std::vector<Sequence> sequences =
      o.text.empty() ? sequences_of_base(job, base) : sequences_of_text(job);
  m.quality = evaluate(out, &base, sequences, job.protocol, pool, log);
  m.speed = measure_speeds(base, out, job.speed, log);
  m.base_shares = shares_of(m.speed.base, roof, job.base.spec);
  m.out_shares = shares_of(m.speed.out, roof, job.out.spec);
  m.cached = m.speed.base.weight_bytes < static_cast<double>(roof.last_level_cache_bytes);
  proof.threads = pool.threads();
  return m;
}

// Bytes of the files that a model consists of; links count as what they lead to.
double disk_bytes(const fs::path& path) {
  std::error_code status;
  if (!fs::is_directory(path)) return static_cast<double>(fs::file_size(path, status));
  std::vector<std::string> names = side_files(path);
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".index.json") || name == "config.json" ||
        name == "quantize_config.json" || name == "pare_manifest.json")
      names.push_back(name);
  }
  double bytes = 0;
  for (const std::string& name : names) {
    const auto size = fs::file_size(path / name, status);
    if (!status) bytes += static_cast<double>(size);
  }
  return bytes;
}

double half_spread(const Timing& t) { return (t.maximum - t.minimum) / t.median / 2; }

std::optional<double> own(const std::optional<MemoryUse>& use) {
  return use ? std::optional(static_cast<double>(use->own)) : std::nullopt;
}
std::optional<double> peak(const std::optional<MemoryUse>& use) {
  return use ? std::optional(static_cast<double>(use->peak)) : std::nullopt;
}

std::vector<ProofRow> quality_rows(const EvalResult& r) {
  const Score& base = *r.base_score;
  const Divergence& d = *r.divergence;
  std::vector<ProofRow> rows = {
      {"perplexity", "", base.perplexity(), r.score.perplexity(), {}, {}}};
  if (r.score.bytes > 0)
    rows.push_back({"bits_per_byte", "", base.bits_per_byte(), r.score.bits_per_byte(), {}, {}});
  rows.push_back({"kl_mean", "nats", {}, d.kl_mean, {}, {}});
  rows.push_back({"kl_p99", "nats", {}, d.kl_p99, {}, {}});
  rows.push_back({"top1_agreement", "share", {}, d.top1_agreement, {}, {}});
  return rows;
}

std::vector<ProofRow> speed_rows(const Measured& m) {
  const SpeedResult &a = m.speed.base, &b = m.speed.out;
  return {
      {"decode_tokens_per_second",
       "tokens/s",
       a.decode_tokens_per_second,
       b.decode_tokens_per_second,
       {},
       {}},
      {"decode_tokens_per_second_spread",
       "share",
       half_spread(a.decode),
       half_spread(b.decode),
       {},
       {}},
      {"decode_speedup", "ratio", {}, m.speed.decode_speedup.median, {}, {}},
      {"decode_speedup_spread", "share", {}, half_spread(m.speed.decode_speedup), {}, {}},
      {"prefill_tokens_per_second",
       "tokens/s",
       a.prefill_tokens_per_second,
       b.prefill_tokens_per_second,
       {},
       {}},
      {"prefill_tokens_per_second_spread",
       "share",
       half_spread(a.prefill),
       half_spread(b.prefill),
       {},
       {}},
      {"prefill_speedup", "ratio", {}, m.speed.prefill_speedup.median, {}, {}},
      {"prefill_speedup_spread", "share", {}, half_spread(m.speed.prefill_speedup), {}, {}},
      {"mbu", "share", m.base_shares.mbu, m.out_shares.mbu, {}, {}},
      {"mfu", "share", m.base_shares.mfu, m.out_shares.mfu, {}, {}},
  };
}

double stored_bytes(const Model& model) {
  double bytes = 0;
  for (const auto& [name, weight] : model.weights) {
    const Tensor t = weight.load();
    for (const Blob* plane :
         {&t.codes, &t.scales, &t.zeros, &t.mins, &t.super_scales, &t.super_mins, &t.mask})
      bytes += static_cast<double>(plane->size());
  }
  return bytes;
}

std::vector<ProofRow> rows_of(const Job& job, const Measured& m) {
  const auto planned = [](const Model& model) {
    return static_cast<double>(weight_bytes(model.spec));
  };
  std::vector<ProofRow> rows = {
      {"weight_bytes", "bytes", stored_bytes(job.base), stored_bytes(job.out), planned(job.base),
       planned(job.out)},
      {"disk_bytes", "bytes", disk_bytes(job.base.path), disk_bytes(job.out.path), {}, {}},
      {"memory_bytes", "bytes", own(m.base_memory), own(m.out_memory), {}, {}},
      {"peak_memory_bytes", "bytes", peak(m.base_memory), peak(m.out_memory), {}, {}},
  };
  for (ProofRow& row : quality_rows(m.quality)) rows.push_back(std::move(row));
  for (ProofRow& row : speed_rows(m)) rows.push_back(std::move(row));
  return rows;
}

std::vector<ProofGate> judge(const Gates& gates, const Proof& proof) {
  std::vector<ProofGate> judged;
  const auto found = [&](const char* metric) { return find_row(proof, metric)->out.value(); };
  const auto at_most = [&](const char* name, double need, double value) {
    judged.push_back({name, need, value, value <= need});
  };
  if (gates.max_kl) at_most("max_kl", *gates.max_kl, found("kl_mean"));
  if (gates.max_bytes)
    at_most("max_bytes", static_cast<double>(*gates.max_bytes), found("weight_bytes"));
  if (gates.min_speedup) {
    const double speedup = found("decode_speedup");
    judged.push_back({"min_speedup", *gates.min_speedup, speedup, speedup >= *gates.min_speedup});
  }
  return judged;
}

std::string printable(const std::string& text) {
  return is_clean_text(text) ? text : pare::quoted(text);
}

std::string protocol_text(const Job& job, const ProveOptions& o, const Measured& m) {
  const std::string scored =
      o.text.empty()
          ? fmt::format("text that the base wrote itself, {} tokens scored", m.quality.score.tokens)
          : fmt::format("{} tokens scored", m.quality.score.tokens);
  return fmt::format(
      "{}; {}; prompt {}, {} steps x {} at context {}, {} rounds of base and out in turn", scored,
      to_string(m.quality.protocol), job.speed.prompt, job.speed.generate, job.speed.batch,
      job.speed.context, job.speed.repeats);
}

Proof make_proof(Job& job, const ProveOptions& o, const CommonOptions& common, const Log& log,
                 bool& cached) {
  Proof proof;
  const Measured m = measure(job, o, common, proof, log);
  cached = m.cached;
  proof.version = PARE_VERSION;
  proof.time = utc_now();
  proof.base = printable(o.base);
  proof.out = printable(o.out);
  proof.recipe = fmt::format("{}", fmt::join(job.out.history, "; "));
  proof.base_identity = m.base_identity;
  proof.out_identity = m.out_identity;
  proof.hardware = fmt::format("{}, {}", processor_name(), isa_name(isa_here()));
  proof.protocol = protocol_text(job, o, m);
  proof.text = o.text.empty() ? "self-written" : printable(o.text);
  proof.rows = rows_of(job, m);
  proof.gates = judge(job.gates, proof);
  return proof;
}

// ---- what is said and kept ----

std::string gate_text(const ProofGate& g) {
  const std::string unit = g.name == "max_bytes" ? "bytes" : g.name == "max_kl" ? "nats" : "ratio";
  return fmt::format("gate {}: {} found, {} {} needed: {}\n", g.name, figure_text(g.found, unit),
                     figure_text(g.need, unit), g.name.starts_with("max") ? "at most" : "at least",
                     g.passed ? "passed" : "FAILED");
}

std::string proof_text(const Proof& p, bool cached) {
  std::string text = fmt::format("{} -> {}\n\n{}\n", p.base, p.out, figures_text(p.rows));
  for (const ProofGate& gate : p.gates) text += gate_text(gate);
  text += fmt::format(
      "{}: {}\n{}, {} threads; speeds: medians of rounds, speedups: median ratio of "
      "a round, spreads: half of the range\n",
      p.text, p.protocol, p.hardware, p.threads);
  if (cached)
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

void record(const Proof& p, const Log& log) {
  RunRecord run = run_here("prove", p.threads);
  run.time = p.time;
  run.model = p.out;
  run.identity = p.out_identity;
  run.base = p.base;
  run.base_identity = p.base_identity;
  run.recipe = p.recipe;
  std::replace(run.recipe.begin(), run.recipe.end(), '\n', ' ');
  run.protocol = fmt::format("{}: {}", p.text, p.protocol);
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
  Job job = prepare(o, common);
  bool cached = false;
  const Proof proof = make_proof(job, o, common, out.log, cached);
  std::optional<Error> failure;
  const std::string kept = keep(proof, o, job.out, failure);
  record(proof, out.log);
  if (out.json) {
    Json result = to_json(proof);
    result.set("kept", kept.empty() ? Json() : Json(kept));
    out.result("prove", result);
  } else {
    out.text(proof_text(proof, cached) +
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
