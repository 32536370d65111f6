// The GPTQ layout.
//
// It stores a matrix by inputs where ours is stored by outputs, and both fill 32-bit words from the
// lowest bit along the inputs. So qweight is our rows of words transposed, whatever the width (a
// 3-bit code that crosses a word does so in both), and int8 differs in the top bit. Only columns
// out of order (act-order) make it necessary to look at single codes.
//
// Zero points lie along the outputs. Version 1 of the format stores them less one. The programs
// that write it subtract from whole words, so a zero point of 0 borrows from its neighbours and
// adding to the whole word brings it back; for three bits, which cross words, they work code by
// code. Readers of other programs disagree about such files, which is why Pare writes none.
#include "number/gptq.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace pare {
namespace {

// (rows, cols) words to (cols, rows) words, in tiles that stay in the cache.
std::vector<std::uint32_t> transpose_words(const std::byte* from, i64 rows, i64 cols,
                                           std::uint32_t flip) {
  constexpr i64 tile = 16;
  std::vector<std::uint32_t> to(static_cast<std::size_t>(rows * cols));
  for (i64 r0 = 0; r0 < rows; r0 += tile)
    for (i64 c0 = 0; c0 < cols; c0 += tile)
      for (i64 r = r0; r < std::min(r0 + tile, rows); r++)
        for (i64 c = c0; c < std::min(c0 + tile, cols); c++) {
          std::uint32_t word = 0;
          std::memcpy(&word, from + 4 * (r * cols + c), 4);
          to[static_cast<std::size_t>(c * rows + r)] = word ^ flip;
        }
  return to;
}

std::uint32_t flip_of(int b) { return b == 8 ? 0x80808080u : 0u; }  // int8 is two's complement

// A row of a bit stream of 32-bit words.
std::uint32_t get(const std::uint32_t* words, i64 index, int b) {
  const i64 bit = index * b;
  std::uint64_t two = words[bit / 32];
  if (bit % 32 + b > 32) two |= static_cast<std::uint64_t>(words[bit / 32 + 1]) << 32;
  return static_cast<std::uint32_t>(two >> (bit % 32)) & ((1u << b) - 1);
}
void put(std::uint32_t* words, i64 index, int b, std::uint32_t value) {
  const i64 bit = index * b;
  words[bit / 32] |= value << (bit % 32);
  if (bit % 32 + b > 32) words[bit / 32 + 1] |= value >> (32 - bit % 32);
}

std::uint32_t one_each(int b) { return b == 2 ? 0x55555555u : b == 4 ? 0x11111111u : 0x01010101u; }

Blob pack_zeros(const Tensor& t, i64 group, bool v2) {
  const i64 rows = t.rows(), cols = t.cols(), groups = ceil_div(cols, group);
  const int b = bits(t.scheme.code);
  const i64 words = rows * b / 32;
  std::vector<std::uint32_t> out(static_cast<std::size_t>(groups * words));
  for (i64 g = 0; g < groups; g++)
    for (i64 r = 0; r < rows; r++) {
      const int zero = zero_at(t, r, g * group) + (1 << (b - 1));
      if (zero < (v2 ? 0 : 1) || zero >= 1 << b)
        fail_input("NU-034", "a zero point cannot be stored in this version of the GPTQ format",
                   {{"found", fmt::format("{} at row {}, column {}", zero, r, g * group)},
                    {"need", fmt::format("{} to {}", v2 ? 0 : 1, (1 << b) - 1)}},
                   "use --format gptq-v2, or a scheme without :asym");
      put(out.data() + g * words, r, b, static_cast<std::uint32_t>(v2 ? zero : zero - 1));
    }
  return blob_of(std::move(out));
}

// int8 (rows, groups), in the signed range.
std::vector<std::int8_t> unpack_zeros(const Blob& plane, i64 rows, i64 groups, int b, bool v2) {
  const i64 words = rows * b / 32;
  std::vector<std::uint32_t> stored(static_cast<std::size_t>(groups * words));
  std::memcpy(stored.data(), plane.data(), plane.size());
  if (!v2 && b != 3)
    for (std::uint32_t& word : stored) word += one_each(b);
  const std::uint32_t add = !v2 && b == 3 ? 1 : 0;
  std::vector<std::int8_t> zeros(static_cast<std::size_t>(rows * groups));
  for (i64 g = 0; g < groups; g++)
    for (i64 r = 0; r < rows; r++) {
      const std::uint32_t zero = (get(stored.data() + g * words, r, b) + add) & ((1u << b) - 1);
      zeros[static_cast<std::size_t>(r * groups + g)] =
          static_cast<std::int8_t>(static_cast<int>(zero) - (1 << (b - 1)));
    }
  return zeros;
}

std::vector<std::int32_t> inverse(std::span<const std::int32_t> permutation) {
  std::vector<std::int32_t> out(permutation.size());
  for (std::size_t i = 0; i < permutation.size(); i++)
    out[static_cast<std::size_t>(permutation[i])] = static_cast<std::int32_t>(i);
  return out;
}

}  // namespace

Blob gather_codes(const Blob& codes, const Scheme& s, i64 rows,
                  std::span<const std::int32_t> order) {
  const int b = bits(s.code);
  const i64 cols = static_cast<i64>(order.size()), stride = row_bytes(s, cols);
  std::vector<std::byte> out(codes.size());
  std::vector<std::uint32_t> from(static_cast<std::size_t>(ceil_div(stride, 4))), to(from.size());
  for (i64 r = 0; r < rows; r++) {
    std::memcpy(from.data(), codes.data() + r * stride, static_cast<std::size_t>(stride));
    std::fill(to.begin(), to.end(), 0);
    for (i64 c = 0; c < cols; c++)
      put(to.data(), c, b, get(from.data(), order[static_cast<std::size_t>(c)], b));
    std::memcpy(out.data() + r * stride, to.data(), static_cast<std::size_t>(stride));
  }
  return blob_of(std::move(out));
}

std::optional<Misfit> gptq_misfit(const Scheme& s, i64 rows, i64 cols) {
  const bool code =
      s.code == Code::int2 || s.code == Code::int3 || s.code == Code::int4 || s.code == Code::int8;
  const std::string fitting = s.code == Code::int8 ? "int8:g128:s=f16" : "int4:g128:s=f16";
  if (!code || s.plain() || s.sparsity != Sparsity::dense || s.offset == Offset::minimum)
    return Misfit{to_string(s), "int2, int3, int4 or int8, symmetric or with zero points", fitting};
  const int b = bits(s.code);
  for (const auto& [name, count] : {std::pair{"inputs", cols}, std::pair{"outputs", rows}})
    if (count * b % 32 != 0)
      return Misfit{fmt::format("{} {}", count, name),
                    fmt::format("a multiple of {} {}, which fill words of 32 bits",
                                b == 3 ? 32 : 32 / b, name),
                    ""};
  return std::nullopt;
}

std::vector<RawPlane> plan_gptq(const Scheme& s, i64 rows, i64 cols) {
  const int b = bits(s.code);
  const i64 groups = ceil_div(cols, group_columns(s, cols));
  return {{"qweight", "I32", {cols * b / 32, rows}, {}},
          {"qzeros", "I32", {groups, rows * b / 32}, {}},
          {"scales", "F16", {groups, rows}, {}},
          {"g_idx", "I32", {cols}, {}}};
}

std::vector<RawPlane> to_gptq(const Tensor& t, std::span<const std::int32_t> permutation, bool v2) {
  const i64 rows = t.rows(), cols = t.cols();
  const int b = bits(t.scheme.code);
  const i64 group = group_columns(t.scheme, cols);
  PARE_CHECK(permutation.empty() || static_cast<i64>(permutation.size()) == cols);
  std::vector<RawPlane> planes = plan_gptq(t.scheme, rows, cols);
  std::vector<std::int32_t> g_idx(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < g_idx.size(); i++)
    g_idx[permutation.empty() ? i : static_cast<std::size_t>(permutation[i])] =
        static_cast<std::int32_t>(static_cast<i64>(i) / group);
  const Blob codes =
      permutation.empty() ? t.codes : gather_codes(t.codes, t.scheme, rows, inverse(permutation));
  planes[0].bytes = blob_of(transpose_words(codes.data(), rows, cols * b / 32, flip_of(b)));
  planes[1].bytes = pack_zeros(t, group, v2);
  planes[2].bytes = f16_scales_by_group(t, group);
  planes[3].bytes = blob_of(std::move(g_idx));
  return planes;
}

std::vector<std::int32_t> group_order(std::span<const std::int32_t> g_idx, i64 group) {
  const i64 cols = static_cast<i64>(g_idx.size()), groups = ceil_div(cols, group);
  std::vector<i64> count(static_cast<std::size_t>(groups));
  for (i64 c = 0; c < cols; c++) {
    const std::int32_t g = g_idx[static_cast<std::size_t>(c)];
    if (g < 0 || g >= groups)
      fail_input("NU-032", "g_idx names a group that does not exist",
                 {{"found", fmt::format("{} at column {}", g, c)},
                  {"need", fmt::format("0 to {}", groups - 1)}});
    count[static_cast<std::size_t>(g)]++;
  }
  for (i64 g = 0; g < groups; g++) {
    const i64 want = std::min(group, cols - g * group);
    if (count[static_cast<std::size_t>(g)] != want)
      fail_input("NU-032", "g_idx gives a group another number of columns than the group size",
                 {{"found", fmt::format("{} in group {}", count[static_cast<std::size_t>(g)], g)},
                  {"need", std::to_string(want)}});
  }
  std::vector<std::int32_t> order(g_idx.size());
  std::iota(order.begin(), order.end(), 0);
  if (std::is_sorted(g_idx.begin(), g_idx.end())) return {};
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return g_idx[static_cast<std::size_t>(a)] < g_idx[static_cast<std::size_t>(b)];
  });
  return order;
}

Tensor from_gptq(const std::vector<RawPlane>& planes, const Scheme& s, i64 rows, i64 cols,
                 std::span<const std::int32_t> permutation, bool v2) {
  PARE_CHECK(!gptq_misfit(s, rows, cols));
  std::vector<RawPlane> plan = plan_gptq(s, rows, cols);
  plan[2].dtype = float_name(s.scale);
  const int b = bits(s.code);
  const i64 groups = plan[2].shape[0];
  Tensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  const Blob words = demand_plane(planes, plan[0]);
  t.codes = blob_of(transpose_words(words.data(), cols * b / 32, rows, flip_of(b)));
  if (!permutation.empty()) t.codes = gather_codes(t.codes, s, rows, permutation);
  t.scales = turn_plane(demand_plane(planes, plan[2]), groups, rows,
                        static_cast<std::size_t>(bits(s.scale) / 8));
  std::vector<std::int8_t> zeros = unpack_zeros(demand_plane(planes, plan[1]), rows, groups, b, v2);
  if (s.offset == Offset::zero) {
    t.zeros = blob_of(std::move(zeros));
  } else if (std::any_of(zeros.begin(), zeros.end(), [](std::int8_t z) { return z != 0; })) {
    fail_input("NU-035", "a module that the configuration calls symmetric has other zero points",
               {{"tensor", "qzeros"}, {"need", std::to_string(1 << (b - 1))}},
               "set \"sym\": false in the quantization config to use them");
  }
  check(t, "weight");
  return t;
}

}  // namespace pare
