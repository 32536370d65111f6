// GGUF, versions 2 and 3: metadata and tensors (specification: ggml, docs/gguf.md; rules: its
// reader).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
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

// A metadata value. Arrays keep their element type by alternative.
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
  const GgufTensor* tensor(std::string_view name) const;
};

// Errors GG-001.. name the key or tensor and the byte offset.
Gguf parse_gguf(const Blob& file, const std::string& what);

// A file, or all files of a split (`name-00001-of-0000N.gguf`, opened by its first).
Gguf open_gguf(const std::filesystem::path&);

// Writes a GGUF v3 file (alignment 32); what parse_gguf reads back.
std::vector<std::byte> make_gguf(const std::vector<std::pair<std::string, GgufValue>>& metadata,
                                 const std::vector<GgufTensor>& tensors);

}  // namespace pare
