// The scalar truth of attention, and the splitting of a call into items.
//
// An item is one key/value head and sixteen tokens; the split depends on the call alone, so threads
// only decide who computes an item, never what is computed.
#include "kernel/attend.h"

#include <algorithm>
#include <cmath>

#include "kernel/attend_job.h"

namespace pare {
namespace {

i64 packed_end(const AttendCall& c, i64 query) {
  const i64 old = query + 1 - c.wait - c.kept;
  return c.kept + (old > 0 ? old / c.group * c.group : 0);
}

bool visible(const AttendCall& c, KvForm form, i64 key, i64 query) {
  if (form != KvForm::only && (key < packed_end(c, query)) != (form == KvForm::packed))
    return false;
  return key <= query && (c.window == 0 || key > query - c.window || key < c.sinks);
}

// Two passes: all scores, then the weighted sum.
void reference_query(const AttendCall& c, i64 token, i64 head) {
  const i64 kv_head = head / (c.heads / c.kv_heads), query = c.first_position + token;
  const float* q = c.q.row(token) + head * c.qk_dim;
  std::vector<double> scores;
  double top = c.sink_logits != nullptr ? c.sink_logits[head] : -HUGE_VAL;
  for (const KvSegment& s : c.segments)
    for (i64 slot = 0; slot < s.count; slot++) {
      const i64 key = s.positions != nullptr ? s.positions[slot] : s.first + slot;
      double score = -HUGE_VAL;
      if (visible(c, s.form, key, query)) {
        double sum = 0;
        for (i64 d = 0; d < c.qk_dim; d++)
          sum += static_cast<double>(q[d]) * kv_number(s.k, kv_head, slot, d);
        score = sum * c.scale;
        if (c.softcap > 0) score = c.softcap * std::tanh(score / c.softcap);
      }
      scores.push_back(score);
      top = std::max(top, score);
    }
  double total = c.sink_logits != nullptr ? std::exp(c.sink_logits[head] - top) : 0;
  std::vector<double> out(static_cast<std::size_t>(c.v_dim));
  std::size_t at = 0;
  for (const KvSegment& s : c.segments)
    for (i64 slot = 0; slot < s.count; slot++) {
      const double score = scores[at++];
      if (score == -HUGE_VAL) continue;
      const double weight = std::exp(score - top);
      total += weight;
      for (i64 d = 0; d < c.v_dim; d++)
        out[static_cast<std::size_t>(d)] += weight * kv_number(s.v, kv_head, slot, d);
    }
  float* to = c.out.row(token) + head * c.v_dim;
  for (i64 d = 0; d < c.v_dim; d++)
    to[d] = total > 0 ? static_cast<float>(out[static_cast<std::size_t>(d)] / total) : 0.0f;
}

i64 blocks_of(const AttendCall& c) { return (c.q.rows + attend_queries - 1) / attend_queries; }

#if defined(__x86_64__)
float* scratch(i64 floats) {
  thread_local std::vector<float> mine;  // grows to the largest item seen by the thread
  if (mine.size() < static_cast<std::size_t>(floats)) mine.resize(static_cast<std::size_t>(floats));
  return mine.data();
}

AttendJob job_of(const AttendCall& c, i64 item) {
  const i64 kv_head = item % c.kv_heads, token0 = item / c.kv_heads * attend_queries;
  AttendJob j{};
  j.group = c.heads / c.kv_heads;
  j.tokens = std::min(attend_queries, c.q.rows - token0);
  const i64 head0 = kv_head * j.group;
  j.q = c.q.row(token0) + head0 * c.qk_dim;
  j.out = c.out.row(token0) + head0 * c.v_dim;
  j.q_token = c.q.stride;
  j.q_head = c.qk_dim;
  j.out_token = c.out.stride;
  j.out_head = c.v_dim;
  j.qk_dim = c.qk_dim;
  j.v_dim = c.v_dim;
  j.first_position = c.first_position + token0;
  j.window = c.window;
  j.sinks = c.sinks;
  j.group_positions = c.group;
  j.wait = c.wait;
  j.kept = c.kept;
  j.scale = c.scale;
  j.softcap = c.softcap;
  j.sink_logits = c.sink_logits == nullptr ? nullptr : c.sink_logits + head0;
  j.segments = c.segments.data();
  j.segment_count = static_cast<i64>(c.segments.size());
  j.kv_head = kv_head;
  const i64 queries = j.group * j.tokens, qk = padded(c.qk_dim), vd = padded(c.v_dim);
  i64 width = 0;  // of the rows that parameters are spread over
  for (const KvSegment& s : c.segments) width = std::max({width, s.k.width, s.v.width});
  j.scratch =
      scratch(queries * (qk + vd + attend_keys) + attend_keys * (2 * qk + vd) +
              4 * padded(width + attend_padding) + 2 * padded(queries) + 12 * attend_padding);
  return j;
}
#endif

}  // namespace

i64 attend_items(const AttendCall& c) { return blocks_of(c) * c.kv_heads; }

void attend(const AttendCall& c, i64 item0, i64 item1, unsigned isa) {
  for (i64 item = item0; item < item1; item++) {
#if defined(__x86_64__)
    if (isa & isa_avx512) {
      attend_job_avx512(job_of(c, item));
      continue;
    }
    if (isa & isa_avx2) {
      attend_job_avx2(job_of(c, item));
      continue;
    }
#endif
    (void)isa;
    const i64 kv_head = item % c.kv_heads, token0 = item / c.kv_heads * attend_queries,
              group = c.heads / c.kv_heads;
    for (i64 t = token0; t < std::min(c.q.rows, token0 + attend_queries); t++)
      for (i64 h = kv_head * group; h < (kv_head + 1) * group; h++) reference_query(c, t, h);
  }
}

void attend_reference(const AttendCall& c) {
  for (i64 t = 0; t < c.q.rows; t++)
    for (i64 h = 0; h < c.heads; h++) reference_query(c, t, h);
}

}  // namespace pare
