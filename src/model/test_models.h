// Tiny models for the tests of this layer.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "file/io.h"
#include "model/model.h"
#include "support.h"

namespace pare {

inline Log silent() {
  Log log;
  log.quiet = true;
  return log;
}

inline void resize(Linear& l, i64 in, i64 out) { l.in = in, l.out = out; }

// Two blocks of 64 x (6 heads of 32, 2 of them for keys and values), MLP 128, vocabulary 96, in
// words of llama's configuration.
inline Spec tiny_spec(bool tied = true) {
  Spec spec = known_spec("smollm2-135m");
  spec.dim = 64;
  spec.vocab = 96;
  spec.max_positions = 128;
  spec.tied = tied;
  Block b = spec.blocks[0];
  b.attn.heads = 6, b.attn.kv_heads = 2, b.attn.qk_dim = b.attn.v_dim = b.attn.rope.dims = 32;
  b.attn.scale = 1.0f / std::sqrt(32.0f);
  resize(b.attn.q, 64, 192), resize(b.attn.k, 64, 64), resize(b.attn.v, 64, 64);
  resize(b.attn.o, 192, 64);
  resize(b.ffn.gate, 64, 128), resize(b.ffn.up, 64, 128), resize(b.ffn.down, 128, 64);
  spec.blocks.assign(2, b);
  resize(spec.head, 64, 96);
  return spec;
}

// All matrices of the blocks get a scheme and an activation.
inline Spec quantized(Spec spec, const std::string& scheme,
                      const std::string& activation = "none") {
  for (auto& [name, l] : linears(spec))
    if (name != "head") {
      l->scheme = parse_scheme(scheme);
      l->activation = parse_activation(activation);
    }
  return spec;
}

inline std::vector<float> values(const Model& m, const std::string& slot) {
  return decode(m.weights.at(slot).load());
}

inline void expect_equal(const Model& a, const Model& b) {
  EXPECT_EQ(a.spec, b.spec);
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, weight] : a.weights) ASSERT_EQ(values(a, name), values(b, name)) << name;
}

// "CODE text" of the Error an action ends with; empty without one.
template <class F>
std::string error_of(const F& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.code + " " + e.what();
  }
  return {};
}

inline Json json_of(const std::filesystem::path& path) {
  return parse_json(read_text_file(path, 1 << 26), path.string());
}
inline void write_json(const std::filesystem::path& path, const Json& json) {
  write_file(path, json.dump(2));
}

}  // namespace pare
