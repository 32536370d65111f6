// Log-likelihood of choices, many sequences a step.
//
// Choices of several items are run as one batch: the matrices are then read once for all of them,
// which is what makes a thousand short sentences fast.
#include "probe/tasks.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "file/io.h"
#include "probe/perplexity.h"

namespace pare {
namespace {

constexpr std::size_t batch_sequences = 16;

struct Candidate {
  std::size_t item, choice;
  std::vector<std::int32_t> ids;
  i64 scored_from = 1;  // first token that counts
};

TaskItem parse_item(const Json& line) {
  TaskItem item;
  if (const Json* good = line.find("sentence_good")) {
    item.choices = {good->as_string(), line.at("sentence_bad").as_string()};
    return item;
  }
  if (const Json* prompt = line.find("prompt")) item.prompt = prompt->as_string();
  for (const Json& choice : line.at("choices").as_array())
    item.choices.push_back(choice.as_string());
  item.answer = line.at("answer").as_int();
  if (item.choices.size() < 2 || item.answer < 0 ||
      item.answer >= static_cast<i64>(item.choices.size()))
    fail_input("TA-002", "an item needs two choices or more and an answer among them",
               {{"found", fmt::format("{} choices, answer {}", item.choices.size(), item.answer)}});
  return item;
}

Candidate make_candidate(const Tokenizer& tokenizer, const TaskItem& item, std::size_t index,
                         std::size_t choice, i64 positions) {
  Candidate c{index, choice, tokenizer.encode(item.prompt + item.choices[choice]), 1};
  if (!item.prompt.empty()) {
    // The prompt's tokens are those that both encodings share at the front.
    const auto prompt = tokenizer.encode(item.prompt);
    std::size_t shared = 0;
    while (shared < prompt.size() && shared < c.ids.size() && prompt[shared] == c.ids[shared])
      shared++;
    c.scored_from = std::max<i64>(1, static_cast<i64>(shared));
  }
  if (static_cast<i64>(c.ids.size()) > positions)
    fail_input("TA-003", "an item is longer than the model's context",
               {{"item", fmt::format("{}", index + 1)},
                {"found", fmt::format("{} tokens", c.ids.size())},
                {"need", fmt::format("at most {}", positions)}});
  return c;
}

}  // namespace

double TaskResult::standard_error() const {
  const double p = accuracy();
  return items > 1 ? std::sqrt(p * (1 - p) / static_cast<double>(items - 1)) : 0;
}

std::vector<TaskItem> read_tasks(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, std::size_t{1} << 30);
  std::vector<TaskItem> items;
  std::size_t at = 0, number = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    number++;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      items.push_back(parse_item(parse_json(line, "the item")));
    } catch (Error& e) {
      e.with("line", std::to_string(number)).with("file", path.string());
      throw;
    }
  }
  if (items.empty())
    fail_input("TA-001", "there are no items in the file", {{"file", path.string()}});
  return items;
}

TaskResult run_tasks(Engine& engine, const Tokenizer& tokenizer, const std::vector<TaskItem>& items,
                     Pool& pool, const Log& log) {
  const i64 vocab = engine.spec().vocab;
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < items.size(); i++)
    for (std::size_t c = 0; c < items[i].choices.size(); c++)
      candidates.push_back(make_candidate(tokenizer, items[i], i, c, engine.spec().max_positions));
  std::vector<std::vector<double>> score(items.size());
  for (std::size_t i = 0; i < items.size(); i++) score[i].resize(items[i].choices.size());

  Progress progress(log, "tasks", static_cast<double>(candidates.size()), "choices");
  for (std::size_t at = 0; at < candidates.size(); at += batch_sequences) {
    stop_if_interrupted();
    const std::size_t stop = std::min(candidates.size(), at + batch_sequences);
    std::vector<KvCache> caches;
    std::vector<Input> inputs;
    for (std::size_t k = at; k < stop; k++)
      caches.push_back(engine.make_cache(static_cast<i64>(candidates[k].ids.size())));
    for (std::size_t k = at; k < stop; k++) inputs.push_back({&caches[k - at], candidates[k].ids});
    const Matrix<const float> logits = engine.step(inputs, Want::all);
    i64 row = 0;
    std::vector<i64> first_row;
    for (std::size_t k = at; k < stop; k++) {
      first_row.push_back(row);
      row += static_cast<i64>(candidates[k].ids.size());
    }
    pool.run(static_cast<i64>(stop - at), 1, [&](i64 begin, i64 end) {
      for (i64 k = begin; k < end; k++) {
        const Candidate& c = candidates[at + static_cast<std::size_t>(k)];
        double sum = 0;
        for (i64 t = c.scored_from; t < static_cast<i64>(c.ids.size()); t++)
          sum -= negative_log_likelihood(logits.row(first_row[static_cast<std::size_t>(k)] + t - 1),
                                         vocab, c.ids[static_cast<std::size_t>(t)]);
        score[c.item][c.choice] = sum;
      }
    });
    progress.add(static_cast<double>(stop - at));
  }

  TaskResult result;
  result.items = static_cast<i64>(items.size());
  for (std::size_t i = 0; i < items.size(); i++) {
    std::vector<double> normalized = score[i];
    for (std::size_t c = 0; c < normalized.size(); c++)
      normalized[c] /= static_cast<double>(std::max<std::size_t>(1, items[i].choices[c].size()));
    const auto best = [](const std::vector<double>& s) {
      return std::max_element(s.begin(), s.end()) - s.begin();
    };
    result.correct += best(score[i]) == items[i].answer ? 1 : 0;
    result.correct_normalized += best(normalized) == items[i].answer ? 1 : 0;
  }
  return result;
}

}  // namespace pare
