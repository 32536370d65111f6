// The scalar truth of attention, and the splitting of a call into items.
//
// An item is one key/value head and sixteen tokens; the split depends on the call alone, so threads
// only decide who computes an item, never what is computed.
#include "kernel/attend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernel/attend_job.h"

namespace pare {
namespace {

float stored_value(Code code, const std::byte* row, i64 i) {
  std::uint32_t stored = 0;
  const std::size_t width = static_cast<std::size_t>(bits(code) / 8);
  std::memcpy(&stored, row + static_cast<std::size_t>(i) * width, width);
  return decode(code, stored);
}

bool visible(const AttendCall& c, i64 key, i64 query) {
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
      if (visible(c, key, query)) {
        const std::byte* row = s.k + kv_head * s.k_head_stride + slot * s.k_row_stride;
        double sum = 0;
        for (i64 d = 0; d < c.qk_dim; d++)
          sum += static_cast<double>(q[d]) * stored_value(s.code, row, d);
        if (s.k_scales != nullptr) sum *= s.k_scales[kv_head * s.scale_stride + slot];
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
      const std::byte* row = s.v + kv_head * s.v_head_stride + slot * s.v_row_stride;
      const double scale =
          s.v_scales != nullptr ? s.v_scales[kv_head * s.scale_stride + slot] : 1.0;
      for (i64 d = 0; d < c.v_dim; d++)
        out[static_cast<std::size_t>(d)] += weight * scale * stored_value(s.code, row, d);
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
  j.scale = c.scale;
  j.softcap = c.softcap;
  j.sink_logits = c.sink_logits == nullptr ? nullptr : c.sink_logits + head0;
  j.segments = c.segments.data();
  j.segment_count = static_cast<i64>(c.segments.size());
  j.kv_head = kv_head;
  const i64 queries = j.group * j.tokens, qk = padded(c.qk_dim), vd = padded(c.v_dim);
  j.scratch = scratch(queries * (qk + vd + attend_keys) + attend_keys * (qk + vd) +
                      2 * padded(queries) + 8 * attend_padding);
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

i64 kv_row_bytes(Code code, i64 n) { return n * bits(code) / 8; }

float store_kv_row(Code code, const float* from, i64 n, std::byte* to, unsigned) {
  switch (code) {
    case Code::f32:
      std::memcpy(to, from, static_cast<std::size_t>(4 * n));
      return 1;
    case Code::f16:
    case Code::bf16:
      for (i64 i = 0; i < n; i++) {
        const std::uint16_t h = code == Code::f16 ? to_f16(from[i]) : to_bf16(from[i]);
        std::memcpy(to + 2 * i, &h, 2);
      }
      return 1;
    default:
      break;
  }
  PARE_CHECK(code == Code::int8 || code == Code::e4m3);
  float top = 0;
  for (i64 i = 0; i < n; i++) top = std::max(top, std::abs(from[i]));
  const float scale = top / (code == Code::int8 ? 127.0f : 448.0f),
              inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (i64 i = 0; i < n; i++) {
    const float v = from[i] * inverse;
    to[i] = code == Code::int8 ? static_cast<std::byte>(static_cast<std::int8_t>(
                                     std::nearbyint(std::clamp(v, -127.0f, 127.0f))))
                               : static_cast<std::byte>(encode(code, v));
  }
  return scale;
}

}  // namespace pare
