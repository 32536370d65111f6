// The proof of a finished model: what was measured of it and of its base, beside what was
// predicted.
//
// `pare prove BASE OUT` makes it and keeps it as OUT/pare_proof.json, replaced atomically; the
// manifest does not name it and a later save of the model does not carry it along, because it
// speaks of these bytes alone. As JSON (docs/formats.md):
//   {"format": "pare proof", "format_version": 1, "version": "0.1.0", "time": "...", ...,
//    "rows": [{"metric", "unit", "base", "out", "predicted_base", "predicted_out"}, ...],
//    "gates": [{"name", "need", "found", "passed"}, ...]}
// A figure that was not measured, not predicted or is no finite number is null.
//
// Errors: PF-001 a proof that is no such document (names the member, what was found, what is
// needed), PF-002 a proof of a newer format, PF-003 a proof that cannot be kept in a folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace pare {

struct ProofRow {
  // "weight_bytes" "disk_bytes" "perplexity" "kl_mean" "top1_agreement" "decode_tokens_per_second"
  // "prefill_tokens_per_second" "mbu" "mfu" "memory_bytes" "decode_speedup" "prefill_speedup" ...
  std::string metric;
  std::string unit;                 // "bytes", "tokens/s", "nats", "share", "ratio", ...
  std::optional<double> base, out;  // measured
  std::optional<double> predicted_base, predicted_out;  // by the cost model; none: it makes none

  bool operator==(const ProofRow&) const = default;
};

struct ProofGate {
  std::string name;  // "max_kl" (nats), "min_speedup" (of decode), "max_bytes" (of weights)
  double need = 0, found = 0;
  bool passed = false;

  bool operator==(const ProofGate&) const = default;
};

struct Proof {
  std::string version;    // of the program that measured
  std::string time;       // UTC, "2026-11-26T23:59:59Z"
  std::string base, out;  // as the command line named them
  std::string recipe;     // text; empty: not known
  std::string base_identity, out_identity;
  std::string hardware;  // processor and ISA
  std::string protocol;  // of quality and of speed, in words
  std::string text;      // file that was scored; "self-written" when the base wrote it
  int threads = 0;
  std::vector<ProofRow> rows;
  std::vector<ProofGate> gates;

  bool operator==(const Proof&) const = default;
};

Json to_json(const Proof&);
// `source` names the document in errors.
Proof parse_proof(const Json&, const std::string& source);

// The row of a metric, or null.
const ProofRow* find_row(const Proof&, std::string_view metric);

std::string utc_now();  // "2026-11-26T23:59:59Z"

constexpr const char* proof_name = "pare_proof.json";
// Replaces the folder's proof; a reader sees the old one or the new one, whole. Error PF-003.
void keep_proof(const Proof&, const std::filesystem::path& folder);
void write_proof(const Proof&, const std::filesystem::path& file);  // the same, under any name
// The folder's proof; none when it holds no such file.
std::optional<Proof> read_proof(const std::filesystem::path& folder);

}  // namespace pare
