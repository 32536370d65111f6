// The Spec says how the weights are read, so it belongs to what a model is; names, paths and the
// way a checkpoint stores its tensors do not.
#include "base/fingerprint.h"
#include "model/checkpoint.h"

namespace pare {

std::string identity(const Model& model, const Log& log) {
  Progress progress(log, "read the model", static_cast<double>(model.weights.size()), "tensors");
  std::uint64_t hash = fingerprint(spec_to_json(model.spec).dump());
  for (const auto& [name, weight] : model.weights) {
    stop_if_interrupted();
    const Tensor t = weight.load();
    hash = fingerprint(name, hash);
    for (const Blob* plane :
         {&t.codes, &t.scales, &t.zeros, &t.mins, &t.super_scales, &t.super_mins, &t.mask})
      hash = fingerprint(plane->bytes, hash);
    progress.add(1, name);
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace pare
