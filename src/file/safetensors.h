// safetensors: a strict reader and a streaming writer (format: github.com/huggingface/safetensors).
//
// Stricter than the reference reader where it is lenient: a tensor name may occur once, names hold
// no control characters, ranks are at most 8. Errors ST-001.. name file, tensor and bytes.
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

// All shards of a folder: model.safetensors, or the plain file names of
// model.safetensors.index.json. Exactly the index's tensors, each in its shard. With both present
// the single file is refused as ambiguous unless the index names it. Error ST-020 when there are no
// safetensors files (a folder with pickled weights alone is told how to be converted; no pickle is
// ever opened).
std::vector<StoredTensor> open_safetensors_folder(const std::filesystem::path& folder);

struct TensorPlan {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<i64> shape;
  i64 bytes() const;
};

// Writes one file. All names and shapes are told first; the data comes tensor by tensor in any
// order and goes straight to its place, so memory stays at one tensor.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path&, const std::vector<TensorPlan>&,
                    const std::vector<std::pair<std::string, std::string>>& metadata = {
                        {"format", "pt"}});
  ~SafetensorsWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();  // checks that every tensor was written, syncs

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Header of a file as it would be written, length field included.
std::string safetensors_header(std::vector<TensorPlan> plan,
                               const std::vector<std::pair<std::string, std::string>>& metadata);

// Writes model.safetensors, or shards of at most `shard_bytes` with their index.
class ShardedWriter {
 public:
  ShardedWriter(const std::filesystem::path& folder, const std::vector<TensorPlan>&,
                i64 shard_bytes = 5'000'000'000);
  ~ShardedWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();

 private:
  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, std::size_t> shard_of_;
  std::vector<std::string> names_;  // of the shard files
  std::vector<std::pair<std::string, std::size_t>> order_;
  i64 total_bytes_ = 0;
};

}  // namespace pare
