// Reading llama2.c checkpoints.
//
// The format has no magic number, so the sizes that the header implies must equal the file's to the
// byte; with seven bounded numbers that is also a good recognizer. Two facts of its history matter:
// a negative vocabulary size says that the classifier is stored apart, and two tables of rotary
// factors lie before it, which the original program itself no longer reads.
#include "file/llama2c.h"

#include <cstring>

#include "file/io.h"

namespace pare {
namespace {

struct Cursor {
  const Blob& file;
  std::uint64_t at = 28;
  Blob take(std::uint64_t floats) {
    const Blob part = file.slice(at, 4 * floats);
    at += 4 * floats;
    return part;
  }
};

}  // namespace

namespace {

using U = std::uint64_t;

// The seven numbers, checked; no tensors yet.
Llama2c parse_header(const Blob& file, const std::string& what) {
  if (file.size() < 28)
    fail_input(
        "L2-001", "too short for a llama2.c checkpoint",
        {{"file", what}, {"found", fmt::format("{} bytes", file.size())}, {"need", "28 and more"}});
  touch(file.slice(0, 28), "the header of " + what);
  std::int32_t h[7];
  std::memcpy(h, file.data(), sizeof h);
  Llama2c m;
  m.tied = h[5] > 0;
  m.dim = h[0], m.hidden = h[1], m.layers = h[2], m.heads = h[3], m.kv_heads = h[4],
  m.vocab = h[5] < 0 ? -i64{h[5]} : h[5], m.positions = h[6];
  const auto within = [](i64 x, i64 most) { return x >= 1 && x <= most; };
  if (!within(m.dim, 1 << 17) || !within(m.hidden, 1 << 19) || !within(m.layers, 4096) ||
      !within(m.heads, 4096) || !within(m.kv_heads, m.heads) || !within(m.vocab, 1 << 22) ||
      !within(m.positions, 1 << 24) || m.dim % m.heads != 0 || m.heads % m.kv_heads != 0 ||
      m.dim / m.heads % 2 != 0)
    fail_input(
        "L2-001", "the header is not that of a llama2.c checkpoint",
        {{"file", what},
         {"found",
          fmt::format(
              "dim {}, hidden {}, layers {}, heads {}, kv heads {}, vocabulary {}, positions {}",
              h[0], h[1], h[2], h[3], h[4], h[5], h[6])}});
  return m;
}

// Bytes of the whole file. The bounds of parse_header keep every product below 2^63.
U expected_bytes(const Llama2c& m) {
  const U dim = static_cast<U>(m.dim), hidden = static_cast<U>(m.hidden),
          head = dim / static_cast<U>(m.heads), kv = head * static_cast<U>(m.kv_heads),
          layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * hidden * dim;
  const U floats = static_cast<U>(m.vocab) * dim * (m.tied ? 1 : 2) +
                   static_cast<U>(m.layers) * layer + dim + static_cast<U>(m.positions) * head;
  return 28 + 4 * floats;
}

}  // namespace

Llama2c parse_llama2c(const Blob& file, const std::string& what) {
  Llama2c m = parse_header(file, what);
  if (expected_bytes(m) != file.size())
    fail_input("L2-002", "the size of the file does not fit its header",
               {{"file", what},
                {"found", fmt::format("{} bytes", file.size())},
                {"need", fmt::format("{} bytes", expected_bytes(m))}},
               "the file is cut short, or it is no llama2.c checkpoint");
  const U head = static_cast<U>(m.dim / m.heads);
  const i64 kv_dim = m.dim / m.heads * m.kv_heads;
  Cursor c{file};
  const auto add = [&](std::string name, std::vector<i64> shape) {
    U n = 1;
    for (i64 d : shape) n *= static_cast<U>(d);
    m.tensors.push_back({std::move(name), std::move(shape), c.take(n)});
  };
  const auto each = [&](const char* suffix, std::vector<i64> shape) {
    for (i64 l = 0; l < m.layers; l++)
      add(fmt::format("model.layers.{}.{}.weight", l, suffix), shape);
  };
  add("model.embed_tokens.weight", {m.vocab, m.dim});
  each("input_layernorm", {m.dim});
  each("self_attn.q_proj", {m.dim, m.dim});
  each("self_attn.k_proj", {kv_dim, m.dim});
  each("self_attn.v_proj", {kv_dim, m.dim});
  each("self_attn.o_proj", {m.dim, m.dim});
  each("post_attention_layernorm", {m.dim});
  each("mlp.gate_proj", {m.hidden, m.dim});
  each("mlp.down_proj", {m.dim, m.hidden});
  each("mlp.up_proj", {m.hidden, m.dim});
  add("model.norm.weight", {m.dim});
  c.take(static_cast<U>(m.positions) * head);  // tables of cosines and sines, recomputed
  if (!m.tied) add("lm_head.weight", {m.vocab, m.dim});
  PARE_CHECK(c.at == file.size());
  return m;
}

}  // namespace pare
