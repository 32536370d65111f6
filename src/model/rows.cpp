// Row operations on planes.
//
// Fused checkpoint tensors hold several slots' rows, sometimes interleaved head by head. All
// groupings but blocks and whole-tensor scales live inside a row, so rows can be moved freely; for
// a whole-tensor scale a selection keeps the one scale, and blocks move in whole block rows.
#include <algorithm>
#include <cstring>

#include "model/model.h"

namespace pare {
namespace {

// A plane as rows of equal size.
Blob pick_rows(const Blob& plane, i64 plane_rows, std::span<const RowRange> ranges) {
  if (plane.size() == 0) return {};
  const std::size_t stride = plane.size() / static_cast<std::size_t>(plane_rows);
  const auto bytes = [&](const RowRange& r) { return static_cast<std::size_t>(r.count) * stride; };
  if (ranges.size() == 1)  // a view: nothing is copied
    return plane.slice(static_cast<std::size_t>(ranges[0].begin) * stride, bytes(ranges[0]));
  std::size_t total = 0;
  for (const RowRange& r : ranges) total += bytes(r);
  std::vector<std::byte> out(total);
  std::size_t at = 0;
  for (const RowRange& r : ranges) {
    std::memcpy(out.data() + at, plane.data() + static_cast<std::size_t>(r.begin) * stride,
                bytes(r));
    at += bytes(r);
  }
  return blob_of(std::move(out));
}

Blob join(std::span<const Tensor> parts, Blob Tensor::*plane) {
  std::size_t total = 0;
  for (const Tensor& t : parts) total += (t.*plane).size();
  std::vector<std::byte> out;
  out.reserve(total);
  for (const Tensor& t : parts)
    out.insert(out.end(), (t.*plane).bytes.begin(), (t.*plane).bytes.end());
  return blob_of(std::move(out));
}

constexpr Blob Tensor::*scale_planes[] = {&Tensor::scales, &Tensor::zeros, &Tensor::mins,
                                          &Tensor::super_scales, &Tensor::super_mins};

// True for planes with one entry for the whole tensor.
bool shared_plane(const Scheme& s, Blob Tensor::*plane) {
  if (s.grouping == Grouping::tensor) return true;
  return s.second_level && s.super_count == 0 &&
         (plane == &Tensor::super_scales || plane == &Tensor::super_mins);
}

}  // namespace

Tensor select_rows(const Tensor& t, std::span<const RowRange> ranges) {
  const bool vector = t.shape.size() == 1;
  const i64 rows = vector ? t.shape[0] : t.rows();
  i64 count = 0;
  for (const RowRange& r : ranges) {
    PARE_CHECK(r.begin >= 0 && r.count >= 0 && r.begin + r.count <= rows);
    count += r.count;
  }
  Tensor out;
  out.scheme = t.scheme;
  out.shape = t.shape;
  out.shape[0] = count;
  PARE_CHECK(!vector || t.scheme.plain());
  out.codes = pick_rows(t.codes, rows, ranges);
  out.mask = pick_rows(t.mask, rows, ranges);
  for (Blob Tensor::*plane : scale_planes) {
    if ((t.*plane).size() == 0) continue;
    if (shared_plane(t.scheme, plane)) {
      out.*plane = t.*plane;
    } else if (t.scheme.grouping == Grouping::block) {
      std::vector<RowRange> blocks;
      for (const RowRange& r : ranges) {
        PARE_CHECK(r.begin % t.scheme.rows == 0 &&
                   (r.count % t.scheme.rows == 0 || r.begin + r.count == rows));
        blocks.push_back({r.begin / t.scheme.rows, (r.count + t.scheme.rows - 1) / t.scheme.rows});
      }
      out.*plane = pick_rows(t.*plane, scale_rows(t.scheme, rows), blocks);
    } else {
      out.*plane = pick_rows(t.*plane, rows, ranges);
    }
  }
  return out;
}

Tensor concat_rows(std::span<const Tensor> parts) {
  PARE_CHECK(!parts.empty());
  Tensor out;
  out.scheme = parts[0].scheme;
  out.shape = parts[0].shape;
  out.shape[0] = 0;
  for (const Tensor& t : parts) {
    PARE_CHECK(t.scheme == out.scheme && t.shape.size() == out.shape.size() &&
               (t.shape.size() == 1 || t.cols() == out.shape[1]));
    PARE_CHECK(t.scheme.grouping != Grouping::block || &t == &parts.back() ||
               t.rows() % t.scheme.rows == 0);
    out.shape[0] += t.shape[0];
  }
  out.codes = join(parts, &Tensor::codes);
  out.mask = join(parts, &Tensor::mask);
  for (Blob Tensor::*plane : scale_planes) {
    if (!shared_plane(out.scheme, plane)) {
      out.*plane = join(parts, plane);
      continue;
    }
    out.*plane = parts[0].*plane;
    for (const Tensor& t : parts)
      PARE_CHECK((t.*plane).size() == (out.*plane).size() &&
                 ((t.*plane).size() == 0 ||
                  std::memcmp((t.*plane).data(), (out.*plane).data(), (t.*plane).size()) == 0));
  }
  return out;
}

Tensor transpose(const Tensor& t) {
  PARE_CHECK(t.scheme.plain() && t.shape.size() == 2);
  const std::size_t width = static_cast<std::size_t>(bits(t.scheme.code) / 8);
  const std::size_t rows = static_cast<std::size_t>(t.shape[0]),
                    cols = static_cast<std::size_t>(t.shape[1]);
  std::vector<std::byte> out(t.codes.size());
  for (std::size_t r = 0; r < rows; r++)
    for (std::size_t c = 0; c < cols; c++)
      std::memcpy(out.data() + (c * rows + r) * width, t.codes.data() + (r * cols + c) * width,
                  width);
  Tensor result = t;
  result.shape = {t.shape[1], t.shape[0]};
  result.codes = blob_of(std::move(out));
  return result;
}

}  // namespace pare
