// What a recipe learns from: a text, token ids, statistics, or what the model itself writes.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pass/quantize/calibrated.h"
#include "pass/quantize/calibration_text.h"
#include "recipe/recipe.h"

namespace pare {

class WorkFolder;

// At most one of text, ids and statistics; none: the model writes.
struct DataSource {
  std::string name;  // of the file, without its folder: for the record
  std::optional<std::string> text;
  std::optional<TokenSequences> ids;
  std::filesystem::path statistics;  // a file of `pare calibrate`
  DataWish wish;
  bool given() const { return text || ids || !statistics.empty(); }

  // With the defaults filled in: 65536 tokens in sequences of 512, seed 0. A length beyond the
  // model's positions is cut to them.
  i64 tokens() const { return wish.tokens.value_or(65536); }
  i64 length(const Spec&) const;
  std::uint64_t seed() const { return wish.seed.value_or(0); }
};

// The tokens of the text. Error RN-001: the model has no tokenizer.
std::vector<std::int32_t> text_ids(const Model&, const std::string& text);

// Makes what is learnt from. The `keep`th share at the end of a text is left for measuring and
// returned in `rest` (empty when there is no text). What the model writes is kept in `work`, when
// given, as the part "text". Errors: RN-001, CL-005 an id outside of the vocabulary, QU-022 no
// tokens, those of StatisticsFile.
std::shared_ptr<const Calibration> make_calibration(const Model&, const DataSource&, double keep,
                                                    std::vector<std::int32_t>& rest, Pool&,
                                                    const Log&, WorkFolder* work = nullptr);

// One line for what make_calibration will make, known before anything is written: source, sizes,
// seed and, of what is given, a fingerprint.
std::string identity(const DataSource&, const Spec&);

}  // namespace pare
