// What Pare writes into config.json beside the family's keys: how the model was made (recipes,
// seeds, the model they began with), what that did, and which code its cache asks for. Other
// programs ignore the member. No time, path or machine is in it: equal runs write equal bytes.
#include <charconv>
#include <cmath>

#include "model/checkpoint.h"

namespace pare {
namespace {

[[noreturn]] void bad(const char* key, const char* need) {
  fail_input("MO-015", "a note of Pare in config.json is damaged",
             {{"key", fmt::format("pare.{}", key)}, {"need", need}},
             "remove the member \"pare\"; the weights do not depend on it");
}

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }
bool is_value(const Json& j) { return j.is_number() || j.is_null(); }
double value_of(const Json& j) { return j.is_null() ? std::nan("") : j.as_number(); }

const Json::Array& list_of(const Json& notes, const char* key) {
  static const Json::Array none;
  const Json* list = notes.find(key);
  if (list == nullptr) return none;
  if (!list->is_array()) bad(key, "a list");
  return list->as_array();
}

Provenance provenance_of(const Json& j) {
  const auto text = [&](const char* key) {
    const Json* value = j.is_object() ? j.find(key) : nullptr;
    if (value == nullptr || !value->is_string())
      bad("provenance", "objects of strings: recipe, base, data, version, seed");
    return value->as_string();
  };
  Provenance p{text("recipe"), text("base"), text("data"), text("version"), 0};
  const std::string seed = text("seed");
  const char* end = seed.data() + seed.size();
  const auto parsed = std::from_chars(seed.data(), end, p.seed);
  if (parsed.ec != std::errc() || parsed.ptr != end) bad("provenance", "a seed below 2^64");
  return p;
}

}  // namespace

// A seed has 64 bits, more than a number of JSON is sure to keep.
Json to_json(const Provenance& p) {
  return Json::object({{"recipe", Json(p.recipe)},
                       {"base", Json(p.base)},
                       {"data", Json(p.data)},
                       {"version", Json(p.version)},
                       {"seed", Json(std::to_string(p.seed))}});
}

Json notes_of(const Model& m) {
  if (m.history.empty() && m.evidence.empty() && m.provenance.empty() && !m.spec.kv) return {};
  Json notes = Json::object({{"version", Json(PARE_VERSION)}});
  if (m.spec.kv) notes.set("kv", to_string(*m.spec.kv));
  Json::Array history, evidence;
  for (const std::string& line : m.history) history.emplace_back(line);
  for (const Evidence& e : m.evidence)
    evidence.push_back(Json::array(
        {Json(e.pass), Json(e.site), Json(e.metric), number(e.before), number(e.after)}));
  notes.set("history", Json(std::move(history)));
  notes.set("evidence", Json(std::move(evidence)));
  Json::Array provenance;
  for (const Provenance& p : m.provenance) provenance.push_back(to_json(p));
  if (!provenance.empty()) notes.set("provenance", Json(std::move(provenance)));
  return notes;
}

void take_notes(Model& m) {
  const Json* found = m.config.find("pare");
  if (found == nullptr) return;
  const Json notes = *found;
  m.config.erase("pare");
  if (!notes.is_object()) bad("", "an object");
  if (const Json* kv = notes.find("kv")) {
    if (!kv->is_string()) bad("kv", "the scheme of a cache");
    try {
      m.spec.kv = parse_kv_scheme(kv->as_string());
    } catch (const Error& e) {
      bad("kv", "the scheme of a cache");
    }
  }
  for (const Json& line : list_of(notes, "history")) {
    if (!line.is_string()) bad("history", "a list of strings");
    m.history.push_back(line.as_string());
  }
  for (const Json& item : list_of(notes, "provenance")) m.provenance.push_back(provenance_of(item));
  for (const Json& row : list_of(notes, "evidence")) {
    const bool fits = row.is_array() && row.as_array().size() == 5 &&
                      row.as_array()[0].is_string() && row.as_array()[1].is_string() &&
                      row.as_array()[2].is_string() && is_value(row.as_array()[3]) &&
                      is_value(row.as_array()[4]);
    if (!fits) bad("evidence", "rows of pass, site, metric, before, after");
    const Json::Array& r = row.as_array();
    m.evidence.push_back(
        {r[0].as_string(), r[1].as_string(), r[2].as_string(), value_of(r[3]), value_of(r[4])});
  }
}

Json without_marks(const Json& config) {
  Json plain = config;
  for (const char* key : {"quantization_config", "compression_config", "pare"}) plain.erase(key);
  return plain;
}

}  // namespace pare
