// Measuring rates: kernels by themselves where that is possible, parts of passes where it is not.
//
// A product is timed on matrices of eight shapes, as many copies as the caches do not hold, or so
// few that they do. Attention, and what is neither product nor attention, are timed within steps of
// small models.
#include "probe/rates.h"

#include <algorithm>

#include "base/random.h"
#include "cost/predict.h"
#include "engine/engine.h"
#include "engine/tally.h"
#include "kernel/linear.h"
#include "kernel/panels.h"
#include "number/encode.h"

namespace pare {
namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

// A median leaves out what others take of the processors now and then; a pass is long and pays its
// share. So all medians are stretched by how much longer the mean of all samples was.
struct Spent {
  double all = 0, usual = 0;  // seconds; what they were if each sample were its median
  double stretch() const { return usual > 0 ? std::max(1.0, all / usual) : 1; }
};

// Seconds of a call, over samples of several calls when it is short.
template <class F>
double time_of(double seconds, Spent& spent, const F& call) {
  const double start = now_seconds();
  call();
  const double once = std::max(1e-9, now_seconds() - start);
  const int calls = std::max(1, static_cast<int>(seconds / 9 / once));
  std::vector<double> samples;
  const double begin = now_seconds();
  while (samples.size() < 3 || (now_seconds() - begin < seconds && samples.size() < 99)) {
    stop_if_interrupted();
    const double t = now_seconds();
    for (int i = 0; i < calls; i++) call();
    samples.push_back((now_seconds() - t) / calls);
  }
  const double usual = median(samples);
  for (double t : samples) spent.all += calls * t, spent.usual += calls * usual;
  return usual;
}

// ---- products ----

// Two heights tell what a call costs from what its outputs cost.
constexpr i64 heights[] = {576, 4096}, widths[] = {512, 1024, 2048, 5120};
constexpr std::size_t shapes = std::size(heights) * std::size(widths);
constexpr i64 usual = 2048;  // a width, where only a key is asked for

// Each a kernel of its own, or the same with its scales elsewhere.
constexpr const char* all_products[] = {"f32",
                                        "bf16",
                                        "f16",
                                        "int8:channel",
                                        "int8:g32",
                                        "int8:g128",
                                        "e4m3:channel",
                                        "int4:channel",
                                        "int4:g128",
                                        "int4:g64",
                                        "int4:g32",
                                        "int4:g32:asym",
                                        "int4:g128:asym",
                                        "int8:channel+int8:token",
                                        "int4:channel+int8:token",
                                        "int4:g128+int8:token",
                                        "int4:g32+int8:token"};
constexpr const char* all_caches[] = {"f16", "f32", "int8", "int4", "e4m3"};
constexpr i64 batches[] = {1, 2, 4, 8, 12, 64, 512};
constexpr i64 few = 8;  // inputs up to which it matters where a matrix comes from

Tensor random_matrix(const Scheme& scheme, i64 outputs, i64 inputs) {
  Random random(1);
  std::vector<float> w(static_cast<std::size_t>(inputs * outputs));
  for (float& v : w) v = static_cast<float>(random.uniform() - 0.5);
  FitOptions absmax;
  absmax.range = Range::absmax;
  return quantize({w.data(), outputs, inputs}, scheme, absmax);
}

class Copies {
 public:
  Copies(const Tensor& t, const Activation& a, i64 bytes, Pool& pool)
      : inputs_(t.cols()), outputs_(t.rows()) {
    do list_.emplace_back(t, a, 0.0f, isa_here(), pool);
    while (bytes_each() * static_cast<i64>(list_.size() + 1) <= bytes);
  }
  i64 bytes_each() const { return list_[0].bytes_streamed(1); }
  double bytes_per_weight() const {
    return static_cast<double>(bytes_each()) / static_cast<double>(inputs_ * outputs_);
  }

  // Seconds of a product with `batch` inputs, one matrix after the other of those that `bytes`
  // hold.
  double time(i64 batch, i64 bytes, double seconds, Spent& spent, Pool& pool) {
    x_.resize(static_cast<std::size_t>(batch * inputs_), 0.5f);
    y_.resize(static_cast<std::size_t>(batch * outputs_));
    const auto count =
        std::clamp<std::size_t>(static_cast<std::size_t>(bytes / bytes_each()), 1, list_.size());
    std::size_t next = 0;
    const auto call = [&] {
      list_[next++ % count].apply({x_.data(), batch, inputs_}, {y_.data(), batch, outputs_}, pool);
    };
    // Once around, so that what stays in the caches is there.
    if (batch <= few)
      for (std::size_t i = 0; i < count; i++) call();
    return time_of(seconds, spent, call);
  }

 private:
  i64 inputs_, outputs_;
  std::vector<PackedLinear> list_;
  Panels<float> x_, y_;  // at cache lines, as in the engine
};

// How far working sets of growing size are on the way from the caches to memory, up to `most`.
std::vector<CacheStep> measure_cache(double seconds, int rounds, i64 most, Pool& pool) {
  Copies copies(random_matrix(parse_scheme("int8:channel"), heights[1], usual), {}, most, pool);
  std::vector<CacheStep> steps;
  Spent spent;
  for (i64 megabytes : {8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512}) {
    if (!steps.empty() && megabytes << 20 > most) break;
    std::vector<double> times;
    for (int round = 0; round < rounds; round++)
      times.push_back(copies.time(1, megabytes << 20, seconds, spent, pool));
    steps.push_back({static_cast<double>(megabytes << 20), median(std::move(times))});
  }
  const double near = steps.front().share, far = steps.back().share;
  double last = 0;
  for (CacheStep& step : steps)  // a share only where there is a way
    last = step.share =
        far > 1.05 * near ? std::clamp((step.share - near) / (far - near), last, 1.0) : 0;
  return steps;
}

// From the times of all widths with the lower matrix, then with the taller one.
ProductRate::Point point_of(double batch, const double (&t)[shapes]) {
  ProductRate::Point p{batch, {}};
  for (std::size_t k = 0; k < std::size(widths); k++) {
    const double lower = t[k], taller = t[std::size(widths) + k];
    const double whole = taller / heights[1];  // all costs, an output
    ProductRate::Width w{static_cast<double>(widths[k]), 0, 0};
    w.per_output = std::clamp((taller - lower) / (heights[1] - heights[0]), 0.5 * whole, whole);
    w.once = std::max(0.0, taller - heights[1] * w.per_output);
    p.widths.push_back(w);
  }
  return p;
}

// Times of a kind with one team, for every number of inputs: from memory and from the caches.
struct ProductTimes {
  double far[std::size(batches)][shapes] = {}, near[std::size(batches)][shapes] = {};
};

// One kind with every team.
std::vector<ProductTimes> time_products(const Scheme& scheme, const Activation& activation,
                                        const std::vector<Pool*>& pools, const RateOptions& o,
                                        i64 large, std::vector<Spent>& spent,
                                        double& bytes_per_weight) {
  constexpr i64 small = i64{8} << 20;
  std::vector<ProductTimes> teams(pools.size());
  std::size_t k = 0;
  for (i64 outputs : heights)
    for (i64 inputs : widths) {
      Copies copies(random_matrix(scheme, outputs, inputs), activation, large, *pools.back());
      bytes_per_weight = copies.bytes_per_weight();
      for (std::size_t team = 0; team < pools.size(); team++)
        for (std::size_t b = 0; b < std::size(batches) && batches[b] <= o.most_inputs; b++) {
          const auto time = [&](i64 bytes) {
            std::vector<double> rounds;
            for (int round = 0; round < o.rounds; round++)
              rounds.push_back(
                  copies.time(batches[b], bytes, o.seconds, spent[team], *pools[team]));
            return median(std::move(rounds));
          };
          teams[team].far[b][k] = time(large);
          teams[team].near[b][k] = batches[b] <= few ? time(small) : teams[team].far[b][k];
        }
      k++;
    }
  return teams;
}

std::vector<Spent> measure_products(EngineRates& rates, const std::vector<Pool*>& pools,
                                    const RateOptions& o, i64 large, const Log& log) {
  std::vector<std::string> names = o.products;
  if (names.empty()) names.assign(std::begin(all_products), std::end(all_products));
  std::vector<Spent> spent(pools.size());
  Progress progress(log, "products", static_cast<double>(names.size()), "kinds");
  for (const std::string& name : names) {
    const auto [scheme, activation] = parse_product(name);
    ProductRate far{product_key(scheme, activation, usual, isa_here()), false, 0, {}};
    const std::vector<ProductTimes> times =
        time_products(scheme, activation, pools, o, large, spent, far.bytes_per_weight);
    ProductRate near = far;
    near.cached = true;
    for (std::size_t team = 0; team < pools.size(); team++) {
      far.points.clear();
      near.points.clear();
      for (std::size_t b = 0; b < std::size(batches) && batches[b] <= o.most_inputs; b++) {
        far.points.push_back(point_of(static_cast<double>(batches[b]), times[team].far[b]));
        near.points.push_back(point_of(static_cast<double>(batches[b]), times[team].near[b]));
      }
      rates.teams[team].products.push_back(far);
      rates.teams[team].products.push_back(near);
    }
    progress.add(1);
  }
  return spent;
}

// ---- attention and what is left ----

Spec small_llama(i64 dim, i64 inner, i64 blocks, i64 heads, i64 kv_heads, const Scheme& scheme) {
  Spec spec = known_spec("llama-3.2-1b");
  const Block block = spec.blocks.front();
  spec.blocks.assign(static_cast<std::size_t>(blocks), block);
  spec.dim = dim;
  spec.vocab = 1024;
  for (Block& b : spec.blocks) {
    Attention& a = b.attn;
    a.heads = heads;
    a.kv_heads = kv_heads;
    const auto set = [&](Linear& l, i64 in, i64 out) {
      l.in = in;
      l.out = out;
      l.scheme = scheme;
    };
    set(a.q, dim, heads * a.qk_dim);
    set(a.k, dim, kv_heads * a.qk_dim);
    set(a.v, dim, kv_heads * a.v_dim);
    set(a.o, heads * a.v_dim, dim);
    set(b.ffn.gate, dim, inner);
    set(b.ffn.up, dim, inner);
    set(b.ffn.down, inner, dim);
  }
  spec.head.in = dim;
  spec.head.out = spec.vocab;
  return spec;
}

// Steps of a model of one sequence, timed part by part.
class Run {
 public:
  Run(const Model& model, Pool& pool, const KvScheme& kv, i64 positions)
      : engine_(model, pool, options(kv)), cache_(engine_.make_cache(positions)), pool_(pool) {}
  const Spec& spec() const { return engine_.spec(); }

  struct Parts {
    double attention = 0, rest = 0;
  };
  // Of a step of so many tokens behind `context`; before each, `flush` takes the caches.
  Parts parts(i64 tokens, i64 context, double seconds, const std::vector<char>& flush) {
    if (cache_.size() > context) cache_.truncate(context);
    while (cache_.size() < context) step(std::min<i64>(512, context - cache_.size()));
    std::vector<double> attention, rest;
    const double begin = now_seconds();
    while (rest.size() < 3 || (now_seconds() - begin < seconds && rest.size() < 200)) {
      stop_if_interrupted();
      cache_.truncate(context);
      pool_.each([&](int) { read(flush); });
      PartTimes times;
      engine_.time(&times);
      const double whole = step(tokens);
      engine_.time(nullptr);
      attention.push_back(times.attention);
      rest.push_back(whole - times.products - times.attention);
    }
    cache_.truncate(context);
    return {median(std::move(attention)), median(std::move(rest))};
  }

 private:
  static EngineOptions options(const KvScheme& kv) {
    EngineOptions o;
    o.kv = kv;
    return o;
  }
  static void read(const std::vector<char>& data) {
    char sum = 0;
    for (std::size_t i = 0; i < data.size(); i += 64) sum = static_cast<char>(sum ^ data[i]);
    volatile char kept = sum;
    (void)kept;
  }
  double step(i64 tokens) {
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens), 5);
    const Input input{&cache_, ids};
    const double start = now_seconds();
    engine_.step({&input, 1}, Want::last);
    return now_seconds() - start;
  }
  Engine engine_;
  KvCache cache_;
  Pool& pool_;
};

constexpr i64 shares[] = {1, 2, 3, 4, 8};  // queries of a row

// Two contexts tell what a query costs from what the pairs cost.
void measure_attention(EngineRates& rates, const std::vector<Pool*>& pools, const RateOptions& o,
                       const Log& log) {
  constexpr i64 heads = 24, near = 64, far = 1024, chunk = 128;
  std::vector<std::string> caches = o.caches;
  if (caches.empty()) caches.assign(std::begin(all_caches), std::end(all_caches));
  const std::vector<char> none, all(static_cast<std::size_t>(2 * rates.cache_bytes()) + 1);
  Progress progress(log, "attention", static_cast<double>(std::size(shares) * caches.size()),
                    "caches");
  for (i64 share : shares) {
    const Spec spec = small_llama(256, 256, 1, heads, heads / share, parse_scheme("bf16"));
    const Model model = random_model(spec, 1, Code::bf16);
    for (const std::string& cache : caches) {
      for (std::size_t i = 0; i < pools.size(); i++) {
        Run run(model, *pools[i], parse_kv_scheme(cache), far + chunk);
        for (const auto& [decode, cached] : {std::pair{true, true}, {true, false}, {false, true}}) {
          AttentionRate rate{cache, decode, cached, share, 0, 0};
          double seconds[2], flops[2];
          for (const auto& [k, context] : {std::pair{0, near}, {1, far}}) {
            Load load;
            load.tokens = decode ? 1 : chunk;
            load.context = context;
            flops[k] = 0;
            for (const Operation& op : operations(spec, load))
              if (!op.product) flops[k] += op.flops;
            seconds[k] =
                run.parts(load.tokens, context, 2 * o.seconds, cached ? none : all).attention;
          }
          const double queries = heads * static_cast<double>(decode ? 1 : chunk);
          rate.seconds_per_flop = std::max(0.0, (seconds[1] - seconds[0]) / (flops[1] - flops[0]));
          rate.seconds_per_query =
              std::max(0.0, seconds[0] - flops[0] * rate.seconds_per_flop) / queries;
          rates.teams[i].attention.push_back(rate);
          if (!decode) {  // many queries read each row often: where from matters little
            rate.cached = false;
            rates.teams[i].attention.push_back(rate);
          }
        }
      }
      progress.add(1);
    }
  }
}

// Two depths and two widths tell passes, blocks and elements apart. The weights are more than the
// caches hold, as they mostly are: all else comes from further away then.
void measure_rest(EngineRates& rates, const std::vector<Pool*>& pools, double seconds, i64 large) {
  constexpr i64 rows[] = {1, 4, 16, 128};
  const i64 narrow = large < (i64{64} << 20) ? 256 : 1024;
  const i64 block_bytes = 29 * narrow * narrow / 2;
  const i64 shallow = std::max<i64>(2, large / block_bytes), deep = 2 * shallow;
  const Scheme scheme = parse_scheme("int8:channel");
  const auto model = [&](i64 dim, i64 blocks) {
    return random_model(small_llama(dim, 4 * dim, blocks, dim / 64, dim / 256, scheme), 1,
                        Code::bf16);
  };
  const Model base = model(narrow, shallow), longer = model(narrow, deep),
              broader = model(2 * narrow, std::max<i64>(2, shallow / 4));
  for (std::size_t i = 0; i < pools.size(); i++) {
    TeamRates& team = rates.teams[i];
    Run a(base, *pools[i], Code::f16, 64 + 128), b(longer, *pools[i], Code::f16, 64 + 128),
        c(broader, *pools[i], Code::f16, 64 + 128);
    const auto rest = [&](Run& run, i64 count) {
      return run.parts(count, 64, 5 * seconds, {}).rest;
    };
    const auto blocks = [](Run& run) { return static_cast<double>(run.spec().blocks.size()); };
    const double ra = rest(a, 1), rb = rest(b, 1), rc = rest(c, 1);
    const double ea = vector_elements(a.spec()) / blocks(a),
                 ec = vector_elements(c.spec()) / blocks(c);
    const double of_block = std::max(0.0, (rb - ra) / (blocks(b) - blocks(a)));
    team.seconds_per_pass = std::max(0.0, ra - blocks(a) * of_block);
    const double block_a = (ra - team.seconds_per_pass) / blocks(a),
                 block_c = (rc - team.seconds_per_pass) / blocks(c);
    const double per_element = std::clamp((block_c - block_a) / (ec - ea), 0.0, block_a / ea);
    team.seconds_per_block = std::max(0.0, block_a - per_element * ea);
    const double fixed = team.seconds_per_pass + blocks(a) * team.seconds_per_block;
    for (i64 count : rows) {
      const double elements = static_cast<double>(count) * vector_elements(a.spec());
      team.rest.push_back(
          {static_cast<double>(count), std::max(0.0, rest(a, count) - fixed) / elements});
    }
  }
}

void stretch(ProductRate& rate, double factor) {
  for (ProductRate::Point& p : rate.points)
    for (ProductRate::Width& w : p.widths) w.once *= factor, w.per_output *= factor;
}

void stretch(TeamRates& team, double factor) {
  for (ProductRate& r : team.products) stretch(r, factor);
  for (AttentionRate& r : team.attention)
    r.seconds_per_query *= factor, r.seconds_per_flop *= factor;
  team.seconds_per_pass *= factor;
  team.seconds_per_block *= factor;
  for (TeamRates::Rest& r : team.rest) r.seconds_per_element *= factor;
}

// A rate of the same products takes the place of that before.
void put(TeamRates& team, const ProductRate& rate) {
  for (ProductRate& r : team.products)
    if (r.key == rate.key && r.cached == rate.cached) {
      r = rate;
      return;
    }
  team.products.push_back(rate);
}

void find_bandwidth(TeamRates& team) {
  team.bytes_per_second = 0;
  for (const ProductRate& r : team.products)
    if (!r.cached) team.bytes_per_second = std::max(team.bytes_per_second, r.bytes_per_second(0));
}

// Bytes of matrices that no cache holds.
i64 far_bytes(const RateOptions& o, const EngineRates& rates) {
  return o.far_bytes > 0 ? o.far_bytes
                         : std::max(i64{160} << 20, static_cast<i64>(3 * rates.cache_bytes()));
}

struct Teams {
  std::vector<std::unique_ptr<Pool>> owned;
  std::vector<Pool*> pools;
  void add(int threads) {
    owned.push_back(std::make_unique<Pool>(threads));
    pools.push_back(owned.back().get());
  }
};

}  // namespace

std::pair<Scheme, Activation> parse_product(const std::string& text) {
  const std::size_t plus = text.find('+');
  return {parse_scheme(text.substr(0, plus)),
          plus == std::string::npos ? Activation() : parse_activation(text.substr(plus + 1))};
}

EngineRates measure_rates(const RateOptions& o, const Log& log) {
  EngineRates rates;
  rates.isa_class = isa_here();
  rates.isa = isa_name(rates.isa_class);
  Teams teams;
  for (int threads : o.teams) {
    teams.add(threads);
    TeamRates team;
    team.threads = threads;
    rates.teams.push_back(team);
  }
  const std::vector<Pool*>& pools = teams.pools;
  rates.beyond = measure_cache(o.seconds, std::max(3, o.rounds),
                               o.far_bytes > 0 ? 4 * o.far_bytes : i64{512} << 20, *pools.back());
  const i64 large = far_bytes(o, rates);
  const std::vector<Spent> spent = measure_products(rates, pools, o, large, log);
  measure_attention(rates, pools, o, log);
  measure_rest(rates, pools, o.seconds, large);
  for (std::size_t i = 0; i < pools.size(); i++) {
    stretch(rates.teams[i], spent[i].stretch());
    find_bandwidth(rates.teams[i]);
  }
  return rates;
}

void renew_products(EngineRates& rates, const RateOptions& o, const Log& log) {
  Teams teams;
  EngineRates fresh;
  for (const TeamRates& team : rates.teams) {
    teams.add(team.threads);
    fresh.teams.emplace_back().threads = team.threads;
  }
  const std::vector<Spent> spent =
      measure_products(fresh, teams.pools, o, far_bytes(o, rates), log);
  for (std::size_t i = 0; i < spent.size(); i++) {
    for (ProductRate& rate : fresh.teams[i].products) {
      stretch(rate, spent[i].stretch());
      put(rates.teams[i], rate);
    }
    find_bandwidth(rates.teams[i]);
  }
}

}  // namespace pare
