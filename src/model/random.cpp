// Random models: food for tests, and shapes of well-known models for measuring speed.
//
// Each tensor is made when it is asked for, from the seed and its name alone, so a model of any
// size needs no more memory than its largest tensor. Matrices are normal with variance 1 / in,
// which keeps activations of order one through any depth.
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

std::vector<float> values_of(const Slot& slot, std::uint64_t seed) {
  i64 n = 1;
  for (i64 d : slot.shape) n *= d;
  const Random random(seed, hash_name(slot.name));
  std::vector<float> x(static_cast<std::size_t>(n));
  float scale = 1, shift = 0;
  if (slot.name.ends_with(".outlier_index") || slot.name.ends_with(".permutation")) {
    for (i64 i = 0; i < n; i++)
      x[static_cast<std::size_t>(i)] = static_cast<float>(i);  // the identity
    for (i64 i = n - 1; i > 0 && slot.name.ends_with(".permutation"); i--)
      std::swap(x[static_cast<std::size_t>(i)],
                x[random.at(static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(i + 1)]);
    return x;
  }
  if (slot.shape.size() == 2)
    scale = 1.0f / std::sqrt(static_cast<float>(slot.name == "embed.weight" ? 1 : slot.shape[1]));
  else if (slot.name.ends_with(".bias") || slot.name.ends_with("sink_logits"))
    scale = 0.1f;
  else if (slot.name.ends_with("_scale"))
    scale = 0.1f, shift = 1;
  else
    scale = 0.1f, shift = 1;  // norms
  for (i64 i = 0; i < n; i++)
    x[static_cast<std::size_t>(i)] = shift + scale * bell(random.at(static_cast<std::uint64_t>(i)));
  return x;
}

struct Shape {
  const char* name;
  const char* family;
  i64 dim, inner, blocks, heads, kv_heads, head_dim, vocab, positions;
  double theta;
  bool tied, qkv_bias, qk_norm;
};
// From the models' published config.json files.
constexpr Shape shapes[] = {
    {"llama-3.2-1b", "llama", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 500000, true, false,
     false},
    {"llama-3.2-3b", "llama", 3072, 8192, 28, 24, 8, 128, 128256, 131072, 500000, true, false,
     false},
    {"llama-3-8b", "llama", 4096, 14336, 32, 32, 8, 128, 128256, 8192, 500000, false, false, false},
    {"llama-3-70b", "llama", 8192, 28672, 80, 64, 8, 128, 128256, 8192, 500000, false, false,
     false},
    {"llama-2-7b", "llama", 4096, 11008, 32, 32, 32, 128, 32000, 4096, 10000, false, false, false},
    {"llama-2-13b", "llama", 5120, 13824, 40, 40, 40, 128, 32000, 4096, 10000, false, false, false},
    {"smollm2-135m", "llama", 576, 1536, 30, 9, 3, 64, 49152, 8192, 100000, true, false, false},
    {"mistral-7b", "mistral", 4096, 14336, 32, 32, 8, 128, 32000, 32768, 10000, false, false,
     false},
    {"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 64, 151936, 32768, 1000000, true, true, false},
    {"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 128, 152064, 131072, 1000000, false, true,
     false},
    {"qwen3-0.6b", "qwen3", 1024, 3072, 28, 16, 8, 128, 151936, 40960, 1000000, true, false, true},
    {"qwen3-8b", "qwen3", 4096, 12288, 36, 32, 8, 128, 151936, 40960, 1000000, false, false, true},
};

Linear linear(i64 in, i64 out, bool bias = false) {
  Linear l;
  l.in = in;
  l.out = out;
  l.bias = bias;
  l.scheme.code = Code::bf16;
  return l;
}

Spec spec_of(const Shape& s) {
  Spec spec;
  spec.dim = s.dim;
  spec.vocab = s.vocab;
  spec.max_positions = s.positions;
  spec.tied = s.tied;
  spec.embed.code = Code::bf16;
  const float eps = s.qkv_bias || s.qk_norm ? 1e-6f : 1e-5f;
  spec.final_norm.eps = eps;
  spec.head = linear(s.dim, s.vocab);
  Block b;
  b.before_attn = b.before_ffn = spec.final_norm;
  Attention& a = b.attn;
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.qk_dim = a.v_dim = s.head_dim;
  a.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  a.rope.dims = s.head_dim;
  a.rope.theta = s.theta;
  if (s.qk_norm) a.q_norm = a.k_norm = spec.final_norm;
  a.q = linear(s.dim, s.heads * s.head_dim, s.qkv_bias);
  a.k = a.v = linear(s.dim, s.kv_heads * s.head_dim, s.qkv_bias);
  a.o = linear(s.heads * s.head_dim, s.dim);
  b.ffn.gate = b.ffn.up = linear(s.dim, s.inner);
  b.ffn.down = linear(s.inner, s.dim);
  spec.blocks.assign(static_cast<std::size_t>(s.blocks), b);
  return spec;
}

}  // namespace

std::vector<std::string> known_specs() {
  std::vector<std::string> names;
  for (const Shape& s : shapes) names.emplace_back(s.name);
  return names;
}

Spec known_spec(const std::string& name) {
  for (const Shape& s : shapes)
    if (name == s.name) return spec_of(s);
  std::string list;
  for (const Shape& s : shapes) list += std::string(list.empty() ? "" : ", ") + s.name;
  fail(Exit::usage, "MO-007", fmt::format("there is no known shape {}", pare::quoted(name)),
       {{"need", "a folder with a config.json, or one of " + list}});
}

namespace {

// The family whose configuration can say the Spec.
std::string family_for(const Spec& spec) {
  for (const Shape& s : shapes)
    if (const Spec known = spec_of(s); known.dim == spec.dim && known.vocab == spec.vocab &&
                                       known.blocks.size() == spec.blocks.size())
      return s.family;
  const Attention& a = spec.blocks.at(0).attn;
  if (a.q_norm) return "qwen3";
  return a.q.bias && !a.o.bias ? "qwen2" : "llama";
}

}  // namespace

Model random_model(const Spec& spec, std::uint64_t seed, Code code) {
  Model m;
  m.spec = spec;
  m.family = family_for(spec);
  m.config = Json::object();
  m.history.push_back(fmt::format("random seed={} code={}", seed, info(code).name));
  m.evidence.push_back({"random", "model", "parameters", 0, static_cast<double>(parameters(spec))});
  Scheme plain;
  plain.code = code;
  for (auto& [name, l] : linears(m.spec))
    if (l->scheme.plain()) l->scheme = plain;
  if (m.spec.embed.plain()) m.spec.embed = plain;
  if (m.spec.tied) m.spec.head.scheme = m.spec.embed;
  for (const Slot& s : slots(m.spec)) {
    Slot slot = s;
    slot.linear = nullptr;
    const Scheme scheme = slot.vector || slot.name == "positions.weight" ? Scheme{} : slot.scheme;
    m.weights.emplace(
        slot.name,
        Weight{scheme, slot.shape, [slot, seed, scheme] {
                 const std::vector<float> x = values_of(slot, seed);
                 if (scheme.plain()) return plain_tensor(x, slot.shape, scheme.code);
                 FitOptions absmax;
                 absmax.range = Range::absmax;
                 return quantize({x.data(), slot.shape[0], slot.shape[1]}, scheme, absmax);
               }});
  }
  check(m);
  return m;
}

}  // namespace pare
