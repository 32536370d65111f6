// What tests share: where their data lies, and one seed per test run.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace pare {

// A path below the shared data folder (PARE_SHARED, else ../shared beside the repository), or an
// empty path when it is not there: the test then skips itself with PARE_SKIP_WITHOUT.
inline std::filesystem::path shared_data(const std::string& relative) {
  const char* root = std::getenv("PARE_SHARED");
  const std::filesystem::path base = root != nullptr
                                         ? std::filesystem::path(root)
                                         : std::filesystem::path(PARE_SOURCE_DIR) / ".." / "shared";
  const std::filesystem::path path = base / "data" / relative;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

inline std::filesystem::path fixture(const std::string& relative) {
  return std::filesystem::path(PARE_SOURCE_DIR) / "tests" / "fixtures" / relative;
}

inline std::filesystem::path source_path(const std::string& relative) {
  return std::filesystem::path(PARE_SOURCE_DIR) / relative;
}

// True in builds whose shadow memory makes a memory limit meaningless.
constexpr bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return true;
#else
  return false;
#endif
#else
  return false;
#endif
}

// The code of the Error that f throws; empty when it throws none.
template <class F>
std::string code_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()), "");
    return e.code;
  }
  return "";
}

// A fresh folder that is removed at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pare-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

#define PARE_SKIP_WITHOUT(path) \
  if ((path).empty()) GTEST_SKIP() << "needs the shared test data (variable PARE_SHARED)"

}  // namespace pare
