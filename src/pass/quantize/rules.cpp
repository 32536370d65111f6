// Rules as one word: PATTERN=SCHEME, PATTERN=SCHEME+ACTIVATION, PATTERN=+ACTIVATION, PATTERN=keep.
//
// Names of matrices hold no "=", so the first one ends the pattern; schemes may hold more of them.
#include "pass/quantize/quantize.h"

namespace pare {

Rule parse_rule(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    fail(Exit::usage, "QU-005", fmt::format("{} is not a rule", pare::quoted(text)),
         {{"need",
           "PATTERN=SCHEME, PATTERN=SCHEME+ACTIVATION, PATTERN=+ACTIVATION or PATTERN=keep"}});
  Rule rule;
  rule.pattern = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const std::size_t plus = value.find('+');
  const std::string scheme = value.substr(0, plus);
  if (scheme == "keep")
    rule.keep = true;
  else if (!scheme.empty())
    rule.scheme = parse_scheme(scheme);
  if (plus != std::string::npos) rule.activation = parse_activation(value.substr(plus + 1));
  if (rule.keep && rule.activation)
    fail(Exit::usage, "QU-005",
         fmt::format("{} keeps a matrix and gives it activations", pare::quoted(text)));
  return rule;
}

std::string to_string(const Rule& rule) {
  std::string text = rule.pattern + "=";
  if (rule.keep) text += "keep";
  if (rule.scheme) text += to_string(*rule.scheme);
  if (rule.activation) text += "+" + to_string(*rule.activation);
  return text;
}

}  // namespace pare
