// Reading a model's folder: sizes from the Spec and the weights' schemes, words from the notes,
// hashes from the manifest, figures from the proof.
//
// A proof is believed only when the weights that it speaks of are those that lie there: identities
// are compared where both are known.
#include <algorithm>
#include <map>
#include <set>

#include "cost/count.h"
#include "model/manifest.h"
#include "report/report.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::size_t part_of(const std::string& slot) {
  if (slot.starts_with("embed") || slot.starts_with("positions")) return 0;
  if (slot.starts_with("head")) return 3;
  if (slot.find(".attn.") != std::string::npos && slot.find("norm") == std::string::npos) return 1;
  return slot.find(".ffn.") != std::string::npos ? 2 : 4;
}

void count_weights(ReportModel& r, const Model& model) {
  std::map<std::string, ReportModel::SchemeBytes> schemes;
  for (const Slot& slot : slots(model.spec)) {
    const Scheme& scheme = model.weights.at(slot.name).scheme;
    i64 elements = 1;
    for (i64 d : slot.shape) elements *= d;
    const i64 bytes = slot.shape.size() == 2 ? stored_bytes(scheme, slot.shape[0], slot.shape[1])
                                             : stored_bytes(scheme, 1, elements);
    r.part_bytes[part_of(slot.name)] += static_cast<double>(bytes);
    r.weight_bytes += bytes;
    ReportModel::SchemeBytes& s = schemes[to_string(scheme)];
    s.parameters += elements;
    s.bytes += bytes;
  }
  for (auto& [name, s] : schemes) r.schemes.push_back({name, s.parameters, s.bytes});
  std::stable_sort(r.schemes.begin(), r.schemes.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
}

// The figures of a proof hold for the weights it was made of.
void take_proof(ReportModel& r, const fs::path& folder) {
  std::optional<Proof> proof = read_proof(folder);
  if (!proof) return;
  const bool other_weights =
      !r.identity.empty() && !proof->out_identity.empty() && r.identity != proof->out_identity;
  if (other_weights)
    r.proof_problem =
        fmt::format("the proof is of weights with the identity {}, the folder holds {}",
                    proof->out_identity, r.identity);
  else
    r.proof = std::move(proof);
}

}  // namespace

ReportModel collect(const Model& model, const std::string& path, const std::string& identity) {
  ReportModel r;
  r.path = path;
  r.name = fs::path(path).lexically_normal().filename().string();
  if (r.name.empty()) r.name = fs::path(path).lexically_normal().parent_path().filename().string();
  if (r.name.empty() || r.name == "." || r.name == "..") r.name = path;
  r.family = model.family;
  r.spec = model.spec;
  r.parameters = parameters(model.spec);
  r.identity = identity;
  count_weights(r, model);
  const KvScheme kv = default_kv(model.spec);
  r.kv = to_string(kv);
  r.cache_positions = model.spec.max_positions;
  r.part_bytes[5] = kv_cache_bytes(model.spec, kv, r.cache_positions);
  r.history = model.history;
  r.evidence = model.evidence;
  for (const Provenance& p : model.provenance)
    r.recipes.push_back({p.recipe, p.base, p.data, p.version, std::to_string(p.seed)});
  std::error_code status;
  if (fs::is_directory(model.path, status)) {
    for (const RecordedFile& file : recorded_files(model.path))
      r.files.push_back({file.name, file.sha256, file.bytes});
    take_proof(r, model.path);
  }
  return r;
}

void name_models(std::vector<ReportModel>& models) {
  std::map<std::string, int> seen;
  for (const ReportModel& m : models) seen[m.name]++;
  std::set<std::string> taken;
  for (ReportModel& m : models) {
    if (seen[m.name] > 1) m.name = m.path;
    const std::string name = m.name;
    for (int i = 2; !taken.insert(m.name).second; i++) m.name = fmt::format("{} ({})", name, i);
  }
}

}  // namespace pare
