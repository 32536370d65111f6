// Interpolation between measured rates.
//
// Between two measured batches the time of a product grows linearly: a kernel reads its matrix once
// and does work for every input. Behind the last it grows in proportion. A scheme that was not
// measured takes the rates of the nearest one that runs on the same kernel, in proportion to its
// bytes while memory is the limit.
#include "cost/rates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel/linear.h"

namespace pare {
namespace {

using Point = ProductRate::Point;

double seconds_of(const Point& p, double out, double in) {
  const auto seconds = [&](const ProductRate::Width& w) { return w.once + out * w.per_output; };
  const std::vector<ProductRate::Width>& widths = p.widths;
  if (in > widths.back().in || widths.size() == 1) {
    const ProductRate::Width& last = widths.back();
    return last.once + out * last.per_output * in / last.in;
  }
  std::size_t i = 1;
  while (in > widths[i].in) i++;
  const ProductRate::Width &a = widths[i - 1], &b = widths[i];
  // Of a narrower matrix than any measured, what is common to both widths remains.
  const double share = (in - a.in) / (b.in - a.in);
  return std::max(seconds(a) * std::min(1.0, in / a.in), std::lerp(seconds(a), seconds(b), share));
}

double seconds_of(const ProductRate& r, double out, double in, double batch) {
  const std::vector<Point>& points = r.points;
  if (batch <= points.front().batch) return seconds_of(points.front(), out, in);
  for (std::size_t i = 1; i < points.size(); i++) {
    const Point &a = points[i - 1], &b = points[i];
    if (batch > b.batch) continue;
    return std::lerp(seconds_of(a, out, in), seconds_of(b, out, in),
                     (batch - a.batch) / (b.batch - a.batch));
  }
  return seconds_of(points.back(), out, in) * batch / points.back().batch;
}

// The kernel of a key, and the weights that share a scale ("i8:row:integers": 0 for a row).
struct KeyParts {
  std::string kernel, work;
  double group = 0;
};
KeyParts parts_of(const std::string& key) {
  const std::size_t first = key.find(':'), last = key.rfind(':');
  KeyParts p{key.substr(0, first), key.substr(last + 1), 0};
  const std::string middle = key.substr(first + 1, last - first - 1);
  if (middle.starts_with("g")) p.group = std::atof(middle.c_str() + 1);
  return p;
}

// The measured rate nearest to a key; null when no product was measured on that kernel.
const ProductRate* nearest_rate(const TeamRates& team, const std::string& key, bool cached) {
  const KeyParts wanted = parts_of(key);
  const ProductRate* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const ProductRate& r : team.products) {
    if (r.cached != cached || r.points.empty()) continue;
    if (r.key == key) return &r;
    const KeyParts have = parts_of(r.key);
    if (have.kernel != wanted.kernel || have.work != wanted.work) continue;
    const auto per_weight = [](double group) { return group > 0 ? 1 / group : 0; };
    const double distance = std::abs(per_weight(have.group) - per_weight(wanted.group));
    if (distance < least) least = distance, best = &r;
  }
  return best;
}

std::optional<double> product_time(const TeamRates& team, const Operation& op,
                                   const std::string& key, bool cached) {
  const ProductRate* r = nearest_rate(team, key, cached);
  if (r == nullptr) return std::nullopt;
  const double out = static_cast<double>(op.out),
               in = static_cast<double>((op.in + 127) / 128 * 128);
  const double share = r->key == key || r->bytes_per_weight <= 0 || op.rows > 8
                           ? 1
                           : op.weight_bytes / (in * out) / r->bytes_per_weight;
  return share * seconds_of(*r, out, in, static_cast<double>(op.rows));
}

// The rate measured for the nearest sharing of rows; of the cache's code, or of 16 bits.
std::optional<double> attention_time(const TeamRates& team, const Operation& op, bool cached) {
  const AttentionRate* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const AttentionRate& r : team.attention) {
    if (r.decode != (op.tokens == 1) || r.cached != cached) continue;
    const double distance =
        std::abs(std::log2(static_cast<double>(r.heads_per_kv) / op.heads_per_kv)) +
        (r.keys == op.kv_code ? 0 : 100);
    if (distance < least) least = distance, best = &r;
  }
  if (best == nullptr) return std::nullopt;
  return op.queries * best->seconds_per_query + op.flops * best->seconds_per_flop;
}

}  // namespace

double ProductRate::bytes_per_second(std::size_t i) const {
  const Width& w = points[i].widths.back();
  return bytes_per_weight * w.in / w.per_output;
}
double ProductRate::flops_per_second(std::size_t i) const {
  const Width& w = points[i].widths.back();
  return 2 * points[i].batch * w.in / w.per_output;
}

std::string product_key(const Scheme& s, const Activation& a, i64 in, unsigned isa) {
  static constexpr const char* kinds[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "i8", "nib4"};
  const LinearKernel& k = pick(s, a, in, 1, isa);
  const std::string kernel = k.kind < 0 ? to_string(s) : kinds[k.kind];
  const bool grouped =
      (s.grouping == Grouping::group || s.grouping == Grouping::block) && s.cols < in;
  const std::string scales = s.plain() ? "none" : grouped ? fmt::format("g{}", s.cols) : "row";
  return fmt::format("{}:{}{}:{}", kernel, scales, s.offset == Offset::none ? "" : "+offset",
                     k.work == LinearWork::integers ? "integers" : "floats");
}

const TeamRates& EngineRates::team(int threads) const {
  PARE_CHECK(!teams.empty());
  const TeamRates* best = &teams.back();
  for (const TeamRates& t : teams)
    if (threads > 0 && std::abs(t.threads - threads) < std::abs(best->threads - threads)) best = &t;
  return *best;
}

double EngineRates::share(double bytes) const {
  CacheStep before{0, beyond.front().share};
  for (const CacheStep& step : beyond) {
    if (bytes <= step.bytes)
      return std::lerp(before.share, step.share,
                       (bytes - before.bytes) / (step.bytes - before.bytes));
    before = step;
  }
  // Nobody measured further: all of twice the largest.
  return std::lerp(before.share, 1.0, std::min(1.0, bytes / before.bytes - 1));
}

double EngineRates::cache_bytes() const {
  double held = 0;
  for (const CacheStep& step : beyond)
    if (step.share <= 0.2) held = step.bytes;
  return held;
}

double operation_seconds(const EngineRates& rates, const TeamRates& team, const Operation& op,
                         double pass_bytes) {
  const double far = rates.share(pass_bytes);
  const auto mixed = [&](std::optional<double> memory, std::optional<double> cached, double other) {
    if (memory && cached) return std::lerp(*cached, *memory, far);
    return memory ? *memory : cached ? *cached : other;
  };
  const double moved = op.bytes() / team.bytes_per_second;
  if (!op.product)
    return op.flops == 0
               ? moved
               : mixed(attention_time(team, op, false), attention_time(team, op, true), moved);
  const std::string key = product_key(op.scheme, op.activation, op.in, rates.isa_class);
  // A kernel that nobody measured: the plain fallback, about a nanosecond a multiply-add.
  return mixed(product_time(team, op, key, false), product_time(team, op, key, true),
               op.flops / 2 * 1e-9 / team.threads);
}

double rest_seconds(const TeamRates& team, double blocks, double rows, double elements) {
  double of_rows = 0, before_rows = 0, before = 0;  // seconds per element, times rows
  for (const TeamRates::Rest& r : team.rest) {
    const double here = r.rows * r.seconds_per_element;
    of_rows = std::lerp(before, here, (rows - before_rows) / (r.rows - before_rows));
    if (rows <= r.rows) break;
    of_rows = rows * r.seconds_per_element;  // if no more follows
    before_rows = r.rows;
    before = here;
  }
  return team.seconds_per_pass + blocks * team.seconds_per_block + of_rows * elements;
}

Json to_json(const EngineRates& rates) {
  Json::Array teams;
  for (const TeamRates& t : rates.teams) {
    Json::Array products, attention, rest;
    for (const TeamRates::Rest& r : t.rest)
      rest.push_back(Json::array({Json(r.rows), Json(r.seconds_per_element)}));
    for (const ProductRate& r : t.products) {
      Json::Array points;
      for (const Point& p : r.points) {
        Json::Array widths;
        for (const ProductRate::Width& w : p.widths)
          widths.push_back(Json::array({Json(w.in), Json(w.once), Json(w.per_output)}));
        points.push_back(
            Json::object({{"batch", Json(p.batch)}, {"widths", Json(std::move(widths))}}));
      }
      products.push_back(Json::object({{"key", Json(r.key)},
                                       {"cached", Json(r.cached)},
                                       {"bytes_per_weight", Json(r.bytes_per_weight)},
                                       {"points", Json(std::move(points))}}));
    }
    for (const AttentionRate& r : t.attention)
      attention.push_back(Json::object({{"keys", Json(r.keys)},
                                        {"decode", Json(r.decode)},
                                        {"cached", Json(r.cached)},
                                        {"seconds_per_query", Json(r.seconds_per_query)},
                                        {"heads_per_kv", Json(r.heads_per_kv)},
                                        {"seconds_per_flop", Json(r.seconds_per_flop)}}));
    teams.push_back(Json::object({{"threads", Json(t.threads)},
                                  {"bytes_per_second", Json(t.bytes_per_second)},
                                  {"products", Json(std::move(products))},
                                  {"attention", Json(std::move(attention))},
                                  {"seconds_per_pass", Json(t.seconds_per_pass)},
                                  {"seconds_per_block", Json(t.seconds_per_block)},
                                  {"rest", Json(std::move(rest))}}));
  }
  Json::Array beyond;
  for (const CacheStep& step : rates.beyond)
    beyond.push_back(Json::array({Json(step.bytes), Json(step.share)}));
  return Json::object({{"isa", Json(rates.isa)},
                       {"isa_class", Json(static_cast<i64>(rates.isa_class))},
                       {"beyond", Json(std::move(beyond))},
                       {"teams", Json(std::move(teams))}});
}

EngineRates parse_engine_rates(const Json& j, const std::string& source) try {
  const auto positive = [](const Json& value) {
    const double x = value.as_number();
    if (!(x >= 0 && x < 1e30)) fail_input("HW-006", "a measured rate is out of range");
    return x;
  };
  EngineRates rates;
  rates.isa = j.at("isa").as_string();
  rates.isa_class = static_cast<unsigned>(j.at("isa_class").as_int());
  for (const Json& step : j.at("beyond").as_array()) {
    if (step.as_array().size() != 2)
      fail_input("HW-006", "a measured working set is not two numbers");
    rates.beyond.push_back({positive(step.as_array()[0]), positive(step.as_array()[1])});
    if (rates.beyond.back().share > 1 ||
        rates.beyond.back().bytes <= (rates.beyond.size() > 1 ? rates.beyond.end()[-2].bytes : 0))
      fail_input("HW-006", "measured working sets are out of order");
  }
  for (const Json& team : j.at("teams").as_array()) {
    TeamRates t;
    t.threads = static_cast<int>(team.at("threads").as_int());
    t.bytes_per_second = positive(team.at("bytes_per_second"));
    t.seconds_per_pass = positive(team.at("seconds_per_pass"));
    t.seconds_per_block = positive(team.at("seconds_per_block"));
    for (const Json& part : team.at("rest").as_array()) {
      if (part.as_array().size() != 2) fail_input("HW-006", "a measured rest is not two numbers");
      t.rest.push_back({positive(part.as_array()[0]), positive(part.as_array()[1])});
      if (t.rest.back().rows <= (t.rest.size() > 1 ? t.rest.end()[-2].rows : 0))
        fail_input("HW-006", "measured rows are out of order");
    }
    for (const Json& product : team.at("products").as_array()) {
      ProductRate r{product.at("key").as_string(),
                    product.at("cached").as_bool(),
                    positive(product.at("bytes_per_weight")),
                    {}};
      for (const Json& point : product.at("points").as_array()) {
        Point p{positive(point.at("batch")), {}};
        for (const Json& width : point.at("widths").as_array()) {
          const Json::Array& part = width.as_array();
          if (part.size() != 3) fail_input("HW-006", "a measured width is not three numbers");
          p.widths.push_back({positive(part[0]), positive(part[1]), positive(part[2])});
          if (p.widths.back().in <= (p.widths.size() > 1 ? p.widths.end()[-2].in : 0))
            fail_input("HW-006", "measured widths are out of order");
        }
        if (p.widths.empty()) fail_input("HW-006", "no width was measured");
        r.points.push_back(std::move(p));
        if (r.points.size() > 1 && r.points.end()[-2].batch >= r.points.back().batch)
          fail_input("HW-006", "measured batches are out of order");
      }
      t.products.push_back(std::move(r));
    }
    for (const Json& row : team.at("attention").as_array())
      t.attention.push_back(
          {row.at("keys").as_string(), row.at("decode").as_bool(), row.at("cached").as_bool(),
           std::max<i64>(1, row.at("heads_per_kv").as_int()), positive(row.at("seconds_per_query")),
           positive(row.at("seconds_per_flop"))});
    if (t.threads < 1 || !(t.bytes_per_second > 0))
      fail_input("HW-006", "a measured team has no threads or no bandwidth");
    rates.teams.push_back(std::move(t));
  }
  if (rates.beyond.empty()) fail_input("HW-006", "no working set was measured");
  if (rates.teams.empty()) fail_input("HW-006", "no rates were measured");
  return rates;
} catch (Error& e) {
  throw Error(e).with("file", source);
}

}  // namespace pare
