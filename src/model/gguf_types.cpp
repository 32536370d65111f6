// llama.cpp's mixtures, for dense models (llama-quant.cpp; shared by all files that people know as
// Q4_K_M, so a file by that name must hold those types).
//
// "More bits" go to the first and last eighth of the blocks and to every third between; to values
// more than to queries; to the head most of all. The rules are kept as they are, also where they
// look like history: who asks for Q4_K_M asks for this.
#include "model/gguf_types.h"

#include <algorithm>
#include <array>

#include "number/ggml.h"

namespace pare {
namespace {

enum : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30,
  mxfp4 = 39,
};

constexpr auto presets = std::to_array<GgufPreset>({
    {"F32", f32, 0},      {"F16", f16, 1},        {"BF16", bf16, 32},     {"Q4_0", q4_0, 2},
    {"Q4_1", q4_1, 3},    {"Q5_0", q5_0, 8},      {"Q5_1", q5_1, 9},      {"Q8_0", q8_0, 7},
    {"Q2_K", q2_k, 10},   {"Q3_K_S", q3_k, 11},   {"Q3_K_M", q3_k, 12},   {"Q3_K_L", q3_k, 13},
    {"Q4_K_S", q4_k, 14}, {"Q4_K_M", q4_k, 15},   {"Q5_K_S", q5_k, 16},   {"Q5_K_M", q5_k, 17},
    {"Q6_K", q6_k, 18},   {"IQ4_NL", iq4_nl, 25}, {"IQ4_XS", iq4_xs, 30}, {"MXFP4", mxfp4, 38},
});

bool more_bits(i64 i, i64 n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

std::uint32_t head_type(const GgufPreset& p, const GgufShape& s, i64 cols) {
  if (p.base == mxfp4 || p.base == q8_0 || s.arch == "falcon" || cols % ggml_block(p.base) != 0)
    return q8_0;
  return q6_k;
}

std::uint32_t value_type(const GgufPreset& p, const GgufShape& s, i64 i) {
  const bool shared = s.heads / s.kv_heads >= 4;
  std::uint32_t type = p.base;
  if (p.name == "Q2_K") type = shared ? q4_k : q3_k;
  if (p.name == "Q3_K_M") type = i < 2 ? q5_k : q4_k;
  if (p.name == "Q3_K_L") type = q5_k;
  if ((p.name == "IQ4_NL" || p.name == "IQ4_XS") && shared) type = q5_k;
  if ((p.name == "Q4_K_M" || p.name == "Q5_K_M") && more_bits(i, s.blocks)) type = q6_k;
  if (p.name == "Q4_K_S" && i < 4) type = q5_k;
  const bool llama_70b = s.arch == "llama" && s.blocks == 80 && s.heads != s.kv_heads;
  return llama_70b && (type == q3_k || type == q4_k) ? std::uint32_t{q5_k} : type;
}

std::uint32_t down_type(const GgufPreset& p, const GgufShape& s, i64 i) {
  const bool falcon = s.arch == "falcon", first = i < s.blocks / 8;
  if (p.name == "Q2_K") return q3_k;
  if (p.name == "Q3_K_M")
    return i < s.blocks / 16 ? q5_k : !falcon || more_bits(i, s.blocks) ? q4_k : q3_k;
  if (p.name == "Q3_K_L") return falcon ? q4_k : q5_k;
  if (p.name == "Q4_K_M" && falcon)
    return i < s.blocks / 16 ? q6_k : more_bits(i, s.blocks) ? q5_k : q4_k;
  if ((p.name == "Q4_K_M" || p.name == "Q5_K_M") && more_bits(i, s.blocks)) return q6_k;
  if ((p.name == "IQ4_NL" || p.name == "IQ4_XS") && first && !s.importances) return q5_k;
  if (p.name == "Q4_K_S" && !falcon && first) return q5_k;
  if (p.name == "Q4_0" && first && s.importances) return q4_1;
  if (p.name == "Q5_0" && first && s.importances) return q5_1;
  return p.base;
}

std::uint32_t output_type(const GgufPreset& p, const GgufShape& s) {
  const bool falcon = s.arch == "falcon";
  if (p.name == "Q2_K" && !falcon) return q3_k;
  if (p.name == "Q3_K_M" && !falcon) return q4_k;
  if (p.name == "Q3_K_L") return falcon ? q4_k : q5_k;
  return p.base;
}

std::uint32_t fallback(std::uint32_t type, i64 cols) {
  if (cols % ggml_block(type) == 0) return type;
  switch (type) {
    case iq4_xs:
      type = iq4_nl;
      break;
    case q2_k:
    case q3_k:
      type = q4_0;
      break;
    case q4_k:
      type = q5_0;
      break;
    case q5_k:
      type = q5_1;
      break;
    case q6_k:
      type = q8_0;
      break;
    default:
      break;
  }
  return cols % ggml_block(type) == 0 ? type : std::uint32_t{f16};
}

}  // namespace

std::span<const GgufPreset> gguf_presets() { return presets; }

const GgufPreset& find_gguf_preset(const std::string& name) {
  std::string upper;
  for (char c : name) upper += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  if (upper == "Q3_K" || upper == "Q4_K" || upper == "Q5_K") upper += "_M";
  for (const GgufPreset& p : presets)
    if (p.name == upper) return p;
  std::string list;
  for (const GgufPreset& p : presets) list += (list.empty() ? "" : " ") + std::string(p.name);
  fail(Exit::usage, "MO-021", fmt::format("{} is not a type of GGUF files", pare::quoted(name)),
       {{"need", list}});
}

std::uint32_t gguf_type(const GgufPreset& p, const GgufShape& s, const std::string& tensor,
                        const std::vector<i64>& shape) {
  if (shape.size() < 2 || !tensor.ends_with(".weight") || tensor == "position_embd.weight")
    return f32;
  if (ggml_block(p.base) == 1) return p.base;
  const i64 cols = shape.back();
  const auto is = [&](std::string_view part) { return tensor.find(part) != std::string::npos; };
  const i64 block = tensor.starts_with("blk.") ? std::atoll(tensor.c_str() + 4) : 0;
  std::uint32_t type = p.base;
  if (tensor == "output.weight" || (s.tied && tensor == "token_embd.weight"))
    type = head_type(p, s, cols);
  else if (tensor == "token_embd.weight")
    type = p.base == mxfp4 ? std::uint32_t{q8_0} : p.base;
  else if (is(".attn_v.") || is(".attn_qkv."))
    type = value_type(p, s, block);
  else if (is(".ffn_down."))
    type = down_type(p, s, block);
  else if (is(".attn_output."))
    type = output_type(p, s);
  return fallback(type, cols);
}

}  // namespace pare
