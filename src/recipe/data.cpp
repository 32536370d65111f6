// From a source to sequences.
//
// What the model writes takes as long as the text is long, so it is committed before anything is
// learnt from it. What is given is cheap to cut again.
#include "recipe/data.h"

#include <algorithm>

#include "base/fingerprint.h"
#include "file/io.h"
#include "pass/work.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

constexpr const char* text_file = "sequences.json";

void check_ids(const TokenSequences& sequences, i64 vocab, const std::string& where) {
  for (const auto& s : sequences)
    for (std::int32_t id : s)
      if (id < 0 || id >= vocab)
        fail_input("CL-005", "a token id is outside the model's vocabulary",
                   {{"file", where},
                    {"found", std::to_string(id)},
                    {"need", fmt::format("0 to {}", vocab - 1)}});
}

i64 count(const TokenSequences& sequences) {
  i64 n = 0;
  for (const auto& s : sequences) n += static_cast<i64>(s.size());
  return n;
}

TokenSequences cut_ids(const TokenSequences& ids, i64 tokens, i64 length) {
  TokenSequences sequences;
  const auto step = static_cast<std::size_t>(length);
  for (const auto& s : ids)
    for (std::size_t at = 0; at < s.size() && count(sequences) < tokens; at += step)
      sequences.emplace_back(
          s.begin() + static_cast<std::ptrdiff_t>(at),
          s.begin() + static_cast<std::ptrdiff_t>(std::min(s.size(), at + step)));
  return sequences;
}

std::string text_of(const TokenSequences& sequences) {
  Json::Array all;
  for (const auto& s : sequences) {
    Json::Array ids;
    for (std::int32_t id : s) ids.emplace_back(id);
    all.emplace_back(std::move(ids));
  }
  return Json(std::move(all)).dump() + "\n";
}

TokenSequences read_sequences(const std::filesystem::path& file) {
  TokenSequences sequences;
  const Json all = parse_json(read_text_file(file, std::size_t{1} << 32), file.string());
  for (const Json& list : all.as_array()) {
    auto& ids = sequences.emplace_back();
    for (const Json& id : list.as_array())
      ids.push_back(static_cast<std::int32_t>(std::clamp<i64>(id.as_int(), -1, INT32_MAX)));
  }
  return sequences;
}

// The part that was entered stays entered.
TokenSequences write_once(const Model& model, const DataSource& source, Pool& pool, const Log& log,
                          WorkFolder* work) {
  const auto write = [&] {
    return write_sequences(model, source.tokens(), source.length(model.spec), source.seed(), pool,
                           log);
  };
  if (work == nullptr) return write();
  const std::string part = work->part();
  work->enter("text");
  const std::filesystem::path file = work->file(text_file);
  TokenSequences sequences;
  if (!work->pieces().empty()) {
    sequences = read_sequences(file);
  } else {
    sequences = write();
    write_file(file, text_of(sequences));
    work->commit(Json::object({{"files", Json::array({Json(text_file)})}}));
  }
  work->enter(part);
  return sequences;
}

}  // namespace

i64 DataSource::length(const Spec& spec) const {
  const i64 length = wish.length.value_or(512);
  return spec.max_positions > 0 ? std::min(length, spec.max_positions) : length;
}

std::vector<std::int32_t> text_ids(const Model& model, const std::string& text) {
  if (model.tokenizer.empty())
    fail_input("RN-001", "the model has no tokenizer, so text cannot be read",
               {{"model", model.path.string()}}, "give --tokenizer FILE, or token ids with --ids");
  return load_tokenizer(model.tokenizer).encode(text, false);
}

std::shared_ptr<const Calibration> make_calibration(const Model& model, const DataSource& source,
                                                    double keep, std::vector<std::int32_t>& rest,
                                                    Pool& pool, const Log& log, WorkFolder* work) {
  auto data = std::make_shared<Calibration>();
  const i64 length = source.length(model.spec);
  std::string from = source.name;
  if (!source.statistics.empty()) {
    data->statistics = std::make_shared<StatisticsFile>(source.statistics, model.spec);
    data->source = "statistics of " + data->statistics->source();
    return data;
  }
  if (source.ids) {
    data->sequences = cut_ids(*source.ids, source.tokens(), length);
  } else if (source.text) {
    std::vector<std::int32_t> ids = text_ids(model, *source.text);
    const auto kept = static_cast<std::size_t>(static_cast<double>(ids.size()) * keep);
    rest.assign(ids.end() - static_cast<std::ptrdiff_t>(kept), ids.end());
    ids.resize(ids.size() - kept);
    data->sequences = cut_sequences(ids, source.tokens(), length);
  } else {
    data->sequences = write_once(model, source, pool, log, work);
    from = fmt::format("written by the model with seed {}", source.seed());
  }
  check_ids(data->sequences, model.spec.vocab, source.name);
  data->source = fmt::format("{}, {} tokens in {} sequences", from, count(data->sequences),
                             data->sequences.size());
  return data;
}

std::string identity(const DataSource& source, const Spec& spec) {
  if (!source.statistics.empty())
    return fmt::format("statistics {} {:016x}", source.name,
                       fingerprint(map_file(source.statistics).bytes));
  const std::string sizes =
      fmt::format("at most {} tokens in sequences of {}", source.tokens(), source.length(spec));
  if (source.text)
    return fmt::format("text {} {:016x}, {}", source.name, fingerprint(*source.text), sizes);
  if (!source.ids)
    return fmt::format("written by the model with seed {}, {}", source.seed(), sizes);
  std::uint64_t hash = 0;
  for (const auto& s : *source.ids) hash = fingerprint(std::as_bytes(std::span(s)), hash);
  return fmt::format("ids {} {:016x}, {}", source.name, hash, sizes);
}

}  // namespace pare
