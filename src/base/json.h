// JSON as a value: strict to read (RFC 8259), stable to write.
//
// Used for every document that comes from outside: safetensors headers, config.json,
// tokenizer.json. Beyond the grammar the reader enforces what hostile files break: nesting at most
// `depth`, no key twice in an object, valid UTF-8, no lone surrogate, nothing after the document.
// Errors name the byte offset. Integers without fraction or exponent that fit i64 stay exact; all
// other numbers are double (overflow to infinity is an error). Objects keep the order of the file.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace pare {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in file order; find() is linear below 16 members

  Json() = default;  // null
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<i64>(value)) {}
  Json(i64 value) : value_(value) {}
  Json(std::size_t value) : value_(static_cast<i64>(value)) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}
  static Json object(std::initializer_list<Member> members = {}) { return Json(Object(members)); }
  static Json array(std::initializer_list<Json> items = {}) { return Json(Array(items)); }

  bool is_null() const { return value_.index() == 0; }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<i64>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Typed access; the wrong type is an Error (JS-002) that says what was found.
  bool as_bool() const;
  i64 as_int() const;
  double as_number() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  const Object& as_object() const;
  Array& as_array();
  Object& as_object();

  const Json* find(std::string_view key) const;  // null if absent or not an object
  Json* find(std::string_view key);
  const Json& at(std::string_view key) const;   // Error JS-003 naming the key if absent
  Json& set(std::string_view key, Json value);  // replaces or appends; *this must be an object
  void erase(std::string_view key);

  const char* type_name() const;  // "null", "boolean", "number", ...
  bool operator==(const Json&) const = default;

  // indent < 0: compact, no spaces. Doubles are written with the fewest digits that read back.
  std::string dump(int indent = -1) const;

 private:
  std::variant<std::monostate, bool, i64, double, std::string, Array, Object> value_;
};

struct JsonLimits {
  int depth = 64;
  std::size_t bytes = std::size_t{1} << 30;
  std::size_t values = SIZE_MAX;  // in the whole document; bounds memory (about 40 bytes a value)
};

// `what` names the document in errors ("config.json", a path). Errors: JS-001 with the byte offset.
Json parse_json(std::string_view text, std::string_view what, JsonLimits limits = {});

// The text as a JSON string literal, quotes included.
std::string json_quote(std::string_view text);

}  // namespace pare
