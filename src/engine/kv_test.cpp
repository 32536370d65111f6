// Caches that pack: what each query sees, byte for byte, whichever way the tokens came; sizes;
// going back; and whole models on top.
#include <map>

#include "base/random.h"
#include "cost/count.h"
#include "engine/store.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare {
namespace {

using testing::Ids;

constexpr i64 heads = 2, width = 3;

Attention small_attention(i64 window, i64 sinks) {
  Attention a = testing::llama_like().blocks[0].attn;
  a.heads = a.kv_heads = heads;
  a.qk_dim = a.v_dim = width;
  if (window > 0) testing::set_window(a, window, sinks);
  return a;
}

// What the query at `query` must see of `position`, by the definitions in number/kv_scheme.h.
std::vector<float> due(const KvScheme& s, const KvPart& part, const std::vector<float>& rows,
                       i64 query, i64 position) {
  std::vector<float> x(rows.begin() + position * width, rows.begin() + (position + 1) * width);
  const bool packed = position >= s.sinks && position < s.packed_end(query + 1);
  const auto half = [](std::vector<float> y) {
    for (float& v : y) v = from_f16(to_f16(v));
    return y;
  };
  if (!packed) return half(x);
  const i64 share = part.positions(), unit = (position - s.sinks) / share;
  const i64 begin = s.sinks + unit * share;
  std::vector<float> group(rows.begin() + begin * width, rows.begin() + (begin + share) * width);
  if (s.waits()) group = half(group);
  KvRows view;
  view.part = part;
  view.width = width;
  view.row_stride = kv_row_bytes(part, width);
  std::vector<std::byte> data(64 * 12), parameters(64 * 12);
  view.data = data.data();
  view.parameters = parameters.data();
  if (part.grouping == KvGrouping::channel)
    store_kv_group(part, {group.data(), share, width}, data.data(), view.row_stride,
                   parameters.data());
  else
    store_kv_row(part, group.data(), width, data.data(), parameters.data());
  read_kv_row(view, 0, position - begin, x.data());
  return x;
}

struct Truth {
  std::vector<float> k[heads], v[heads];
  i64 size() const { return static_cast<i64>(k[0].size()) / width; }
  void resize(i64 n) {
    for (auto* side : {&k, &v})
      for (auto& rows : *side) rows.resize(static_cast<std::size_t>(n * width));
  }
};

void append(KvStore& store, Truth& truth, i64 count, Random& random) {
  const i64 position = truth.size();
  store.begin(position, count);
  truth.resize(position + count);
  for (i64 i = 0; i < count; i++)
    for (i64 h = 0; h < heads; h++)
      for (bool key : {true, false}) {
        float* row = (key ? truth.k : truth.v)[h].data() + (position + i) * width;
        for (i64 d = 0; d < width; d++) row[d] = static_cast<float>(random.normal());
        key ? store.put_key(h, i, row) : store.put_value(h, i, row);
      }
  for (i64 i = 0; i < store.seal_items(); i++) store.seal(i);
}

// Every position that a query must see is there once, in the form that is due, and no other.
void expect_due(const KvStore& store, const KvScheme& s, const Attention& a, const Truth& truth,
                i64 query) {
  std::vector<KvSegment> segments;
  store.segments(segments);
  std::map<i64, int> times;
  for (const KvSegment& g : segments)
    for (i64 slot = 0; slot < g.count; slot++) {
      const i64 key = g.positions != nullptr ? g.positions[slot] : g.first + slot;
      if (key > query || (a.window > 0 && key <= query - a.window && key >= a.sinks)) continue;
      if (g.form != KvForm::only && (key < s.packed_end(query + 1)) != (g.form == KvForm::packed))
        continue;
      times[key]++;
      for (i64 h = 0; h < heads; h++) {
        std::vector<float> k(width), v(width);
        read_kv_row(g.k, h, slot, k.data());
        read_kv_row(g.v, h, slot, v.data());
        ASSERT_EQ(k, due(s, s.keys, truth.k[h], query, key)) << "key " << key << " query " << query;
        ASSERT_EQ(v, due(s, s.values, truth.v[h], query, key))
            << "value " << key << " query " << query;
      }
    }
  for (i64 key = 0; key <= query; key++) {
    const bool wanted = a.window == 0 || key > query - a.window || key < a.sinks;
    ASSERT_EQ(times[key], wanted ? 1 : 0) << "position " << key << " query " << query;
  }
}

const char* const packing_schemes[] = {"int8",
                                       "int4:asym",
                                       "int4:window=5",
                                       "int4:k=channel/4",
                                       "int4:asym:k=channel/4:window=3:sinks=2",
                                       "int8:g2:k=channel/8,asym:window=9",
                                       "e4m3:sinks=3",
                                       "f16:k=int4,channel/4"};

TEST(KvStores, EachQuerySeesWhatIsDueHoweverTokensCame) {
  for (const char* text : packing_schemes)
    for (const auto& [window, sinks] :
         {std::pair<i64, i64>{0, 0}, {1, 0}, {6, 2}, {7, 0}, {13, 5}}) {
      SCOPED_TRACE(fmt::format("{} window {} sinks {}", text, window, sinks));
      const KvScheme s = parse_kv_scheme(text);
      const Attention a = small_attention(window, sinks);
      Random random(17);
      for (int round = 0; round < 6; round++) {
        KvStore store(a, 300, s, false);
        Truth truth;
        for (int step = 0; step < 14; step++) {
          const i64 position = truth.size();
          const i64 most = step % 3 == 0 ? 45 : 4;
          const i64 count = 1 + static_cast<i64>(random.below(static_cast<std::uint64_t>(most)));
          append(store, truth, count, random);
          for (i64 q = position; q < position + count; q++) expect_due(store, s, a, truth, q);
          store.commit();
          expect_due(store, s, a, truth, position + count - 1);
          if (HasFatalFailure()) return;
          const i64 size = truth.size(), back = size - static_cast<i64>(random.below(8));
          if (random.below(2) == 0 || back < 1 || !store.can_truncate(size, back)) continue;
          store.truncate(back);
          truth.resize(back);
        }
      }
    }
}

TEST(KvStores, AFewTokensCanBeTakenBack) {
  const KvScheme s = parse_kv_scheme("int4:k=channel/8:window=20");
  const KvStore store(small_attention(0, 0), 1000, s, false);
  for (i64 size = 1; size < 300; size++) {
    for (i64 back = 0; back <= 16 && back <= size; back++)
      EXPECT_TRUE(store.can_truncate(size, size - back)) << size << " " << back;
    EXPECT_TRUE(store.can_truncate(size, 0));
  }
  EXPECT_FALSE(store.can_truncate(300, 100));
}

TEST(KvStores, BytesAreExact) {
  const Spec spec = testing::llama_like();  // 3 blocks, 2 heads of 10 and 10
  const auto bytes = [&](const char* text, i64 positions) {
    return KvCache(spec, positions, parse_kv_scheme(text)).bytes();
  };
  EXPECT_EQ(bytes("int4", 40), 3 * 2 * 40 * 2 * (5 + 2));
  // 96 packed, of them keys in groups of 32; 32 + 16 recent ones in f16.
  EXPECT_EQ(bytes("int4:k=channel", 100),
            3 * 2 * (96 * (5 + 5 + 2) + 3 * 10 * 2 + (32 + 16) * 20 * 2));
  // 4 kept, 64 packed, 20 + 1 + 16 recent.
  EXPECT_EQ(bytes("int8:window=20:sinks=4", 88), 3 * 2 * (64 * 2 * (10 + 4) + 41 * 20 * 2));
  EXPECT_EQ(bytes("int4:k=channel", 20), 3 * 2 * 20 * 20 * 2) << "nothing is ever packed";
  const Spec ring = testing::changed(spec, [](Spec& s) {
    for (Block& b : s.blocks) testing::set_window(b.attn, 10, 3);
  });
  // One group of 8 for the sinks, two for the window; 8 + 16 recent.
  EXPECT_EQ(KvCache(ring, 500, parse_kv_scheme("int4:k=channel/8")).bytes(),
            3 * 2 * (24 * (5 + 5 + 2) + 3 * 10 * 2 + 24 * 20 * 2));
}

TEST(KvCounts, BytesReadAreThoseOfTheRowsSeen) {
  const Spec spec = testing::llama_like();
  const auto read = [](const Spec& s, const char* text, i64 context) {
    return kv_bytes_read(s, parse_kv_scheme(text), context);
  };
  EXPECT_EQ(read(spec, "int4", 99), 3 * 2 * 100 * 2 * (5 + 2));
  EXPECT_EQ(read(spec, "int4:k=channel", 99), 3 * 2 * (96 * 12 + 3 * 20 + 4 * 40));
  EXPECT_EQ(read(spec, "int8:window=20:sinks=4", 99), 3 * 2 * (76 * 28 + 24 * 40));
  const Spec ring = testing::changed(spec, [](Spec& s) {
    for (Block& b : s.blocks) testing::set_window(b.attn, 10, 3);
  });
  EXPECT_EQ(read(ring, "int8", 99), 3 * 2 * 13 * 28);
  // Of 3 sinks and positions 90 .. 99, packed up to 96: two groups of 8.
  EXPECT_EQ(read(ring, "int4:k=channel/8", 99), 3 * 2 * (9 * 12 + 2 * 20 + 4 * 40));
  EXPECT_EQ(kv_bytes_per_token(spec, parse_kv_scheme("int4:k=channel")),
            3 * 2 * (5 + 5 + 2 + 20.0 / 32));
}

Ids some_ids(i64 vocab, i64 count) {
  Random random(23);
  Ids ids;
  for (i64 i = 0; i < count; i++)
    ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
  return ids;
}

std::vector<Spec> specs() {
  const Spec plain = testing::llama_like();
  return {plain,
          testing::changed(plain, [](Spec& s) { testing::set_window(s.blocks[1].attn, 9, 2); }),
          testing::latent(6, 0),
          testing::changed(testing::llama_like(4), [](Spec& s) { s.blocks[1].attn.kv_from = 0; })};
}

// The reference multiplies row by row, so the rows that are stored have the same bits however many
// come at once, and only the order of double sums differs: float roundings of the mix remain.
TEST(KvModels, ResultsDoNotDependOnTheChunks) {
  Pool pool(1);
  for (const Spec& spec : specs())
    for (const char* text : packing_schemes) {
      const Model model = random_model(spec, 1, Code::f32);
      const Ids ids = some_ids(spec.vocab, 40);
      Engine reference(model, pool, testing::reference_options(parse_kv_scheme(text)));
      const std::vector<float> all = testing::logits_of(reference, ids);
      for (i64 chunk : {1, 7})
        EXPECT_LT(testing::difference(testing::logits_of(reference, ids, chunk), all), 1e-5)
            << text << " chunks of " << chunk;
    }
}

// CpuOps and RefOps may round a number to different neighbours (a code apart), so they agree to
// what the rounding costs: the distance of the reference from an unquantized cache.
TEST(KvModels, TheFastEngineAgreesWithTheReference) {
  Pool pool(2);
  for (const Spec& spec : specs())
    for (const char* text : packing_schemes) {
      const Model model = random_model(spec, 1, Code::f32);
      const Ids ids = some_ids(spec.vocab, 40);
      const KvScheme scheme = parse_kv_scheme(text);
      Engine exact(model, pool, testing::reference_options(Code::f32));
      Engine reference(model, pool, testing::reference_options(scheme));
      const std::vector<float> want = testing::logits_of(reference, ids);
      const double cost = testing::difference(testing::logits_of(exact, ids), want);
      EXPECT_GT(cost, 1e-4) << text << ": nothing was quantized";
      for (unsigned isa : testing::classes_here()) {
        Engine engine(model, pool, testing::options_with(isa, scheme));
        for (i64 chunk : {0, 1, 7})
          EXPECT_LT(testing::difference(testing::logits_of(engine, ids, chunk), want), cost)
              << text << " isa " << isa << " chunks of " << chunk;
      }
    }
}

TEST(KvModels, ATruncatedCacheGoesOnAsIfNothingHadBeen) {
  Pool pool(1);
  const Spec spec = testing::llama_like();
  const Model model = random_model(spec, 1, Code::f32);
  const Ids ids = some_ids(spec.vocab, 60), other = some_ids(spec.vocab, 75);
  Engine engine(model, pool,
                testing::reference_options(parse_kv_scheme("int4:k=channel/8:window=4")));
  const std::vector<float> want = testing::logits_of(engine, ids);
  KvCache cache = engine.make_cache(60);
  const auto step = [&](std::span<const std::int32_t> tokens) {
    const Input input{&cache, tokens};
    return testing::copy_of(engine.step({&input, 1}, Want::all));
  };
  step(std::span(ids).first(40));
  step(std::span(other).subspan(60, 11));
  cache.truncate(40);
  std::vector<float> rest = step(std::span(ids).subspan(40));
  const std::size_t first = static_cast<std::size_t>(40 * spec.vocab);
  EXPECT_LT(
      testing::difference(rest, {want.begin() + static_cast<std::ptrdiff_t>(first), want.end()}),
      1e-5);
  try {
    cache.truncate(12);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "EN-003");
  }
  EXPECT_EQ(cache.size(), 60);
}

}  // namespace
}  // namespace pare
