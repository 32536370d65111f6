// Proofs to JSON and back.
//
// A proof may come from anywhere, so nothing in it is taken for granted: each member is asked for
// its type, names must be clean text (they end up in terminals and pages), and figures must be
// finite, which JSON guarantees once a number is a number. Members that this version does not know
// are passed over, so that a later one may add some without a new format.
#include "recipe/proof.h"

#include <unistd.h>

#include <cmath>
#include <ctime>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr const char* format_name = "pare proof";
constexpr i64 format_version = 1;
constexpr std::size_t most_proof_bytes = std::size_t{16} << 20;
constexpr std::size_t most_rows = 10000;

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }
Json number(const std::optional<double>& x) { return x ? number(*x) : Json(); }

// One document: where errors say they come from.
struct Reader {
  const std::string& source;

  [[noreturn]] void bad(const std::string& key, const std::string& found,
                        const std::string& need) const {
    fail_input("PF-001", "this is no proof of Pare, or a damaged one",
               {{"file", source}, {"key", key}, {"found", found}, {"need", need}},
               "`pare prove BASE OUT` makes a new one");
  }

  const Json& member(const Json& object, const std::string& path, const char* key) const {
    if (!object.is_object()) bad(path, object.type_name(), "an object");
    const Json* found = object.find(key);
    if (found == nullptr) bad(path + key, "nothing", "this member");
    return *found;
  }
  std::string text(const Json& object, const std::string& path, const char* key) const {
    const Json& j = member(object, path, key);
    if (!j.is_string()) bad(path + key, j.type_name(), "a string");
    return j.as_string();
  }
  // A name or a line: shown as it is, so without control characters.
  std::string clean(const Json& object, const std::string& path, const char* key) const {
    std::string line = text(object, path, key);
    if (!is_clean_text(line))
      bad(path + key, pare::quoted(line), "text without control characters");
    return line;
  }
  std::optional<double> figure(const Json& object, const std::string& path, const char* key) const {
    const Json& j = member(object, path, key);
    if (j.is_null()) return std::nullopt;
    if (!j.is_number()) bad(path + key, j.type_name(), "a number or null");
    return j.as_number();
  }
  double value(const Json& object, const std::string& path, const char* key) const {
    return figure(object, path, key).value_or(std::nan(""));
  }
  const Json::Array& list(const Json& object, const char* key) const {
    const Json& j = member(object, "", key);
    if (!j.is_array()) bad(key, j.type_name(), "a list");
    if (j.as_array().size() > most_rows)
      bad(key, fmt::format("{} entries", j.as_array().size()),
          fmt::format("at most {}", most_rows));
    return j.as_array();
  }
};

void check_format(const Json& json, const Reader& r) {
  const Json& name = r.member(json, "", "format");
  if (name != Json(format_name))
    r.bad("format", name.is_string() ? pare::quoted(name.as_string()) : name.type_name(),
          pare::quoted(format_name));
  const Json& version = r.member(json, "", "format_version");
  if (!version.is_int() || version.as_int() < 1)
    r.bad("format_version", version.type_name(), "an integer from 1 on");
  if (version.as_int() > format_version)
    fail_input("PF-002", "the proof is of a newer format than this program knows",
               {{"file", r.source},
                {"found", fmt::format("version {}", version.as_int())},
                {"need", fmt::format("at most {}", format_version)}},
               "use the newer program, or prove the model again");
}

ProofRow parse_row(const Json& j, const std::string& path, const Reader& r) {
  ProofRow row;
  row.metric = r.clean(j, path, "metric");
  if (row.metric.empty()) r.bad(path + "metric", "an empty name", "a name");
  row.unit = r.clean(j, path, "unit");
  row.base = r.figure(j, path, "base");
  row.out = r.figure(j, path, "out");
  row.predicted_base = r.figure(j, path, "predicted_base");
  row.predicted_out = r.figure(j, path, "predicted_out");
  return row;
}

ProofGate parse_gate(const Json& j, const std::string& path, const Reader& r) {
  ProofGate gate;
  gate.name = r.clean(j, path, "name");
  gate.need = r.value(j, path, "need");
  gate.found = r.value(j, path, "found");
  const Json& passed = r.member(j, path, "passed");
  if (!passed.is_bool()) r.bad(path + "passed", passed.type_name(), "true or false");
  gate.passed = passed.as_bool();
  return gate;
}

}  // namespace

Json to_json(const Proof& p) {
  Json::Array rows, gates;
  for (const ProofRow& row : p.rows)
    rows.push_back(Json::object({{"metric", Json(row.metric)},
                                 {"unit", Json(row.unit)},
                                 {"base", number(row.base)},
                                 {"out", number(row.out)},
                                 {"predicted_base", number(row.predicted_base)},
                                 {"predicted_out", number(row.predicted_out)}}));
  for (const ProofGate& gate : p.gates)
    gates.push_back(Json::object({{"name", Json(gate.name)},
                                  {"need", number(gate.need)},
                                  {"found", number(gate.found)},
                                  {"passed", Json(gate.passed)}}));
  return Json::object({{"format", Json(format_name)},
                       {"format_version", Json(format_version)},
                       {"version", Json(p.version)},
                       {"time", Json(p.time)},
                       {"base", Json(p.base)},
                       {"out", Json(p.out)},
                       {"recipe", Json(p.recipe)},
                       {"base_identity", Json(p.base_identity)},
                       {"out_identity", Json(p.out_identity)},
                       {"hardware", Json(p.hardware)},
                       {"threads", Json(p.threads)},
                       {"protocol", Json(p.protocol)},
                       {"text", Json(p.text)},
                       {"rows", Json(std::move(rows))},
                       {"gates", Json(std::move(gates))}});
}

Proof parse_proof(const Json& json, const std::string& source) {
  const Reader r{source};
  check_format(json, r);
  Proof p;
  p.version = r.clean(json, "", "version");
  p.time = r.clean(json, "", "time");
  p.base = r.clean(json, "", "base");
  p.out = r.clean(json, "", "out");
  p.recipe = r.text(json, "", "recipe");
  p.base_identity = r.clean(json, "", "base_identity");
  p.out_identity = r.clean(json, "", "out_identity");
  p.hardware = r.clean(json, "", "hardware");
  p.protocol = r.clean(json, "", "protocol");
  p.text = r.clean(json, "", "text");
  const Json& threads = r.member(json, "", "threads");
  if (!threads.is_int() || threads.as_int() < 0 || threads.as_int() > 1 << 20)
    r.bad("threads", threads.is_int() ? fmt::format("{}", threads.as_int()) : threads.type_name(),
          "an integer from 0 to 1048576");
  p.threads = static_cast<int>(threads.as_int());
  const Json::Array &rows = r.list(json, "rows"), &gates = r.list(json, "gates");
  for (std::size_t i = 0; i < rows.size(); i++)
    p.rows.push_back(parse_row(rows[i], fmt::format("rows[{}].", i), r));
  for (std::size_t i = 0; i < gates.size(); i++)
    p.gates.push_back(parse_gate(gates[i], fmt::format("gates[{}].", i), r));
  return p;
}

const ProofRow* find_row(const Proof& p, std::string_view metric) {
  for (const ProofRow& row : p.rows)
    if (row.metric == metric) return &row;
  return nullptr;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  char text[32];
  const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text, n};
}

void keep_proof(const Proof& p, const fs::path& folder) { write_proof(p, folder / proof_name); }

void write_proof(const Proof& p, const fs::path& target) {
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const fs::path part = folder / fmt::format(".{}.{}", target.filename().string(), getpid());
  std::error_code status, ignored;
  const auto refuse = [&](const std::string& reason) {
    fs::remove(part, ignored);
    fail(Exit::resources, "PF-003", "the proof cannot be kept",
         {{"file", target.string()}, {"found", reason}},
         "make the folder writable, or keep the proof elsewhere with --proof FILE");
  };
  try {
    write_file(part, to_json(p).dump(2) + "\n");
    fs::rename(part, target, status);
    if (!status) sync_folder(folder);
  } catch (const Error& e) {
    refuse(e.what());
  }
  if (status) refuse(system_reason(status.value()));
}

std::optional<Proof> read_proof(const fs::path& folder) {
  const fs::path path = folder / proof_name;
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) return std::nullopt;
  const std::string text = read_text_file_in(folder, proof_name, most_proof_bytes);
  JsonLimits limits;
  limits.depth = 8;
  limits.values = 200000;
  return parse_proof(parse_json(text, path.string(), limits), path.string());
}

}  // namespace pare
