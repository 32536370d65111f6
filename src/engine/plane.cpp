// Rows and their parameters lie apart, so that rows stay at whole powers of two and a kernel walks
// two streams.
#include "engine/plane.h"

#include <cstring>
#include <new>

namespace pare {
namespace {

bool mul_fits(i64 a, i64 b, i64& product) { return !__builtin_mul_overflow(a, b, &product); }

// Not zeroed: pages of a long cache are touched as they fill.
std::unique_ptr<std::byte[]> allocate(i64 count, i64 each) {
  i64 bytes = 0;
  if (!mul_fits(count, each, bytes) || bytes >= (i64{1} << 46)) throw std::bad_alloc();
  return std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
}

}  // namespace

KvPlane::KvPlane(const KvPart& part, i64 heads, i64 slots, i64 width)
    : part_(part), heads_(heads), slots_(slots), width_(width) {
  PARE_CHECK(slots % part.positions() == 0);
  if (width == 0 || slots == 0) return;
  row_bytes_ = kv_row_bytes(part, width);
  parameter_bytes_ = kv_parameter_bytes(part, width);
  i64 count = 0;
  if (!mul_fits(heads, slots, count)) throw std::bad_alloc();
  rows_ = allocate(count, row_bytes_);
  if (!part.plain()) parameters_ = allocate(heads * units(), parameter_bytes_);
}

std::byte* KvPlane::parameters(i64 head, i64 unit) const {
  return parameters_ ? parameters_.get() + (head * units() + unit) * parameter_bytes_ : nullptr;
}

void KvPlane::put(i64 head, i64 slot, const float* from) {
  store_kv_row(part_, from, width_, rows_.get() + (head * slots_ + slot) * row_bytes_,
               parameters(head, slot));
}

void KvPlane::put_group(i64 head, i64 unit, Matrix<const float> rows) {
  store_kv_group(part_, rows, rows_.get() + (head * slots_ + unit * part_.count) * row_bytes_,
                 row_bytes_, parameters(head, unit));
}

void KvPlane::get(i64 head, i64 slot, float* to) const { read_kv_row(rows(), head, slot, to); }

void KvPlane::copy(const KvPlane& from, i64 from_slot, i64 slot, i64 count) {
  const i64 share = part_.positions();
  for (i64 h = 0; h < heads_ && width_ > 0; h++) {
    std::memcpy(rows_.get() + (h * slots_ + slot) * row_bytes_,
                from.rows_.get() + (h * from.slots_ + from_slot) * row_bytes_,
                static_cast<std::size_t>(count * row_bytes_));
    if (parameters_)
      std::memcpy(parameters(h, slot / share), from.parameters(h, from_slot / share),
                  static_cast<std::size_t>(count / share * parameter_bytes_));
  }
}

KvRows KvPlane::rows() const {
  KvRows r;
  r.part = part_;
  r.width = width_;
  r.data = rows_.get();
  r.head_stride = slots_ * row_bytes_;
  r.row_stride = row_bytes_;
  r.parameters = parameters_.get();
  r.parameter_head_stride = units() * parameter_bytes_;
  r.parameter_stride = parameter_bytes_;
  return r;
}

}  // namespace pare
