// Memory of panels (kernel/outer_panel.h), large sums and activations: at cache lines, for a vector
// that straddles two is loaded at half the speed, and in huge pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

namespace pare {

template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::size_t page = std::size_t{2} << 20;

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  static std::align_val_t alignment(std::size_t n) {
    return std::align_val_t(n * sizeof(T) >= page ? page : 64);
  }
  T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    void* p = ::operator new(n * sizeof(T), alignment(n));
    if (n * sizeof(T) >= page) madvise(p, n * sizeof(T), MADV_HUGEPAGE);
    return static_cast<T*>(p);
  }
  void deallocate(T* p, std::size_t n) { ::operator delete(p, alignment(n)); }
  bool operator==(const LineAllocator&) const { return true; }
};
template <class T>
using Panels = std::vector<T, LineAllocator<T>>;

}  // namespace pare
