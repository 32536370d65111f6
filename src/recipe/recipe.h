// Recipes: passes in order, as a TOML file.
//
//   about = "Four bits, eight where it matters"        what it is for; optional
//
//   [[quantize]]                          a step; steps run in the order of the file
//   weights = "int4:g128"                 of the matrices of the blocks
//   activations = "int8:token"            of their inputs
//   head = "int8:channel"                 of the output matrix
//   embedding = "int8:channel"            of the embedding
//   kv = "int8"                           scheme of the cache
//   range = "mse"                         or "absmax", "percentile"
//   percentile = 99.9                     for range = "percentile"
//   method = "gptq"                       as --method of `pare quantize`; what it learns from comes
//                                         with the command
//   damping = 0.01                        of gptq
//   act_order = "fixed"                   of gptq; or "none"
//   alpha = 0.5                           of smoothquant; searched without
//   threshold = 6.0                       of llm-int8
//   only = ["blocks.*"]                   patterns (pass/quantize/quantize.h)
//   skip = ["blocks.0.*"]
//
//   [[rule]]                              belongs to the [[quantize]] before it
//   pattern = "blocks.*.attn.v"           or a list of patterns
//   scheme = "int8:channel"               or "keep"
//   activations = "int8:token"
//
//   [[cast]]                              another step: back to plain floats
//   to = "bf16"
//
// A later rule wins. A file of rules alone is one quantize step without defaults.
//
// Errors (usage, with file and line): RC-001 not TOML, RC-002 an unknown key, RC-003 a value of the
// wrong type, RC-004 a key that is missing or does not fit another, RC-005 a file without steps,
// RC-006 a file that is too large or nested. Errors of schemes and patterns get file and line.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pass/quantize/quantize.h"

namespace pare {

struct CastOptions {
  Code to = Code::bf16;
};

struct Step {
  int line = 0;
  std::variant<QuantizeOptions, CastOptions> options;
};

struct Recipe {
  std::string source;  // the file's name, for messages
  std::string about;
  std::vector<Step> steps;  // at least one
};

Recipe parse_recipe(std::string_view text, const std::string& source);
Recipe load_recipe(const std::filesystem::path&);

// The passes of all steps, in order. Their Errors name the file and the line of the step.
std::vector<Pass> passes(const Recipe&);

}  // namespace pare
