// The ids of pieces seen before.
//
// Words repeat: nine of ten pieces of prose are among the last few thousand. A slot is one cache
// line with the piece itself, so an answer is never wrong, only absent.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace pare {

class PieceCache {
 public:
  static constexpr std::size_t max_bytes = 31, max_ids = 7;
  struct alignas(64) Slot {
    std::uint64_t words[4];  // the bytes, zero-padded; the last byte is the length
    std::int32_t count;      // 0: free
    TokenId ids[max_ids];
  };

  PieceCache() : slots_(static_cast<Slot*>(std::aligned_alloc(64, slots * sizeof(Slot)))) {
    PARE_CHECK(slots_ != nullptr);
    std::memset(slots_.get(), 0, slots * sizeof(Slot));
  }

  // The slot for a piece of 1 to max_bytes bytes. `hit`: it holds the ids; else fill it with set().
  // `readable` bytes may be loaded from the piece's first one on.
  Slot& look(const char* piece, std::size_t bytes, std::size_t readable, bool& hit) {
    std::uint64_t w[4] = {0, 0, 0, 0};
    if (bytes <= 8 && readable >= 8) {
      std::memcpy(w, piece, 8);
      w[0] &= ~std::uint64_t{0} >> (64 - 8 * bytes);
    } else {
      std::memcpy(w, piece, bytes);
    }
    w[3] |= static_cast<std::uint64_t>(bytes) << 56;
    std::uint64_t h = w[0] * 0x9e3779b97f4a7c15u + w[3];
    if (bytes > 8) h = (h ^ h >> 29) + w[1] * 0xd6e8feb86659fd93u + w[2] * 0xa0761d6478bd642fu;
    h = (h ^ h >> 32) * 0xe7037ed1a0b428dbu;
    Slot& slot = slots_.get()[h >> (64 - slot_bits)];
    hit = slot.count != 0 && slot.words[0] == w[0] && slot.words[1] == w[1] &&
          slot.words[2] == w[2] && slot.words[3] == w[3];
    if (!hit) {
      std::memcpy(slot.words, w, sizeof(w));
      slot.count = 0;
    }
    return slot;
  }

  static void set(Slot& slot, const TokenId* ids, std::size_t count) {
    if (count == 0 || count > max_ids) return;
    std::memcpy(slot.ids, ids, count * sizeof(TokenId));
    slot.count = static_cast<std::int32_t>(count);
  }

 private:
  static constexpr int slot_bits = 15;
  static constexpr std::size_t slots = std::size_t{1} << slot_bits;  // 2 MiB
  struct Free {
    void operator()(Slot* p) const { std::free(p); }
  };
  std::unique_ptr<Slot, Free> slots_;
};

}  // namespace pare
