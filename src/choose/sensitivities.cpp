// Sensitivities as a document.
//
// It keeps what it cost to measure, so that another budget is solved in an instant, and what was
// not finished goes on. It is read as strictly as any file from outside: bytes are not taken from
// it but computed from scheme and shape.
#include "choose/sensitivities.h"

#include <algorithm>
#include <map>
#include <set>

namespace pare {
namespace {

constexpr i64 version = 2;  // 1 did not say whose weights were measured

[[noreturn]] void wrong(const std::string& source, std::string message,
                        std::vector<Fact> facts = {}) {
  facts.insert(facts.begin(), Fact{"file", source});
  fail_input("CH-002", std::move(message), std::move(facts),
             "measure again, with another file name");
}

double read_loss(const Json& item, const std::string& of, const std::string& source) {
  const double kl = item.at("kl").as_number();
  if (!(kl >= 0))
    wrong(source, "a divergence is negative", {{"of", of}, {"found", fmt::format("{}", kl)}});
  return kl;
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
    SchemeLoss loss{parse_scheme(item.at("scheme").as_string()), 0,
                    read_loss(item, m.name, source)};
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
  s.model = json.at("model").as_string();
  s.data = json.at("data").as_string();
  s.tokens = json.at("tokens").as_int();
  std::set<std::string> seen;
  for (const Json& item : json.at("matrices").as_array()) {
    s.matrices.push_back(read_matrix(item, source));
    if (!seen.insert(s.matrices.back().name).second)
      wrong(source, "a matrix occurs twice", {{"matrix", s.matrices.back().name}});
  }
  if (const Json* caches = json.find("caches"))
    for (const Json& item : caches->as_array())
      s.caches.push_back(
          {parse_kv_scheme(item.at("scheme").as_string()), read_loss(item, "a cache", source)});
  if (const Json* activations = json.find("activations"))
    for (const Json& item : activations->as_array())
      s.activations.push_back({parse_activation(item.at("activation").as_string()),
                               read_loss(item, "activations", source)});
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
  Json::Array caches, activations;
  for (const CacheLoss& c : s.caches)
    caches.push_back(Json::object({{"scheme", Json(to_string(c.scheme))}, {"kl", Json(c.kl)}}));
  for (const ActivationLoss& a : s.activations)
    activations.push_back(
        Json::object({{"activation", Json(to_string(a.activation))}, {"kl", Json(a.kl)}}));
  return Json::object({{"sensitivities", Json(version)},
                       {"base", Json(s.base)},
                       {"model", Json(s.model)},
                       {"data", Json(s.data)},
                       {"text", Json(s.text)},
                       {"rounding", Json(s.rounding)},
                       {"tokens", Json(s.tokens)},
                       {"matrices", Json(std::move(matrices))},
                       {"caches", Json(std::move(caches))},
                       {"activations", Json(std::move(activations))}});
}

Sensitivities parse_sensitivities(std::string_view text, const std::string& source) {
  try {
    return read_document(parse_json(text, source), source);
  } catch (Error& e) {
    if (e.code == "CH-002" || e.code == "JS-001") throw;
    wrong(source, "the file holds no sensitivities", {{"found", e.message}});
  }
}

void check(const Sensitivities& s, const Spec& spec, std::string_view model) {
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
  if (s.model != model)
    fail_input("CH-003", "the sensitivities are of another model: the weights differ",
               {{"found", s.model}, {"need", std::string(model)}},
               "measure again, with another file name");
}

}  // namespace pare
