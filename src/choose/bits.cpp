// Sensitivities as a document, and the budget spent.
//
// The document keeps what it cost to measure, so that another budget is solved in an instant. It is
// read as strictly as any file from outside: bytes are not taken from it but computed from scheme
// and shape.
#include "choose/bits.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "choose/knapsack.h"

namespace pare {
namespace {

constexpr i64 version = 1;

[[noreturn]] void wrong(const std::string& source, std::string message,
                        std::vector<Fact> facts = {}) {
  facts.insert(facts.begin(), Fact{"file", source});
  fail_input("CH-002", std::move(message), std::move(facts),
             "measure again, with another file name");
}

MatrixLosses read_matrix(const Json& json, const std::string& source) {
  MatrixLosses m;
  m.name = json.at("name").as_string();
  m.rows = json.at("rows").as_int();
  m.cols = json.at("cols").as_int();
  constexpr i64 most = i64{1} << 31;
  if (m.rows < 1 || m.cols < 1 || m.rows > most || m.cols > most)
    wrong(source, "a matrix has an impossible shape",
          {{"matrix", m.name}, {"found", fmt::format("{} x {}", m.rows, m.cols)}});
  for (const Json& item : json.at("losses").as_array()) {
    SchemeLoss loss{parse_scheme(item.at("scheme").as_string()), 0, item.at("kl").as_number()};
    if (!(loss.kl >= 0))
      wrong(source, "a divergence is negative",
            {{"matrix", m.name}, {"found", fmt::format("{}", loss.kl)}});
    loss.bytes = stored_bytes(loss.scheme, m.rows, m.cols);
    m.options.push_back(loss);
  }
  if (m.options.empty()) wrong(source, "a matrix has no candidates", {{"matrix", m.name}});
  return m;
}

Sensitivities read_document(const Json& json, const std::string& source) {
  if (json.at("sensitivities").as_int() != version)
    wrong(source, "the sensitivities are of another version of this program",
          {{"found", std::to_string(json.at("sensitivities").as_int())},
           {"need", std::to_string(version)}});
  Sensitivities s;
  s.base = json.at("base").as_string();
  s.text = json.at("text").as_string();
  s.rounding = json.at("rounding").as_string();
  s.tokens = json.at("tokens").as_int();
  std::set<std::string> seen;
  for (const Json& item : json.at("matrices").as_array()) {
    s.matrices.push_back(read_matrix(item, source));
    if (!seen.insert(s.matrices.back().name).second)
      wrong(source, "a matrix occurs twice", {{"matrix", s.matrices.back().name}});
  }
  if (s.matrices.empty()) wrong(source, "there are no matrices");
  return s;
}

}  // namespace

Json to_json(const Sensitivities& s) {
  Json::Array matrices;
  for (const MatrixLosses& m : s.matrices) {
    Json::Array losses;
    for (const SchemeLoss& o : m.options)
      losses.push_back(Json::object({{"scheme", Json(to_string(o.scheme))}, {"kl", Json(o.kl)}}));
    matrices.push_back(Json::object({{"name", Json(m.name)},
                                     {"rows", Json(m.rows)},
                                     {"cols", Json(m.cols)},
                                     {"losses", Json(std::move(losses))}}));
  }
  return Json::object({{"sensitivities", Json(version)},
                       {"base", Json(s.base)},
                       {"text", Json(s.text)},
                       {"rounding", Json(s.rounding)},
                       {"tokens", Json(s.tokens)},
                       {"matrices", Json(std::move(matrices))}});
}

Sensitivities parse_sensitivities(std::string_view text, const std::string& source) {
  try {
    return read_document(parse_json(text, source), source);
  } catch (Error& e) {
    if (e.code == "CH-002" || e.code == "JS-001") throw;
    wrong(source, "the file holds no sensitivities", {{"found", e.message}});
  }
}

void check(const Sensitivities& s, const Spec& spec) {
  std::map<std::string, std::pair<i64, i64>, std::less<>> shapes;
  shapes["embed"] = {spec.vocab, spec.dim};
  for (const auto& [name, linear] : linears(spec)) shapes[name] = {linear->out, linear->in};
  for (const MatrixLosses& m : s.matrices) {
    const auto it = shapes.find(m.name);
    if (it != shapes.end() && it->second == std::pair{m.rows, m.cols}) continue;
    fail_input("CH-003", "the sensitivities are of another model",
               {{"matrix", m.name},
                {"found", fmt::format("{} x {}", m.rows, m.cols)},
                {"need", it == shapes.end()
                             ? std::string("a matrix of the model")
                             : fmt::format("{} x {}", it->second.first, it->second.second)}},
               "measure again, with another file name");
  }
}

BitsPlan choose_bits(const Sensitivities& s, double bits_per_weight) {
  BitsPlan plan;
  std::vector<std::vector<KnapsackOption>> items;
  i64 least = 0;
  for (const MatrixLosses& m : s.matrices) {
    plan.weights += m.rows * m.cols;
    items.emplace_back();
    i64 cheapest = m.options.front().bytes;
    for (const SchemeLoss& o : m.options) {
      items.back().push_back({o.bytes, o.kl});
      cheapest = std::min(cheapest, o.bytes);
    }
    least += cheapest;
  }
  const double weights = static_cast<double>(plan.weights);
  const i64 budget = static_cast<i64>(std::floor(bits_per_weight * weights / 8));
  const auto solved = solve_knapsack(items, budget);
  if (!solved)
    fail(Exit::usage, "CH-001", "the budget is below the cheapest candidates",
         {{"found", fmt::format("{} bits a weight", bits_per_weight)},
          {"need", fmt::format("at least {:.4f}", 8.0 * static_cast<double>(least) / weights)}},
         "raise --budget or add a smaller scheme to --candidates");
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    plan.chosen.push_back(s.matrices[i].options[solved->picks[i]]);
  plan.bytes = solved->cost;
  plan.kl = solved->loss;
  plan.bound = solved->bound;
  plan.exact = solved->exact;
  return plan;
}

}  // namespace pare
