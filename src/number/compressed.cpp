// compressed-tensors layouts.
//
// Our planes were chosen so that most of this is renaming: 4- and 2-bit rows are already
// little-endian bit streams in 32-bit words, 8-bit rows are plain arrays, and scales are planes of
// their own. What remains is 8-bit weights in packed form (offset by 128), zero points (packed
// along the outputs) and the two fp4 forms.
#include "number/compressed.h"

#include <cmath>
#include <cstring>

namespace pare {
namespace {

constexpr Code integers[] = {Code::int2, Code::int3, Code::int4, Code::int5,
                             Code::int6, Code::int7, Code::int8};

std::string dtype_name(Code code) {
  switch (code) {
    case Code::f32:
      return "F32";
    case Code::f16:
      return "F16";
    case Code::bf16:
      return "BF16";
    case Code::e4m3:
      return "F8_E4M3";
    case Code::int8:
      return "I8";
    case Code::e8m0:
      return "U8";
    default:
      PARE_CHECK(false);
  }
}

bool is_nvfp4(const Scheme& s) {
  return s.code == Code::e2m1 && s.grouping == Grouping::group && s.cols == 16 && s.second_level &&
         s.scale == Code::e4m3 && s.super == Code::f32 && s.super_count == 0 &&
         s.offset == Offset::none;
}
bool is_mxfp4(const Scheme& s) {
  return s.code == Code::e2m1 && s.grouping == Grouping::group && s.cols == 32 && !s.second_level &&
         s.scale == Code::e8m0;
}

std::vector<i64> scale_shape(const Scheme& s, i64 rows, i64 cols) {
  if (s.grouping == Grouping::tensor) return {1};
  return {scale_rows(s, rows), scale_cols(s, cols)};
}

Blob flip_top_bit(const Blob& from) {  // two's complement <-> offset binary
  std::vector<std::uint8_t> to(from.size());
  for (std::size_t i = 0; i < to.size(); i++)
    to[i] = static_cast<std::uint8_t>(static_cast<unsigned>(from.bytes[i]) ^ 0x80u);
  return blob_of(std::move(to));
}

// Rows of `bytes` padded from `from_stride` to `to_stride` (or cut).
Blob restride(const Blob& bytes, i64 rows, i64 from_stride, i64 to_stride) {
  if (from_stride == to_stride) return bytes;
  std::vector<std::uint8_t> to(static_cast<std::size_t>(rows * to_stride));
  for (i64 r = 0; r < rows; r++)
    std::memcpy(to.data() + r * to_stride, bytes.data() + r * from_stride,
                static_cast<std::size_t>(std::min(from_stride, to_stride)));
  return blob_of(std::move(to));
}

// Zero points (rows, groups) int8 in the signed range <-> I32 (ceil(rows * b / 32), groups): a bit
// stream down each column. Codes of 3, 5, 6 and 7 bits may lie in two words.
Blob pack_zeros(const Blob& zeros, i64 rows, i64 groups, int b) {
  std::vector<std::uint32_t> words(static_cast<std::size_t>(ceil_div(rows * b, 32) * groups));
  for (i64 r = 0; r < rows; r++)
    for (i64 g = 0; g < groups; g++) {
      const int zero =
          static_cast<std::int8_t>(zeros.bytes[static_cast<std::size_t>(r * groups + g)]);
      const std::uint64_t stored = static_cast<std::uint64_t>(zero + (1 << (b - 1)))
                                   << (r * b % 32);
      const i64 word = r * b / 32;
      words[static_cast<std::size_t>(word * groups + g)] |= static_cast<std::uint32_t>(stored);
      if (r * b % 32 + b > 32)
        words[static_cast<std::size_t>((word + 1) * groups + g)] |=
            static_cast<std::uint32_t>(stored >> 32);
    }
  return blob_of(std::move(words));
}

Blob unpack_zeros(const Blob& packed, i64 rows, i64 groups, int b) {
  std::vector<std::int8_t> zeros(static_cast<std::size_t>(rows * groups));
  const auto word = [&](i64 row, i64 g) {
    std::uint32_t w = 0;
    std::memcpy(&w, packed.data() + 4 * (row * groups + g), 4);
    return std::uint64_t{w};
  };
  for (i64 r = 0; r < rows; r++)
    for (i64 g = 0; g < groups; g++) {
      const i64 at = r * b / 32;
      std::uint64_t bits = word(at, g);
      if (r * b % 32 + b > 32) bits |= word(at + 1, g) << 32;
      const int stored = static_cast<int>((bits >> (r * b % 32)) & ((1u << b) - 1));
      zeros[static_cast<std::size_t>(r * groups + g)] =
          static_cast<std::int8_t>(stored - (1 << (b - 1)));
    }
  return blob_of(std::move(zeros));
}

Blob shape_blob(i64 rows, i64 cols) { return blob_of(std::vector<i64>{rows, cols}); }

// The file's global scale divides where our second-level scale multiplies.
Blob reciprocal(const Blob& f32) {
  float value = 0;
  std::memcpy(&value, f32.data(), 4);
  return blob_of(std::vector<float>{1.0f / value});
}

}  // namespace

std::optional<std::string> compressed_format(const Scheme& s, const Activation& a, i64 cols) {
  if (s.plain() || s.sparsity == Sparsity::bitmask || s.offset == Offset::minimum)
    return std::nullopt;
  if (a.per == Activation::Per::group ||
      (a.per != Activation::Per::none && a.code != Code::int8 && a.code != Code::e4m3))
    return std::nullopt;
  if (a.per == Activation::Per::tensor && !a.is_static && a.code == Code::int8) return std::nullopt;
  const bool weight_only = a.per == Activation::Per::none;
  if (is_nvfp4(s))
    return weight_only && cols % 16 == 0 ? std::optional<std::string>("nvfp4-pack-quantized")
                                         : std::nullopt;
  if (is_mxfp4(s))
    return weight_only && cols % 32 == 0 ? std::optional<std::string>("mxfp4-pack-quantized")
                                         : std::nullopt;
  if (s.second_level || bits(s.scale) < 16) return std::nullopt;
  if (s.grouping == Grouping::group && cols % s.cols != 0) return std::nullopt;
  if (s.code == Code::e4m3 && (weight_only || a.code == Code::e4m3)) return "float-quantized";
  if (s.grouping == Grouping::block || s.grouping == Grouping::tensor) {
    if (s.code == Code::int8 && s.grouping == Grouping::tensor && s.offset == Offset::none &&
        a.code == Code::int8)
      return "int-quantized";
    return std::nullopt;
  }
  if (s.code == Code::int8 && !weight_only && a.code == Code::int8) return "int-quantized";
  if (s.code != Code::int8 && s.code != Code::int4 && s.code != Code::int2) return std::nullopt;
  return "pack-quantized";
}

std::vector<RawPlane> plan_compressed(const Scheme& s, const std::string& format, i64 rows,
                                      i64 cols) {
  const std::string scale = dtype_name(s.scale == Code::e4m3 ? Code::e4m3 : s.scale);
  const std::vector<i64> grid = scale_shape(s, rows, cols);
  if (format == "nvfp4-pack-quantized")
    return {{"weight_packed", "U8", {rows, cols / 2}, {}},
            {"weight_scale", "F8_E4M3", grid, {}},
            {"weight_global_scale", "F32", {1}, {}}};
  if (format == "mxfp4-pack-quantized")
    return {{"weight_packed", "U8", {rows, cols / 2}, {}}, {"weight_scale", "U8", grid, {}}};
  const int b = bits(s.code);
  std::vector<RawPlane> planes;
  if (format == "pack-quantized") {
    planes = {{"weight_packed", "I32", {rows, ceil_div(cols * b, 32)}, {}},
              {"weight_scale", scale, grid, {}},
              {"weight_shape", "I64", {2}, {}}};
    if (s.offset == Offset::zero)
      planes.push_back({"weight_zero_point", "I32", {ceil_div(rows * b, 32), grid[1]}, {}});
  } else {
    planes = {{"weight", dtype_name(s.code), {rows, cols}, {}}, {"weight_scale", scale, grid, {}}};
    if (s.offset == Offset::zero) planes.push_back({"weight_zero_point", "I8", grid, {}});
  }
  return planes;
}

std::vector<RawPlane> to_compressed(const Tensor& t, const std::string& format) {
  const i64 rows = t.rows(), cols = t.cols();
  const int b = bits(t.scheme.code);
  std::vector<RawPlane> planes = plan_compressed(t.scheme, format, rows, cols);
  for (RawPlane& p : planes) {
    if (p.suffix == "weight")
      p.bytes = t.codes;
    else if (p.suffix == "weight_scale")
      p.bytes = t.scales;
    else if (p.suffix == "weight_global_scale")
      p.bytes = reciprocal(t.super_scales);
    else if (p.suffix == "weight_shape")
      p.bytes = shape_blob(rows, cols);
    else if (p.suffix == "weight_zero_point")
      p.bytes = format == "pack-quantized" ? pack_zeros(t.zeros, rows, p.shape[1], b) : t.zeros;
    else {
      const i64 stride = p.dtype == "I32" ? 4 * p.shape[1] : p.shape[1];
      const Blob codes = b == 8 ? flip_top_bit(t.codes) : t.codes;
      p.bytes = restride(codes, rows, row_bytes(t.scheme, cols), stride);
    }
  }
  return planes;
}

Tensor from_compressed(const std::vector<RawPlane>& planes, const Scheme& s,
                       const std::string& format, i64 rows, i64 cols) {
  Tensor t;
  t.scheme = s;
  t.shape = {rows, cols};
  const int b = bits(s.code);
  for (const RawPlane& p : plan_compressed(s, format, rows, cols)) {
    if (p.suffix == "weight_shape")
      continue;  // said by the configuration and checked against the other planes
    const Blob bytes = demand_plane(planes, p);
    if (p.suffix == "weight")
      t.codes = bytes;
    else if (p.suffix == "weight_scale")
      t.scales = bytes;
    else if (p.suffix == "weight_global_scale")
      t.super_scales = reciprocal(bytes);
    else if (p.suffix == "weight_zero_point")
      t.zeros = format == "pack-quantized" ? unpack_zeros(bytes, rows, p.shape[1], b) : bytes;
    else {
      const i64 stride = p.dtype == "I32" ? 4 * p.shape[1] : p.shape[1];
      t.codes = restride(bytes, rows, stride, row_bytes(s, cols));
      if (b == 8) t.codes = flip_top_bit(t.codes);
    }
  }
  check(t, "weight");
  return t;
}

Json weight_args(const Scheme& s) {
  Json args = Json::object({{"num_bits", Json(bits(s.code))},
                            {"type", Json(info(s.code).integer ? "int" : "float")},
                            {"symmetric", Json(s.offset == Offset::none)}});
  static constexpr const char* strategies[] = {"", "tensor", "channel", "group", "block"};
  args.set("strategy", is_nvfp4(s) ? "tensor_group" : strategies[static_cast<int>(s.grouping)]);
  args.set("group_size", s.grouping == Grouping::group ? Json(s.cols) : Json());
  if (s.grouping == Grouping::block)
    args.set("block_structure", Json::array({Json(s.rows), Json(s.cols)}));
  args.set("dynamic", false);
  if (is_mxfp4(s)) {
    args.set("scale_dtype", "torch.uint8");
    args.set("zp_dtype", "torch.uint8");
  }
  return args;
}

Json activation_args(const Activation& a) {
  if (a.per == Activation::Per::none) return {};
  return Json::object({{"num_bits", Json(8)},
                       {"type", Json(info(a.code).integer ? "int" : "float")},
                       {"symmetric", Json(true)},
                       {"strategy", Json(a.per == Activation::Per::token ? "token" : "tensor")},
                       {"group_size", Json()},
                       {"dynamic", Json(!a.is_static)}});
}

Scheme parse_weight_args(const Json& args, const std::string& format) {
  const auto refuse = [&](const char* key) {
    const Json* value = args.find(key);
    fail_input("NU-031",
               fmt::format("the weights' quantization uses a {} that is not supported", key),
               {{"found", value != nullptr ? value->dump() : "nothing"}});
  };
  const auto word = [&](const char* key, const char* fallback) {
    const Json* value = args.find(key);
    return value == nullptr || value->is_null() ? std::string(fallback) : value->as_string();
  };
  Scheme s;
  const i64 b = args.find("num_bits") != nullptr ? args.at("num_bits").as_int() : 8;
  const bool floats = word("type", "int") == "float";
  if (floats && b == 8)
    s.code = Code::e4m3;
  else if (floats && b == 4)
    s.code = Code::e2m1;
  else if (!floats && b >= 2 && b <= 8)
    s.code = integers[static_cast<std::size_t>(b - 2)];
  else
    refuse("num_bits");
  if ((format == "int-quantized" && s.code != Code::int8) ||
      (format == "float-quantized" && s.code != Code::e4m3))
    refuse("num_bits");
  const std::string strategy = word(
      "strategy",
      args.find("group_size") != nullptr && args.at("group_size").is_int() ? "group" : "tensor");
  if (strategy == "tensor")
    s.grouping = Grouping::tensor;
  else if (strategy == "channel")
    s.grouping = Grouping::channel;
  else if (strategy == "group" || strategy == "tensor_group") {
    s.grouping = Grouping::group;
    s.cols = args.at("group_size").as_int();
    if (s.cols < 1 || s.cols > (i64{1} << 24)) refuse("group_size");
  } else if (strategy == "block") {
    const Json::Array& block = args.at("block_structure").as_array();
    if (block.size() != 2) refuse("block_structure");
    s.grouping = Grouping::block;
    s.rows = block[0].as_int();
    s.cols = block[1].as_int();
    if (s.rows < 1 || s.cols < 1 || s.rows > (1 << 24) || s.cols > (1 << 24))
      refuse("block_structure");
  } else {
    refuse("strategy");
  }
  if (const Json* symmetric = args.find("symmetric"); symmetric != nullptr && !symmetric->as_bool())
    s.offset = Offset::zero;
  if (const Json* order = args.find("actorder"); order != nullptr && order->is_string() &&
                                                 order->as_string() != "weight" &&
                                                 order->as_string() != "static")
    refuse("actorder");
  if (format == "nvfp4-pack-quantized") {
    s.scale = Code::e4m3;
    s.second_level = true;
    s.super = Code::f32;
    s.super_count = 0;
    if (!is_nvfp4(s)) refuse("strategy");
  } else if (format == "mxfp4-pack-quantized") {
    s.scale = Code::e8m0;
    if (!is_mxfp4(s)) refuse("group_size");
  } else if (s.code == Code::e2m1) {
    refuse("num_bits");
  }
  return s;
}

Activation parse_activation_args(const Json& args) {
  Activation a;
  if (args.is_null()) return a;
  const auto refuse = [&](const char* key) {
    const Json* value = args.find(key);
    fail_input("NU-031",
               fmt::format("the inputs' quantization uses a {} that is not supported", key),
               {{"found", value != nullptr ? value->dump() : "nothing"}});
  };
  if (args.at("num_bits").as_int() != 8) refuse("num_bits");
  a.code = args.at("type").as_string() == "float" ? Code::e4m3 : Code::int8;
  const std::string strategy = args.at("strategy").as_string();
  if (strategy == "token")
    a.per = Activation::Per::token;
  else if (strategy == "tensor")
    a.per = Activation::Per::tensor;
  else if (strategy == "group") {
    a.per = Activation::Per::group;
    a.group = args.at("group_size").as_int();
    if (a.group < 1) refuse("group_size");
  } else {
    refuse("strategy");
  }
  const Json* dynamic = args.find("dynamic");
  const bool is_dynamic = dynamic != nullptr && dynamic->is_bool() && dynamic->as_bool();
  if (dynamic != nullptr && dynamic->is_string()) refuse("dynamic");
  a.is_static = !is_dynamic;
  if (a.is_static && a.per != Activation::Per::tensor) refuse("dynamic");
  if (const Json* symmetric = args.find("symmetric"); symmetric != nullptr && !symmetric->as_bool())
    refuse("symmetric");
  return a;
}

}  // namespace pare
