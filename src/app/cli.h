// The command line in its parts: what flags fill (cli_commands.cpp), examples for --help
// (cli_examples.cpp), running a command (cli.cpp).
#pragma once

#include <string>
#include <string_view>

#include "app/commands.h"

namespace CLI {
class App;
}

namespace pare {

struct Flags {
  CommonOptions common;
  bool json = false, quiet = false;
  std::string color = "auto";
};

// The options of every command; one of them runs.
struct Commands {
  ShowOptions show;
  RunOptions run;
  TokenizeOptions tokenize;
  ConvertOptions convert;
  ApplyCommand apply;
  QuantizeCommand quantize;
  CalibrateCommand calibrate;
  ExportOptions to_export;
  RecipeCheckOptions recipe_check;
  ChooseBitsOptions choose_bits;
  SearchOptions search;
  VerifyOptions verify;
  EvalOptions eval;
  BenchOptions bench;
  RoofOptions roof;
  CompareOptions compare;
  ReportOptions report;
  RandomOptions random;
  ProveOptions prove;
  RunsOptions runs;
  HardwareCommand hardware;
  PlanOptions plan;
};

// Adds every command with its flags and examples.
void define_commands(CLI::App&, Commands&, Flags&);

// Commands to try, a line each; empty for a command that is not there.
std::string examples_of(std::string_view command);

}  // namespace pare
