// What choosing rests on: texts to measure on, and sensitivities that are kept in a file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "app/output.h"
#include "base/pool.h"
#include "choose/sensitivities.h"
#include "number/encode.h"
#include "probe/sensitivity.h"

namespace pare {

// The schemes of words without repetition; none: candidates that are run at their own width.
std::vector<Scheme> candidate_schemes(const std::vector<std::string>& words);

// Token ids of a file's text (- is standard input). Errors: RN-001 no tokenizer, CL-005.
std::vector<std::int32_t> ids_of_text(const Model&, const std::string& file);
// Text that the model writes itself, seeded.
std::vector<Sequence> written_text(const Model&, i64 tokens, i64 window, std::uint64_t seed, Pool&);
// How messages and files call either.
std::string words_of_text(const std::string& file, std::uint64_t seed);
std::string fingerprint_of(const std::vector<Sequence>&);
i64 tokens_of(const std::vector<Sequence>&);

// Name and shape; no options yet.
MatrixLosses shape_of(const Spec&, const std::string& name);

void write_text(const std::string& path, bool force, const std::string& text);

// What a search wants to know.
struct EvidenceJob {
  std::vector<std::string> matrices;
  std::vector<Scheme> candidates;  // besides a matrix's own scheme
  std::vector<KvScheme> caches;
  std::vector<Activation> activations;
  std::string base, model;     // words; fingerprint of the weights
  std::string text, rounding;  // words
  Range range = Range::mse;
  std::string file;  // where it is kept; empty: nowhere
};
// What the file has already is taken from it, the rest is measured on `text` (called once, when
// something is missing) and added, block by block, so that an interrupted run goes on. Errors:
// CH-002, CH-003 the file is damaged or of another model, CH-005 of another text.
Sensitivities gather(const Model&, const EvidenceJob&,
                     const std::function<std::vector<Sequence>()>& text, Pool&, const Log&);

}  // namespace pare
