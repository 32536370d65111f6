// One matrix at a time, from its block on.
//
// A change in block b leaves the hidden states in front of b as they are. So the base runs once,
// the hidden states between its segments are held, and each candidate runs from its own segment to
// the end with one matrix packed anew. Nothing is estimated: each figure is the divergence that
// whole forward passes would give, with caches in f32.
//
// Of the base's distribution p the probabilities are held as floats, and of each row c = sum p a
// (a its logits), so that KL(p || q) = c / w - (sum p q) / w + ln sum e^q - ln sum e^a with w = sum
// p costs one exponential a token of the vocabulary; w takes the rounding of the floats out.
// Sequences go in groups whose held floats are bounded. Sums run over positions in order: the same
// bits with any number of threads.
#include "probe/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/generate.h"
#include "engine/segment.h"

namespace pare {
namespace {

constexpr i64 held_floats = i64{1} << 28;  // 1 GiB
constexpr i64 head_rows = 256;             // rows of logits at once
constexpr i64 batch_tokens = 2048;         // that run through a segment together

double dot(const float* x, const float* y, i64 n) {
  double lanes[8] = {};
  i64 i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; k++)
      lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(y[i + k]);
  for (; i < n; i++) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return std::accumulate(lanes, lanes + 8, 0.0);
}

// The base's distribution behind each token.
struct Truth {
  std::vector<float> p;               // (tokens, vocab)
  std::vector<double> w, c, log_sum;  // (tokens)
};

// Sequences that are measured together.
struct Group {
  std::vector<std::int32_t> tokens;  // one sequence behind the other
  std::vector<i64> lengths;
  std::vector<std::vector<float>> hidden;  // in front of each segment, and behind the last
  Truth truth;
  i64 count() const { return static_cast<i64>(tokens.size()); }
};

void remember(Truth& truth, i64 row, const float* a, i64 vocab) {
  const std::size_t r = static_cast<std::size_t>(row);
  float* p = truth.p.data() + row * vocab;
  truth.log_sum[r] = log_sum_exp(a, vocab);
  double w = 0;
  for (i64 i = 0; i < vocab; i++) {
    p[i] = static_cast<float>(std::exp(static_cast<double>(a[i]) - truth.log_sum[r]));
    w += static_cast<double>(p[i]);
  }
  truth.w[r] = w;
  truth.c[r] = dot(p, a, vocab);
}

double divergence(const Truth& truth, i64 row, const float* q, i64 vocab) {
  const std::size_t r = static_cast<std::size_t>(row);
  const double cross = dot(truth.p.data() + row * vocab, q, vocab);
  const double kl = (truth.c[r] - cross) / truth.w[r] + log_sum_exp(q, vocab) - truth.log_sum[r];
  return std::max(0.0, kl);  // rounding may leave -1e-15
}

void set_weight(Model& model, const std::string& name, const Weight& weight) {
  if (name == "embed") {
    model.spec.embed = weight.scheme;
    if (model.spec.tied) model.spec.head.scheme = weight.scheme;
  } else {
    for (auto& [found, linear] : linears(model.spec))
      if (found == name) linear->scheme = weight.scheme;
  }
  model.weights.at(name + ".weight") = weight;
}

// A model of which one matrix changes at a time, in segments that run from any of them on.
class Chain {
 public:
  Chain(const Model& model, Pool& pool)
      : model_(model), pool_(pool), ranges_(block_ranges(model.spec)) {
    for (const BlockRange& range : ranges_)
      segments_.push_back(std::make_unique<Segment>(model_, range, pool));
    ends_ = std::make_unique<Ends>(model_, pool);
  }

  const Spec& spec() const { return model_.spec; }
  std::size_t segments() const { return segments_.size(); }

  void set(const std::string& name, const Weight& weight) {
    set_weight(model_, name, weight);
    const std::size_t at = segment_of(name);
    if (name == "embed" || at == segments_.size())
      ends_ = std::make_unique<Ends>(model_, pool_);
    else
      segments_[at]->repack(name);
  }

  // The first segment that a change of this matrix reaches; all of them are in front of the head.
  std::size_t segment_of(const std::string& name) const {
    if (name == "embed") return 0;
    for (std::size_t i = 0; i < ranges_.size(); i++)
      for (i64 b = ranges_[i].first; b < ranges_[i].first + ranges_[i].count; b++)
        if (name.starts_with(fmt::format("blocks.{}.", b))) return i;
    return ranges_.size();
  }

  // What the base says of a group, and its hidden states on the way.
  void prepare(Group& g) {
    const i64 n = g.count(), dim = spec().dim, vocab = spec().vocab;
    std::vector<float> x = embedded(g);
    for (std::size_t i = 0; i < segments_.size(); i++) {
      g.hidden.push_back(x);
      run(i, x, g.lengths);
    }
    g.hidden.push_back(x);
    Truth& t = g.truth;
    t.p.resize(static_cast<std::size_t>(n * vocab));
    for (std::vector<double>* v : {&t.w, &t.c, &t.log_sum}) v->resize(static_cast<std::size_t>(n));
    visit_logits({x.data(), n, dim}, [&](i64 row, const float* a) { remember(t, row, a, vocab); });
  }

  // Sum over the positions of a prepared group, when nothing in front of segment `from` has changed
  // (`embed`: nothing but the embedding).
  double divergence_from(std::size_t from, bool embed, const Group& g) {
    std::vector<float> x = embed ? embedded(g) : g.hidden[from];
    for (std::size_t i = from; i < segments_.size(); i++) run(i, x, g.lengths);
    std::vector<double> rows(static_cast<std::size_t>(g.count()));
    visit_logits({x.data(), g.count(), spec().dim}, [&](i64 row, const float* q) {
      rows[static_cast<std::size_t>(row)] = divergence(g.truth, row, q, spec().vocab);
    });
    return std::accumulate(rows.begin(), rows.end(), 0.0);
  }

 private:
  std::vector<float> embedded(const Group& g) {
    std::vector<float> x(static_cast<std::size_t>(g.count() * spec().dim));
    i64 at = 0;
    for (i64 length : g.lengths) {
      const std::span<const std::int32_t> ids(g.tokens.data() + at,
                                              static_cast<std::size_t>(length));
      ends_->embed(ids, {x.data() + at * spec().dim, length, spec().dim});
      at += length;
    }
    return x;
  }

  void run(std::size_t segment, std::vector<float>& x, const std::vector<i64>& lengths) {
    i64 at = 0;
    for (std::size_t s = 0; s < lengths.size();) {
      std::vector<i64> batch;
      i64 rows = 0;
      while (s < lengths.size() && (batch.empty() || rows + lengths[s] <= batch_tokens)) {
        rows += lengths[s];
        batch.push_back(lengths[s++]);
      }
      segments_[segment]->run({x.data() + at * spec().dim, rows, spec().dim}, batch);
      at += rows;
    }
  }

  void visit_logits(Matrix<const float> x,
                    const std::function<void(i64 row, const float* logits)>& visit) {
    for (i64 r = 0; r < x.rows; r += head_rows) {
      const i64 count = std::min(head_rows, x.rows - r);
      const Matrix<const float> y = ends_->logits({x.row(r), count, x.cols, x.stride});
      pool_.run(count, 1, [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) visit(r + i, y.row(i));
      });
    }
  }

  Model model_;
  Pool& pool_;
  std::vector<BlockRange> ranges_;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::unique_ptr<Ends> ends_;
};

// The next sequences from the front whose held floats are within the bound; at least one.
Group take_group(std::span<const Sequence>& rest, const Chain& chain) {
  const i64 each = chain.spec().vocab + static_cast<i64>(chain.segments() + 1) * chain.spec().dim;
  Group g;
  while (!rest.empty()) {
    const i64 length = static_cast<i64>(rest.front().ids.size());
    if (g.count() > 0 && (g.count() + length) * each > held_floats) break;
    if (length > 0) {
      g.tokens.insert(g.tokens.end(), rest.front().ids.begin(), rest.front().ids.end());
      g.lengths.push_back(length);
    }
    rest = rest.subspan(1);
  }
  return g;
}

i64 count_tokens(std::span<const Sequence> sequences) {
  i64 tokens = 0;
  for (const Sequence& s : sequences) tokens += static_cast<i64>(s.ids.size());
  if (tokens == 0) fail_input("PR-001", "there is nothing to score");
  return tokens;
}

Weight weight_of(const Tensor& tensor) {
  return {tensor.scheme, tensor.shape, [tensor] { return tensor; }};
}

}  // namespace

Model with_matrix(Model model, const std::string& name, const Tensor& tensor) {
  set_weight(model, name, weight_of(tensor));
  return model;
}

std::vector<std::vector<double>> measure_sensitivities(const Model& model,
                                                       const SensitivityJob& job, Pool& pool,
                                                       const Log& log) {
  const i64 tokens = count_tokens(job.sequences);
  std::vector<std::vector<double>> kl(job.matrices.size(),
                                      std::vector<double>(job.candidates.size()));
  Progress progress(log, "sensitivities",
                    static_cast<double>(tokens) * static_cast<double>(job.matrices.size()),
                    "tokens");
  Chain chain(model, pool);
  std::span<const Sequence> rest = job.sequences;
  while (!rest.empty()) {
    Group group = take_group(rest, chain);
    if (group.tokens.empty()) continue;
    chain.prepare(group);
    for (std::size_t m = 0; m < job.matrices.size(); m++) {
      const std::string& name = job.matrices[m];
      const Weight original = model.weights.at(name + ".weight");
      const Tensor weights = original.load();
      for (std::size_t c = 0; c < job.candidates.size(); c++) {
        stop_if_interrupted();
        if (job.candidates[c] == original.scheme) continue;
        chain.set(name, weight_of(job.round(name, weights, job.candidates[c])));
        kl[m][c] += chain.divergence_from(chain.segment_of(name), name == "embed", group);
      }
      chain.set(name, original);
      progress.add(static_cast<double>(group.count()), name);
    }
  }
  for (auto& row : kl)
    for (double& value : row) value /= static_cast<double>(tokens);
  return kl;
}

double measure_divergence(const Model& base, const Model& changed,
                          const std::vector<Sequence>& sequences, Pool& pool) {
  Chain truth(base, pool), other(changed, pool);
  const i64 tokens = count_tokens(sequences);
  double sum = 0;
  std::span<const Sequence> rest = sequences;
  while (!rest.empty()) {
    Group group = take_group(rest, truth);
    if (group.tokens.empty()) continue;
    truth.prepare(group);
    sum += other.divergence_from(0, true, group);
  }
  return sum / static_cast<double>(tokens);
}

std::vector<double> measure_cache_losses(const Model& model, const std::vector<KvScheme>& schemes,
                                         const std::vector<Sequence>& sequences, Pool& pool,
                                         const Log& log) {
  std::vector<double> losses;
  if (schemes.empty()) return losses;
  Engine base(model, pool);
  for (const KvScheme& scheme : schemes) {
    EngineOptions options;
    options.kv = scheme;
    Engine changed(model, pool, options);
    losses.push_back(
        evaluate(changed, &base, sequences, Protocol(), pool, log).divergence->kl_mean);
  }
  return losses;
}

std::vector<double> measure_activation_losses(const Model& model,
                                              const std::vector<Activation>& activations,
                                              const std::vector<Sequence>& sequences, Pool& pool) {
  std::vector<double> losses;
  for (const Activation& activation : activations) {
    Model changed = model;
    for (auto& [name, linear] : linears(changed.spec))
      if (name.starts_with("blocks.")) linear->activation = activation;
    losses.push_back(measure_divergence(model, changed, sequences, pool));
  }
  return losses;
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
