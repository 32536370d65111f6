// Errors: two kinds, never mixed.
//
// What a user can cause (a file, a flag, a machine) is an `Error`: one sentence, the facts (file,
// tensor, offset, found, need), a hint, and the class of the exit code. What only we can cause is a
// broken invariant: PARE_CHECK ends the process. Nothing below `app` prints.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace pare {

using i64 = std::int64_t;

// The process exit codes (docs/errors.md).
enum class Exit : int {
  ok = 0,
  failed = 1,     // none of the below
  usage = 2,      // wrong command line or configuration
  gate = 3,       // finished, but a quality gate failed; nothing published
  input = 4,      // a file or model is invalid, damaged or not supported
  resources = 5,  // disk, memory or another limit of the machine
  busy = 6,       // another run holds the output
  interrupted = 130,
};

struct Fact {
  std::string label;  // "file", "tensor", "offset", "found", "need", ...
  std::string value;
};

// One error as the user sees it. `code` is stable ("ST-001"); the text may improve between
// versions.
struct Error : std::exception {
  Exit exit = Exit::failed;
  std::string code;
  std::string message;  // one sentence, no final period
  std::vector<Fact> facts;
  std::string hint;  // what to do; may be empty

  Error(Exit exit_class, std::string_view error_code, std::string text,
        std::vector<Fact> fact_list = {}, std::string hint_text = {});
  const char* what() const noexcept override { return whole_.c_str(); }

  // Adds a fact on the way up (the file that a parser did not know); returns *this.
  Error& with(std::string_view label, std::string_view value);

 private:
  void compose();
  std::string whole_;  // "message (file x; found y; need z); hint"
};

[[noreturn]] void fail(Exit exit_class, std::string_view code, std::string message,
                       std::vector<Fact> facts = {}, std::string hint = {});

// Shorthand for the most frequent class: the input is wrong.
[[noreturn]] void fail_input(std::string_view code, std::string message,
                             std::vector<Fact> facts = {}, std::string hint = {});

// Text for a message: control characters and invalid UTF-8 escaped, at most 200 bytes, in quotes.
std::string quoted(std::string_view text);

// The candidate nearest to `word` (edit distance at most a third of its length), or empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

[[noreturn]] void broken(const char* what, const char* file, int line);
#define PARE_CHECK(condition) \
  ((condition) ? void() : ::pare::broken(#condition, __FILE__, __LINE__))

// Checked arithmetic for sizes that come from files: false on overflow.
inline bool mul_ok(std::uint64_t a, std::uint64_t b, std::uint64_t& out) {
  return !__builtin_mul_overflow(a, b, &out);
}
inline bool add_ok(std::uint64_t a, std::uint64_t b, std::uint64_t& out) {
  return !__builtin_add_overflow(a, b, &out);
}

}  // namespace pare
