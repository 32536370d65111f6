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
//   act_order = "groups"                  of gptq; or "fixed", "none"
//   polish = 4                            of gptq: sweeps over the codes afterwards
//   alpha = 0.5                           of smoothquant; searched without
//   threshold = 6.0                       of llm-int8
//   clip = false                          of awq and auto: do not clip ranges
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
//   [gate]                                what the outcome must keep to; each optional
//   max_kl = 0.05                         mean KL to the original, nats; measured before publishing
//   max_bytes = 4_200_000_000             of all weights as stored; known before any work
//   min_speedup = 1.5                     of decoding; measured by `pare prove`
//
//   [data]                                of steps that learn; flags go before it; each optional
//   tokens = 65536
//   length = 512                          tokens of a sequence
//   seed = 0                              of the text that the model writes
//
// A later rule wins. A file of rules alone is one quantize step without defaults.
//
// Errors (usage, with file and line): RC-001 not TOML, RC-002 an unknown key, RC-003 a value of the
// wrong type, RC-004 a key that is missing or does not fit another, RC-005 a file without steps,
// RC-006 a file that is too large or nested, RC-007 no file and no ready recipe. Errors of schemes
// and patterns get file and line.
#pragma once

#include <filesystem>
#include <optional>
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

// What an outcome must keep to. max_kl and max_bytes are held by apply.h, min_speedup by a proof.
struct Gates {
  std::optional<double> max_kl;       // mean KL to the original, nats; at least 0
  std::optional<double> min_speedup;  // of decoding, base / outcome in seconds a token; above 0
  std::optional<i64> max_bytes;       // weight_bytes; above 0
  bool operator==(const Gates&) const = default;
};

// What steps that learn are given, where no flag says otherwise.
struct DataWish {
  std::optional<i64> tokens, length;
  std::optional<std::uint64_t> seed;
  bool operator==(const DataWish&) const = default;
};

struct Recipe {
  std::string source;  // the file's name, for messages
  std::string text;    // the whole file, as it goes into the output
  std::string about;
  std::vector<Step> steps;  // at least one
  Gates gates;
  DataWish data;
};

Recipe parse_recipe(std::string_view text, const std::string& source);
Recipe load_recipe(const std::filesystem::path&);
// A file, or the name of a ready recipe (ready.h) where no file has it.
Recipe find_recipe(const std::string& file_or_name);

// The text of a recipe of such steps: parsed again it does the same.
std::string recipe_text(const std::vector<Step>&, const Gates& = {}, const DataWish& = {},
                        const std::string& about = {});

// The passes of all steps, in order. Their Errors name the file and the line of the step.
std::vector<Pass> passes(const Recipe&);

}  // namespace pare
