// A piece is what lies in one block, or outside of all. Its number is in the journal, so that
// pieces need not be of all blocks; its weights are read back from the file: they are then mapped,
// and what the pass computed for them is done once, whoever loads them later.
#include "pass/promise.h"

#include <map>

#include "pass/work.h"

namespace pare {
namespace {

std::string file_name(i64 block) {
  return block < 0 ? "outside.safetensors" : fmt::format("block-{:04}.safetensors", block);
}

void take(Model& model, const std::filesystem::path& file) {
  for (auto& [name, weight] : read_slots(file, model.spec))
    model.weights.insert_or_assign(name, weight);
}

void drop_leftovers(Model& model) {
  std::set<std::string, std::less<>> needed;
  for (const Slot& slot : slots(model.spec)) needed.insert(slot.name);
  std::erase_if(model.weights, [&](const auto& item) { return !needed.contains(item.first); });
}

}  // namespace

void keep_promises(Model& model, const std::set<std::string, std::less<>>& promised,
                   Context& context) {
  drop_leftovers(model);
  if (context.work == nullptr || promised.empty()) return;
  WorkFolder& work = *context.work;
  std::map<i64, Weights> blocks;
  for (const Slot& slot : slots(model.spec))
    if (promised.contains(slot.name))
      blocks[slot.block].emplace(slot.name, model.weights.at(slot.name));
  const std::string part = work.part();
  work.enter(part + "-rest");
  for (const Json& piece : work.pieces()) {
    const i64 block = piece.at("block").as_int();
    take(model, work.file(file_name(block)));
    blocks.erase(block);
  }
  Progress progress(context.log, "store", static_cast<double>(blocks.size()), "blocks");
  for (const auto& [block, weights] : blocks) {
    stop_if_interrupted();
    write_slots(work.file(file_name(block)), weights);
    work.commit(
        Json::object({{"files", Json::array({Json(file_name(block))})}, {"block", Json(block)}}));
    take(model, work.file(file_name(block)));
    progress.add(1, block < 0 ? "the rest" : fmt::format("block {}", block));
  }
  work.enter(part);
}

}  // namespace pare
