// From steps to the text of a recipe. A key is written where its value is not the default, so the
// text says what was chosen and nothing else.
#include <fmt/ranges.h>

#include "recipe/recipe.h"

namespace pare {
namespace {

std::string quoted_toml(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + '"';
}

std::string list(const std::vector<std::string>& texts) {
  std::vector<std::string> all;
  for (const std::string& text : texts) all.push_back(quoted_toml(text));
  return fmt::format("[{}]", fmt::join(all, ", "));
}

class Writer {
 public:
  void head(const std::string& name) {
    if (!text.empty()) text += '\n';
    text += name + "\n";
  }
  void raw(const char* key, const std::string& value) {
    text += fmt::format("{} = {}\n", key, value);
  }
  void word(const char* key, const std::string& value) { raw(key, quoted_toml(value)); }
  template <class T>
  void optional(const char* key, const std::optional<T>& value) {
    if (value) raw(key, fmt::format("{}", *value));
  }
  std::string text;
};

void write_method(Writer& w, const MethodOptions& o) {
  const MethodOptions none;
  if (o.method != none.method) w.word("method", to_string(o.method));
  if (o.gptq.damping != none.gptq.damping) w.raw("damping", fmt::format("{}", o.gptq.damping));
  if (o.gptq.order != none.gptq.order) w.word("act_order", to_string(o.gptq.order));
  if (o.gptq.polish != none.gptq.polish) w.raw("polish", fmt::format("{}", o.gptq.polish));
  if (o.alpha >= 0) w.raw("alpha", fmt::format("{}", o.alpha));
  if (o.outlier_threshold != none.outlier_threshold)
    w.raw("threshold", fmt::format("{}", o.outlier_threshold));
  if (!o.clip) w.raw("clip", "false");
}

void write_step(Writer& w, const QuantizeOptions& o) {
  w.head("[[quantize]]");
  if (o.weights) w.word("weights", to_string(*o.weights));
  if (o.activations.per != Activation::Per::none) w.word("activations", to_string(o.activations));
  if (o.head) w.word("head", to_string(*o.head));
  if (o.embedding) w.word("embedding", to_string(*o.embedding));
  if (o.kv) w.word("kv", to_string(*o.kv));
  if (o.fit.range == Range::absmax) w.word("range", "absmax");
  if (o.fit.range == Range::percentile) {
    w.word("range", "percentile");
    w.raw("percentile", fmt::format("{}", o.fit.percentile));
  }
  write_method(w, o.method);
  if (!o.only.empty()) w.raw("only", list(o.only));
  if (!o.skip.empty()) w.raw("skip", list(o.skip));
  for (const Rule& rule : o.rules) {
    w.head("[[rule]]");
    w.word("pattern", rule.pattern);
    if (rule.keep) w.word("scheme", "keep");
    if (rule.scheme) w.word("scheme", to_string(*rule.scheme));
    if (rule.activation) w.word("activations", to_string(*rule.activation));
  }
}

}  // namespace

std::string recipe_text(const std::vector<Step>& steps, const Gates& gates, const DataWish& data,
                        const std::string& about) {
  Writer w;
  if (!about.empty()) w.word("about", about);
  if (gates != Gates()) {
    w.head("[gate]");
    w.optional("max_kl", gates.max_kl);
    w.optional("min_speedup", gates.min_speedup);
    w.optional("max_bytes", gates.max_bytes);
  }
  if (data != DataWish()) {
    w.head("[data]");
    w.optional("tokens", data.tokens);
    w.optional("length", data.length);
    w.optional("seed", data.seed);
  }
  for (const Step& step : steps) {
    if (const auto* cast = std::get_if<CastOptions>(&step.options)) {
      w.head("[[cast]]");
      w.word("to", std::string(info(cast->to).name));
    } else {
      write_step(w, std::get<QuantizeOptions>(step.options));
    }
  }
  return w.text;
}

}  // namespace pare
