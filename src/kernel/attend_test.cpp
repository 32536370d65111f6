// Attention and the rows it reads: every way of storing a cache, on every class of machine, against
// the scalar definition in double.
#include "kernel/attend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/random.h"
#include "kernel/testing.h"

namespace pare {
namespace {

// Rows (heads, count) of random numbers; per channel, count is filled up to whole groups.
struct Rows {
  std::vector<float> x;
  std::vector<std::byte> data, parameters;
  KvRows view;
  Rows(const KvPart& part, i64 heads, i64 count, i64 width, std::uint64_t seed) {
    const i64 share = part.positions(), units = (count + share - 1) / share;
    count = units * share;
    x = normal(heads * count * width, seed);
    view.part = part;
    view.width = width;
    view.row_stride = kv_row_bytes(part, width);
    view.head_stride = count * view.row_stride;
    view.parameter_stride = kv_parameter_bytes(part, width);
    view.parameter_head_stride = units * view.parameter_stride;
    data.resize(static_cast<std::size_t>(heads * view.head_stride));
    parameters.resize(static_cast<std::size_t>(heads * view.parameter_head_stride));
    view.data = data.data();
    view.parameters = parameters.data();
    for (i64 h = 0; h < heads; h++)
      for (i64 u = 0; u < units; u++) {
        std::byte* to = data.data() + h * view.head_stride + u * share * view.row_stride;
        std::byte* scales =
            parameters.data() + h * view.parameter_head_stride + u * view.parameter_stride;
        const float* from = x.data() + (h * count + u * share) * width;
        if (part.grouping == KvGrouping::channel)
          store_kv_group(part, {from, share, width}, to, view.row_stride, scales);
        else
          store_kv_row(part, from, width, to, scales);
      }
  }
};

struct Cache {
  Rows k, v;
  std::vector<std::int32_t> positions;
  KvSegment segment;
  Cache(const KvScheme& s, i64 kv_heads, i64 count, i64 qk, i64 vd, i64 first, std::uint64_t seed,
        bool shuffled)
      : k(s.keys, kv_heads, count, qk, seed), v(s.values, kv_heads, count, vd, seed + 1) {
    segment.k = k.view;
    segment.v = v.view;
    segment.count = count;
    segment.first = first;
    for (i64 i = 0; i < count; i++) positions.push_back(static_cast<std::int32_t>(first + i));
    Random random(seed);
    for (i64 i = count - 1; i > 0 && shuffled; i--)
      std::swap(positions[static_cast<std::size_t>(i)],
                positions[random.below(static_cast<std::uint64_t>(i + 1))]);
    if (shuffled) segment.positions = positions.data();
  }
};

const char* const every_scheme[] = {"f32",
                                    "f16",
                                    "bf16",
                                    "int8",
                                    "e4m3",
                                    "int8:asym",
                                    "int4",
                                    "int4:asym",
                                    "int4:g16",
                                    "int4:g5:asym",
                                    "int2:g8:asym",
                                    "e4m3:g16",
                                    "int8:g32:asym",
                                    "int8:k=channel",
                                    "int4:k=channel/6,asym",
                                    "e4m3:k=channel/40",
                                    "int2:asym:k=channel/16"};

// Weighted averages of values of order one; float sums of at most 300 products.
void expect_agreement(const KvScheme& scheme, std::array<i64, 4> shape, i64 tokens, i64 past,
                      i64 window, i64 sinks) {
  const auto& [heads, kv_heads, qk, vd] = shape;
  const bool extra = window == 0;
  Cache older(scheme, kv_heads, past, qk, vd, 0, 3, extra),
      fresh(scheme, kv_heads, tokens, qk, vd, past, 5, false);
  const auto q = normal(tokens * heads * qk, 7), sink_logits = normal(heads, 8);
  std::vector<float> got(static_cast<std::size_t>(tokens * heads * vd)), want(got.size());
  AttendCall call;
  call.q = {q.data(), tokens, heads * qk};
  call.out = {want.data(), tokens, heads * vd};
  call.heads = heads, call.kv_heads = kv_heads, call.qk_dim = qk, call.v_dim = vd;
  call.scale = 0.2f;
  call.softcap = extra ? 5.0f : 0.0f;
  call.window = window, call.sinks = sinks;
  call.first_position = past;
  call.sink_logits = extra ? sink_logits.data() : nullptr;
  if (past > 0) call.segments.push_back(older.segment);
  call.segments.push_back(fresh.segment);
  attend_reference(call);
  call.out.data = got.data();
  for (unsigned isa : classes()) {
    if (isa == isa_scalar && past > 64) continue;
    attend(call, 0, attend_items(call), isa);
    for (std::size_t i = 0; i < got.size(); i++)
      ASSERT_NEAR(got[i], want[i], 2e-5)
          << to_string(scheme) << " isa " << isa << " tokens " << tokens << " past " << past
          << " window " << window << " heads " << heads;
  }
}

TEST(Attend, AgreesWithTheTruth) {
  for (const char* text : every_scheme)
    for (const auto& shape : {std::array<i64, 4>{4, 4, 16, 16}, {6, 2, 64, 24}, {5, 1, 20, 7}})
      for (const auto& [tokens, past] :
           {std::pair<i64, i64>{1, 0}, {1, 1}, {1, 63}, {1, 150}, {17, 0}, {18, 137}})
        for (const auto& [window, sinks] : {std::pair<i64, i64>{0, 0}, {8, 3}, {500, 0}})
          expect_agreement(parse_kv_scheme(text), shape, tokens, past, window, sinks);
}

TEST(Attend, AWindowOfOneSeesOnlyItself) {
  Cache cache(Code::f32, 1, 20, 8, 8, 0, 9, false);
  const auto q = normal(20 * 8, 10);
  std::vector<float> got(20 * 8);
  AttendCall call;
  call.q = {q.data(), 20, 8};
  call.out = {got.data(), 20, 8};
  call.heads = call.kv_heads = 1;
  call.qk_dim = call.v_dim = 8;
  call.window = 1;
  call.segments.push_back(cache.segment);
  attend(call, 0, attend_items(call), isa_here());
  for (std::size_t i = 0; i < got.size(); i++) EXPECT_NEAR(got[i], cache.v.x[i], 1e-6);
}

// A query sees each position in one of its two forms: an answer assembled query by query from the
// forms that are due.
TEST(Attend, EachQuerySeesTheFormThatIsDue) {
  const i64 count = 150, heads = 2, dim = 16;
  for (const char* text : {"int4:k=channel/8:window=5:sinks=3", "int4:window=20", "int4:sinks=2"}) {
    const KvScheme s = parse_kv_scheme(text);
    Cache recent(Code::f16, heads, count, dim, dim, 0, 20, false);
    Cache packed(s, heads, count, dim, dim, s.sinks, 20, false);
    packed.segment.form = KvForm::packed;
    recent.segment.form = KvForm::recent;
    Cache kept(Code::f16, heads, s.sinks, dim, dim, 0, 20, false);
    const auto q = normal(count * heads * dim, 21);
    std::vector<float> all(q.size()), one(static_cast<std::size_t>(heads * dim));
    AttendCall call;
    call.heads = call.kv_heads = heads, call.qk_dim = call.v_dim = dim, call.scale = 0.25f;
    AttendCall alone = call;
    call.q = {q.data(), count, heads * dim};
    call.out = {all.data(), count, heads * dim};
    call.group = s.positions(), call.wait = s.window, call.kept = s.sinks;
    if (s.sinks > 0) call.segments.push_back(kept.segment);
    call.segments.push_back(packed.segment);
    // The ring of recent rows never holds what is kept.
    KvSegment behind = recent.segment;
    behind.k.data += s.sinks * behind.k.row_stride;
    behind.v.data += s.sinks * behind.v.row_stride;
    behind.first = s.sinks;
    behind.count = count - s.sinks;
    call.segments.push_back(behind);
    for (unsigned isa : classes()) {
      attend(call, 0, attend_items(call), isa);
      for (i64 t = 0; t < count; t++) {
        const i64 end = s.packed_end(t + 1);
        alone.q = {q.data() + t * heads * dim, 1, heads * dim};
        alone.out = {one.data(), 1, heads * dim};
        alone.first_position = t;
        alone.segments.clear();
        if (s.sinks > 0) alone.segments.push_back(kept.segment);
        KvSegment old = packed.segment, young = behind;
        old.form = young.form = KvForm::only;
        old.count = end - s.sinks;
        young.k.data += (end - s.sinks) * young.k.row_stride;
        young.v.data += (end - s.sinks) * young.v.row_stride;
        young.first = end;
        young.count = std::max<i64>(0, t + 1 - end);
        if (old.count > 0) alone.segments.push_back(old);
        if (young.count > 0) alone.segments.push_back(young);
        attend_reference(alone);
        for (std::size_t i = 0; i < one.size(); i++)
          ASSERT_NEAR(all[static_cast<std::size_t>(t * heads * dim) + i], one[i], 2e-5)
              << text << " token " << t << " isa " << isa;
      }
    }
  }
}

// A number is off by half a step. The step is the range over the codes, up to the rounding of the
// scale to f16 (2^-10 of itself, upwards) and of the minimum (2^-10 of itself, downwards); e4m3 by
// half a unit of its last place, or half its smallest step.
TEST(KvRows, ComeBackAsNearAsTheirCodeAllows) {
  for (const char* text : every_scheme) {
    const KvPart part = parse_kv_scheme(text).keys;
    if (part.plain()) continue;
    const i64 heads = 2, count = 80, width = 37, share = part.positions();
    const Rows rows(part, heads, count, width, 11);
    const i64 stored = (count + share - 1) / share * share;
    const auto at = [&](i64 h, i64 slot, i64 i) {
      return rows.x[static_cast<std::size_t>((h * stored + slot) * width + i)];
    };
    std::vector<float> row(static_cast<std::size_t>(width));
    for (i64 h = 0; h < heads; h++)
      for (i64 slot = 0; slot < stored; slot++) {
        read_kv_row(rows.view, h, slot, row.data());
        for (i64 i = 0; i < width; i++) {
          float least = HUGE_VALF, most = -HUGE_VALF;  // of those that share the scale
          const bool channel = part.grouping == KvGrouping::channel;
          const i64 size = part.grouping == KvGrouping::group ? part.count : width;
          for (i64 k = 0; k < (channel ? share : width); k++) {
            if (!channel && k / size != i / size) continue;
            const float other = channel ? at(h, slot / share * share + k, i) : at(h, slot, k);
            least = std::min(least, other), most = std::max(most, other);
          }
          const double top = std::max(-least, most), x = at(h, slot, i);
          const double codes = part.code == Code::int8 ? 127 : part.code == Code::int4 ? 7 : 1;
          double bound = 0.5 * top / codes * (1 + 0x1p-9);
          if (part.asym)
            bound =
                0.5 * (most - least + std::abs(least) * 0x1p-10) / (2 * codes + 1) * (1 + 0x1p-9);
          if (part.code == Code::e4m3) bound = std::abs(x) * 0x1p-4 + top * 0x1p-10 / 448;
          ASSERT_NEAR(row[static_cast<std::size_t>(i)], x, bound * (1 + 1e-5) + 1e-7) << text;
        }
      }
  }
}

TEST(KvRows, ZerosExtremesAndNumbersThatAreNone) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const char* text : every_scheme) {
    const KvPart part = parse_kv_scheme(text).keys;
    if (part.plain()) continue;
    const i64 share = part.positions(), width = 20;
    const auto back = [&](float value) {
      Rows rows(part, 1, share, width, 1);
      std::vector<float> x(rows.x.size(), 0.0f), y(static_cast<std::size_t>(width));
      x[0] = value;
      if (part.grouping == KvGrouping::channel)
        store_kv_group(part, {x.data(), share, width}, rows.data.data(), rows.view.row_stride,
                       rows.parameters.data());
      else
        store_kv_row(part, x.data(), width, rows.data.data(), rows.parameters.data());
      read_kv_row(rows.view, 0, 0, y.data());
      return y;
    };
    for (float v : back(0)) EXPECT_EQ(v, 0.0f) << text;
    for (float value : {inf, -inf, nan}) EXPECT_TRUE(std::isnan(back(value)[0])) << text;
    // A largest number is its scale times the largest code: as near as f16 holds the scale, whose
    // smallest step is 6e-8.
    for (float value : {1e-12f, -1e-12f, 3e-6f, 60000.0f, -60000.0f})
      EXPECT_NEAR(back(value)[0], value, 3e-7 + std::abs(value) * (part.asym ? 0x1p-6 : 0x1p-9))
          << text;
  }
}

}  // namespace
}  // namespace pare
