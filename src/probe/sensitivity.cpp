// One matrix at a time.
//
// The base's logits are computed once for a group of sequences (so many as fit a bound) and held;
// then every matrix takes every candidate in turn. Nothing is estimated: each figure is the
// divergence of a whole forward pass. Sums run over positions in order, so the figures have the
// same bits with any number of threads.
#include "probe/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/generate.h"

namespace pare {
namespace {

constexpr i64 held_floats = i64{1} << 28;  // of logits of the base: 1 GiB

double log_sum_exp(const float* x, i64 n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (i64 i = 0; i < n; i++) sum += std::exp(static_cast<double>(x[i]) - top);
  return top + std::log(sum);
}

double divergence(const float* p, const float* q, i64 n) {
  const double p_lse = log_sum_exp(p, n), q_lse = log_sum_exp(q, n);
  double kl = 0;
  for (i64 i = 0; i < n; i++) {
    const double log_p = p[i] - p_lse;
    kl += std::exp(log_p) * (log_p - (q[i] - q_lse));
  }
  return std::max(0.0, kl);  // rounding may leave -1e-17
}

// Sum over positions in order.
double divergence_sum(Matrix<const float> p, Matrix<const float> q, Pool& pool) {
  PARE_CHECK(p.rows == q.rows && p.cols == q.cols);
  std::vector<double> rows(static_cast<std::size_t>(p.rows));
  pool.run(p.rows, 1, [&](i64 begin, i64 end) {
    for (i64 r = begin; r < end; r++)
      rows[static_cast<std::size_t>(r)] = divergence(p.row(r), q.row(r), p.cols);
  });
  return std::accumulate(rows.begin(), rows.end(), 0.0);
}

// Sequences whose logits are held together.
struct Group {
  std::span<const Sequence> sequences;
  std::vector<std::vector<float>> logits;  // of the base, one a sequence
};

Matrix<const float> forward(Engine& engine, const Sequence& s) {
  KvCache cache = engine.make_cache(static_cast<i64>(s.ids.size()));
  const Input input{&cache, s.ids};
  return engine.step({&input, 1}, Want::all);
}

Matrix<const float> held(const Group& group, std::size_t i, i64 vocab) {
  const std::vector<float>& logits = group.logits[i];
  return {logits.data(), static_cast<i64>(logits.size()) / vocab, vocab};
}

// Sum of divergences over the positions of a group.
double against(const Group& group, const Model& changed, Pool& pool) {
  Engine engine(changed, pool);
  double sum = 0;
  for (std::size_t i = 0; i < group.sequences.size(); i++)
    sum += divergence_sum(held(group, i, engine.spec().vocab), forward(engine, group.sequences[i]),
                          pool);
  return sum;
}

// As many sequences from the front as may be held, at least one.
std::size_t fitting(std::span<const Sequence> sequences, i64 vocab) {
  i64 floats = 0;
  std::size_t n = 0;
  while (n < sequences.size()) {
    floats += static_cast<i64>(sequences[n].ids.size()) * vocab;
    if (n > 0 && floats > held_floats) break;
    n++;
  }
  return n;
}

// The next sequences whose logits fit, with the logits of the base; takes them from the front.
Group next_group(std::span<const Sequence>& rest, const Model& model, Pool& pool) {
  Group group{rest.first(fitting(rest, model.spec.vocab)), {}};
  rest = rest.subspan(group.sequences.size());
  Engine base(model, pool);
  for (const Sequence& s : group.sequences) {
    const Matrix<const float> y = forward(base, s);
    group.logits.emplace_back(y.data, y.data + y.rows * y.cols);
  }
  return group;
}

i64 count_tokens(std::span<const Sequence> sequences) {
  i64 tokens = 0;
  for (const Sequence& s : sequences) tokens += static_cast<i64>(s.ids.size());
  if (tokens == 0) fail_input("PR-001", "there is nothing to score");
  return tokens;
}

const Scheme& scheme_of(const Model& model, const std::string& name) {
  const auto it = model.weights.find(name + ".weight");
  PARE_CHECK(it != model.weights.end());
  return it->second.scheme;
}

}  // namespace

Model with_matrix(Model model, const std::string& name, const Tensor& tensor) {
  if (name == "embed") {
    model.spec.embed = tensor.scheme;
    if (model.spec.tied) model.spec.head.scheme = tensor.scheme;
  } else {
    for (auto& [found, linear] : linears(model.spec))
      if (found == name) linear->scheme = tensor.scheme;
  }
  Weight& weight = model.weights.at(name + ".weight");
  weight.scheme = tensor.scheme;
  weight.load = [tensor] { return tensor; };
  return model;
}

std::vector<std::vector<double>> measure_sensitivities(const Model& model,
                                                       const SensitivityJob& job, Pool& pool,
                                                       const Log& log) {
  const i64 tokens = count_tokens(job.sequences);
  std::vector<std::vector<double>> kl(job.matrices.size(),
                                      std::vector<double>(job.candidates.size()));
  const double work = static_cast<double>(tokens) * static_cast<double>(job.matrices.size()) *
                      static_cast<double>(job.candidates.size());
  Progress progress(log, "sensitivities", work, "tokens");
  std::span<const Sequence> rest = job.sequences;
  while (!rest.empty()) {
    const Group group = next_group(rest, model, pool);
    const double group_tokens = static_cast<double>(count_tokens(group.sequences));
    for (std::size_t m = 0; m < job.matrices.size(); m++) {
      const std::string& name = job.matrices[m];
      const Tensor weights = model.weights.at(name + ".weight").load();
      for (std::size_t c = 0; c < job.candidates.size(); c++) {
        stop_if_interrupted();
        if (job.candidates[c] != scheme_of(model, name)) {
          const Tensor rounded = job.round(name, weights, job.candidates[c]);
          kl[m][c] += against(group, with_matrix(model, name, rounded), pool);
        }
        progress.add(group_tokens, name);
      }
    }
  }
  for (auto& row : kl)
    for (double& value : row) value /= static_cast<double>(tokens);
  return kl;
}

double measure_divergence(const Model& base, const Model& changed,
                          const std::vector<Sequence>& sequences, Pool& pool) {
  double sum = 0;
  std::span<const Sequence> rest = sequences;
  while (!rest.empty()) sum += against(next_group(rest, base, pool), changed, pool);
  return sum / static_cast<double>(count_tokens(sequences));
}

std::vector<Sequence> self_written(Engine& engine, std::int32_t first, i64 tokens, i64 length,
                                   std::uint64_t seed) {
  Random random(seed, 0x7e57);
  std::vector<std::vector<std::int32_t>> prompts;
  const i64 each = std::min(length, tokens);
  for (i64 done = 0; done < tokens; done += each)
    prompts.push_back({first >= 0 ? first
                                  : static_cast<std::int32_t>(random.below(
                                        static_cast<std::uint64_t>(engine.spec().vocab)))});
  GenerateOptions options;
  options.tokens = each - 1;
  options.seed = seed;
  std::vector<Sequence> out;
  i64 left = tokens;
  const auto written = options.tokens > 0 ? generate(engine, prompts, options) : prompts;
  for (std::size_t s = 0; s < prompts.size(); s++) {
    Sequence sequence;
    sequence.ids = prompts[s];
    if (options.tokens > 0)
      sequence.ids.insert(sequence.ids.end(), written[s].begin(), written[s].end());
    sequence.ids.resize(
        static_cast<std::size_t>(std::min<i64>(left, static_cast<i64>(sequence.ids.size()))));
    left -= static_cast<i64>(sequence.ids.size());
    out.push_back(std::move(sequence));
  }
  return out;
}

std::vector<Sequence> cut_text(const std::vector<std::int32_t>& ids, i64 tokens, i64 length) {
  std::vector<Sequence> out;
  const i64 end = std::min(tokens, static_cast<i64>(ids.size()));
  for (i64 at = 0; at < end; at += length) {
    Sequence s;
    s.ids.assign(ids.begin() + at, ids.begin() + std::min(end, at + length));
    out.push_back(std::move(s));
  }
  return out;
}

}  // namespace pare
