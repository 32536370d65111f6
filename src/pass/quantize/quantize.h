// Quantization: which matrices get which scheme by which method, and the pass that does it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "number/encode.h"
#include "pass/pass.h"
#include "pass/quantize/calibrated.h"

namespace pare {

// Patterns name matrices as the Spec does ("blocks.3.attn.q", "head", "embed") and match whole
// names:
// "*" stands for any characters, "?" for one. A pattern that matches
// nothing is an Error QU-001 that lists the nearest names.
//
// A rule gives the matrices it matches (head and embedding included) a scheme of their own, an
// activation, or both. Rules stand in order and a later one wins, field by field; what no rule says
// comes from `weights`, `head`, `embedding` and `activations`. `only` and `skip` go before any
// rule. Activations count where a matrix is quantized; a rule that so gives them to none is an
// Error QU-004.
struct Rule {
  std::string pattern;
  std::optional<Scheme> scheme;
  std::optional<Activation> activation;
  bool keep = false;  // as it is, whatever earlier rules and defaults say; then no scheme
  std::string where = "--rule";  // for messages: "mixed.toml line 7"
};
// "blocks.*.attn.v=int8:channel+int8:token", "*.ffn.*=+int8:token", "head=keep" and back. Errors:
// QU-005, and those of schemes and activations.
Rule parse_rule(const std::string& text);
std::string to_string(const Rule&);

struct QuantizeOptions {
  std::optional<Scheme> weights;    // of the matrices of the blocks
  Activation activations;           // of their inputs
  std::vector<std::string> only;    // quantize these alone
  std::vector<std::string> skip;    // but not these
  std::optional<Scheme> head;       // of the output matrix; none: left as it is
  std::optional<Scheme> embedding;  // of the embedding; none: left as it is
  std::optional<KvScheme> kv;       // of the cache, recorded in the model
  std::vector<Rule> rules;          // schemes by pattern
  FitOptions fit;
  MethodOptions method;
};

// The matrices that `options` would change, by name, with their new schemes.
struct Choice {
  std::string name;
  Scheme scheme;
  Activation activation;
};
std::vector<Choice> choose_matrices(const Spec&, const QuantizeOptions&);

// Error QU-027: static activations, whose scale is learnt, and no data. `run` asks too.
void require_data_for_static(const Spec&, const QuantizeOptions&);

Pass quantize_pass(const QuantizeOptions&);

bool matches(std::string_view pattern, std::string_view name);

}  // namespace pare
