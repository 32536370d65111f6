// Writing safetensors.
//
// The header is known before the first tensor, so every tensor has its place and can be written
// when it is made, in any order, with the memory of one tensor. In the file the larger alignments
// come first, so every tensor starts at a multiple of its element's size.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include "base/json.h"
#include "file/safetensors.h"

namespace pare {
namespace {

std::vector<std::size_t> file_order(const std::vector<TensorPlan>& plan) {
  std::vector<std::size_t> order(plan.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (plan[a].dtype != plan[b].dtype) return plan[a].dtype > plan[b].dtype;
    return plan[a].name < plan[b].name;
  });
  return order;
}

}  // namespace

i64 TensorPlan::bytes() const {
  i64 bits = dtype_bits(dtype);
  for (i64 d : shape) PARE_CHECK(d >= 0 && !__builtin_mul_overflow(bits, d, &bits));
  PARE_CHECK(bits % 8 == 0);
  return bits / 8;
}

std::string safetensors_header(std::vector<TensorPlan> plan, const Metadata& metadata) {
  Json::Object members;
  if (!metadata.empty()) {
    Json::Object items;
    for (const auto& [key, value] : metadata) items.emplace_back(key, value);
    members.emplace_back("__metadata__", Json(std::move(items)));
  }
  i64 at = 0;
  for (std::size_t i : file_order(plan)) {
    const TensorPlan& t = plan[i];
    Json::Array shape;
    for (i64 d : t.shape) shape.emplace_back(d);
    members.emplace_back(
        t.name, Json::object({{"dtype", Json(dtype_name(t.dtype))},
                              {"shape", Json(std::move(shape))},
                              {"data_offsets", Json::array({Json(at), Json(at + t.bytes())})}}));
    at += t.bytes();
  }
  std::string text = Json(std::move(members)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  PARE_CHECK(length <= 100'000'000);  // what readers accept
  std::string whole(8, '\0');
  std::memcpy(whole.data(), &length, 8);
  return whole + text;
}

struct SafetensorsWriter::State {
  struct Place {
    i64 offset = 0, bytes = 0;
    bool written = false;
  };
  OutputFile file;
  std::unordered_map<std::string, Place> places;
  std::size_t missing = 0;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     const std::vector<TensorPlan>& plan, const Metadata& metadata)
    : state_(new State{OutputFile(path), {}, plan.size()}) {
  const std::string header = safetensors_header(plan, metadata);
  i64 at = static_cast<i64>(header.size());
  for (std::size_t i : file_order(plan)) {
    const i64 bytes = plan[i].bytes();
    PARE_CHECK(state_->places.try_emplace(plan[i].name, State::Place{at, bytes}).second);
    at += bytes;
  }
  state_->file.reserve(at);
  state_->file.write_at(0, std::as_bytes(std::span(header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto it = state_->places.find(name);
  PARE_CHECK(it != state_->places.end());
  State::Place& place = it->second;
  PARE_CHECK(!place.written && place.bytes == static_cast<i64>(bytes.size()));
  state_->file.write_at(place.offset, bytes);
  place.written = true;
  state_->missing--;
}

void SafetensorsWriter::finish() {
  PARE_CHECK(state_->missing == 0);
  state_->file.sync_and_close();
}

namespace {

struct Shard {
  std::string name;
  std::vector<TensorPlan> plan;
  std::unique_ptr<SafetensorsWriter> writer;  // while some of its tensors are written and some not
  std::size_t missing = 0;
};

std::vector<Shard> greedy_shards(const std::vector<TensorPlan>& plan, i64 shard_bytes) {
  std::vector<Shard> shards(1);
  i64 filled = 0;
  for (const TensorPlan& t : plan) {
    if (!shards.back().plan.empty() && filled + t.bytes() > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += t.bytes();
    shards.back().plan.push_back(t);
    shards.back().missing++;
  }
  for (std::size_t i = 0; i < shards.size(); i++)
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  return shards;
}

}  // namespace

struct ShardedWriter::State {
  std::filesystem::path folder;
  Metadata metadata;
  std::vector<Shard> shards;
  std::unordered_map<std::string, std::size_t> shard_of;
};

ShardedWriter::ShardedWriter(const std::filesystem::path& folder,
                             const std::vector<TensorPlan>& plan, i64 shard_bytes,
                             const Metadata& metadata)
    : state_(new State{folder, metadata, greedy_shards(plan, shard_bytes), {}}) {
  for (std::size_t i = 0; i < state_->shards.size(); i++)
    for (const TensorPlan& t : state_->shards[i].plan)
      PARE_CHECK(state_->shard_of.try_emplace(t.name, i).second);
}

ShardedWriter::~ShardedWriter() = default;

void ShardedWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto it = state_->shard_of.find(name);
  PARE_CHECK(it != state_->shard_of.end());
  Shard& shard = state_->shards[it->second];
  if (!shard.writer)
    shard.writer = std::make_unique<SafetensorsWriter>(state_->folder / shard.name, shard.plan,
                                                       state_->metadata);
  shard.writer->write(name, bytes);
  if (--shard.missing > 0) return;
  shard.writer->finish();
  shard.writer.reset();
}

void ShardedWriter::finish() {
  for (Shard& shard : state_->shards) {
    PARE_CHECK(shard.missing == 0);
    if (shard.plan.empty())  // a model without tensors is still a file
      SafetensorsWriter(state_->folder / shard.name, {}, state_->metadata).finish();
  }
  if (state_->shards.size() == 1) return;
  Json map = Json::object();
  i64 total = 0;
  for (const Shard& shard : state_->shards)
    for (const TensorPlan& t : shard.plan) {
      map.as_object().emplace_back(t.name, Json(shard.name));
      total += t.bytes();
    }
  const Json index = Json::object(
      {{"metadata", Json::object({{"total_size", Json(total)}})}, {"weight_map", std::move(map)}});
  write_file(state_->folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace pare
