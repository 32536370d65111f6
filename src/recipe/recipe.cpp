// From the text of a recipe to steps.
//
// toml++ does the parsing and is seen in this file alone. Version 3.3 follows dotted keys by
// recursion without a limit (200,000 dots overflow the stack), so a line with more than a few dots
// outside of quotes is refused before it sees the text; multi-line strings, which no recipe needs,
// are refused too, so that a scan of one line knows what is quoted. Its tests for white space are
// undefined for most characters outside of ASCII, so none is left in what it sees; and what else it
// takes for granted about a text throws instead of ending the program.
//
// TOML keeps no order between tables of different names; the file's lines give it back.
#include "recipe/recipe.h"

#include <algorithm>
#include <limits>

#include "file/io.h"
#include "pass/cast/cast.h"
#include "recipe/ready.h"
#include "text/unicode.h"

namespace pare {
namespace {
struct BrokenAssumption {};
}  // namespace
}  // namespace pare

#undef NDEBUG
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wterminate"  // some of its assertions stand in noexcept functions
#endif
#define TOML_ASSERT(...) ((__VA_ARGS__) ? void() : throw ::pare::BrokenAssumption())
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace pare {
namespace {

constexpr std::size_t most_bytes = std::size_t{1} << 20;
constexpr int most_dots = 32;  // a line, outside of quotes

// A value and where it stands.
struct Place {
  const std::string& source;
  std::string key;
  const toml::node& node;
  int line() const { return static_cast<int>(node.source().begin.line); }
};

[[noreturn]] void refuse(std::string_view code, const std::string& source, int line,
                         std::string message, std::vector<Fact> facts = {}, std::string hint = {}) {
  std::vector<Fact> all = {{"file", source}, {"line", std::to_string(line)}};
  all.insert(all.end(), facts.begin(), facts.end());
  fail(Exit::usage, code, std::move(message), std::move(all), std::move(hint));
}

// One line for toml++: dots are counted, and what is not ASCII becomes an escape in a string (a
// question mark in a comment).
void add_line(std::string_view line, int number, const std::string& source, std::string& out) {
  int dots = 0;
  char quote = 0;  // '#' for a comment, which has no end
  bool escape = false;
  for (std::size_t i = 0; i < line.size(); i++) {
    const char c = line[i];
    if (quote == 0 && (line.substr(i, 3) == "\"\"\"" || line.substr(i, 3) == "'''"))
      refuse("RC-006", source, number, "a recipe holds no multi-line strings", {},
             "write the text on one line");
    if (quote == 0 && c == '.' && ++dots > most_dots)
      refuse("RC-006", source, number, "a line is nested too deeply",
             {{"need", fmt::format("at most {} dots outside of quotes", most_dots)}});
    if ((static_cast<unsigned char>(c) & 0x80u) != 0) {
      const Char character = char_at(line.data() + i);
      if (quote == 0 || quote == '\'' || escape)
        refuse("RC-001", source, number, "the recipe is not valid TOML",
               {{"found", quoted(line.substr(i, static_cast<std::size_t>(character.bytes)))}},
               "characters outside of ASCII stand as they are in \"double quotes\" or comments");
      out +=
          quote == '#' ? "?" : fmt::format("\\U{:08X}", static_cast<std::uint32_t>(character.code));
      i += static_cast<std::size_t>(character.bytes) - 1;
      continue;
    }
    out += c;
    if (escape)
      escape = false;
    else if (quote == '"' && c == '\\')
      escape = true;
    else if (c == quote && quote != '#')
      quote = 0;
    else if (quote == 0 && (c == '"' || c == '\'' || c == '#'))
      quote = c;
  }
  out += '\n';
}

std::string ascii_text(std::string_view text, const std::string& source) {
  if (text.size() > most_bytes)
    fail(Exit::usage, "RC-006", "a recipe is too large",
         {{"file", source},
          {"found", fmt::format("{} bytes", text.size())},
          {"need", fmt::format("at most {}", most_bytes)}});
  if (!valid_utf8(text))
    fail(Exit::usage, "RC-001", "the recipe is not valid TOML: it is not UTF-8",
         {{"file", source}});
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a byte order mark
  std::string out;
  int number = 1;
  for (std::size_t at = 0; at < text.size(); number++) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    add_line(text.substr(at, end - at), number, source, out);
    at = end + 1;
  }
  return out;
}

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

[[noreturn]] void wrong_type(const Place& p, std::string_view need) {
  refuse("RC-003", p.source, p.line(), fmt::format("{} has the wrong type", p.key),
         {{"found", std::string(type_name(p.node))}, {"need", std::string(need)}});
}

const std::string& text_of(const Place& p) {
  if (const auto* value = p.node.as_string()) return value->get();
  wrong_type(p, "a string");
}

double number_of(const Place& p) {
  if (const auto* value = p.node.as_floating_point()) return value->get();
  if (const auto* value = p.node.as_integer()) return static_cast<double>(value->get());
  wrong_type(p, "a number");
}

// A string or a list of strings, each with its line.
std::vector<std::pair<std::string, int>> texts_of(const Place& p) {
  if (p.node.is_string()) return {{text_of(p), p.line()}};
  const toml::array* list = p.node.as_array();
  if (list == nullptr || list->empty()) wrong_type(p, "a string or a list of strings");
  std::vector<std::pair<std::string, int>> texts;
  for (const toml::node& item : *list) {
    const Place place{p.source, p.key, item};
    texts.emplace_back(text_of(place), place.line());
  }
  return texts;
}

std::vector<std::string> patterns_of(const Place& p) {
  std::vector<std::string> patterns;
  for (auto& [text, line] : texts_of(p)) patterns.push_back(std::move(text));
  return patterns;
}

// A value read by a parser of a lower layer, whose Errors do not know the file.
template <class Parser>
auto parsed(const Place& p, const Parser& parse) {
  try {
    return parse(text_of(p));
  } catch (Error& e) {
    const bool placed = std::any_of(e.facts.begin(), e.facts.end(),
                                    [](const Fact& f) { return f.label == "file"; });
    if (placed) throw;
    throw e.with("file", p.source).with("line", std::to_string(p.line()));
  }
}

Range parse_range(const std::string& word) {
  if (word == "mse") return Range::mse;
  if (word == "absmax") return Range::absmax;
  if (word == "percentile") return Range::percentile;
  fail(Exit::usage, "RC-004", fmt::format("{} is not a way to find ranges", pare::quoted(word)),
       {{"need", "mse, absmax or percentile"}});
}

// A number in (low, high], or with `closed` in [low, high].
double within(const Place& p, double low, double high, bool closed = false) {
  const double value = number_of(p);
  if (!((value > low || (closed && value == low)) && value <= high))
    refuse("RC-004", p.source, p.line(), "a number is out of range",
           {{"found", fmt::format("{}", value)},
            {"need", fmt::format("{} {}, at most {}", closed ? "at least" : "above", low, high)}});
  return value;
}

i64 whole_of(const Place& p, i64 low, i64 high = std::numeric_limits<i64>::max()) {
  const auto* value = p.node.as_integer();
  if (value == nullptr) wrong_type(p, "a whole number");
  if (value->get() < low || value->get() > high)
    refuse("RC-004", p.source, p.line(), fmt::format("{} is out of range", p.key),
           {{"found", std::to_string(value->get())},
            {"need", value->get() < low ? fmt::format("at least {}", low)
                                        : fmt::format("at most {}", high)}});
  return value->get();
}

bool truth_of(const Place& p) {
  if (const auto* value = p.node.as_boolean()) return value->get();
  wrong_type(p, "true or false");
}

ActOrder parse_act_order(const std::string& word) {
  if (const auto order = act_order_of(word)) return *order;
  fail(Exit::usage, "RC-004", fmt::format("{} is not an order of columns", pare::quoted(word)),
       {{"need", "groups, fixed or none"}});
}

// What a table may hold: a key and what it sets.
template <class Options>
struct Key {
  const char* name;
  void (*set)(Options&, const Place&);
};

constexpr Key<QuantizeOptions> quantize_keys[] = {
    {"weights", [](QuantizeOptions& o, const Place& p) { o.weights = parsed(p, parse_scheme); }},
    {"activations",
     [](QuantizeOptions& o, const Place& p) { o.activations = parsed(p, parse_activation); }},
    {"head", [](QuantizeOptions& o, const Place& p) { o.head = parsed(p, parse_scheme); }},
    {"embedding",
     [](QuantizeOptions& o, const Place& p) { o.embedding = parsed(p, parse_scheme); }},
    {"kv", [](QuantizeOptions& o, const Place& p) { o.kv = parsed(p, parse_kv_scheme); }},
    {"range", [](QuantizeOptions& o, const Place& p) { o.fit.range = parsed(p, parse_range); }},
    {"percentile",
     [](QuantizeOptions& o, const Place& p) { o.fit.percentile = within(p, 0, 100); }},
    {"method",
     [](QuantizeOptions& o, const Place& p) { o.method.method = parsed(p, parse_method); }},
    {"damping",
     [](QuantizeOptions& o, const Place& p) { o.method.gptq.damping = within(p, 0, 10); }},
    {"act_order",
     [](QuantizeOptions& o, const Place& p) { o.method.gptq.order = parsed(p, parse_act_order); }},
    {"polish",
     [](QuantizeOptions& o, const Place& p) {
       o.method.gptq.polish = static_cast<int>(whole_of(p, 0, 1000));
     }},
    {"alpha", [](QuantizeOptions& o, const Place& p) { o.method.alpha = within(p, 0, 1, true); }},
    {"threshold",
     [](QuantizeOptions& o, const Place& p) { o.method.outlier_threshold = within(p, 0, 1e30); }},
    {"clip", [](QuantizeOptions& o, const Place& p) { o.method.clip = truth_of(p); }},
    {"only", [](QuantizeOptions& o, const Place& p) { o.only = patterns_of(p); }},
    {"skip", [](QuantizeOptions& o, const Place& p) { o.skip = patterns_of(p); }},
};

constexpr Key<CastOptions> cast_keys[] = {
    {"to", [](CastOptions& o, const Place& p) { o.to = parsed(p, parse_float_code); }},
};

constexpr Key<Gates> gate_keys[] = {
    {"max_kl", [](Gates& g, const Place& p) { g.max_kl = within(p, 0, 1e30, true); }},
    {"min_speedup", [](Gates& g, const Place& p) { g.min_speedup = within(p, 0, 1e30); }},
    {"max_bytes", [](Gates& g, const Place& p) { g.max_bytes = whole_of(p, 1); }},
};

constexpr Key<DataWish> data_keys[] = {
    {"tokens", [](DataWish& d, const Place& p) { d.tokens = whole_of(p, 1); }},
    {"length", [](DataWish& d, const Place& p) { d.length = whole_of(p, 2); }},
    {"seed",
     [](DataWish& d, const Place& p) { d.seed = static_cast<std::uint64_t>(whole_of(p, 0)); }},
};

struct RuleText {
  std::vector<std::pair<std::string, int>> patterns;
  Rule rule;
};

constexpr Key<RuleText> rule_keys[] = {
    {"pattern", [](RuleText& r, const Place& p) { r.patterns = texts_of(p); }},
    {"scheme",
     [](RuleText& r, const Place& p) {
       if (text_of(p) == "keep")
         r.rule.keep = true;
       else
         r.rule.scheme = parsed(p, parse_scheme);
     }},
    {"activations",
     [](RuleText& r, const Place& p) { r.rule.activation = parsed(p, parse_activation); }},
};

template <class Options, std::size_t n>
Options read_table(const toml::table& table, const Key<Options> (&keys)[n],
                   const std::string& source, std::string_view kind) {
  Options options;
  for (const auto& [key, node] : table) {
    const std::string word(key.str());
    const auto it = std::find_if(std::begin(keys), std::end(keys),
                                 [&](const Key<Options>& k) { return word == k.name; });
    if (it != std::end(keys)) {
      it->set(options, {source, word, node});
      continue;
    }
    std::vector<std::string> known;
    for (const Key<Options>& k : keys) known.emplace_back(k.name);
    const std::string best = nearest(word, known);
    refuse("RC-002", source, static_cast<int>(key.source().begin.line),
           fmt::format("{} has no key {}", kind, pare::quoted(word)),
           {{"need", fmt::format("{}", fmt::join(known, ", "))}},
           best.empty() ? "" : fmt::format("did you mean {}?", best));
  }
  return options;
}

// One [[name]] table of the file.
struct Entry {
  int line = 0;
  std::string name;
  const toml::table* table = nullptr;
};

// [gate], [data]: one of each.
const toml::table& single(const Place& p) {
  if (const toml::table* table = p.node.as_table()) return *table;
  wrong_type(p, fmt::format("one table: [{}]", p.key));
}

// What is no step is set at once; steps and rules come in the order of the file.
std::vector<Entry> entries(const toml::table& root, Recipe& recipe) {
  static const std::vector<std::string> known = {"about", "quantize", "rule",
                                                 "cast",  "gate",     "data"};
  const std::string& source = recipe.source;
  std::vector<Entry> out;
  for (const auto& [key, node] : root) {
    const std::string name(key.str());
    const Place place{source, name, node};
    if (name == "about") {
      recipe.about = text_of(place);
      continue;
    }
    if (name == "gate") {
      recipe.gates = read_table(single(place), gate_keys, source, "[gate]");
      continue;
    }
    if (name == "data") {
      recipe.data = read_table(single(place), data_keys, source, "[data]");
      continue;
    }
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      const std::string best = nearest(name, known);
      refuse("RC-002", source, static_cast<int>(key.source().begin.line),
             fmt::format("a recipe has no key {}", pare::quoted(name)),
             {{"need", "about, [[quantize]], [[rule]], [[cast]], [gate], [data]"}},
             best.empty() ? "" : fmt::format("did you mean {}?", best));
    }
    if (const toml::table* table = node.as_table()) {
      out.push_back({place.line(), name, table});
      continue;
    }
    const toml::array* list = node.as_array();
    if (list == nullptr) wrong_type(place, fmt::format("tables: [[{}]]", name));
    for (const toml::node& item : *list) {
      const Place at{source, name, item};
      if (!item.is_table()) wrong_type(at, fmt::format("tables: [[{}]]", name));
      out.push_back({at.line(), name, item.as_table()});
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Entry& a, const Entry& b) { return a.line < b.line; });
  return out;
}

void add_rules(QuantizeOptions& options, const Entry& entry, const std::string& source) {
  const RuleText text = read_table(*entry.table, rule_keys, source, "[[rule]]");
  const Rule& r = text.rule;
  if (text.patterns.empty())
    refuse("RC-004", source, entry.line, "a rule has no pattern", {}, "add pattern = \"...\"");
  if (!r.scheme && !r.keep && !r.activation)
    refuse("RC-004", source, entry.line, "a rule changes nothing", {},
           "add scheme = \"...\" or activations = \"...\"");
  if (r.keep && r.activation)
    refuse("RC-004", source, entry.line, "a rule keeps matrices and gives them activations");
  for (const auto& [pattern, line] : text.patterns) {
    Rule rule = r;
    rule.pattern = pattern;
    rule.where = fmt::format("{} line {}: rule", source, line);
    options.rules.push_back(std::move(rule));
  }
}

// A key that the method at hand does not look at is a mistake.
void refuse_idle_keys(const toml::table& table, const QuantizeOptions& o,
                      const std::string& source) {
  const Method m = o.method.method;
  const bool gptq = m == Method::gptq || m == Method::automatic;
  const struct {
    const char* key;
    bool used;
    const char* need;
  } keys[] = {{"damping", gptq, "method = \"gptq\" or \"auto\""},
              {"act_order", gptq, "method = \"gptq\" or \"auto\""},
              {"polish", gptq, "method = \"gptq\" or \"auto\""},
              {"clip", m == Method::awq || m == Method::automatic, "method = \"awq\" or \"auto\""},
              {"alpha", m == Method::smoothquant, "method = \"smoothquant\""},
              {"threshold", m == Method::llm_int8, "method = \"llm-int8\""},
              {"percentile", o.fit.range == Range::percentile, "range = \"percentile\""}};
  for (const auto& k : keys)
    if (const toml::node* node = table.get(k.key); node != nullptr && !k.used)
      refuse("RC-004", source, static_cast<int>(node->source().begin.line),
             fmt::format("{} has no effect here", k.key), {{"need", k.need}});
}

void add_entry(Recipe& recipe, const Entry& entry) {
  if (entry.name == "quantize") {
    Step& step = recipe.steps.emplace_back();
    step.line = entry.line;
    auto options = read_table(*entry.table, quantize_keys, recipe.source, "[[quantize]]");
    refuse_idle_keys(*entry.table, options, recipe.source);
    step.options = std::move(options);
    return;
  }
  if (entry.name == "cast") {
    if (!entry.table->contains("to"))
      refuse("RC-004", recipe.source, entry.line, "a cast does not say to what", {},
             "add to = \"bf16\"");
    Step& step = recipe.steps.emplace_back();
    step.line = entry.line;
    step.options = read_table(*entry.table, cast_keys, recipe.source, "[[cast]]");
    return;
  }
  if (recipe.steps.empty()) recipe.steps.emplace_back().line = entry.line;  // a QuantizeOptions
  QuantizeOptions* options = std::get_if<QuantizeOptions>(&recipe.steps.back().options);
  if (options == nullptr)
    refuse("RC-004", recipe.source, entry.line, "a rule follows a step that has none", {},
           "rules belong to the [[quantize]] before them");
  add_rules(*options, entry, recipe.source);
}

toml::parse_result parse_toml(std::string_view text, const std::string& source) {
  try {
    return toml::parse(text, source);
  } catch (const BrokenAssumption&) {
    fail(Exit::usage, "RC-001", "the recipe is not valid TOML", {{"file", source}},
         "names of tables and keys are letters, digits, _ and -");
  }
}

// The same pass, whose Errors say which step they come from.
Pass located(Pass pass, const std::string& where) {
  const auto guard = [where](auto&& action) {
    try {
      return action();
    } catch (Error& e) {
      throw e.with("step", where);
    }
  };
  const auto plan = pass.plan;
  const auto run = pass.run;
  pass.plan = [plan, guard](Spec spec) { return guard([&] { return plan(std::move(spec)); }); };
  pass.run = [run, guard](Model model, Context& context) {
    return guard([&] { return run(std::move(model), context); });
  };
  return pass;
}

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& source) {
  const toml::parse_result parsed_text = parse_toml(ascii_text(text, source), source);
  if (!parsed_text) {
    const toml::parse_error& e = parsed_text.error();
    refuse("RC-001", source, static_cast<int>(e.source().begin.line),
           "the recipe is not valid TOML",
           {{"column", std::to_string(e.source().begin.column)},
            {"found", std::string(e.description())}});
  }
  Recipe recipe;
  recipe.source = source;
  recipe.text = text;
  for (const Entry& entry : entries(parsed_text.table(), recipe)) add_entry(recipe, entry);
  if (recipe.steps.empty())
    fail(Exit::usage, "RC-005", "the recipe has no steps", {{"file", source}},
         "add a [[quantize]] table");
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path) {
  return parse_recipe(read_text_file(path, most_bytes), path.string());
}

Recipe find_recipe(const std::string& file_or_name) {
  std::error_code ignored;
  if (std::filesystem::exists(file_or_name, ignored) &&
      !std::filesystem::is_directory(file_or_name, ignored))
    return load_recipe(file_or_name);
  std::vector<std::string> names;
  for (const ReadyRecipe& ready : ready_recipes()) {
    if (ready.name == file_or_name) return parse_recipe(ready.text, file_or_name);
    names.emplace_back(ready.name);
  }
  if (file_or_name.find_first_of("/.") != std::string::npos) return load_recipe(file_or_name);
  const std::string best = nearest(file_or_name, names);
  fail(Exit::usage, "RC-007",
       fmt::format("there is no file and no ready recipe {}", pare::quoted(file_or_name)), {},
       best.empty() ? "`pare recipe list` shows the ready ones"
                    : fmt::format("did you mean {}?", best));
}

std::vector<Pass> passes(const Recipe& recipe) {
  std::vector<Pass> out;
  for (const Step& step : recipe.steps) {
    Pass pass = std::holds_alternative<CastOptions>(step.options)
                    ? cast_pass(std::get<CastOptions>(step.options).to)
                    : quantize_pass(std::get<QuantizeOptions>(step.options));
    if (!recipe.source.empty())
      pass = located(std::move(pass), fmt::format("{} line {}", recipe.source, step.line));
    out.push_back(std::move(pass));
  }
  return out;
}

}  // namespace pare
