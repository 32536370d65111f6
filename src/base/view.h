// Views and bytes: what every layer passes around.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"

namespace pare {

constexpr double real(i64 n) { return static_cast<double>(n); }

// Parts of at most b that a has; both positive.
constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

// A row-major view of a matrix; never owns. `stride` counts elements between rows.
template <class T>
struct Matrix {
  T* data = nullptr;
  i64 rows = 0, cols = 0, stride = 0;

  Matrix() = default;
  Matrix(T* pointer, i64 row_count, i64 col_count, i64 row_stride = -1)
      : data(pointer),
        rows(row_count),
        cols(col_count),
        stride(row_stride < 0 ? col_count : row_stride) {}
  T* row(i64 r) const { return data + r * stride; }
  std::span<T> span(i64 r) const { return {row(r), static_cast<std::size_t>(cols)}; }
  operator Matrix<const T>() const requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

// Immutable shared bytes: a file mapping or heap memory. Copying shares; slices keep the owner
// alive.
struct Blob {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;

  std::size_t size() const { return bytes.size(); }
  const std::byte* data() const { return bytes.data(); }
  // The caller has checked offset and length against size().
  Blob slice(std::size_t offset, std::size_t length) const {
    PARE_CHECK(offset <= bytes.size() && length <= bytes.size() - offset);
    return {owner, bytes.subspan(offset, length)};
  }
};

// Takes the vector's memory.
template <class T>
Blob blob_of(std::vector<T> values) {
  auto owned = std::make_shared<const std::vector<T>>(std::move(values));
  const auto bytes = std::as_bytes(std::span<const T>(*owned));
  return {owned, bytes};
}

}  // namespace pare
