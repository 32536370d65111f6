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
#include "kernel/kv_rows.h"

namespace pare {

// Which queries see a slot, beside the rule of positions. A cache that waits before it packs
// (number/kv_scheme.h) holds a position in two forms while a step lasts; each query sees one.
enum class KvForm : std::uint8_t {
  only,    // the position has no other form
  packed,  // seen by queries for which it lies below packed_end
  recent,  // seen by the others
};

// Stored keys and values of some positions of one sequence and one block of the model: rows
// (kv_heads, slots) of at least qk_dim and v_dim numbers, of which the front is used.
struct KvSegment {
  KvRows k, v;
  KvForm form = KvForm::only;
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
  // A query at i sees as packed what lies below kept + group * max(0, floor((i + 1 - wait - kept) /
  // group)); of segments with two forms.
  i64 group = 1, wait = 0, kept = 0;
  std::vector<KvSegment> segments;
};

// Work is split in items (a key/value head and a block of queries); threads take ranges of items.
i64 attend_items(const AttendCall&);
void attend(const AttendCall&, i64 item0, i64 item1, unsigned isa);
void attend_reference(const AttendCall&);  // scalar, double, two passes: the truth

}  // namespace pare
