// One item of attention for the ISA files: plain data.
#pragma once

#include <cstdint>

#include "kernel/attend.h"

namespace pare {

// Queries of one key/value head: `group` query heads for `tokens` consecutive tokens. Query (t, h)
// is row t * group + h of everything below.
struct AttendJob {
  const float* q;  // of the first query; token stride q_token, head stride q_head
  float* out;
  std::int64_t q_token, q_head, out_token, out_head;
  std::int64_t group, tokens, qk_dim, v_dim;
  std::int64_t first_position, window, sinks;
  std::int64_t group_positions, wait, kept;  // AttendCall's group, wait, kept
  float scale, softcap;
  const float* sink_logits;  // (group) or null
  const KvSegment* segments;
  std::int64_t segment_count, kv_head;
  float* scratch;  // attend_scratch floats
};

constexpr std::int64_t attend_keys = 64;     // keys a block
constexpr std::int64_t attend_queries = 16;  // tokens an item
constexpr std::int64_t attend_padding = 16;  // floats; rows of scratch are whole vectors

constexpr std::int64_t padded(std::int64_t n) {
  return (n + attend_padding - 1) / attend_padding * attend_padding;
}

void attend_job_avx2(const AttendJob&);
void attend_job_avx512(const AttendJob&);

}  // namespace pare
