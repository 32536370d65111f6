// Shorthands of plans.
//
// A shorthand stands for items in full, so there is one meaning: that of QuantizeOptions, which
// `pare quantize` and recipes have too.
#include "recipe/plan.h"

#include <algorithm>
#include <array>

namespace pare {
namespace {

struct Shorthand {
  const char *word, *weights, *activations, *kv;
};
constexpr auto shorthands = std::to_array<Shorthand>({
    {"w8", "int8:channel", "", ""},
    {"w4", "int4:g128", "", ""},
    {"w3", "int3:g128", "", ""},
    {"w2", "int2:g64", "", ""},
    {"w8a8", "int8:channel", "int8:token", ""},
    {"w4a8", "int4:g128", "int8:token", ""},
    {"nf4", "nf4:g64", "", ""},
    {"fp4", "nvfp4", "", ""},
    {"fp8", "e4m3:channel", "e4m3:token", ""},
    {"kv8", "", "", "int8"},
    {"kv4", "", "", "int4:g32:asym"},
});

struct Words {
  std::string whole;
  QuantizeOptions options;
  bool activations = false;

  [[noreturn]] void twice(const std::string& item) const {
    fail(Exit::usage, "PN-002", fmt::format("{} says the same thing twice", pare::quoted(whole)),
         {{"found", pare::quoted(item)}});
  }
  template <class T>
  void set(std::optional<T>& field, T value, const std::string& item) {
    if (field) twice(item);
    field = std::move(value);
  }
  void set_activations(const Activation& a, const std::string& item) {
    if (activations) twice(item);
    activations = true;
    options.activations = a;
  }
};

template <class F>
bool reads(const F& parse) {
  try {
    parse();
    return true;
  } catch (const Error&) {
    return false;
  }
}

[[noreturn]] void no_item(const Words& w, const std::string& item) {
  const std::string near = nearest(item, plan_words());
  std::string why;
  try {
    parse_scheme(item);
  } catch (const Error& e) {
    why = e.what();
  }
  fail(Exit::usage, "PN-001", fmt::format("{} is not something to plan", pare::quoted(w.whole)),
       {{"found", pare::quoted(item)}, {"scheme", why}},
       near.empty() ? "give shorthands (w8, w4, w8a8, kv8), schemes (int4:g64), kv=SCHEME, "
                      "head=SCHEME or embedding=SCHEME, with + between"
                    : "did you mean " + near + "?");
}

void read_item(Words& w, const std::string& item) {
  const auto shorthand = std::find_if(shorthands.begin(), shorthands.end(),
                                      [&](const Shorthand& s) { return item == s.word; });
  if (shorthand != shorthands.end()) {
    if (*shorthand->weights != 0) w.set(w.options.weights, parse_scheme(shorthand->weights), item);
    if (*shorthand->activations != 0)
      w.set_activations(parse_activation(shorthand->activations), item);
    if (*shorthand->kv != 0) w.set(w.options.kv, parse_kv_scheme(shorthand->kv), item);
    return;
  }
  const std::size_t equal = item.find('=');
  const std::string key = equal == std::string::npos ? "" : item.substr(0, equal);
  const std::string value = equal == std::string::npos ? "" : item.substr(equal + 1);
  if (key == "kv") return w.set(w.options.kv, parse_kv_scheme(value), item);
  if (key == "head") return w.set(w.options.head, parse_scheme(value), item);
  if (key == "embedding") return w.set(w.options.embedding, parse_scheme(value), item);
  if (!w.options.weights && reads([&] { parse_scheme(item); }))
    return w.set(w.options.weights, parse_scheme(item), item);
  if (reads([&] { parse_activation(item); }))
    return w.set_activations(parse_activation(item), item);
  if (reads([&] { parse_scheme(item); })) w.twice(item);
  no_item(w, item);
}

}  // namespace

std::vector<std::string> plan_words() {
  std::vector<std::string> words;
  for (const Shorthand& s : shorthands) words.emplace_back(s.word);
  return words;
}

QuantizeOptions parse_plan_words(const std::string& words) {
  Words w;
  w.whole = words;
  for (std::size_t at = 0; at <= words.size();) {
    const std::size_t end = std::min(words.find('+', at), words.size());
    read_item(w, words.substr(at, end - at));
    at = end + 1;
  }
  if (w.activations && !w.options.weights)
    fail(Exit::usage, "PN-001", fmt::format("{} quantizes inputs alone", pare::quoted(words)), {},
         "inputs are quantized where weights are: int8:channel+int8:token");
  return w.options;
}

Spec planned(const Spec& base, const std::string& words) {
  return quantize_pass(parse_plan_words(words)).plan(base);
}

}  // namespace pare
