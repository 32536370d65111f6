// Two generations of keys, five kinds of scaling, one Rope.
//
// The rules where published readers differ, and what is done here:
//   * factor and max_position_embeddings / original_max_position_embeddings may disagree under
//   yarn.
//     The explicit factor counts (Transformers from 5, vLLM, llama.cpp); the ratio only stands in
//     for an absent one.
//   * original_max_position_embeddings may stand beside rope_scaling or inside it. Both may be
//     there when they agree.
//   * YaRN in MLA models scales the scores by m^2, m = 0.1 mscale_all_dim ln(factor) + 1
//   (DeepSeek's
//     own code, Transformers, vLLM). It goes into `score_factor`.
// YaRN: Peng et al. 2023, arXiv 2309.00071. LongRoPE: Ding et al. 2024, arXiv 2402.13753.
#include "model/arch/rope.h"

#include <array>
#include <cmath>

namespace pare::arch {
namespace {

constexpr double max_factor = 1e6;

struct ScalingName {
  std::string_view name;
  RopeScaling scaling;
};
constexpr auto scaling_names = std::to_array<ScalingName>({
    {"default", RopeScaling::none},
    {"linear", RopeScaling::linear},
    {"dynamic", RopeScaling::dynamic},
    {"llama3", RopeScaling::llama3},
    {"yarn", RopeScaling::yarn},
    {"longrope", RopeScaling::longrope},
});

std::string_view name_of(RopeScaling scaling) {
  for (const ScalingName& row : scaling_names)
    if (row.scaling == scaling) return row.name;
  PARE_CHECK(false);
}

RopeScaling scaling_of(Keys& keys, const RopeHints& hints) {
  const std::optional<std::string> word = keys.word({"rope_type", "type"});
  if (!word) return RopeScaling::none;
  if (hints.longrope_aliases && (*word == "su" || *word == "yarn")) return RopeScaling::longrope;
  for (const ScalingName& row : scaling_names)
    if (row.name == *word) return row.scaling;
  keys.unsupported(keys.present("rope_type") ? "rope_type" : "type",
                   "default, linear, dynamic, llama3, yarn or longrope");
}

double yarn_m(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

void read_yarn(Keys& keys, const RopeHints& hints, RopeConfig& out) {
  Rope& rope = out.rope;
  rope.beta_fast = keys.number({"beta_fast"}, 1e-6, 1e6).value_or(32);
  rope.beta_slow = keys.number({"beta_slow"}, 1e-6, 1e6).value_or(1);
  rope.truncate = keys.boolean({"truncate"}).value_or(true);
  const double mscale = keys.number({"mscale"}, 0, 1e3).value_or(0);
  const double all_dim = keys.number({"mscale_all_dim"}, 0, 1e3).value_or(0);
  rope.attention_factor = mscale != 0 && all_dim != 0
                              ? yarn_m(rope.factor, mscale) / yarn_m(rope.factor, all_dim)
                              : yarn_m(rope.factor, 1);
  if (const auto given = keys.number({"attention_factor"}, 0, 1e3)) rope.attention_factor = *given;
  if (hints.mscale_in_scores && all_dim != 0) {
    const double m = yarn_m(rope.factor, all_dim);
    out.score_factor = m * m;
  }
}

void read_longrope(Keys& keys, Rope& rope) {
  const i64 pairs = rope.dims / 2;
  for (auto [key, list] : {std::pair{"short_factor", &rope.short_factor},
                           std::pair{"long_factor", &rope.long_factor}}) {
    const auto given = keys.numbers(key, pairs, 1e-6, 1e9);
    if (!given) keys.required({key}, 0, 0);  // says which key is missing
    *list = *given;
  }
  rope.attention_factor =
      rope.factor <= 1 || rope.original_positions < 2
          ? 1
          : std::sqrt(1 + std::log(rope.factor) /
                              std::log(static_cast<double>(rope.original_positions)));
  if (const auto given = keys.number({"attention_factor"}, 0, 1e3)) rope.attention_factor = *given;
}

i64 original_positions(Keys& top, Keys& inner, const RopeHints& hints) {
  constexpr std::string_view key = "original_max_position_embeddings";
  const auto outside = top.integer({key}, 1, max_context);
  const auto inside = inner.integer({key}, 1, max_context);
  if (outside && inside && *outside != *inside)
    top.contradiction(key, fmt::format("{} as inside the rope parameters", *inside));
  if (outside || inside) return outside ? *outside : *inside;
  return hints.original_positions > 0 ? hints.original_positions : hints.max_positions;
}

// The scaling fields of one object; `inner` is rope_scaling or rope_parameters.
void read_scaling(Keys& top, Keys& inner, const RopeHints& hints, RopeConfig& out) {
  Rope& rope = out.rope;
  rope.scaling = scaling_of(inner, hints);
  if (rope.scaling == RopeScaling::none) return;
  const auto factor = inner.number({"factor"}, 1e-6, max_factor);
  const bool stretched = rope.scaling == RopeScaling::yarn || rope.scaling == RopeScaling::longrope;
  if (stretched || rope.scaling == RopeScaling::llama3)
    rope.original_positions = original_positions(top, inner, hints);
  if (rope.scaling == RopeScaling::dynamic) rope.original_positions = hints.max_positions;
  if (factor) {
    rope.factor = *factor;
  } else if (stretched) {
    rope.factor =
        static_cast<double>(hints.max_positions) / static_cast<double>(rope.original_positions);
  } else {
    inner.required({"factor"}, 1, static_cast<i64>(max_factor));
  }
  if (rope.scaling == RopeScaling::dynamic && (rope.dims < 4 || rope.factor < 1))
    inner.unsupported("factor", "at least 1, and 4 or more rotated dimensions");
  if (rope.scaling == RopeScaling::llama3) {
    rope.low_freq_factor = inner.number({"low_freq_factor"}, 1e-6, 1e6).value_or(1);
    rope.high_freq_factor = inner.number({"high_freq_factor"}, 1e-6, 1e6).value_or(4);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      inner.contradiction("high_freq_factor", "more than low_freq_factor");
  }
  if (rope.scaling == RopeScaling::yarn) read_yarn(inner, hints, out);
  if (rope.scaling == RopeScaling::longrope) read_longrope(inner, rope);
}

// A number that may stand at the top or inside; both only when they agree.
std::optional<double> either(Keys& top, const Names& outside, Keys& inner, std::string_view inside,
                             double low, double high) {
  const auto first = outside.size() > 0 ? top.number(outside, low, high) : std::nullopt;
  const auto second = inner.number({inside}, low, high);
  if (first && second && *first != *second)
    inner.contradiction(inside, fmt::format("{}, as the key beside it says", *first));
  return first ? first : second;
}

RopeConfig read_one(Keys& top, const Json& object, const char* path, const RopeHints& hints) {
  Keys inner(object, path);
  RopeConfig out;
  out.rope.interleaved = hints.interleaved;
  out.rope.theta = either(top, hints.theta_keys, inner, "rope_theta", 1e-3, 1e18).value_or(10000);
  const double partial =
      either(top, hints.partial_keys, inner, "partial_rotary_factor", 0, 1).value_or(hints.partial);
  if (hints.partial_keys.size() == 0 && partial != 1)
    inner.unsupported("partial_rotary_factor", "1 for this family");
  out.rope.dims = static_cast<i64>(static_cast<double>(hints.head_dim) * partial);
  if (out.rope.dims % 2 != 0)
    inner.contradiction("partial_rotary_factor",
                        fmt::format("an even number of rotated dimensions, {} of {} are asked for",
                                    out.rope.dims, hints.head_dim));
  read_scaling(top, inner, hints, out);
  inner.finish(fmt::format("{} rotary positions", name_of(out.rope.scaling)));
  return out;
}

}  // namespace

RopeConfig parse_rope(Keys& keys, const RopeHints& hints) {
  const Json* scaling = keys.find("rope_scaling");
  const Json* parameters = keys.find("rope_parameters");
  // Files without scaling may still carry the original length beside it (Phi-3).
  if (hints.original_positions > 0)
    keys.integer({"original_max_position_embeddings"}, 1, max_context);
  if (scaling == nullptr && parameters == nullptr)
    return read_one(keys, Json::object(), "rope_scaling.", hints);
  if (scaling == nullptr) return read_one(keys, *parameters, "rope_parameters.", hints);
  RopeConfig result = read_one(keys, *scaling, "rope_scaling.", hints);
  if (parameters != nullptr) {
    const RopeConfig other = read_one(keys, *parameters, "rope_parameters.", hints);
    if (!(other.rope == result.rope) || other.score_factor != result.score_factor)
      keys.contradiction("rope_parameters", "the same as rope_scaling, which is there too");
  }
  return result;
}

namespace {

Json list_of(const std::vector<double>& values) {
  Json::Array items;
  for (double value : values) items.emplace_back(value);
  return Json(std::move(items));
}

void write_yarn(Json& out, const RopeConfig& config, const RopeHints& hints) {
  const Rope& rope = config.rope;
  out.set("beta_fast", rope.beta_fast);
  out.set("beta_slow", rope.beta_slow);
  if (!rope.truncate) out.set("truncate", false);
  if (hints.mscale_in_scores && config.score_factor != 1 && rope.factor > 1)
    out.set("mscale_all_dim", (std::sqrt(config.score_factor) - 1) / (0.1 * std::log(rope.factor)));
  if (rope.attention_factor != yarn_m(rope.factor, 1))
    out.set("attention_factor", rope.attention_factor);
}

Json scaling_object(const RopeConfig& config, const RopeHints& hints) {
  const Rope& rope = config.rope;
  Json out = Json::object();
  out.set("rope_type", name_of(rope.scaling));
  if (rope.scaling == RopeScaling::none) return out;
  out.set("factor", rope.factor);
  if (rope.scaling != RopeScaling::linear && rope.scaling != RopeScaling::dynamic)
    out.set("original_max_position_embeddings", rope.original_positions);
  if (rope.scaling == RopeScaling::llama3) {
    out.set("low_freq_factor", rope.low_freq_factor);
    out.set("high_freq_factor", rope.high_freq_factor);
  }
  if (rope.scaling == RopeScaling::yarn) write_yarn(out, config, hints);
  if (rope.scaling == RopeScaling::longrope) {
    out.set("short_factor", list_of(rope.short_factor));
    out.set("long_factor", list_of(rope.long_factor));
    out.set("attention_factor", rope.attention_factor);
  }
  return out;
}

// The factor that truncates back to `dims`: the quotient itself may lie a rounding below.
double partial_for(i64 dims, i64 head_dim) {
  const double whole = static_cast<double>(std::max<i64>(1, head_dim));
  const double factor = static_cast<double>(dims) / whole;
  return static_cast<i64>(whole * factor) == dims ? factor : std::nextafter(factor, 2.0);
}

}  // namespace

void unparse_rope(Json& config, const RopeConfig& rope, const RopeHints& hints) {
  Json scaling = scaling_object(rope, hints);
  const double partial = partial_for(rope.rope.dims, hints.head_dim);
  if (config.find("original_max_position_embeddings") != nullptr &&
      scaling.find("original_max_position_embeddings") != nullptr)
    config.set("original_max_position_embeddings", rope.rope.original_positions);
  if (config.find("rope_parameters") != nullptr) {
    for (std::string_view key : hints.theta_keys) config.erase(key);
    for (std::string_view key : hints.partial_keys) config.erase(key);
    config.erase("rope_scaling");
    scaling.set("rope_theta", rope.rope.theta);
    if (hints.partial_keys.size() > 0) scaling.set("partial_rotary_factor", partial);
    config.set("rope_parameters", std::move(scaling));
    return;
  }
  config.set(*hints.theta_keys.begin(), rope.rope.theta);
  if (hints.partial_keys.size() > 0 && (partial != 1 || hints.partial != 1))
    config.set(*hints.partial_keys.begin(), partial);
  const bool none = rope.rope.scaling == RopeScaling::none;
  config.set("rope_scaling", none ? Json() : std::move(scaling));
}

}  // namespace pare::arch
