// Attention over a cache: scores, mask, softmax, weighted sum of values, without storing the
// scores.
//
// One call serves every variant: heads share key/value heads in groups (MHA, GQA, MQA), windows and
// sinks are masks over positions, MLA in its absorbed form is one key/value head whose value is the
// front of its key. Online softmax over blocks of keys (Milakov and Gimelshein 2018; Dao et al.
// 2022).
#pragma once

#include <vector>

#include "base/view.h"
#include "kernel/isa.h"
#include "number/code.h"

namespace pare {

// Stored keys and values of some positions of one sequence and one block of the model.
// Row (kv_head, slot) starts at base + kv_head * head_stride + slot * row_stride (bytes) and holds
// qk_dim (v_dim) elements of `code`; int8 and e4m3 rows have one f32 scale each.
struct KvSegment {
  Code code = Code::f32;
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  i64 k_head_stride = 0, k_row_stride = 0, v_head_stride = 0, v_row_stride = 0;
  const float* k_scales = nullptr;  // (kv_heads, slots) with scale_stride between heads
  const float* v_scales = nullptr;
  i64 scale_stride = 0;
  i64 count = 0;  // slots in use
  const std::int32_t* positions =
      nullptr;  // (count) absolute position of each slot; null: first + i
  i64 first = 0;
};

struct AttendCall {
  Matrix<const float> q;  // (tokens, heads * qk_dim), rotated, not yet scaled
  Matrix<float> out;      // (tokens, heads * v_dim)
  i64 heads = 0, kv_heads = 0, qk_dim = 0, v_dim = 0;
  float scale = 1, softcap = 0;        // softcap 0: none; scores -> cap * tanh(score / cap)
  i64 window = 0, sinks = 0;           // 0: everything; key j is seen by query i when j <= i and
                                       // (window == 0 or j > i - window or j < sinks)
  i64 first_position = 0;              // of the first query; the others follow
  const float* sink_logits = nullptr;  // (heads) joins the softmax denominator, or null
  std::vector<KvSegment> segments;
};

// Work is split in items (a key/value head and a block of queries); threads take ranges of items.
i64 attend_items(const AttendCall&);
void attend(const AttendCall&, i64 item0, i64 item1, unsigned isa);
void attend_reference(const AttendCall&);  // scalar, double, two passes: the truth

// Stores one row of a cache: n floats to `code` at `to`; returns the row's scale (1 for plain
// floats).
float store_kv_row(Code, const float* from, i64 n, std::byte* to, unsigned isa);
i64 kv_row_bytes(Code, i64 n);

}  // namespace pare
