// What a proof measures: quality on one set of tokens, speed in turn, memory in a child process.
//
// Memory is asked for first, while this process has no threads. Then both engines live side by
// side, because speeds on a machine that others use are comparable only when they are taken in
// turn.
#include <algorithm>

#include "app/prove.h"
#include "app/record.h"
#include "file/gguf.h"
#include "file/publish.h"
#include "file/safetensors.h"
#include "probe/sensitivity.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr i64 written_tokens = 2048, written_length = 256;  // of text that the base writes

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

std::vector<Sequence> sequences_of_text(ProofJob& job) {
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

std::vector<Sequence> sequences_of_base(ProofJob& job, Engine& base) {
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

std::optional<MemoryUse> memory_of(const std::string& argument, const ProofJob& job,
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

}  // namespace

ProofFigures measure(ProofJob& job, const ProveOptions& o, const CommonOptions& common,
                     const Log& log) {
  ProofFigures m;
  m.base_memory = memory_of(o.base, job, common);
  m.out_memory = memory_of(o.out, job, common);
  if (!m.base_memory || !m.out_memory)
    log.warning("the system does not say how much memory it took");
  Pool pool(common.threads);
  const Roof roof = roof_here(pool, log);
  m.base_identity = identity(job.base, log);
  m.out_identity = identity(job.out, log);
  Engine base(job.base, pool), out(job.out, pool);
  const std::vector<Sequence> sequences =
      o.text.empty() ? sequences_of_base(job, base) : sequences_of_text(job);
  m.quality = evaluate(out, &base, sequences, job.protocol, pool, log);
  m.speed = measure_speeds(base, out, job.speed, log);
  m.base_shares = shares_of(m.speed.base, roof, job.base.spec);
  m.out_shares = shares_of(m.speed.out, roof, job.out.spec);
  const Hardware hardware = hardware_here(roof);
  m.predictor = predictor_of(hardware);
  m.base_forecast = forecast(job.base.spec, hardware, roof, job.speed, pool.threads());
  m.out_forecast = forecast(job.out.spec, hardware, roof, job.speed, pool.threads());
  m.cached = m.speed.base.weight_bytes < static_cast<double>(roof.last_level_cache_bytes);
  m.threads = pool.threads();
  return m;
}

namespace {

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

std::vector<ProofRow> speed_rows(const ProofFigures& m) {
  const SpeedResult &a = m.speed.base, &b = m.speed.out;
  const Forecast &f = m.base_forecast, &g = m.out_forecast;
  return {
      {"decode_tokens_per_second", "tokens/s", a.decode_tokens_per_second,
       b.decode_tokens_per_second, f.decode_tokens_per_second, g.decode_tokens_per_second},
      {"decode_tokens_per_second_spread",
       "share",
       half_spread(a.decode),
       half_spread(b.decode),
       {},
       {}},
      {"decode_speedup",
       "ratio",
       {},
       m.speed.decode_speedup.median,
       {},
       f.decode_seconds / g.decode_seconds},
      {"decode_speedup_spread", "share", {}, half_spread(m.speed.decode_speedup), {}, {}},
      {"prefill_tokens_per_second", "tokens/s", a.prefill_tokens_per_second,
       b.prefill_tokens_per_second, f.prefill_tokens_per_second, g.prefill_tokens_per_second},
      {"prefill_tokens_per_second_spread",
       "share",
       half_spread(a.prefill),
       half_spread(b.prefill),
       {},
       {}},
      {"prefill_speedup",
       "ratio",
       {},
       m.speed.prefill_speedup.median,
       {},
       f.prefill_seconds / g.prefill_seconds},
      {"prefill_speedup_spread", "share", {}, half_spread(m.speed.prefill_speedup), {}, {}},
      {"mbu", "share", m.base_shares.mbu, m.out_shares.mbu, f.mbu, g.mbu},
      {"mfu", "share", m.base_shares.mfu, m.out_shares.mfu, f.mfu, g.mfu},
  };
}

// Bytes of all tensors in the model's files; of a llama2.c file, the file.
double tensor_bytes(const fs::path& path) {
  double bytes = 0;
  const auto add = [&](const auto& tensors) {
    for (const auto& t : tensors) bytes += static_cast<double>(t.bytes.size());
  };
  if (fs::is_directory(path))
    add(open_safetensors_folder(path));
  else if (path.extension() == ".gguf")
    add(open_gguf(path).tensors);
  else
    bytes = disk_bytes(path);
  return bytes;
}

}  // namespace

std::vector<ProofRow> rows_of(const ProofJob& job, const ProofFigures& m) {
  const auto planned = [](const Model& model) {
    return static_cast<double>(weight_bytes(model.spec));
  };
  std::vector<ProofRow> rows = {
      {"weight_bytes", "bytes", tensor_bytes(job.base.path), tensor_bytes(job.out.path),
       planned(job.base), planned(job.out)},
      {"disk_bytes", "bytes", disk_bytes(job.base.path), disk_bytes(job.out.path), {}, {}},
      {"memory_bytes", "bytes", own(m.base_memory), own(m.out_memory), m.base_forecast.memory_bytes,
       m.out_forecast.memory_bytes},
      {"peak_memory_bytes", "bytes", peak(m.base_memory), peak(m.out_memory), {}, {}},
  };
  for (ProofRow& row : quality_rows(m.quality)) rows.push_back(std::move(row));
  for (ProofRow& row : speed_rows(m)) rows.push_back(std::move(row));
  return rows;
}

}  // namespace pare
