// Writing GGUF, version 3.
//
// As with safetensors, all of the front is known before the first tensor, so tensors go straight to
// their places. ggml compares value types strictly and gives each key one; the table of the types
// that it wants is short enough to be a rule (see GgufWriter).
#include <cstring>
#include <limits>
#include <span>

#include "file/gguf.h"
#include "file/io.h"

namespace pare {
namespace {

constexpr std::uint64_t alignment = 32;
constexpr std::uint32_t type_u32 = 4, type_i32 = 5, type_f32 = 6, type_bool = 7, type_string = 8,
                        type_array = 9, type_u64 = 10, type_i64 = 11;

std::uint64_t padded(std::uint64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

struct Writer {
  std::vector<std::byte> out;

  template <class T>
  void put(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  void put_string(const std::string& text) {
    put<std::uint64_t>(text.size());
    const auto bytes = std::as_bytes(std::span(text));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  void align() { out.resize(padded(out.size())); }

  template <class T>
  void scalar(std::uint32_t type, T value) {
    put(type);
    put(value);
  }
  void list(std::uint32_t type, std::size_t count) {
    put(type_array);
    put(type);
    put<std::uint64_t>(count);
  }

  void operator()(bool v) { scalar(type_bool, static_cast<std::uint8_t>(v)); }
  void operator()(i64 v) {
    if (v >= 0 && v <= std::numeric_limits<std::uint32_t>::max())
      scalar(type_u32, static_cast<std::uint32_t>(v));
    else if (v < 0 && v >= std::numeric_limits<std::int32_t>::min())
      scalar(type_i32, static_cast<std::int32_t>(v));
    else if (v > 0)
      scalar(type_u64, static_cast<std::uint64_t>(v));
    else
      scalar(type_i64, std::int64_t{v});
  }
  void operator()(double v) { scalar(type_f32, static_cast<float>(v)); }
  void operator()(const std::string& v) {
    put(type_string);
    put_string(v);
  }
  void operator()(const std::vector<i64>& v) {
    bool narrow = true;
    for (i64 x : v) narrow = narrow && x == static_cast<std::int32_t>(x);
    list(narrow ? type_i32 : type_i64, v.size());
    for (i64 x : v) {
      if (narrow)
        put(static_cast<std::int32_t>(x));
      else
        put(std::int64_t{x});
    }
  }
  void operator()(const std::vector<double>& v) {
    list(type_f32, v.size());
    for (double x : v) put(static_cast<float>(x));
  }
  void operator()(const std::vector<std::string>& v) {
    list(type_string, v.size());
    for (const std::string& x : v) put_string(x);
  }

  void front(const GgufMetadata& metadata, std::size_t tensors) {
    put<std::uint32_t>(0x46554747);
    put<std::uint32_t>(3);
    put<std::uint64_t>(tensors);
    put<std::uint64_t>(metadata.size());
    for (const auto& [key, value] : metadata) {
      put_string(key);
      std::visit(*this, value);
    }
  }
  void info(const std::string& name, const std::vector<i64>& shape, std::uint32_t type,
            std::uint64_t offset) {
    put_string(name);
    put(static_cast<std::uint32_t>(shape.size()));
    for (auto d = shape.rbegin(); d != shape.rend(); ++d) put<std::int64_t>(*d);
    put(type);
    put(offset);
  }
};

}  // namespace

i64 GgufPlan::bytes() const {
  const GgmlType* row = find_ggml_type(type);
  PARE_CHECK(row != nullptr && shape.size() <= 4);
  i64 count = 1;
  for (i64 d : shape) PARE_CHECK(d >= 1 && !__builtin_mul_overflow(count, d, &count));
  PARE_CHECK((shape.empty() ? 1 : shape.back()) % row->block == 0);
  return count / row->block * row->bytes;
}

struct GgufWriter::State {
  struct Place {
    i64 offset = 0, bytes = 0;
    bool written = false;
  };
  OutputFile file;
  std::unordered_map<std::string, Place> places;
  std::size_t missing = 0;
};

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       const std::vector<GgufPlan>& plan)
    : state_(new State{OutputFile(path), {}, plan.size()}) {
  Writer w;
  w.front(metadata, plan.size());
  std::uint64_t offset = 0;
  for (const GgufPlan& t : plan) {
    PARE_CHECK(!t.name.empty() && t.name.size() < 64);
    w.info(t.name, t.shape, t.type, offset);
    offset += padded(static_cast<std::uint64_t>(t.bytes()));
  }
  w.align();
  i64 at = static_cast<i64>(w.out.size());
  for (const GgufPlan& t : plan) {
    PARE_CHECK(state_->places.try_emplace(t.name, State::Place{at, t.bytes()}).second);
    at += static_cast<i64>(padded(static_cast<std::uint64_t>(t.bytes())));
  }
  state_->file.reserve(at);
  state_->file.write_at(0, w.out);
  // The last tensor's padding belongs to the file, whether or not space could be reserved.
  const std::byte zeros[alignment] = {};
  if (!plan.empty()) state_->file.write_at(at - i64{alignment}, zeros);
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto it = state_->places.find(name);
  PARE_CHECK(it != state_->places.end());
  State::Place& place = it->second;
  PARE_CHECK(!place.written && place.bytes == static_cast<i64>(bytes.size()));
  state_->file.write_at(place.offset, bytes);
  place.written = true;
  state_->missing--;
}

void GgufWriter::finish() {
  PARE_CHECK(state_->missing == 0);
  state_->file.sync_and_close();
}

std::vector<std::byte> make_gguf(const GgufMetadata& metadata,
                                 const std::vector<GgufTensor>& tensors) {
  Writer w;
  w.front(metadata, tensors.size());
  std::uint64_t offset = 0;
  for (const GgufTensor& t : tensors) {
    w.info(t.name, t.shape, t.type, offset);
    offset += padded(t.bytes.size());
  }
  for (const GgufTensor& t : tensors) {
    w.align();
    w.out.insert(w.out.end(), t.bytes.bytes.begin(), t.bytes.bytes.end());
  }
  w.align();
  return std::move(w.out);
}

}  // namespace pare
