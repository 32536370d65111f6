// A report of finished models: what is known of each, and the page made of it.
//
// `collect` reads what a model's folder says, `report_html` writes one HTML file that needs nothing
// else. The same inputs give the same bytes: no time and no machine is asked. What is not known is
// said, with the command that would find it out; figures of a proof that speaks of other weights
// are not shown.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "cost/hardware.h"
#include "model/model.h"
#include "recipe/proof.h"
#include "report/plots.h"

namespace pare {

constexpr std::array<const char*, 6> report_parts = {"embedding", "attention", "ffn",
                                                     "head",      "norms",     "cache"};

struct ReportModel {
  std::string name, path, family;
  i64 parameters = 0, weight_bytes = 0;
  std::array<double, 6> part_bytes = {};  // of report_parts
  i64 cache_positions = 0;                // that the cache part is for: one sequence
  std::string kv;                         // scheme of the cache
  struct SchemeBytes {
    std::string scheme;
    i64 parameters = 0, bytes = 0;
  };
  std::vector<SchemeBytes> schemes;  // most bytes first
  std::vector<std::string> history;
  std::vector<Evidence> evidence;
  struct Recipe {
    std::string text, base, data, version, seed;
  };
  std::vector<Recipe> recipes;  // applied, in order
  struct File {
    std::string name, sha256;
    i64 bytes = 0;
  };
  std::vector<File> files;  // as the manifest recorded them
  std::string identity;     // of the weights as they are now; empty: not computed
  std::optional<Proof> proof;
  std::string proof_problem;  // why the proof that lies there is not used
  Spec spec;
};

// What the folder (or file) of a loaded model says. `identity`: of its weights, or empty.
ReportModel collect(const Model&, const std::string& path, const std::string& identity);

// Tells models of one name apart by more of their paths.
void name_models(std::vector<ReportModel>&);

// An operation of one pass on a machine; equal ones of several blocks are one.
struct ReportOperation {
  std::string name, kind, code, limit;
  int series = 0;  // 0: the base, else model + 1
  double flops = 0, bytes = 0, seconds = 0;
  std::string blocks;  // "0-3"; empty: of the whole model
};
struct ReportMachine {
  std::string name, use;  // use: batch, prompt and context in words
  double bytes_per_second = 0;
  std::vector<RooflinePlot::Ceiling> ceilings;
  std::vector<ReportOperation> operations;
};

struct Report {
  std::string title;
  std::optional<ReportModel> base;
  std::vector<ReportModel> models;
  std::optional<ReportMachine> machine;  // none: no roofline
};

// Operations of the base and the models of a report, in a decode step of one sequence behind a full
// context and in a prefill; contexts as long as all of the models allow, at most 2048 and 512.
ReportMachine machine_of(const Hardware&, const Report&);

std::string report_html(const Report&);

}  // namespace pare
