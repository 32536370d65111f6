// GGUF, versions 2 and 3: metadata and tensors (specification: ggml, docs/gguf.md; rules: its
// reader).
//
// Errors (Exit::input) name file, key or tensor and byte: GG-001 no GGUF file, GG-002 version or
// byte order, GG-003 counts do not fit the file, GG-004 the file ends early, GG-005 string too
// long, GG-006 bad scalar, GG-007 bad array, GG-008 bad key, GG-009 a key or tensor twice, GG-010
// bad alignment, GG-011 bad tensor name, GG-012 bad shape, GG-013 unknown type, GG-014 rows are not
// whole blocks, GG-015 bad offset, GG-016 tensor ends after the file, GG-017 bad split, GG-020 a
// value of another type than asked for.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/view.h"

namespace pare {

struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  i64 block, bytes;  // elements and bytes of a block
};
const GgmlType* find_ggml_type(std::uint32_t id);  // null: unknown or removed

// A metadata value. Arrays keep their element type by alternative; arrays of booleans are integers.
using GgufValue = std::variant<bool, i64, double, std::string, std::vector<i64>,
                               std::vector<double>, std::vector<std::string>>;

struct GgufTensor {
  std::string name;
  std::uint32_t type = 0;
  std::vector<i64> shape;  // slowest axis first: (out, in); the file lists them the other way round
  Blob bytes;
};

struct Gguf {
  std::unordered_map<std::string, GgufValue> metadata;
  std::vector<GgufTensor> tensors;

  // Typed access: null when the key is absent; Error GG-020 naming the key when its type is
  // another.
  const std::string* text(const std::string& key) const;
  std::optional<i64> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;  // integers too
  std::optional<bool> boolean(const std::string& key) const;
  const std::vector<std::string>* texts(const std::string& key) const;
  const std::vector<double>* numbers(const std::string& key) const;
  const std::vector<i64>* integers(const std::string& key) const;
  const GgufTensor* tensor(std::string_view name) const;  // null: absent; linear
};

Gguf parse_gguf(const Blob& file, const std::string& what);

// A file, or all files of a split (`name-00001-of-0000N.gguf`, opened by its first).
Gguf open_gguf(const std::filesystem::path&);

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // in the file's order

struct GgufPlan {
  std::string name;
  std::uint32_t type = 0;
  std::vector<i64> shape;  // slowest axis first
  i64 bytes() const;
};

// Writes a GGUF v3 file (alignment 32): first metadata and shapes, then tensor by tensor in any
// order, each once. Value types are those that ggml's readers expect: integers u32, i32 when
// negative, else 64 bits; floats f32; arrays of integers i32, else i64.
class GgufWriter {
 public:
  GgufWriter(const std::filesystem::path&, const GgufMetadata&, const std::vector<GgufPlan>&);
  ~GgufWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();  // checks that every tensor was written, syncs

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same in memory. Shapes and bytes are not compared, so tests can make damaged files.
std::vector<std::byte> make_gguf(const GgufMetadata& metadata,
                                 const std::vector<GgufTensor>& tensors);

}  // namespace pare
