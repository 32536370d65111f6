// pare verify: is this model whole, and does it work?
//
// Four questions, each with its evidence: are the files those that were written (the manifest), are
// all tensors there in the shapes that the configuration asks for, is every value a number, and
// does one forward pass give numbers. A check that fails does not hide the next one, unless the
// model cannot be opened at all.
#include <cmath>

#include "app/commands.h"
#include "file/hub.h"
#include "model/integrity.h"
#include "model/manifest.h"

namespace pare {
namespace {

struct Check {
  std::string name;
  bool ok = true;
  std::string detail;
};

Check check_files(const std::filesystem::path& path) {
  Check c{"files", true, "one file, which has no manifest"};
  if (!std::filesystem::is_directory(path)) return c;
  const Manifest manifest = check_manifest(path);
  if (!manifest.present) {
    c.detail = "no manifest";
    return c;
  }
  std::size_t same = 0, added = 0;
  std::string first;
  for (const ManifestFile& file : manifest.files) {
    using State = ManifestFile::State;
    if (file.state == State::same) same++;
    if (file.state == State::added) added++;
    if (file.state == State::missing || file.state == State::changed) {
      c.ok = false;
      if (first.empty())
        first = file.state == State::missing
                    ? file.name + " is missing"
                    : fmt::format("{} changed: {} instead of {}", file.name, file.found, file.need);
    }
  }
  c.detail = c.ok ? fmt::format("{} files, {} hashed, all as they were written{}", same,
                                human_bytes(static_cast<double>(manifest.bytes)),
                                added > 0 ? fmt::format("; {} more since", added) : "")
                  : first;
  return c;
}

Check check_values(const Model& model, Pool& pool, const Log& log) {
  const Integrity found = integrity(model, pool, log);
  Check c{"values", found.non_finite == 0, {}};
  c.detail = c.ok ? fmt::format("{} values, all finite", found.values)
                  : fmt::format("{} of {} values are not finite, the first in {}", found.non_finite,
                                found.values, found.first_bad);
  return c;
}

Check check_forward(const Model& model, Pool& pool) {
  Check c{"forward", true, {}};
  try {
    Engine engine(model, pool);
    const i64 n = std::min<i64>({8, model.spec.max_positions, model.spec.vocab});
    std::vector<std::int32_t> ids;
    for (i64 i = 0; i < n; i++)
      ids.push_back(
          static_cast<std::int32_t>(i * (model.spec.vocab - 1) / std::max<i64>(1, n - 1)));
    KvCache cache = engine.make_cache(n);
    const Input input{&cache, ids};
    const Matrix<const float> logits = engine.step({&input, 1}, Want::all);
    i64 bad = 0;
    for (i64 r = 0; r < logits.rows; r++)
      for (float x : logits.span(r)) bad += std::isfinite(x) ? 0 : 1;
    c.ok = bad == 0;
    c.detail = bad == 0
                   ? fmt::format("{} tokens, all logits finite", n)
                   : fmt::format("{} of {} logits are not finite", bad, logits.rows * logits.cols);
  } catch (const Error& e) {
    if (e.exit == Exit::interrupted) throw;
    c.ok = false;
    c.detail = e.what();
  }
  return c;
}

std::vector<Check> run_checks(const VerifyOptions& o, const CommonOptions& common,
                              const Output& out) {
  std::vector<Check> checks;
  const std::filesystem::path path = resolve_model(o.model);
  checks.push_back(check_files(path));
  std::optional<Model> model;
  try {
    model = load_model(o.model, {common.tokenizer});
  } catch (const Error& e) {
    if (e.exit != Exit::input) throw;
    checks.push_back({"tensors", false, e.what()});
    return checks;
  }
  checks.push_back({"tensors", true,
                    fmt::format("{}, {} tensors as the configuration asks", model->family,
                                model->weights.size())});
  Pool pool(common.threads);
  checks.push_back(check_values(*model, pool, out.log));
  checks.push_back(check_forward(*model, pool));
  return checks;
}

}  // namespace

void command_verify(const VerifyOptions& o, const CommonOptions& common, const Output& out) {
  const std::vector<Check> checks = run_checks(o, common, out);
  std::vector<Fact> failures;
  Json::Array rows;
  Table table({"check", "result", "evidence"});
  for (const Check& c : checks) {
    if (!c.ok) failures.push_back({c.name, c.detail});
    rows.push_back(
        Json::object({{"check", Json(c.name)}, {"ok", Json(c.ok)}, {"evidence", Json(c.detail)}}));
    table.add({c.name, c.ok ? "ok" : "failed", c.detail});
  }
  if (!out.json) out.text(table.text(true));
  if (!failures.empty()) {
    const std::string verdict =
        fmt::format("{} of {} checks failed", failures.size(), checks.size());
    fail_input("VF-001", verdict, std::move(failures), "copy or write the model again");
  }
  if (out.json)
    out.result("verify", Json::object({{"model", Json(o.model)},
                                       {"ok", Json(true)},
                                       {"checks", Json(std::move(rows))}}));
}

}  // namespace pare
