// safetensors: a strict reader and a streaming writer (format: github.com/huggingface/safetensors).
//
// Stricter than the reference reader where it is lenient: a tensor name may occur once, names hold
// no control characters, ranks are at most 8, tensors at most 2^20. Errors (Exit::input) name file,
// tensor and bytes:
// ST-001 shorter than 8 bytes, ST-002 header length not plausible, ST-003 header ends after the
// file, ST-004 header or name unusable, ST-005 entry incomplete or not natural numbers, ST-006
// unknown dtype, ST-007 too many axes, ST-008 shape overflows, ST-009 ends inside a byte, ST-010
// overlap or hole, ST-011 bytes do not fit shape and dtype, ST-012 ends after the file, ST-013
// bytes follow the last tensor, ST-014 bad __metadata__, ST-015 too many tensors; of folders:
// ST-020 no weights, ST-021 bad index, ST-022 shard name not plain, ST-023 shard missing, ST-024
// and ST-025 tensor and index disagree, ST-026 single file and index, ST-027 stale shard. JSON
// errors: JS-001.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/view.h"
#include "file/io.h"

namespace pare {

// In the order of the reference implementation, which is also the writer's alignment order.
enum class Dtype : std::uint8_t {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64,
};
std::string_view dtype_name(Dtype);
std::optional<Dtype> find_dtype(std::string_view name);
int dtype_bits(Dtype);

struct StoredTensor {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<i64> shape;
  Blob bytes;
};

struct Safetensors {
  std::vector<StoredTensor> tensors;  // in file order
  std::vector<std::pair<std::string, std::string>> metadata;
};

// `what` names the document in errors.
Safetensors parse_safetensors(const Blob& file, const std::string& what);

struct SafetensorsIndex {
  std::vector<std::pair<std::string, std::string>> shard_of;  // tensor, plain file name; file order
  std::optional<i64> total_size;                              // bytes, as the index claims
};
SafetensorsIndex parse_safetensors_index(std::string_view text, const std::string& what);

// All shards of a folder: model.safetensors, or the plain file names of
// model.safetensors.index.json. Exactly the index's tensors, each in its shard. With both present
// the single file is refused as ambiguous unless the index names it; so is a numbered shard that
// the index does not name. Files lie in the folder by map_file_in's rule (file/io.h). Error ST-020
// when there are no safetensors files (a folder with pickled weights alone is told how to be
// converted; no pickle is ever opened). `warnings`, if given, receives what is odd but harmless: a
// wrong total_size.
std::vector<StoredTensor> open_safetensors_folder(const std::filesystem::path& folder,
                                                  std::vector<std::string>* warnings = nullptr);

struct TensorPlan {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<i64> shape;
  i64 bytes() const;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Writes one file. All names and shapes are told first; the data comes tensor by tensor in any
// order, each once, and goes straight to its place, so memory stays at one tensor. Disk space is
// reserved at once (IO-005 when it is missing).
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path&, const std::vector<TensorPlan>&,
                    const Metadata& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();  // checks that every tensor was written, syncs

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Header of a file as it would be written, length field included.
std::string safetensors_header(std::vector<TensorPlan> plan, const Metadata& metadata);

// Writes model.safetensors, or shards of at most `shard_bytes` with their index. Shards are filled
// greedily in the order of the plan; a larger tensor gets one of its own. A shard's file is open
// from its first tensor to its last.
class ShardedWriter {
 public:
  ShardedWriter(const std::filesystem::path& folder, const std::vector<TensorPlan>&,
                i64 shard_bytes = 5'000'000'000, const Metadata& metadata = {{"format", "pt"}});
  ~ShardedWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pare
