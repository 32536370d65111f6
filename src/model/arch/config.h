// Reading config.json so that nothing in it is overlooked.
//
// Every key is asked for by name, or is on the list of keys that cannot change the mathematics, or
// makes `finish` refuse. A family file therefore cannot forget a key: what it does not read, it
// refuses. Absent and null are the same unless a family asks `present`.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace pare::arch {

using Names = std::vector<std::string_view>;  // spellings of one key; the first is usual

// Bounds of what a config may ask for: generous for any published model, and small enough that
// products of three of them, times bytes, stay within i64.
inline constexpr i64 max_layers = 4096;
inline constexpr i64 max_width = i64{1} << 20;    // hidden size
inline constexpr i64 max_inner = i64{1} << 24;    // MLP width; heads * head size
inline constexpr i64 max_heads = i64{1} << 16;    //
inline constexpr i64 max_head = i64{1} << 16;     // head size, latent ranks
inline constexpr i64 max_vocab = i64{1} << 26;    //
inline constexpr i64 max_context = i64{1} << 31;  // positions

// Errors: AR-002 a value of the wrong type or out of range, AR-003 a key nobody knows, AR-004
// mixture of experts, AR-005 a known key whose value is not supported, AR-006 keys that contradict
// each other, AR-008 a missing key. All name the key, and show the value found.
class Keys {
 public:
  // `path` precedes keys in messages: "rope_scaling." for an object inside config.json.
  explicit Keys(const Json& object, std::string path = {});

  bool present(std::string_view key) const;  // even if null
  const Json* find(std::string_view key);    // null when absent or null; marks it as known
  std::optional<i64> integer(const Names&, i64 low, i64 high);
  i64 required(const Names&, i64 low, i64 high);
  std::optional<double> number(const Names&, double low, double high);
  std::optional<bool> boolean(const Names&);
  std::optional<std::string> word(const Names&);
  std::optional<std::vector<double>> numbers(std::string_view key, i64 count, double low,
                                             double high);
  std::optional<std::vector<std::string>> words(std::string_view key, i64 count);

  // The key may be absent, null, or exactly this value; `meaning` says what another would change.
  void only(std::string_view key, const Json& value, std::string_view meaning);
  // Keys that are read elsewhere or cannot matter here.
  void known(const Names&);

  [[noreturn]] void unsupported(std::string_view key, std::string_view need) const;
  [[noreturn]] void contradiction(std::string_view key, std::string_view why) const;

  // Refuses every key that was neither asked for nor harmless; `what`: "llama models".
  void finish(std::string_view what) const;

  const Json& object() const { return object_; }

 private:
  const Json* one_of(const Names& names, std::string_view& used);
  [[noreturn]] void wrong(std::string_view key, const Json& found, std::string_view need) const;
  const Json& object_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

// A value as messages show it: strings quoted, long ones cut.
std::string shown(const Json&);
// True for keys that configure training, generation, tokenizers or bookkeeping.
bool harmless_key(std::string_view);
// True for keys that only mixture-of-experts models have.
bool expert_key(std::string_view);
[[noreturn]] void refuse_experts(std::string_view key, std::string_view found);

}  // namespace pare::arch
