// The rules of advice.
//
// A sentence names its figures, so that it can be checked, and what to do, where something can be
// done. What a proposed change would bring is computed with the same model, never said from memory.
#include "cost/advice.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/human.h"
#include "cost/compare.h"
#include "kernel/linear.h"
#include "model/model.h"

namespace pare {
namespace {

using Sentence = std::optional<std::string>;

struct Case {
  const Spec& spec;
  const Hardware& h;
  const Use& use;
  const Prediction& p;
};

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

bool has_activation(const SchemeShare& s) { return s.activation.per != Activation::Per::none; }

Spec with_blocks(Spec spec, const Scheme& scheme, const Activation& activation) {
  for (auto& [name, linear] : linears(spec)) {
    if (name == "head") continue;
    linear->scheme = scheme;
    linear->activation = activation;
  }
  return spec;
}

Sentence does_not_fit(const Case& c) {
  if (c.p.fits) return std::nullopt;
  const Memory& m = c.p.memory;
  const double usable = usable_memory * c.h.memory_bytes;
  std::string text = fmt::format(
      "It does not fit: {} of weights, {} of cache and {} of activations, "
      "and {} can be used.",
      human_bytes(m.weights), human_bytes(m.cache), human_bytes(m.activations),
      human_bytes(usable));
  if (m.weights < usable && c.use.batch > 1 && c.p.largest_batch > 0)
    text += fmt::format(" A batch of {} would.", c.p.largest_batch);
  else if (m.weights >= usable)
    text += fmt::format(" The weights would have to be {:.2g} bits each at most.",
                        8 * usable / static_cast<double>(std::max<i64>(1, parameters(c.spec))));
  return text;
}

// 8-bit products of integers or floats, whichever the machine multiplies faster than 16 bits.
struct EightBits {
  Scheme scheme;
  Activation activation;
  std::string text;
};
std::optional<EightBits> eight_bit_products(const Hardware& h) {
  const double sixteen = executed_rate(parse_scheme("int8:channel"), {}, h);
  for (const auto& [s, a] :
       {std::pair{"int8:channel", "int8:token"}, {"e4m3:channel", "e4m3:token"}}) {
    EightBits e{parse_scheme(s), parse_activation(a), fmt::format("{} with {}", s, a)};
    if (executed_rate(e.scheme, e.activation, h) > 1.05 * sixteen) return e;
  }
  return std::nullopt;
}

Sentence four_bits_at_batch(const Case& c) {
  const SchemeShare main = block_schemes(c.spec).front();
  if (main.scheme.plain() || has_activation(main) || bits(main.scheme.code) > 8)
    return std::nullopt;
  const std::optional<EightBits> eight = eight_bit_products(c.h);
  if (!eight) return std::nullopt;
  const Spec other = with_blocks(c.spec, eight->scheme, eight->activation);
  const Faster f =
      faster(step_products(other, c.h), step_products(c.spec, c.h), c.h, c.use.threads);
  const double batch = static_cast<double>(c.use.batch);
  if (!f.from || *f.from > batch || (f.until && *f.until <= batch)) return std::nullopt;
  return fmt::format(
      "A batch of {} is too large for {}: quantized weights alone are decoded and multiplied as "
      "{}, "
      "so arithmetic is the limit. From a batch of {:.0f} on {} is faster.",
      c.use.batch, to_string(main.scheme), executed_code(main.scheme, main.activation, c.h),
      std::ceil(*f.from), eight->text);
}

Sentence no_integer_units(const Case& c) {
  for (const SchemeShare& s : block_schemes(c.spec)) {
    if (!has_activation(s) || !info(s.activation.code).integer) continue;
    const std::string code = executed_code(s.scheme, s.activation, c.h);
    const std::string alone = executed_code(s.scheme, {}, c.h);
    const double rate = *c.h.rate_of(code), floats = *c.h.rate_of(alone);
    const std::string advice = c.h.rate_of("fp8").value_or(0) > floats
                                   ? " e4m3:channel with e4m3:token runs on units that it has."
                                   : " Weights alone in these bits are as fast.";
    if (code == alone)
      return fmt::format(
          "{} has no units for integers: {} is multiplied as {}, and quantized inputs "
          "bring nothing.{}",
          c.h.name, to_string(s), code, advice);
    if (rate < floats)
      return fmt::format(
          "{} multiplies {} at {:.4g} TFLOP/s, {:.0f} times slower than {}: {} is a "
          "bad choice there.{}",
          c.h.name, code, rate / 1e12, floats / rate, alone, to_string(s), advice);
  }
  return std::nullopt;
}

Sentence no_float8_units(const Case& c) {
  for (const SchemeShare& s : block_schemes(c.spec)) {
    if (!has_activation(s) || !is_float8(s.activation.code)) continue;
    const std::string code = executed_code(s.scheme, s.activation, c.h);
    if (code == "fp8") continue;
    const bool integers = c.h.rate_of("int8").value_or(0) > *c.h.rate_of(code);
    return fmt::format(
        "{} has no units for 8-bit floats: {} is multiplied as {}, and quantized inputs "
        "bring nothing.{}",
        c.h.name, to_string(s), code,
        integers ? " int8:channel with int8:token runs on units that it has." : "");
  }
  return std::nullopt;
}

Sentence runs_wider(const Case& c) {
  if (!c.h.measured) return std::nullopt;
  for (const auto& [name, l] : linears(c.spec)) {
    const double stored = static_cast<double>(stored_bytes(l->scheme, l->out, l->in));
    const double read = static_cast<double>(packed_bytes(l->scheme, l->out, l->in));
    if (l->scheme.plain() || read < 1.15 * stored) continue;
    const double weights = static_cast<double>(l->in) * static_cast<double>(l->out);
    return fmt::format(
        "{} is stored in {:.2f} bits a weight, but this engine reads it in {:.2f}: it "
        "saves disk, and no more time than the wider code.",
        to_string(l->scheme), 8 * stored / weights, 8 * read / weights);
  }
  return std::nullopt;
}

Sentence fits_in_cache(const Case& c) {
  if (c.h.cache_bytes <= 0 || c.p.memory.weights > c.h.cache_bytes) return std::nullopt;
  return fmt::format(
      "All weights ({}) fit in the last-level cache ({}): memory is not their limit{}.",
      human_bytes(c.p.memory.weights), human_bytes(c.h.cache_bytes),
      c.h.engine == nullptr ? ", and fewer bits bring less than the plan says" : "");
}

// KV schemes that are smaller than the one in use.
std::vector<std::string> smaller_kv(const Case& c) {
  std::vector<std::string> names;
  for (const char* name : {"int8", "int4:g32:asym"})
    if (kv_bytes_per_token(c.spec, parse_kv_scheme(name)) < 0.8 * c.p.kv_bytes_per_token)
      names.emplace_back(name);
  return names;
}

Sentence cache_limits(const Case& c) {
  const SchemeShare main = block_schemes(c.spec).front();
  const std::vector<std::string> smaller = smaller_kv(c);
  if (main.scheme.plain() || bits(main.scheme.code) > 4 || smaller.empty() ||
      kv_of(c.spec, c.use).keys.plain() == false)
    return std::nullopt;
  Use eight = c.use;
  eight.kv = parse_kv_scheme(smaller.front());
  const i64 wide = largest_batch(with_blocks(c.spec, parse_scheme("bf16"), {}), c.h, c.use);
  const i64 with_kv = largest_batch(c.spec, c.h, eight);
  const i64 now = c.p.largest_batch;
  if (now == 0 || with_kv - now <= now - wide) return std::nullopt;
  return fmt::format(
      "From here on the cache, not the weights, limits how many sequences of {} fit: {} "
      "with weights in 16 bits, {} now, {} with --kv {} too.",
      c.use.context, wide, now, with_kv, smaller.front());
}

Sentence zeros_not_skipped(const Case& c) {
  for (const auto& [name, l] : linears(c.spec)) {
    if (l->scheme.sparsity == Sparsity::dense) continue;
    Scheme dense = l->scheme;
    dense.sparsity = Sparsity::dense;
    dense.keep_n = dense.keep_m = 0;
    const bool smaller =
        stored_bytes(l->scheme, l->out, l->in) < stored_bytes(dense, l->out, l->in);
    return fmt::format(
        "No kernel skips the zeros of {}: {}all products are counted, and run, "
        "densely.",
        to_string(l->scheme), smaller ? "" : "they take the room of other weights, and ");
  }
  return std::nullopt;
}

Sentence large_head(const Case& c) {
  const Linear& head = c.spec.head;
  double body = 0;
  for (const auto& [name, l] : linears(c.spec))
    if (name != "head") body += static_cast<double>(stored_bytes(l->scheme, l->out, l->in));
  const double bytes = static_cast<double>(stored_bytes(head.scheme, head.out, head.in));
  const double share = bytes / (body + bytes);
  if (share < 0.2) return std::nullopt;
  std::string text =
      bytes > body
          ? fmt::format("The output matrix ({}) is larger than all blocks together ({}).",
                        human_bytes(bytes), human_bytes(body))
          : fmt::format("The output matrix is {} of the {} that a token reads of the weights.",
                        percent(share), human_bytes(body + bytes));
  const double eight =
      static_cast<double>(stored_bytes(parse_scheme("int8:channel"), head.out, head.in));
  if (bits(head.scheme.code) > 8)
    text += fmt::format(" --head int8:channel makes it {}.", human_bytes(eight));
  else
    text += fmt::format(" A smaller vocabulary than {} would shrink it.", c.spec.vocab);
  return text;
}

Sentence idle_window(const Case& c) {
  std::size_t windows = 0, idle = 0;
  i64 shortest = 0;
  for (const Block& b : c.spec.blocks) {
    if (b.attn.window <= 0) continue;
    windows++;
    if (b.attn.window + b.attn.sinks <= c.use.context) continue;
    idle++;
    shortest = shortest == 0 ? b.attn.window : std::min(shortest, b.attn.window);
  }
  if (idle == 0) return std::nullopt;
  return fmt::format(
      "At a context of {} the window of {} never bites ({} of {} blocks with one): cache "
      "and time are those of full attention.",
      c.use.context, shortest, idle, windows);
}

Sentence beyond_positions(const Case& c) {
  const i64 most = c.spec.max_positions;
  if (most <= 0 || std::max(c.use.context, c.use.prompt) <= most) return std::nullopt;
  return fmt::format("A context of {} is beyond the {} positions that the model was made for.",
                     std::max(c.use.context, c.use.prompt), most);
}

Sentence cache_over_weights(const Case& c) {
  const Memory& m = c.p.memory;
  if (m.cache <= m.weights) return std::nullopt;
  std::string text = fmt::format("The cache ({}) is larger than the weights ({}).",
                                 human_bytes(m.cache), human_bytes(m.weights));
  std::string list;
  for (const std::string& name : smaller_kv(c)) {
    const double bytes = static_cast<double>(c.use.batch) *
                         kv_cache_bytes(c.spec, parse_kv_scheme(name), c.use.context);
    list +=
        fmt::format("{}--kv {} makes it {}", list.empty() ? " " : ", ", name, human_bytes(bytes));
  }
  return text + (list.empty() ? "" : list + ".");
}

struct RuleRow {
  const char* topic;
  bool here;
  Sentence (*say)(const Case&);
};
constexpr RuleRow rules[] = {
    {"does-not-fit", true, does_not_fit},
    {"four-bits-at-batch", true, four_bits_at_batch},
    {"no-integer-units", true, no_integer_units},
    {"no-float8-units", true, no_float8_units},
    {"runs-wider", true, runs_wider},
    {"fits-in-cache", true, fits_in_cache},
    {"cache-limits", true, cache_limits},
    {"cache-over-weights", false, cache_over_weights},
    {"zeros-not-skipped", false, zeros_not_skipped},
    {"large-head", false, large_head},
    {"idle-window", false, idle_window},
    {"beyond-positions", false, beyond_positions},
};

}  // namespace

std::vector<Advice> advise(const Spec& spec, const Hardware& h, const Use& use,
                           const Prediction& p) {
  std::vector<Advice> list;
  if (spec.blocks.empty()) return list;
  const Case c{spec, h, use, p};
  for (const RuleRow& rule : rules)
    if (Sentence text = rule.say(c)) list.push_back({rule.topic, std::move(*text), rule.here});
  return list;
}

}  // namespace pare
