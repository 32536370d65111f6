// From planes to the packed layout (kernel/packed.h).
//
// Packing happens once per matrix at load, rows split over the pool. Memory lies in huge pages,
// small matrices side by side in one: a matrix is streamed front to back for every token, and with
// 4 KB pages the page walks alone cost a tenth of the bandwidth, more where matrices are small.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <tuple>
#include <utility>

#include "kernel/linear.h"

namespace pare {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr i64 padding = 128;  // weights; the widest chunk of any kernel

i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

i64 kind_bytes(int kind, i64 cols) {
  switch (kind) {
    case Packed::f32:
      return 4 * cols;
    case Packed::f16:
    case Packed::bf16:
      return 2 * cols;
    case Packed::nib4:
      return cols / 2;
    default:
      return cols;
  }
}

// The kind of a code by itself.
int kind_of(Code code) {
  switch (code) {
    case Code::f32:
      return Packed::f32;
    case Code::f16:
      return Packed::f16;
    case Code::bf16:
      return Packed::bf16;
    case Code::e4m3:
      return Packed::e4m3;
    case Code::e5m2:
      return Packed::e5m2;
    case Code::int8:
    case Code::int7:
    case Code::int6:
    case Code::int5:
      return Packed::i8;
    case Code::int4:
    case Code::int3:
    case Code::int2:
    case Code::nf4:
    case Code::fp4:
    case Code::e2m1:
    case Code::iq4nl:
      return Packed::nib4;
    default:
      return -1;
  }
}

// Memory in huge pages. Small matrices share a slab, since one alone would lie in small pages.
struct Slab {
  std::byte* data = nullptr;
  std::size_t bytes = 0, used = 0;
  explicit Slab(std::size_t size) : bytes((size + huge_page - 1) / huge_page * huge_page) {
    data = static_cast<std::byte*>(std::aligned_alloc(huge_page, bytes));
    if (data == nullptr) throw std::bad_alloc();
    madvise(data, bytes, MADV_HUGEPAGE);
  }
  ~Slab() { std::free(data); }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
};

// Aligned to cache lines; a slab goes when the last matrix in it does.
std::pair<std::shared_ptr<Slab>, std::byte*> take(std::size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<Slab> open;
  if (bytes >= huge_page) {
    auto own = std::make_shared<Slab>(bytes);
    return {own, own->data};
  }
  const std::lock_guard lock(mutex);
  std::shared_ptr<Slab> slab = open.lock();
  if (slab == nullptr || slab->used + bytes > slab->bytes) {
    slab = std::make_shared<Slab>(4 * huge_page);
    open = slab;
  }
  std::byte* at = slab->data + slab->used;
  slab->used += (bytes + 63) / 64 * 64;
  return {slab, at};
}

struct Owned {
  Packed packed{};
  std::shared_ptr<Slab> slab;
  std::byte* data = nullptr;
  explicit Owned(std::size_t bytes) { std::tie(slab, data) = take(bytes); }
};

// Scales keep their 16-bit storage unless they are worked out from two levels or from 8 bits.
Packed::ScaleKind scale_kind_of(const Scheme& s) {
  if (s.plain()) return Packed::scale_none;
  if (s.second_level) return Packed::scale_f32;
  switch (s.scale) {
    case Code::f16:
      return Packed::scale_f16;
    case Code::bf16:
      return Packed::scale_bf16;
    default:
      return Packed::scale_f32;
  }
}

i64 scale_width(Packed::ScaleKind kind) {
  return kind == Packed::scale_none ? 0 : kind == Packed::scale_f32 ? 4 : 2;
}

// Everything but the planes.
Packed layout(const Scheme& s, int kind, i64 out, i64 in) {
  Packed p{};
  p.kind = static_cast<Packed::Kind>(kind);
  p.scale_kind = scale_kind_of(s);
  p.in = in;
  p.out = out;
  p.in_padded = round_up(in, padding);
  const bool grouped =
      (s.grouping == Grouping::group || s.grouping == Grouping::block) && s.cols < in;
  p.group = grouped ? s.cols : p.in_padded;
  p.groups =
      grouped ? p.in_padded / std::min(p.in_padded, p.group) + (p.in_padded % p.group != 0 ? 1 : 0)
              : 1;
  p.row_bytes = kind_bytes(kind, p.in_padded);
  return p;
}

i64 streamed_bytes(const Packed& p, const Scheme& s) {
  return p.out * p.row_bytes +
         p.out * p.groups * (scale_width(p.scale_kind) + (s.offset != Offset::none ? 4 : 0));
}

void put_scale(const Packed& p, std::byte* scales, i64 index, float scale) {
  if (p.scale_kind == Packed::scale_f32) {
    std::memcpy(scales + 4 * index, &scale, 4);
  } else {
    const std::uint16_t half = p.scale_kind == Packed::scale_f16 ? to_f16(scale) : to_bf16(scale);
    std::memcpy(scales + 2 * index, &half, 2);
  }
}

void pack_codes(const Tensor& t, const Packed& p, i64 r, std::uint8_t* to) {
  const Scheme& s = t.scheme;
  const std::byte* from = t.codes.data() + r * row_bytes(s, p.in);
  const int b = bits(s.code);
  if (b >= 8 || b == 4) {
    const std::size_t n = static_cast<std::size_t>(b == 4 ? (p.in + 1) / 2 : p.in * b / 8);
    std::memcpy(to, from, n);
    if (b == 4 && p.in % 2 == 1) to[n - 1] &= 15;
    return;
  }
  for (i64 c = 0; c < p.in; c++) {
    if (p.kind == Packed::i8) {
      to[c] = static_cast<std::uint8_t>(static_cast<std::int8_t>(code_at(t, r, c)));
    } else {
      const int pattern = code_at(t, r, c) + (1 << (b - 1));
      to[c / 2] = static_cast<std::uint8_t>(to[c / 2] | (pattern << (4 * (c & 1))));
    }
  }
}

void pack_row(const Tensor& t, const Packed& p, i64 r) {
  const Scheme& s = t.scheme;
  std::uint8_t* codes = const_cast<std::uint8_t*>(p.codes) + r * p.row_bytes;
  std::memset(codes, 0, static_cast<std::size_t>(p.row_bytes));
  pack_codes(t, p, r, codes);
  if (p.scale_kind == Packed::scale_none) return;
  std::byte* scales = static_cast<std::byte*>(const_cast<void*>(p.scales));
  // Code values of nib4 tables are signed for integers, so a minimum counted from the lowest code
  // shifts.
  const float lowest =
      s.offset == Offset::minimum ? static_cast<float>(1 << (bits(s.code) - 1)) : 0.0f;
  for (i64 g = 0; g < p.groups; g++) {
    const i64 col = std::min(g * p.group, p.in - 1);
    const bool real = g * p.group < p.in;
    const float scale = real ? scale_at(t, r, col) : 0.0f;
    put_scale(p, scales, r * p.groups + g, scale);
    if (p.bias != nullptr) {
      float bias = 0;
      if (real && s.offset == Offset::zero) bias = scale * static_cast<float>(zero_at(t, r, col));
      if (real && s.offset == Offset::minimum) bias = min_at(t, r, col) - scale * lowest;
      const_cast<float*>(p.bias)[r * p.groups + g] = bias;
    }
  }
}

}  // namespace

int packed_kind(const Scheme& s, i64 in) {
  if (s.sparsity == Sparsity::bitmask) return -1;
  const int kind = kind_of(s.code);
  if (kind < 0 || s.plain()) return kind;
  const i64 group =
      s.grouping == Grouping::group || s.grouping == Grouping::block ? s.cols : padding;
  if (group >= in) return kind;
  // A chunk of the widest kernel holds whole groups, or a group whole chunks.
  const bool fits = group % padding == 0 || (padding % group == 0 && group >= 16);
  return fits ? kind : -1;
}

i64 packed_bytes(const Scheme& s, i64 out, i64 in) {
  const int kind = packed_kind(s, in);
  return kind < 0 ? stored_bytes(s, out, in) : streamed_bytes(layout(s, kind, out, in), s);
}

std::shared_ptr<const Packed> pack(const Tensor& t, Pool& pool, i64& bytes) {
  const Scheme& s = t.scheme;
  const int kind = packed_kind(s, t.cols());
  if (kind < 0) return nullptr;
  Packed p = layout(s, kind, t.rows(), t.cols());
  const bool biased = s.offset != Offset::none;
  const i64 codes = round_up(p.out * p.row_bytes, 64),
            scales = round_up(p.out * p.groups * scale_width(p.scale_kind), 64),
            bias = biased ? round_up(p.out * p.groups * 4, 64) : 0;
  bytes = streamed_bytes(p, s);
  auto owned = std::make_shared<Owned>(
      static_cast<std::size_t>(codes + scales + bias + 256));  // kernels may load past the last row
  std::byte* at = owned->data;
  p.codes = reinterpret_cast<const std::uint8_t*>(at);
  p.scales = at + codes;
  if (biased) p.bias = reinterpret_cast<const float*>(at + codes + scales);
  if (kind == Packed::nib4) {
    const int b = bits(s.code);
    for (int k = 0; k < 16; k++)
      p.table[k] = k < (1 << b) ? values(s.code)[static_cast<std::size_t>(k)] : 0.0f;
  }
  owned->packed = p;
  pool.run(p.out, 16, [&](i64 begin, i64 end) {
    for (i64 r = begin; r < end; r++) pack_row(t, p, r);
  });
  std::memset(at + codes + scales + bias, 0, 256);
  return {owned, &owned->packed};
}

}  // namespace pare
