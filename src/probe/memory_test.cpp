#include "probe/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "support.h"

namespace pare {
namespace {

TEST(Memory, CountsWhatTheWorkHolds) {
  if (sanitized()) GTEST_SKIP() << "shadow memory counts too";
  constexpr std::size_t kept = 32 << 20, dropped = 64 << 20;
  const auto use = measure_memory([&](const auto& holding_all) {
    const auto fill = [](std::size_t n) {
      std::unique_ptr<char[]> block(new char[n]);
      std::memset(block.get(), 1, n);
      return block;
    };
    const auto keep = fill(kept);
    fill(dropped);
    holding_all();
  });
  ASSERT_TRUE(use.has_value());
  EXPECT_GE(use->own, static_cast<i64>(kept));
  EXPECT_LT(use->own, static_cast<i64>(kept + (16 << 20)));
  EXPECT_GE(use->peak, static_cast<i64>(kept + dropped));
}

TEST(Memory, WorkThatFails) {
  EXPECT_FALSE(measure_memory([](const auto&) { fail_input("XX-001", "no"); }).has_value());
  EXPECT_FALSE(measure_memory([](const auto&) { _exit(3); }).has_value());
  EXPECT_FALSE(measure_memory([](const auto&) {}).has_value());  // never said what it holds
}

}  // namespace
}  // namespace pare
