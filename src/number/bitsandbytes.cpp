// The layouts of bitsandbytes.
//
// Four bits: the matrix is one long line, cut into blocks that share an absmax; a block may run
// over the end of a row. Two codes fill a byte, the first in the upper half. The absmax may
// themselves be codes of eight bits: absmax = map[code] * nested_absmax[block of absmax] + offset.
// bitsandbytes writes a dynamic map and subtracts the mean; it reads any map and any offset. Our
// own double quantization is unsigned 8-bit integers under one f32 scale, which is that form with
// the map 0, 1, ..., 255 and offset 0, as long as the blocks of absmax end where our rows do.
//
// Eight bits: code * SCB / 127, with SCB the absmax of a row.
#include "number/bitsandbytes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/json.h"

namespace pare {
namespace {

float f32_at(const Blob& plane, i64 i) {
  float value = 0;
  std::memcpy(&value, plane.data() + 4 * i, 4);
  return value;
}

// The largest block of absmax that both sides can have: a power of two, 32 to 4096.
i64 block_for(i64 group) {
  for (i64 b = 4096; b >= 32; b /= 2)
    if (group % b == 0) return b;
  return 0;
}

// The block of doubly quantized absmax that ends where our rows and second-level groups end.
i64 nested_block_for(const Scheme& s, i64 cols) {
  const bool ours = s.second_level && s.scale == Code::uint8 && s.super == Code::f32 &&
                    s.offset == Offset::none && s.grouping == Grouping::group &&
                    block_for(s.cols) == s.cols;
  if (!ours) return 0;
  const i64 scales = cols / s.cols;
  for (i64 b = 4096; b >= 64; b /= 2)
    if (scales % b == 0 &&
        (s.super_count == 0 || scales <= s.super_count || s.super_count % b == 0))
      return b;
  return 0;
}

const char* type_name(Code code) { return code == Code::nf4 ? "nf4" : "fp4"; }

std::string state_text(const Scheme& s, i64 rows, i64 cols, const std::string& dtype) {
  Json state = Json::object({{"quant_type", Json(type_name(s.code))},
                             {"blocksize", Json(block_for(group_columns(s, cols)))},
                             {"dtype", Json(dtype)},
                             {"shape", Json::array({Json(rows), Json(cols)})}});
  if (const i64 nested = nested_block_for(s, cols); nested > 0) {
    state.set("nested_blocksize", nested);
    state.set("nested_dtype", "float32");
    state.set("nested_offset", 0.0);
  }
  return state.dump();
}

// Codes of a row-by-row plane <-> one line with the first code of a byte in the upper half.
Blob line_of(const Tensor& t) {
  const i64 cols = t.cols(), stride = row_bytes(t.scheme, cols);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(ceil_div(t.count(), 2)));
  for (i64 r = 0, i = 0; r < t.rows(); r++)
    for (i64 c = 0; c < cols; c++, i++) {
      const unsigned pair =
          static_cast<unsigned>(t.codes.bytes[static_cast<std::size_t>(r * stride + c / 2)]);
      const unsigned code = (pair >> (4 * (c & 1))) & 15u;
      std::uint8_t& to = out[static_cast<std::size_t>(i / 2)];
      to = static_cast<std::uint8_t>(to | code << (i & 1 ? 0 : 4));
    }
  return blob_of(std::move(out));
}

Blob rows_of(const Blob& line, const Scheme& s, i64 rows, i64 cols) {
  const i64 stride = row_bytes(s, cols);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(rows * stride));
  for (i64 r = 0, i = 0; r < rows; r++)
    for (i64 c = 0; c < cols; c++, i++) {
      const unsigned pair = static_cast<unsigned>(line.bytes[static_cast<std::size_t>(i / 2)]);
      const unsigned code = (pair >> (i & 1 ? 0 : 4)) & 15u;
      std::uint8_t& to = out[static_cast<std::size_t>(r * stride + c / 2)];
      to = static_cast<std::uint8_t>(to | code << (4 * (c & 1)));
    }
  return blob_of(std::move(out));
}

void demand(bool good, const char* field, const std::string& found, const std::string& need) {
  if (good) return;
  fail_input("NU-036", "the quantization state of a bitsandbytes matrix cannot be used",
             {{"field", field}, {"found", found}, {"need", need}});
}

i64 count_of(const Json& state, const char* field) {
  const Json& value = state.at(field);
  demand(value.is_int() && value.as_int() >= 1 && value.as_int() <= (i64{1} << 31), field,
         value.dump(), "a positive number");
  return value.as_int();
}

// bitsandbytes multiplies by constants of its own, whatever the map says.
void check_map(const Blob& map, Code code) {
  const std::span<const float> table = values(code);
  for (i64 i = 0; i < 16; i++) {
    const float found = f32_at(map, i), need = table[static_cast<std::size_t>(i)];
    demand(std::abs(found - need) <= 1e-6f, "quant_map", fmt::format("{} at {}", found, i),
           fmt::format("{}, as {} has it", need, type_name(code)));
  }
}

std::vector<float> absmax_of(const std::vector<RawPlane>& planes, const Bnb4State& s, i64 blocks) {
  std::vector<float> absmax(static_cast<std::size_t>(blocks));
  if (!s.nested) {
    const Blob stored = demand_plane(planes, {"weight.absmax", "F32", {blocks}, {}});
    std::memcpy(absmax.data(), stored.data(), stored.size());
    return absmax;
  }
  const Blob codes = demand_plane(planes, {"weight.absmax", "U8", {blocks}, {}});
  const Blob scale =
      demand_plane(planes, {"weight.nested_absmax", "F32", {ceil_div(blocks, s.nested_block)}, {}});
  const Blob map = demand_plane(planes, {"weight.nested_quant_map", "F32", {256}, {}});
  for (i64 i = 0; i < blocks; i++) {
    const i64 code = static_cast<i64>(codes.bytes[static_cast<std::size_t>(i)]);
    absmax[static_cast<std::size_t>(i)] =
        f32_at(map, code) * f32_at(scale, i / s.nested_block) + s.nested_offset;
  }
  return absmax;
}

Json parse_state(const RawPlane& plane) {
  const std::string_view text(reinterpret_cast<const char*>(plane.bytes.data()),
                              plane.bytes.size());
  JsonLimits limits;
  limits.depth = 4;
  limits.bytes = 1 << 16;
  limits.values = 64;
  return parse_json(text, plane.suffix, limits);
}

}  // namespace

Bnb4State parse_bnb4_state(const RawPlane& plane) {
  const Json state = parse_state(plane);
  Bnb4State s;
  const Json& type = state.at("quant_type");
  demand(type == Json("nf4") || type == Json("fp4"), "quant_type", type.dump(), "nf4 or fp4");
  s.code = type == Json("nf4") ? Code::nf4 : Code::fp4;
  demand(plane.suffix.ends_with(type_name(s.code)), "quant_type", type.dump(), plane.suffix);
  s.block = count_of(state, "blocksize");
  const Json& shape = state.at("shape");
  demand(shape.is_array() && shape.as_array().size() == 2 && shape.as_array()[0].is_int() &&
             shape.as_array()[1].is_int(),
         "shape", shape.dump(), "two numbers");
  s.rows = shape.as_array()[0].as_int();
  s.cols = shape.as_array()[1].as_int();
  constexpr i64 most = i64{1} << 24;
  demand(s.rows >= 1 && s.cols >= 1 && s.rows <= most && s.cols <= most, "shape", shape.dump(),
         fmt::format("1 to {} each", most));
  s.nested = state.find("nested_blocksize") != nullptr;
  if (s.nested) {
    s.nested_block = count_of(state, "nested_blocksize");
    s.nested_offset = static_cast<float>(state.at("nested_offset").as_number());
    const Json& dtype = state.at("nested_dtype");
    demand(dtype == Json("float32"), "nested_dtype", dtype.dump(), "float32");
  }
  return s;
}

Scheme bnb4_scheme(const Bnb4State& state) {
  Scheme s;
  s.code = state.code;
  s.grouping = Grouping::group;
  s.cols = std::gcd(state.block, state.cols);
  s.scale = Code::f32;
  return s;
}

Tensor from_bnb4(const std::vector<RawPlane>& planes, const Bnb4State& s) {
  const i64 count = s.rows * s.cols;
  Tensor t;
  t.scheme = bnb4_scheme(s);
  t.shape = {s.rows, s.cols};
  check_map(demand_plane(planes, {"weight.quant_map", "F32", {16}, {}}), s.code);
  t.codes = rows_of(demand_plane(planes, {"weight", "U8", {ceil_div(count, 2), 1}, {}}), t.scheme,
                    s.rows, s.cols);
  const std::vector<float> absmax = absmax_of(planes, s, ceil_div(count, s.block));
  std::vector<float> scales(static_cast<std::size_t>(count / t.scheme.cols));
  for (std::size_t i = 0; i < scales.size(); i++)
    scales[i] = absmax[static_cast<std::size_t>(static_cast<i64>(i) * t.scheme.cols / s.block)];
  t.scales = blob_of(std::move(scales));
  check(t, "weight");
  return t;
}

std::optional<Misfit> bnb4_misfit(const Scheme& s, i64, i64 cols) {
  if ((s.code != Code::nf4 && s.code != Code::fp4) || s.plain() || s.sparsity != Sparsity::dense ||
      s.offset != Offset::none)
    return Misfit{to_string(s), "nf4 or fp4", "nf4:g64:dq"};
  const i64 group = group_columns(s, cols);
  if (cols % group != 0 || block_for(group) == 0)
    return Misfit{fmt::format("{} inputs in groups of {}", cols, group),
                  "groups of a multiple of 32 that divide a row",
                  cols % 64 == 0   ? "nf4:g64"
                  : cols % 32 == 0 ? "nf4:g32"
                                   : ""};
  return std::nullopt;
}

std::vector<RawPlane> plan_bnb4(const Scheme& s, i64 rows, i64 cols, const std::string& dtype) {
  const i64 blocks = rows * cols / block_for(group_columns(s, cols));
  const i64 nested = nested_block_for(s, cols);
  const i64 text = static_cast<i64>(state_text(s, rows, cols, dtype).size());
  std::vector<RawPlane> planes = {{"weight", "U8", {ceil_div(rows * cols, 2), 1}, {}},
                                  {"weight.absmax", nested > 0 ? "U8" : "F32", {blocks}, {}},
                                  {"weight.quant_map", "F32", {16}, {}}};
  if (nested > 0) {
    planes.push_back({"weight.nested_absmax", "F32", {blocks / nested}, {}});
    planes.push_back({"weight.nested_quant_map", "F32", {256}, {}});
  }
  planes.push_back(
      {std::string("weight.quant_state.bitsandbytes__") + type_name(s.code), "U8", {text}, {}});
  return planes;
}

std::vector<RawPlane> to_bnb4(const Tensor& t, const std::string& dtype) {
  const Scheme& s = t.scheme;
  const i64 cols = t.cols(), nested = nested_block_for(s, cols);
  std::vector<RawPlane> planes = plan_bnb4(s, t.rows(), cols, dtype);
  for (RawPlane& p : planes)
    if (p.suffix == "weight") {
      p.bytes = line_of(t);
    } else if (p.suffix == "weight.absmax") {
      p.bytes =
          nested > 0 ? t.scales : blob_of(spread_scales(t, block_for(group_columns(s, cols))));
    } else if (p.suffix == "weight.quant_map") {
      p.bytes = blob_of(std::vector<float>(values(s.code).begin(), values(s.code).end()));
    } else if (p.suffix == "weight.nested_quant_map") {
      std::vector<float> map(256);
      std::iota(map.begin(), map.end(), 0.0f);
      p.bytes = blob_of(std::move(map));
    } else if (p.suffix == "weight.nested_absmax") {
      const i64 row = cols / s.cols, each = s.super_count == 0 ? row * t.rows() : s.super_count;
      std::vector<float> absmax;
      for (i64 i = 0; i < p.shape[0]; i++) {
        const i64 r = i * nested / row, c = i * nested % row;
        absmax.push_back(f32_at(
            t.super_scales, s.super_count == 0 ? 0 : r * ceil_div(row, s.super_count) + c / each));
      }
      p.bytes = blob_of(std::move(absmax));
    } else {
      const std::string text = state_text(s, t.rows(), cols, dtype);
      p.bytes = blob_of(std::vector<char>(text.begin(), text.end()));
    }
  return planes;
}

std::optional<Misfit> bnb8_misfit(const Scheme& s, i64, i64) {
  const bool rows = s.grouping == Grouping::channel || s.grouping == Grouping::tensor;
  if (s.code != Code::int8 || !rows || s.sparsity != Sparsity::dense || s.offset != Offset::none)
    return Misfit{to_string(s), "int8 with one scale a row", "int8:channel"};
  return std::nullopt;
}

std::vector<RawPlane> plan_bnb8(i64 rows, i64 cols) {
  return {{"weight", "I8", {rows, cols}, {}},
          {"SCB", "F32", {rows}, {}},
          {"weight_format", "U8", {}, {}}};
}

std::vector<RawPlane> to_bnb8(const Tensor& t) {
  std::vector<RawPlane> planes = plan_bnb8(t.rows(), t.cols());
  std::vector<float> scb(static_cast<std::size_t>(t.rows()));
  for (i64 r = 0; r < t.rows(); r++) {
    const float scale = scale_at(t, r, 0), near = scale * 127;
    float& to = scb[static_cast<std::size_t>(r)];
    bool exact = false;
    for (float candidate : {near, std::nextafter(near, HUGE_VALF), std::nextafter(near, 0.0f)})
      if (!exact && candidate / 127.0f == scale) to = candidate, exact = true;
    if (!exact)
      fail_input("NU-037", "a scale cannot be written as the absmax of a row over 127",
                 {{"found", fmt::format("{} at row {}", scale, r)}},
                 "quantize with scales of 16 bits: int8:channel");
  }
  planes[0].bytes = t.codes;
  planes[1].bytes = blob_of(std::move(scb));
  planes[2].bytes = blob_of(std::vector<std::uint8_t>{0});
  return planes;
}

Tensor from_bnb8(const std::vector<RawPlane>& planes, i64 rows, i64 cols) {
  if (find_plane(planes, "weight_format") != nullptr) {
    const Blob format = demand_plane(planes, {"weight_format", "U8", {}, {}});
    demand(format.bytes[0] == std::byte{0}, "weight_format",
           std::to_string(static_cast<int>(format.bytes[0])), "0, rows as they are");
  }
  Tensor t;
  t.scheme.code = Code::int8;
  t.scheme.grouping = Grouping::channel;
  t.scheme.scale = Code::f32;
  t.shape = {rows, cols};
  t.codes = demand_plane(planes, {"weight", "I8", {rows, cols}, {}});
  const Blob scb = demand_plane(planes, {"SCB", "F32", {rows}, {}});
  std::vector<float> scales(static_cast<std::size_t>(rows));
  for (i64 r = 0; r < rows; r++) scales[static_cast<std::size_t>(r)] = f32_at(scb, r) / 127.0f;
  t.scales = blob_of(std::move(scales));
  check(t, "weight");
  return t;
}

}  // namespace pare
