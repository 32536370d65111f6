// Activations: matrices of floats whose memory is allocated once and used again.
//
// A forward pass makes and drops some ten matrices a block, of a handful of sizes. An Array gives
// its memory back when it goes out of scope; after the first pass nothing is allocated.
#pragma once

#include <utility>
#include <vector>

#include "base/view.h"
#include "kernel/panels.h"

namespace pare {

class Buffers;

// A matrix (rows, cols) of floats that owns its memory for a while. Move only.
class Array {
 public:
  Array() = default;
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Array();

  Matrix<float> view() const { return view_; }
  i64 rows() const { return view_.rows; }
  i64 cols() const { return view_.cols; }
  bool empty() const { return view_.data == nullptr; }

 private:
  friend class Buffers;
  void swap(Array& other) noexcept {
    std::swap(home_, other.home_);
    std::swap(capacity_, other.capacity_);
    std::swap(view_, other.view_);
  }
  Buffers* home_ = nullptr;
  i64 capacity_ = 0;  // floats
  Matrix<float> view_;
};

// Must outlive its Arrays. Not thread-safe: Arrays are made and dropped between parallel loops.
class Buffers {
 public:
  Buffers() = default;
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (const Free& f : free_) give_back(f);
  }

  // Contents are undefined.
  Array take(i64 rows, i64 cols) {
    const i64 need = rows * cols;
    std::size_t best = free_.size();
    for (std::size_t i = 0; i < free_.size(); i++)
      if (free_[i].capacity >= need &&
          (best == free_.size() || free_[i].capacity < free_[best].capacity))
        best = i;
    Array array;
    array.home_ = this;
    if (best < free_.size()) {
      array.view_ = Matrix<float>(free_[best].data, rows, cols);
      array.capacity_ = free_[best].capacity;
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(best));
      return array;
    }
    drop_largest();  // too small for this pass: its successor takes over
    array.capacity_ = (need + line - 1) / line * line;
    if (array.capacity_ == 0) array.capacity_ = line;
    float* data = LineAllocator<float>().allocate(static_cast<std::size_t>(array.capacity_));
    array.view_ = Matrix<float>(data, rows, cols);
    return array;
  }

 private:
  friend class Array;
  static constexpr i64 line = 16;  // floats in a cache line
  struct Free {
    float* data;
    i64 capacity;
  };
  static void give_back(const Free& f) {
    LineAllocator<float>().deallocate(f.data, static_cast<std::size_t>(f.capacity));
  }
  void drop_largest() {
    if (free_.empty()) return;
    std::size_t largest = 0;
    for (std::size_t i = 1; i < free_.size(); i++)
      if (free_[i].capacity > free_[largest].capacity) largest = i;
    give_back(free_[largest]);
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(largest));
  }
  std::vector<Free> free_;
};

inline Array::~Array() {
  if (view_.data != nullptr) home_->free_.push_back({view_.data, capacity_});
}

}  // namespace pare
