// Random models: food for tests, and shapes of well-known models for measuring speed.
//
// Each tensor is made when it is asked for, from the seed and its name alone, so a model of any
// size needs no more memory than its largest tensor. Matrices are normal with variance 1 / in,
// which keeps activations of order one through any depth; norms are near the identity. A value
// costs two hashes, about a hundred million a second.
#include <cmath>

#include "base/random.h"
#include "model/model.h"
#include "number/encode.h"

namespace pare {
namespace {

std::uint64_t hash_name(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (unsigned char c : name) h = (h ^ c) * 0x100000001b3u;
  return h;
}

// Sum of four uniform 16-bit parts: close enough to normal for weights, one hash a value.
float bell(std::uint64_t bits) {
  const std::int64_t sum =
      static_cast<std::int64_t>(bits & 0xffff) + static_cast<std::int64_t>((bits >> 16) & 0xffff) +
      static_cast<std::int64_t>((bits >> 32) & 0xffff) + static_cast<std::int64_t>(bits >> 48);
  constexpr double scale =
      1.0 / (65536 * 0.57735026918962576);  // standard deviation sqrt(4 / 12) of 65536
  return static_cast<float>((static_cast<double>(sum) - 131070.0) * scale);
}

struct Recipe {
  enum class Kind { normal, identity, permutation };
  Kind kind = Kind::normal;
  float mean = 0, deviation = 1;
};

Recipe recipe_of(const Slot& slot, const Spec& spec) {
  const std::string_view name = slot.name;
  if (name.ends_with(".outlier_index")) return {Recipe::Kind::identity};
  if (name.ends_with(".permutation")) return {Recipe::Kind::permutation};
  if (!slot.vector) {
    // An embedding alone starts the stream at order one; as a tied head it must give logits of
    // order one.
    const bool unit = name == "embed.weight" && !spec.tied;
    const double columns = unit ? 1.0 : static_cast<double>(slot.shape[1]);
    return {Recipe::Kind::normal, 0, static_cast<float>(1 / std::sqrt(columns))};
  }
  const bool around_zero = name.ends_with(".bias") || name.ends_with("sink_logits") ||
                           (spec.final_norm.plus_one && name.find("norm") != name.npos) ||
                           (spec.final_norm.plus_one && name.find("_attn.") != name.npos) ||
                           (spec.final_norm.plus_one && name.find("_ffn.") != name.npos);
  return {Recipe::Kind::normal, around_zero ? 0.0f : 1.0f, 0.1f};
}

template <class T, class Convert>
Blob fill(i64 n, const Random& random, const Recipe& recipe, const Convert& convert) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); i++)
    x[i] = convert(recipe.mean + recipe.deviation * bell(random.at(i)));
  return blob_of(std::move(x));
}

Tensor order(i64 n, const Random& random, bool shuffled) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); i++) x[i] = static_cast<float>(i);
  for (std::size_t i = x.size(); shuffled && i > 1; i--) std::swap(x[i - 1], x[random.at(i) % i]);
  return plain_tensor(x, {n});
}

Tensor plain(const Slot& slot, const Recipe& recipe, std::uint64_t seed, Code code) {
  const Random random(seed, hash_name(slot.name));
  Tensor t;
  t.scheme.code = code;
  t.shape = slot.shape;
  const i64 n = t.count();
  if (recipe.kind != Recipe::Kind::normal)
    return order(n, random, recipe.kind == Recipe::Kind::permutation);
  t.codes = code == Code::f32    ? fill<float>(n, random, recipe, [](float x) { return x; })
            : code == Code::bf16 ? fill<std::uint16_t>(n, random, recipe, to_bf16)
                                 : fill<std::uint16_t>(n, random, recipe, to_f16);
  return t;
}

// A family whose configuration can say the Spec; "llama" when none can (Pare's own form then holds
// it).
std::string family_for(const Spec& spec) {
  for (const Family& family : families()) try {
      family.unparse(spec, Json::object());
      return std::string(family.name);
    } catch (const Error&) {  // the next one
    }
  return "llama";
}

Scheme plain_scheme(Code code) {
  Scheme scheme;
  scheme.code = code;
  return scheme;
}

}  // namespace

Model random_model(const Spec& spec, std::uint64_t seed, Code code) {
  PARE_CHECK(code == Code::f32 || code == Code::f16 || code == Code::bf16);
  Model m;
  m.spec = spec;
  m.family = family_for(spec);
  m.config = Json::object();
  m.history.push_back(fmt::format("random seed={} code={}", seed, info(code).name));
  m.evidence.push_back({"random", "model", "parameters", 0, static_cast<double>(parameters(spec))});
  for (auto& [name, l] : linears(m.spec))
    if (l->scheme.plain()) l->scheme = plain_scheme(code);
  if (m.spec.embed.plain()) m.spec.embed = plain_scheme(code);
  if (m.spec.tied) m.spec.head.scheme = m.spec.embed;
  check(m.spec);
  for (Slot slot : slots(m.spec)) {
    slot.linear = nullptr;  // it points into this Spec; the promise outlives it
    const bool any_code = slot.vector || slot.name == "positions.weight";
    const Scheme scheme = any_code ? Scheme{} : slot.scheme;
    const Recipe recipe = recipe_of(slot, m.spec);
    const auto load = [slot, seed, scheme, recipe, code] {
      if (scheme.plain()) return plain(slot, recipe, seed, scheme.code);
      FitOptions absmax;
      absmax.range = Range::absmax;
      return requantize(plain(slot, recipe, seed, code), scheme, absmax);
    };
    m.weights.emplace(slot.name, Weight{scheme, slot.shape, load});
  }
  check(m);
  return m;
}

}  // namespace pare
