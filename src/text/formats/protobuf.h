// The wire format of protocol buffers, as much as a reader of one known message needs.
//
// Source: protobuf.dev, "Encoding". Every length is checked against the bytes that are there;
// groups are refused. Errors: TK-002 with the byte offset.
#pragma once

#include <bit>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace pare {

class ProtobufReader {
 public:
  // `base`: offset of `bytes` in the file, for messages.
  explicit ProtobufReader(std::string_view bytes, std::size_t base = 0)
      : bytes_(bytes), base_(base) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    start_ = at_;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    type_ = static_cast<int>(key & 7);
    value_ = {};
    if (field_ == 0 || field_ > 0x1fffffff) bad("a field number is out of range");
    switch (type_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        value_ = take(8);
        break;
      case 2:
        value_ = take(varint());
        break;
      case 5:
        value_ = take(4);
        break;
      default:
        bad("a field is of an unknown kind");
    }
    return true;
  }

  std::uint64_t field() const { return field_; }
  std::uint64_t number() const {
    if (type_ != 0) bad("a number is not stored as one");
    return number_;
  }
  std::string_view text() const {
    if (type_ != 2) bad("a text is not stored as one");
    return value_;
  }
  ProtobufReader message() const {
    const std::string_view inner = text();
    return ProtobufReader(inner, base_ + static_cast<std::size_t>(inner.data() - bytes_.data()));
  }
  float real() const {
    if (type_ != 5) bad("a float is not stored as one");
    std::uint32_t bits;
    std::memcpy(&bits, value_.data(), 4);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void bad(const char* message) const {
    fail_input("TK-002", fmt::format("not a SentencePiece model: {}", message),
               {{"offset", fmt::format("{}", base_ + start_)}});
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) bad("it ends inside a number");
      const auto b = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<std::uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return value;
    }
    bad("a number has more than ten bytes");
  }
  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size() - at_) bad("a field is longer than what is left");
    const std::string_view out = bytes_.substr(at_, n);
    at_ += n;
    return out;
  }

  std::string_view bytes_;
  std::size_t base_, at_ = 0, start_ = 0;
  std::uint64_t field_ = 0, number_ = 0;
  int type_ = 0;
  std::string_view value_;
};

}  // namespace pare
