// The command line: a command's run, errors to exit codes.
//
// CLI11 does the parsing and nothing else (its configuration files and environment handling are not
// used); its exit codes are mapped to ours, and a mistyped word gets a suggestion. Only this file
// and cli_commands.cpp see CLI11, which costs four seconds to compile.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "app/app.h"
#include "app/cli.h"

namespace pare {
namespace {

void dispatch_recipe(CLI::App& app, const Commands& c, const CommonOptions& common,
                     const Output& out) {
  const std::string name = app.get_subcommands().front()->get_subcommands().front()->get_name();
  if (name == "list")
    command_recipe_list(out);
  else if (name == "show")
    command_recipe_show(c.recipe_check.recipe, out);
  else
    command_recipe_check(c.recipe_check, common, out);
}

void dispatch(CLI::App& app, const Commands& c, const CommonOptions& common, const Output& out) {
  const std::string name = app.get_subcommands().front()->get_name();
  if (name == "show")
    command_show(c.show, common, out);
  else if (name == "run")
    command_run(c.run, common, out);
  else if (name == "tokenize")
    command_tokenize(c.tokenize, common, out);
  else if (name == "convert")
    command_convert(c.convert, common, out);
  else if (name == "quantize")
    command_quantize(c.quantize, common, out);
  else if (name == "calibrate")
    command_calibrate(c.calibrate, common, out);
  else if (name == "export")
    command_export(c.to_export, common, out);
  else if (name == "apply")
    command_apply(c.apply, common, out);
  else if (name == "recipe")
    dispatch_recipe(app, c, common, out);
  else if (name == "choose")
    command_choose_bits(c.choose_bits, common, out);
  else if (name == "search")
    command_search(c.search, common, out);
  else if (name == "verify")
    command_verify(c.verify, common, out);
  else if (name == "eval")
    command_eval(c.eval, common, out);
  else if (name == "bench")
    command_bench(c.bench, common, out);
  else if (name == "roof")
    command_roof(c.roof, common, out);
  else if (name == "compare")
    command_compare(c.compare, common, out);
  else if (name == "prove")
    command_prove(c.prove, common, out);
  else if (name == "runs")
    command_runs(c.runs, common, out);
  else if (name == "report")
    command_report(c.report, common, out);
  else if (name == "hardware")
    command_hardware(c.hardware, common, out);
  else if (name == "plan")
    command_plan(c.plan, common, out);
  else
    command_random(c.random, common, out);
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// CLI11's complaint as an Error of ours, with the nearest word.
Error usage_error(const CLI::App& app, const CLI::ParseError& e, int argc, char** argv) {
  std::vector<std::string> commands;
  for (const CLI::App* sub : app.get_subcommands({})) commands.push_back(sub->get_name());
  const CLI::App* chosen = nullptr;
  if (argc > 1)
    for (const CLI::App* sub : app.get_subcommands({}))
      if (sub->get_name() == argv[1]) chosen = sub;
  if (chosen != nullptr && argc > 2)
    for (const CLI::App* sub : chosen->get_subcommands({}))
      if (sub->get_name() == argv[2]) chosen = sub;
  if (chosen == nullptr && argc > 1 && argv[1][0] != '-') {
    const std::string best = nearest(argv[1], commands);
    return {Exit::usage,
            "CL-001",
            fmt::format("there is no command {}", pare::quoted(argv[1])),
            {},
            best.empty() ? "`pare --help` lists the commands"
                         : fmt::format("did you mean `pare {}`?", best)};
  }
  if (chosen == nullptr && argc > 1) {
    const std::string best = nearest(argv[1], flag_names(app));
    return {Exit::usage,
            "CL-002",
            fmt::format("there is no flag {} before a command", pare::quoted(argv[1])),
            {},
            best.empty() ? "`pare --help` lists the commands"
                         : fmt::format("did you mean `pare {}`?", best)};
  }
  if (chosen == nullptr)
    return {Exit::usage, "CL-003", "there is no command", {}, "`pare --help` lists them"};
  std::string hint = fmt::format("`pare {} --help` shows its flags", chosen->get_name());
  const std::vector<std::string> known = flag_names(*chosen);
  for (int i = 2; i < argc; i++) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (word.size() < 3 || word.substr(0, 2) != "--") continue;
    if (std::find(known.begin(), known.end(), word) != known.end()) continue;
    const std::string best = nearest(word, known);
    if (!best.empty()) hint = fmt::format("did you mean {}?", best);
    return {Exit::usage,
            "CL-002",
            fmt::format("there is no flag {} for `pare {}`", word, chosen->get_name()),
            {},
            hint};
  }
  return {Exit::usage, "CL-003", e.what(), {}, hint};
}

extern "C" void on_signal(int number) {
  if (interrupted()) std::_Exit(128 + number);  // the second time: leave at once
  set_interrupted(number);
}

void install_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit then is a write error, with a message
}

int report(const Error& e, const Output& out) {
  const std::string text = error_text(e, out.log);
  std::fwrite(text.data(), 1, text.size(), stderr);
  if (out.json && !out.answered) {
    const std::string line = error_json(e).dump() + "\n";
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fflush(stdout);
  }
  return e.exit == Exit::interrupted ? 128 + interrupt_signal() : static_cast<int>(e.exit);
}

}  // namespace

int run_app(int argc, char** argv) {
  install_signals();
  Output out;
  out.log = log_from_environment();
  Flags flags;
  Commands commands;
  CLI::App app("Pare makes a large language model cheaper to run, and proves it.", "pare");
  app.set_version_flag("--version", std::string("pare ") + PARE_VERSION);
  app.require_subcommand(1);
  define_commands(app, commands, flags);
  for (int i = 1; i < argc; i++)
    if (std::strcmp(argv[i], "--json") == 0) out.json = true;
  try {
    try {
      // `pare help` and `pare help run` are what people try first.
      const bool help_word = argc > 1 && std::strcmp(argv[1], "help") == 0;
      std::vector<char*> words(argv, argv + argc);
      std::string help = "--help";
      if (help_word) {
        words.erase(words.begin() + 1);
        words.push_back(help.data());
        argc = static_cast<int>(words.size());
        argv = words.data();
      }
      app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() == 0) {  // --help, --version
        const CLI::CallForHelp* help = dynamic_cast<const CLI::CallForHelp*>(&e);
        if (help == nullptr) {
          out.text(std::string(e.what()) + "\n");
        } else {
          const auto chosen = app.get_subcommands();
          out.text(chosen.empty() ? app.help() : chosen.front()->help());
        }
        return 0;
      }
      throw usage_error(app, e, argc, argv);
    }
    out.json = flags.json;
    out.log.quiet = flags.quiet;
    if (flags.color != "auto") out.log.color = flags.color == "always";
    dispatch(app, commands, flags.common, out);
    return 0;
  } catch (const Error& e) {
    return report(e, out);
  } catch (const std::bad_alloc&) {
    return report({Exit::resources, "SY-001", "out of memory", {}, "use a smaller model or batch"},
                  out);
  } catch (const std::exception& e) {
    return report({Exit::failed, "SY-002", e.what()}, out);
  }
}

}  // namespace pare
