// Perplexity and divergence by sliding windows.
//
// Both models see the same tokens in the same windows, and every scored position gives one term, so
// the figures are comparable by construction. Logits of one chunk are in memory at a time: a window
// runs through the cache in pieces, which bounds memory at chunk x vocabulary floats for each
// model. KL divergence: Kullback and Leibler 1951; its use to judge quantization: llama.cpp,
// perplexity tool.
#include "probe/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pare {
namespace {

constexpr double nucleus = 0.9;
constexpr i64 step_tokens = 128;

// The smallest set of most likely tokens that holds `nucleus` of the probability, ascending by id.
std::vector<std::int32_t> nucleus_set(const float* logits, i64 n, double lse) {
  std::vector<std::pair<float, std::int32_t>> heap;
  heap.reserve(static_cast<std::size_t>(n));
  for (i64 i = 0; i < n; i++) heap.emplace_back(logits[i], static_cast<std::int32_t>(-i));
  std::make_heap(heap.begin(), heap.end());
  std::vector<std::int32_t> set;
  double mass = 0;
  auto end = heap.end();
  while (mass < nucleus && end != heap.begin()) {
    std::pop_heap(heap.begin(), end);
    --end;
    mass += std::exp(end->first - lse);
    set.push_back(-end->second);
  }
  std::sort(set.begin(), set.end());
  return set;
}

struct Window {
  std::size_t sequence;
  i64 begin, end;  // tokens of the sequence
  i64 score_from;  // first token that is scored, > begin
};

std::vector<Window> cut(const std::vector<Sequence>& sequences, const Protocol& protocol) {
  std::vector<Window> windows;
  for (std::size_t s = 0; s < sequences.size(); s++) {
    i64 n = static_cast<i64>(sequences[s].ids.size());
    if (protocol.limit > 0) n = std::min(n, protocol.limit);
    if (protocol.second_half) {
      for (i64 begin = 0; begin + protocol.window <= n; begin += protocol.window)
        windows.push_back({s, begin, begin + protocol.window, begin + protocol.window / 2 + 1});
      continue;
    }
    i64 scored = 1;
    for (i64 begin = 0; begin + 1 < n && scored < n; begin += protocol.stride) {
      const i64 end = std::min(n, begin + protocol.window);
      windows.push_back({s, begin, end, std::max(scored, begin + 1)});
      scored = end;
    }
  }
  return windows;
}

Protocol fill(Protocol protocol, const Engine& model, const Engine* base) {
  i64 positions = model.spec().max_positions;
  if (base != nullptr) positions = std::min(positions, base->spec().max_positions);
  if (protocol.window == 0) protocol.window = std::min<i64>(2048, positions);
  if (protocol.stride == 0) protocol.stride = protocol.window;
  if (protocol.window < 2 || protocol.window > positions)
    fail(Exit::usage, "PR-003", "the window does not suit the model",
         {{"found", fmt::format("{} tokens", protocol.window)},
          {"need", fmt::format("2 to {} tokens", positions)}});
  if (protocol.stride < 1 || protocol.stride > protocol.window)
    fail(Exit::usage, "PR-003", "the stride does not suit the window",
         {{"found", fmt::format("{} tokens", protocol.stride)},
          {"need", fmt::format("1 to {} tokens", protocol.window)}});
  if (protocol.second_half && protocol.stride != protocol.window)
    fail(Exit::usage, "PR-003", "windows of which the second half is scored do not overlap",
         {{"found", fmt::format("stride {}", protocol.stride)},
          {"need", fmt::format("stride {} or none", protocol.window)}});
  if (protocol.second_half && protocol.window < 4)
    fail(Exit::usage, "PR-003", "the window is too short to score its second half",
         {{"found", fmt::format("{} tokens", protocol.window)}, {"need", "at least 4 tokens"}});
  return protocol;
}

// Everything that is kept of all positions.
struct Distances {
  std::vector<double> kl;
  double overlap = 0, delta = 0;
  i64 same_top = 0;
};

Divergence summarize(Distances& t) {
  Divergence d;
  const double n = static_cast<double>(t.kl.size());
  d.kl_mean = std::accumulate(t.kl.begin(), t.kl.end(), 0.0) / n;
  std::sort(t.kl.begin(), t.kl.end());
  const auto quantile = [&](double q) {  // nearest rank
    const double rank = std::ceil(q * n);
    return t.kl[static_cast<std::size_t>(std::clamp(rank, 1.0, n)) - 1];
  };
  d.kl_median = quantile(0.5);
  d.kl_p99 = quantile(0.99);
  d.kl_max = t.kl.back();
  d.top1_agreement = static_cast<double>(t.same_top) / n;
  d.same_top_p = t.overlap / n;
  d.rms_delta_p = std::sqrt(t.delta / n);
  return d;
}

}  // namespace

double log_sum_exp(const float* x, i64 n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (i64 i = 0; i < n; i++) sum += std::exp(static_cast<double>(x[i]) - top);
  return top + std::log(sum);
}

double Score::perplexity() const { return std::exp(nll_per_token()); }

double Score::bits_per_byte() const {
  return bytes > 0 ? nll / std::log(2.0) / static_cast<double>(bytes) : 0;
}

std::string to_string(const Protocol& p) {
  std::string text =
      p.second_half
          ? fmt::format("tokenized once, whole windows of {}, second half scored{}", p.window,
                        p.begin_token >= 0 ? ", begin token in front of each" : "")
          : fmt::format("tokenized once, window {}, stride {}, first token not scored", p.window,
                        p.stride);
  if (p.limit > 0) text += fmt::format(", first {} tokens", p.limit);
  return text;
}

double negative_log_likelihood(const float* logits, i64 n, std::int32_t target) {
  return log_sum_exp(logits, n) - static_cast<double>(logits[target]);
}

PositionDistance compare_position(const float* p_logits, const float* q_logits, i64 n,
                                  std::int32_t target) {
  PositionDistance d;
  const double p_lse = log_sum_exp(p_logits, n), q_lse = log_sum_exp(q_logits, n);
  for (i64 i = 0; i < n; i++) {
    const double log_p = p_logits[i] - p_lse;
    d.kl += std::exp(log_p) * (log_p - (q_logits[i] - q_lse));
  }
  d.kl = std::max(0.0, d.kl);  // rounding may leave -1e-17
  d.same_top = std::max_element(p_logits, p_logits + n) - p_logits ==
               std::max_element(q_logits, q_logits + n) - q_logits;
  const auto p_set = nucleus_set(p_logits, n, p_lse), q_set = nucleus_set(q_logits, n, q_lse);
  std::vector<std::int32_t> both;
  std::set_intersection(p_set.begin(), p_set.end(), q_set.begin(), q_set.end(),
                        std::back_inserter(both));
  const double joined = static_cast<double>(p_set.size() + q_set.size() - both.size());
  d.overlap = static_cast<double>(both.size()) / joined;
  d.p_target = std::exp(p_logits[target] - p_lse);
  d.q_target = std::exp(q_logits[target] - q_lse);
  return d;
}

EvalResult evaluate(Engine& model, Engine* base, const std::vector<Sequence>& sequences,
                    Protocol protocol, Pool& pool, const Log& log) {
  if (base != nullptr && base->spec().vocab != model.spec().vocab)
    fail_input("PR-002", "the models have different vocabularies and cannot be compared",
               {{"found", fmt::format("{} tokens", model.spec().vocab)},
                {"need", fmt::format("{} tokens as the base", base->spec().vocab)}});
  EvalResult result;
  result.protocol = fill(protocol, model, base);
  const std::vector<Window> windows = cut(sequences, result.protocol);
  if (windows.empty())
    fail_input("PR-001", "there is nothing to score",
               {{"need", result.protocol.second_half
                             ? fmt::format("a text of at least {} tokens", result.protocol.window)
                             : "a text of at least two tokens"}});
  result.sequences.resize(sequences.size());
  if (base != nullptr) result.base_score.emplace();
  const i64 vocab = model.spec().vocab;
  Distances tally;
  KvCache cache = model.make_cache(result.protocol.window);
  std::optional<KvCache> base_cache;
  if (base != nullptr) base_cache = base->make_cache(result.protocol.window);

  i64 total = 0;
  for (const Window& w : windows) total += w.end - w.begin;
  Progress progress(log, "eval", static_cast<double>(total), "tokens");
  std::vector<double> nll(step_tokens), base_nll(step_tokens);
  std::vector<PositionDistance> distance(step_tokens);
  for (const Window& w : windows) {
    cache.truncate(0);
    if (base_cache) base_cache->truncate(0);
    const std::vector<std::int32_t>& ids = sequences[w.sequence].ids;
    std::vector<std::int32_t> seen(ids.begin() + w.begin, ids.begin() + w.end);
    if (result.protocol.begin_token >= 0) seen[0] = result.protocol.begin_token;
    for (i64 at = w.begin; at < w.end; at += step_tokens) {
      stop_if_interrupted();
      const i64 stop = std::min(w.end, at + step_tokens);
      const std::span<const std::int32_t> tokens(seen.data() + (at - w.begin),
                                                 static_cast<std::size_t>(stop - at));
      const Input input{&cache, tokens};
      const Matrix<const float> q = model.step({&input, 1}, Want::all);
      Matrix<const float> p;
      if (base != nullptr) {
        const Input base_input{&*base_cache, tokens};
        p = base->step({&base_input, 1}, Want::all);
      }
      // Position t predicts token t + 1; the last token of a window predicts nothing that is
      // scored.
      const i64 first = std::max(at, w.score_from - 1), last = std::min(stop, w.end - 1);
      pool.run(std::max<i64>(0, last - first), 1, [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) {
          const i64 t = first + i;
          const std::int32_t target = ids[static_cast<std::size_t>(t + 1)];
          const std::size_t k = static_cast<std::size_t>(i);
          nll[k] = negative_log_likelihood(q.row(t - at), vocab, target);
          if (base == nullptr) continue;
          base_nll[k] = negative_log_likelihood(p.row(t - at), vocab, target);
          distance[k] = compare_position(p.row(t - at), q.row(t - at), vocab, target);
        }
      });
      for (i64 i = 0; i < last - first; i++) {
        const std::size_t k = static_cast<std::size_t>(i);
        result.sequences[w.sequence].tokens++;
        result.sequences[w.sequence].nll += nll[k];
        if (base == nullptr) continue;
        result.base_score->tokens++;
        result.base_score->nll += base_nll[k];
        tally.kl.push_back(distance[k].kl);
        tally.overlap += distance[k].overlap;
        tally.same_top += distance[k].same_top ? 1 : 0;
        const double delta = distance[k].q_target - distance[k].p_target;
        tally.delta += delta * delta;
      }
      progress.add(static_cast<double>(stop - at));
    }
  }
  for (std::size_t s = 0; s < sequences.size(); s++) {
    Score& score = result.sequences[s];
    // The text bytes are shared out by tokens: exact when all tokens but the first are scored.
    const double share = static_cast<double>(score.tokens) /
                         static_cast<double>(std::max<std::size_t>(2, sequences[s].ids.size()) - 1);
    score.bytes = static_cast<i64>(std::llround(static_cast<double>(sequences[s].bytes) * share));
    result.score.tokens += score.tokens;
    result.score.nll += score.nll;
    result.score.bytes += score.bytes;
  }
  if (base != nullptr) {
    result.base_score->bytes = result.score.bytes;
    result.divergence = summarize(tally);
  }
  return result;
}

}  // namespace pare
