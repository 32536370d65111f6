// ggml's block formats, taken apart and put together.
//
// Each type is described by one function that moves the fields of a block to or from a `Fields`
// value (patterns of codes, scales, minima, second-level scales); the loops over blocks and planes
// are shared. One function per direction would be two chances to disagree, so both directions are
// the same text, instantiated for reading and for writing.
#include "number/ggml.h"

#include <cstring>

namespace pare {
namespace {

// The contents of a block in our terms: patterns as our planes store them.
struct Fields {
  std::uint8_t q[256] = {};
  std::uint16_t scale[16] = {};  // one a group, in the scheme's scale code
  std::uint16_t min[16] = {};
  std::uint16_t super = 0, super_min = 0;
};

// Moves `width` bits at `shift` of *byte to or from *field, at `to` of the field.
template <bool write, class F>
void bits_at(std::uint8_t* byte, int shift, int width, F& field, int to = 0) {
  const unsigned mask = (1u << width) - 1;
  if constexpr (write)
    *byte = static_cast<std::uint8_t>((*byte & ~(mask << shift)) |
                                      (((static_cast<unsigned>(field) >> to) & mask) << shift));
  else
    field = static_cast<F>((static_cast<unsigned>(field) & ~(mask << to)) |
                           (((*byte >> shift) & mask) << to));
}

template <bool write>
void half_at(std::uint8_t* bytes, std::uint16_t& field) {
  if constexpr (write)
    std::memcpy(bytes, &field, 2);
  else
    std::memcpy(&field, bytes, 2);
}

template <bool write>
void byte_at(std::uint8_t* byte, std::uint16_t& field) {
  bits_at<write>(byte, 0, 8, field);
}
template <bool write>
void byte_at(std::uint8_t* byte, std::uint8_t& field) {
  bits_at<write>(byte, 0, 8, field);
}

template <bool write>
void nibbles_32(std::uint8_t* qs, Fields& f, int at = 0) {  // j and j + 16 share a byte
  for (int j = 0; j < 16; j++) {
    bits_at<write>(qs + j, 0, 4, f.q[at + j]);
    bits_at<write>(qs + j, 4, 4, f.q[at + j + 16]);
  }
}

template <bool write>
void fifth_bits(std::uint8_t* qh, Fields& f) {
  for (int j = 0; j < 32; j++) bits_at<write>(qh + j / 8, j % 8, 1, f.q[j], 4);
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes.
template <bool write>
void k_scales(std::uint8_t* b, Fields& f) {
  for (int s = 0; s < 4; s++) {
    bits_at<write>(b + s, 0, 6, f.scale[s]);
    bits_at<write>(b + s + 4, 0, 6, f.min[s]);
    bits_at<write>(b + s + 8, 0, 4, f.scale[s + 4]);
    bits_at<write>(b + s, 6, 2, f.scale[s + 4], 4);
    bits_at<write>(b + s + 8, 4, 4, f.min[s + 4]);
    bits_at<write>(b + s + 4, 6, 2, f.min[s + 4], 4);
  }
}

template <bool write>
void two_bit_planes(std::uint8_t* qs, Fields& f) {
  for (int i = 0; i < 256; i++)
    bits_at<write>(qs + 32 * (i / 128) + i % 32, 2 * (i % 128 / 32), 2, f.q[i]);
}

template <bool write>
void move_q4_0(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.scale[0]);
  nibbles_32<write>(b + 2, f);
}
template <bool write>
void move_q4_1(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.scale[0]);
  half_at<write>(b + 2, f.min[0]);
  nibbles_32<write>(b + 4, f);
}
template <bool write>
void move_q5_0(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.scale[0]);
  nibbles_32<write>(b + 6, f);
  fifth_bits<write>(b + 2, f);
}
template <bool write>
void move_q5_1(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.scale[0]);
  half_at<write>(b + 2, f.min[0]);
  nibbles_32<write>(b + 8, f);
  fifth_bits<write>(b + 4, f);
}
template <bool write>
void move_q8_0(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.scale[0]);
  for (int j = 0; j < 32; j++) byte_at<write>(b + 2 + j, f.q[j]);
}
template <bool write>
void move_q2_k(std::uint8_t* b, Fields& f) {
  for (int s = 0; s < 16; s++) {
    bits_at<write>(b + s, 0, 4, f.scale[s]);
    bits_at<write>(b + s, 4, 4, f.min[s]);
  }
  two_bit_planes<write>(b + 16, f);
  half_at<write>(b + 80, f.super);
  half_at<write>(b + 82, f.super_min);
}
template <bool write>
void move_q3_k(std::uint8_t* b, Fields& f) {
  two_bit_planes<write>(b + 32, f);
  for (int i = 0; i < 256; i++)
    bits_at<write>(b + i % 32, 4 * (i / 128) + i % 128 / 32, 1, f.q[i], 2);
  for (int s = 0; s < 16; s++) {
    bits_at<write>(b + 96 + s % 8, s < 8 ? 0 : 4, 4, f.scale[s]);
    bits_at<write>(b + 104 + s % 4, 2 * (s / 4), 2, f.scale[s], 4);
  }
  half_at<write>(b + 108, f.super);
}
template <bool write>
void move_q4_k(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.super);
  half_at<write>(b + 2, f.super_min);
  k_scales<write>(b + 4, f);
  for (int i = 0; i < 256; i++)
    bits_at<write>(b + 16 + 32 * (i / 64) + i % 32, i % 64 < 32 ? 0 : 4, 4, f.q[i]);
}
template <bool write>
void move_q5_k(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.super);
  half_at<write>(b + 2, f.super_min);
  k_scales<write>(b + 4, f);
  for (int i = 0; i < 256; i++) {
    bits_at<write>(b + 48 + 32 * (i / 64) + i % 32, i % 64 < 32 ? 0 : 4, 4, f.q[i]);
    bits_at<write>(b + 16 + i % 32, i / 32, 1, f.q[i], 4);
  }
}
template <bool write>
void move_q6_k(std::uint8_t* b, Fields& f) {
  for (int i = 0; i < 256; i++) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    bits_at<write>(b + 64 * half + l + (quarter & 1) * 32, quarter < 2 ? 0 : 4, 4, f.q[i]);
    bits_at<write>(b + 128 + 32 * half + l, 2 * quarter, 2, f.q[i], 4);
  }
  for (int s = 0; s < 16; s++) byte_at<write>(b + 192 + s, f.scale[s]);
  half_at<write>(b + 208, f.super);
}
template <bool write>
void move_iq4_xs(std::uint8_t* b, Fields& f) {
  half_at<write>(b, f.super);
  for (int s = 0; s < 8; s++) {
    bits_at<write>(b + 4 + s / 2, 4 * (s % 2), 4, f.scale[s]);
    bits_at<write>(b + 2 + s / 4, 2 * (s % 4), 2, f.scale[s], 4);
    nibbles_32<write>(b + 8 + 16 * s, f, 32 * s);
  }
}
template <bool write>
void move_mxfp4(std::uint8_t* b, Fields& f) {
  byte_at<write>(b, f.scale[0]);
  nibbles_32<write>(b + 1, f);
}

struct Type {
  std::uint32_t id;
  const char* name;
  const char* scheme;
  int block, bytes;
  void (*read)(std::uint8_t*, Fields&);
  void (*write)(std::uint8_t*, Fields&);
};
constexpr Type types[] = {
    {0, "F32", "f32", 1, 4, nullptr, nullptr},
    {1, "F16", "f16", 1, 2, nullptr, nullptr},
    {30, "BF16", "bf16", 1, 2, nullptr, nullptr},
    {2, "Q4_0", "q4_0", 32, 18, move_q4_0<false>, move_q4_0<true>},
    {3, "Q4_1", "q4_1", 32, 20, move_q4_1<false>, move_q4_1<true>},
    {6, "Q5_0", "q5_0", 32, 22, move_q5_0<false>, move_q5_0<true>},
    {7, "Q5_1", "q5_1", 32, 24, move_q5_1<false>, move_q5_1<true>},
    {8, "Q8_0", "q8_0", 32, 34, move_q8_0<false>, move_q8_0<true>},
    {10, "Q2_K", "q2_k", 256, 84, move_q2_k<false>, move_q2_k<true>},
    {11, "Q3_K", "q3_k", 256, 110, move_q3_k<false>, move_q3_k<true>},
    {12, "Q4_K", "q4_k", 256, 144, move_q4_k<false>, move_q4_k<true>},
    {13, "Q5_K", "q5_k", 256, 176, move_q5_k<false>, move_q5_k<true>},
    {14, "Q6_K", "q6_k", 256, 210, move_q6_k<false>, move_q6_k<true>},
    {20, "IQ4_NL", "iq4_nl", 32, 18, move_q4_0<false>, move_q4_0<true>},
    {23, "IQ4_XS", "iq4_xs", 256, 136, move_iq4_xs<false>, move_iq4_xs<true>},
    {39, "MXFP4", "mxfp4", 32, 17, move_mxfp4<false>, move_mxfp4<true>},
};

const Type& type_of(std::uint32_t id) {
  for (const Type& t : types)
    if (t.id == id) return t;
  fail_input(
      "NU-010", "this ggml type cannot be read",
      {{"found", fmt::format("type {}", id)},
       {"need",
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4"}});
}

std::size_t width(Code code) {
  return bits(code) >= 16 ? static_cast<std::size_t>(bits(code) / 8) : 1;
}

// The planes of a tensor as writable memory, and how a block's fields spread over them.
struct Planes {
  Scheme s;
  i64 rows, cols;
  std::vector<std::uint8_t> codes, scales, mins, supers, super_mins;

  Planes(const Scheme& scheme, i64 r, i64 c) : s(scheme), rows(r), cols(c) {
    const std::size_t groups = static_cast<std::size_t>(scale_rows(s, r) * scale_cols(s, c));
    codes.resize(static_cast<std::size_t>(r * row_bytes(s, c)));
    scales.resize(groups * width(s.scale));
    if (s.offset == Offset::minimum) mins.resize(scales.size());
    if (!s.second_level) return;
    supers.resize(groups / static_cast<std::size_t>(s.super_count) * width(s.super));
    if (s.offset == Offset::minimum) super_mins.resize(supers.size());
  }

  template <bool write>
  static void element(std::vector<std::uint8_t>& plane, Code code, i64 index,
                      std::uint16_t& field) {
    std::uint8_t* at = plane.data() + static_cast<std::size_t>(index) * width(code);
    if constexpr (write)
      std::memcpy(at, &field, width(code));
    else
      field = 0, std::memcpy(&field, at, width(code));
  }

  template <bool write>
  void move(i64 row, i64 col, int block, Fields& f) {
    const int b = bits(s.code);
    std::uint8_t* data = codes.data() + row * row_bytes(s, cols);
    for (int i = 0; i < block; i++) {
      const i64 bit = (col + i) * b;
      if (b == 8 || b == 4) {
        bits_at<write>(data + bit / 8, static_cast<int>(bit % 8), b, f.q[i]);
        continue;
      }
      for (int k = 0; k < b; k++)
        bits_at<write>(data + (bit + k) / 8, static_cast<int>((bit + k) % 8), 1, f.q[i], k);
    }
    const i64 groups = block / s.cols, first = row * scale_cols(s, cols) + col / s.cols;
    for (i64 g = 0; g < groups; g++) {
      element<write>(scales, s.scale, first + g, f.scale[g]);
      if (s.offset == Offset::minimum) element<write>(mins, s.scale, first + g, f.min[g]);
    }
    if (!s.second_level) return;
    element<write>(supers, s.super, first / s.super_count, f.super);
    if (s.offset == Offset::minimum)
      element<write>(super_mins, s.super, first / s.super_count, f.super_min);
  }
};

// Q4_1 and Q5_1 add a minimum where our decoder subtracts one.
void flip_minimum(const Scheme& s, Fields& f) {
  if (s.offset == Offset::minimum && !s.second_level) f.min[0] ^= 0x8000;
}

void refuse_nan(const Scheme& s, const Fields& f, const Type& type, i64 row, i64 col) {
  const bool bad_scale = !s.second_level && s.scale == Code::e8m0 ? f.scale[0] == 0xff
                         : !s.second_level                        ? (f.scale[0] & 0x7c00) == 0x7c00
                                                                  : (f.super & 0x7c00) == 0x7c00;
  if (bad_scale || (f.super_min & 0x7c00) == 0x7c00)
    fail_input("NU-012", fmt::format("a scale of a {} block is not a finite number", type.name),
               {{"row", std::to_string(row)}, {"column", std::to_string(col)}},
               "copy or download the file again");
}

}  // namespace

std::span<const std::uint32_t> ggml_types() {
  static const std::vector<std::uint32_t> ids = [] {
    std::vector<std::uint32_t> list;
    for (const Type& t : types) list.push_back(t.id);
    return list;
  }();
  return ids;
}

i64 ggml_block(std::uint32_t id) { return type_of(id).block; }
i64 ggml_block_bytes(std::uint32_t id) { return type_of(id).bytes; }
std::string_view ggml_name(std::uint32_t id) { return type_of(id).name; }

Scheme scheme_of_ggml(std::uint32_t id) { return parse_scheme(type_of(id).scheme); }

Tensor tensor_from_ggml(std::uint32_t id, i64 rows, i64 cols, const Blob& blocks) {
  const Type& type = type_of(id);
  const Scheme s = parse_scheme(type.scheme);
  if (cols % type.block != 0 ||
      static_cast<i64>(blocks.size()) != rows * cols / type.block * type.bytes)
    fail_input("NU-011", fmt::format("a {} tensor has the wrong size", type.name),
               {{"found", fmt::format("{} bytes", blocks.size())},
                {"need", fmt::format("{} x {} weights", rows, cols)}});
  Tensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  if (s.plain()) {
    t.codes = blocks;
    return t;
  }
  Planes planes(s, rows, cols);
  const std::uint8_t* from = reinterpret_cast<const std::uint8_t*>(blocks.data());
  for (i64 r = 0; r < rows; r++)
    for (i64 c = 0; c < cols; c += type.block, from += type.bytes) {
      Fields f;
      type.read(const_cast<std::uint8_t*>(from), f);  // reads only
      refuse_nan(s, f, type, r, c);
      flip_minimum(s, f);
      planes.move<true>(r, c, type.block, f);
    }
  t.codes = blob_of(std::move(planes.codes));
  t.scales = blob_of(std::move(planes.scales));
  t.mins = blob_of(std::move(planes.mins));
  t.super_scales = blob_of(std::move(planes.supers));
  t.super_mins = blob_of(std::move(planes.super_mins));
  return t;
}

Blob blocks_from_tensor(const Tensor& t, std::uint32_t id) {
  const Type& type = type_of(id);
  const Scheme s = parse_scheme(type.scheme);
  PARE_CHECK(t.scheme == s && t.cols() % type.block == 0);
  if (s.plain()) return t.codes;
  Planes planes(s, t.rows(), t.cols());
  const auto copy = [](const Blob& from, std::vector<std::uint8_t>& to) {
    PARE_CHECK(from.size() == to.size());
    if (!to.empty()) std::memcpy(to.data(), from.data(), to.size());
  };
  copy(t.codes, planes.codes);
  copy(t.scales, planes.scales);
  copy(t.mins, planes.mins);
  copy(t.super_scales, planes.supers);
  copy(t.super_mins, planes.super_mins);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(t.count() / type.block * type.bytes));
  std::uint8_t* to = out.data();
  for (i64 r = 0; r < t.rows(); r++)
    for (i64 c = 0; c < t.cols(); c += type.block, to += type.bytes) {
      Fields f;
      planes.move<false>(r, c, type.block, f);
      flip_minimum(s, f);
      type.write(to, f);
    }
  return blob_of(std::move(out));
}

}  // namespace pare
