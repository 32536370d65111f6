// The SQLite side of the ledger.
//
// One transaction writes a run; it is begun IMMEDIATE, so two writers wait for each other at its
// start instead of failing in its middle. The journal is SQLite's rollback journal, because a
// write-ahead log needs shared memory, which home folders on network disks do not have. The file
// may have been made by anyone: triggers and views are off, its schema is not trusted, and texts
// are made printable when they are read.
#include "recipe/ledger.h"

#include <sqlite3.h>

#include <cmath>
#include <cstdlib>

#include "file/io.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr int schema_version = 1;
constexpr int application_id = 0x50617265;  // "Pare", as file(1) may show
constexpr int most_text = 1 << 20;          // bytes of a value

constexpr const char* schema = R"(
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time TEXT NOT NULL, command TEXT NOT NULL, version TEXT NOT NULL,
  processor TEXT NOT NULL, isa TEXT NOT NULL, threads INTEGER NOT NULL,
  model TEXT NOT NULL, identity TEXT NOT NULL, base TEXT NOT NULL, base_identity TEXT NOT NULL,
  recipe TEXT NOT NULL, protocol TEXT NOT NULL, predictor TEXT NOT NULL) STRICT;
CREATE TABLE figures (
  run INTEGER NOT NULL, place INTEGER NOT NULL, metric TEXT NOT NULL, unit TEXT NOT NULL,
  base REAL, out REAL, predicted_base REAL, predicted_out REAL,
  PRIMARY KEY (run, place)) STRICT, WITHOUT ROWID;
)";

constexpr const char* run_columns =
    "id, time, command, version, processor, isa, threads, model, identity, base, base_identity, "
    "recipe, protocol, predictor";

[[noreturn]] void refuse(int code, const std::string& reason, const fs::path& path) {
  const std::vector<Fact> facts = {{"file", path.string()}, {"found", reason}};
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      fail(Exit::busy, "LG-004", "another program holds the ledger of runs", facts,
           "try again, or set PARE_LEDGER to another file");
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_AUTH:
    case SQLITE_NOMEM:
    case SQLITE_NOLFS:
      fail(Exit::resources, "LG-003", "the ledger of runs cannot be used", facts,
           "set PARE_LEDGER to a file that can be written, or to off");
    default:
      fail_input("LG-001", "this is no ledger of runs, or a damaged one", facts,
                 "move the file away; the next run begins a new ledger");
  }
}

struct Database {
  fs::path path;
  sqlite3* handle = nullptr;

  Database(fs::path file, int flags, int patience) : path(std::move(file)) {
    const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
    if (code != SQLITE_OK) {
      const std::string reason = sqlite3_errmsg(handle);
      sqlite3_close(handle);
      refuse(code, reason, path);
    }
    sqlite3_busy_timeout(handle, patience);
    sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, 16 * most_text);
    for (int option : {SQLITE_DBCONFIG_ENABLE_TRIGGER, SQLITE_DBCONFIG_ENABLE_VIEW,
                       SQLITE_DBCONFIG_TRUSTED_SCHEMA})
      sqlite3_db_config(handle, option, 0, nullptr);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  }
  ~Database() { sqlite3_close(handle); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  [[noreturn]] void complain(int code) const { refuse(code, sqlite3_errmsg(handle), path); }
  void execute(const char* sql) {
    const int code = sqlite3_exec(handle, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) complain(code);
  }
};

class Statement {
 public:
  Statement(Database& database, const std::string& sql) : database_(database) {
    const int code = sqlite3_prepare_v2(database.handle, sql.c_str(), -1, &statement_, nullptr);
    if (code != SQLITE_OK) database.complain(code);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(i64 value) { return done(sqlite3_bind_int64(statement_, ++bound_, value)); }
  Statement& bind(const std::string& value) {
    return done(sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(),
                                    SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  Statement& bind(const std::optional<double>& value) {
    const bool number = value && std::isfinite(*value);
    return done(number ? sqlite3_bind_double(statement_, ++bound_, *value)
                       : sqlite3_bind_null(statement_, ++bound_));
  }
  bool step() {  // true: a row
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) database_.complain(code);
    return code == SQLITE_ROW;
  }
  void again() {
    sqlite3_reset(statement_);
    bound_ = 0;
  }

  i64 integer(int column) { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    if (bytes == nullptr) return {};
    const std::string value(bytes,
                            static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
    return is_clean_text(value) ? value : pare::quoted(value);
  }
  std::optional<double> number(int column) {
    if (sqlite3_column_type(statement_, column) == SQLITE_NULL) return std::nullopt;
    const double value = sqlite3_column_double(statement_, column);
    return std::isfinite(value) ? std::optional(value) : std::nullopt;
  }

 private:
  Statement& done(int code) {
    if (code != SQLITE_OK) database_.complain(code);
    return *this;
  }
  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

i64 pragma(Database& database, const char* name) {
  Statement s(database, std::string("PRAGMA ") + name);
  return s.step() ? s.integer(0) : 0;
}

// A transaction that is rolled back unless it is committed.
struct Transaction {
  explicit Transaction(Database& d) : database(d) { database.execute("BEGIN IMMEDIATE"); }
  ~Transaction() {
    if (!over) sqlite3_exec(database.handle, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  void commit() {
    database.execute("COMMIT");
    over = true;
  }
  Database& database;
  bool over = false;
};

bool is_empty(Database& database) {
  Statement s(database, "SELECT count(*) FROM sqlite_master");
  return !s.step() || s.integer(0) == 0;
}

// True when the tables are there and of this version.
bool check_version(Database& database) {
  const i64 version = pragma(database, "user_version"), id = pragma(database, "application_id");
  if (version == 0 && id == 0 && is_empty(database)) return false;
  const std::string path = database.path.string();
  if (id != application_id) refuse(SQLITE_NOTADB, "a database of another program", database.path);
  if (version > schema_version)
    fail_input("LG-002", "the ledger of runs is of a newer version than this program knows",
               {{"file", path},
                {"found", fmt::format("version {}", version)},
                {"need", fmt::format("at most {}", schema_version)}},
               "use the newer program, or set PARE_LEDGER to another file");
  if (version < 1) refuse(SQLITE_CORRUPT, fmt::format("version {}", version), database.path);
  return true;
}

void make_tables(Database& database) {
  Transaction transaction(database);
  if (check_version(database)) return;  // another program was faster
  database.execute(schema);
  database.execute(fmt::format("PRAGMA application_id = {}", application_id).c_str());
  database.execute(fmt::format("PRAGMA user_version = {}", schema_version).c_str());
  transaction.commit();
}

void make_folder(const fs::path& path) {
  std::error_code status;
  if (!path.parent_path().empty()) fs::create_directories(path.parent_path(), status);
  if (status) refuse(SQLITE_CANTOPEN, system_reason(status.value()), path);
}

RunRecord read_run(Statement& s) {
  RunRecord r;
  r.id = s.integer(0);
  r.time = s.text(1);
  r.command = s.text(2);
  r.version = s.text(3);
  r.machine = {s.text(4), s.text(5), static_cast<int>(s.integer(6))};
  r.model = s.text(7);
  r.identity = s.text(8);
  r.base = s.text(9);
  r.base_identity = s.text(10);
  r.recipe = s.text(11);
  r.protocol = s.text(12);
  r.predictor = s.text(13);
  return r;
}

Json number_json(const std::optional<double>& x) { return x ? Json(*x) : Json(); }

}  // namespace

struct Ledger::Impl {
  std::optional<Database> database;  // none: the file is missing, so there are no runs

  std::vector<ProofRow> figures(i64 run) {
    Statement s(*database,
                "SELECT metric, unit, base, out, predicted_base, predicted_out FROM figures WHERE "
                "run = ? ORDER BY place LIMIT 10000");
    s.bind(run);
    std::vector<ProofRow> rows;
    while (s.step())
      rows.push_back({s.text(0), s.text(1), s.number(2), s.number(3), s.number(4), s.number(5)});
    return rows;
  }
};

Ledger::Ledger(const fs::path& path, bool create, int patience) : impl_(new Impl) {
  std::error_code ignored;
  if (create)
    make_folder(path);
  else if (!fs::exists(fs::symlink_status(path, ignored)))
    return;
  const int flags = SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0);
  impl_->database.emplace(path, flags, patience);
  if (create)
    make_tables(*impl_->database);
  else if (!check_version(*impl_->database))
    impl_->database.reset();
}

Ledger::~Ledger() = default;
Ledger::Ledger(Ledger&&) noexcept = default;

i64 Ledger::add(const RunRecord& run) {
  PARE_CHECK(impl_->database.has_value());
  Database& database = *impl_->database;
  Transaction transaction(database);
  Statement s(database, fmt::format("INSERT INTO runs ({}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, "
                                    "?, ?, ?, ?, ?)",
                                    run_columns));
  s.bind(run.time.empty() ? utc_now() : run.time).bind(run.command).bind(run.version);
  s.bind(run.machine.processor).bind(run.machine.isa).bind(static_cast<i64>(run.machine.threads));
  s.bind(run.model).bind(run.identity).bind(run.base).bind(run.base_identity);
  s.bind(run.recipe).bind(run.protocol).bind(run.predictor);
  s.step();
  const i64 id = sqlite3_last_insert_rowid(database.handle);
  Statement f(database, "INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  i64 place = 0;
  for (const ProofRow& row : run.figures) {
    f.again();
    f.bind(id).bind(place++).bind(row.metric).bind(row.unit).bind(row.base).bind(row.out);
    f.bind(row.predicted_base).bind(row.predicted_out).step();
  }
  f.again();
  transaction.commit();
  return id;
}

void Ledger::visit(const RunFilter& filter, const std::function<void(const RunRecord&)>& visitor) {
  if (!impl_->database) return;
  Statement s(*impl_->database,
              fmt::format("SELECT {} FROM runs WHERE ?1 = '' OR instr(model, ?1) > 0 OR identity = "
                          "?1 ORDER BY id DESC LIMIT ?2",
                          run_columns));
  s.bind(filter.model).bind(filter.limit > 0 ? filter.limit : i64{-1});
  while (s.step()) {
    stop_if_interrupted();
    RunRecord run = read_run(s);
    run.figures = impl_->figures(run.id);
    visitor(run);
  }
}

std::optional<RunRecord> Ledger::find(i64 id) {
  if (!impl_->database) return std::nullopt;
  Statement s(*impl_->database, fmt::format("SELECT {} FROM runs WHERE id = ?", run_columns));
  s.bind(id);
  if (!s.step()) return std::nullopt;
  RunRecord run = read_run(s);
  run.figures = impl_->figures(id);
  return run;
}

bool Ledger::remove(i64 id) {
  if (!impl_->database) return false;
  Transaction transaction(*impl_->database);
  Statement(*impl_->database, "DELETE FROM figures WHERE run = ?").bind(id).step();
  Statement(*impl_->database, "DELETE FROM runs WHERE id = ?").bind(id).step();
  const bool removed = sqlite3_changes(impl_->database->handle) > 0;
  transaction.commit();
  return removed;
}

Json to_json(const RunRecord& r) {
  Json::Array figures;
  for (const ProofRow& f : r.figures)
    figures.push_back(Json::object({{"metric", Json(f.metric)},
                                    {"unit", Json(f.unit)},
                                    {"base", number_json(f.base)},
                                    {"out", number_json(f.out)},
                                    {"predicted_base", number_json(f.predicted_base)},
                                    {"predicted_out", number_json(f.predicted_out)}}));
  return Json::object({{"id", Json(r.id)},
                       {"time", Json(r.time)},
                       {"command", Json(r.command)},
                       {"version", Json(r.version)},
                       {"processor", Json(r.machine.processor)},
                       {"isa", Json(r.machine.isa)},
                       {"threads", Json(r.machine.threads)},
                       {"model", Json(r.model)},
                       {"identity", Json(r.identity)},
                       {"base", Json(r.base)},
                       {"base_identity", Json(r.base_identity)},
                       {"recipe", Json(r.recipe)},
                       {"protocol", Json(r.protocol)},
                       {"predictor", Json(r.predictor)},
                       {"figures", Json(std::move(figures))}});
}

fs::path ledger_path() {
  const char* own = std::getenv("PARE_LEDGER");
  if (own != nullptr && *own != '\0') return std::string_view(own) == "off" ? fs::path() : own;
  const char* data = std::getenv("XDG_DATA_HOME");
  if (data != nullptr && *data == '/') return fs::path(data) / "pare" / "runs.sqlite";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return fs::path(home) / ".local" / "share" / "pare" / "runs.sqlite";
}

void record_run(RunRecord run, const Log& log) {
  const fs::path path = ledger_path();
  if (path.empty()) return;
  try {
    if (run.version.empty()) run.version = PARE_VERSION;
    Ledger(path, true).add(run);
  } catch (const Error& e) {
    if (e.exit == Exit::interrupted) throw;
    log.warning(fmt::format("the run was not recorded: {}", e.what()));
  }
}

}  // namespace pare
