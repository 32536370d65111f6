#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

namespace pare {
namespace {

std::string of(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

TEST(Sha256, ExamplesOfTheStandard) {  // NIST, FIPS 180 example values
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(of(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesOfAnySizeGiveTheSame) {
  std::string text;
  for (int i = 0; i < 300; i++) text += static_cast<char>(i * 7);
  for (std::size_t length : {55u, 56u, 57u, 63u, 64u, 65u, 119u, 120u, 300u})
    for (std::size_t piece : {1u, 3u, 64u, 65u}) {
      const std::string_view whole(text.data(), length);
      Sha256 hash;
      for (std::size_t at = 0; at < length; at += piece)
        hash.add(std::as_bytes(std::span(whole.substr(at, piece))));
      EXPECT_EQ(hash.finish(), of(whole)) << length << " in pieces of " << piece;
    }
}

}  // namespace
}  // namespace pare
