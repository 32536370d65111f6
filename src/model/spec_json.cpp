// A Spec as JSON, complete, and back.
//
// Families write the config.json that other programs read; Pare's own form must also keep what no
// family can say. Each struct is listed once, field by field, with its default beside it; a writer
// and a reader walk the same list, so the two cannot disagree. Fields at their default are left
// out, a field nobody knows is an error, and equal blocks in a row are written once with their
// count.
#include <array>
#include <charconv>

#include "model/arch/common.h"
#include "model/checkpoint.h"

namespace pare {
namespace {

template <class T>
struct Fields;

template <>
struct Fields<Linear> {
  static void each(auto& v, auto& l, const Linear& d) {
    v("in", l.in, d.in);
    v("out", l.out, d.out);
    v("bias", l.bias, d.bias);
    v("scheme", l.scheme, d.scheme);
    v("activation", l.activation, d.activation);
    v("rank", l.rank, d.rank);
    v("outliers", l.outliers, d.outliers);
    v("permuted", l.permuted, d.permuted);
    v("input_scaled", l.input_scaled, d.input_scaled);
    v("rotation", l.rotation, d.rotation);
  }
};

template <>
struct Fields<Norm> {
  static void each(auto& v, auto& n, const Norm& d) {
    v("layer", n.layer, d.layer);
    v("bias", n.bias, d.bias);
    v("plus_one", n.plus_one, d.plus_one);
    v("eps", n.eps, d.eps);
  }
};

template <>
struct Fields<Rope> {
  static void each(auto& v, auto& r, const Rope& d) {
    v("dims", r.dims, d.dims);
    v("theta", r.theta, d.theta);
    v("interleaved", r.interleaved, d.interleaved);
    v("scaling", r.scaling, d.scaling);
    v("factor", r.factor, d.factor);
    v("original_positions", r.original_positions, d.original_positions);
    v("low_freq_factor", r.low_freq_factor, d.low_freq_factor);
    v("high_freq_factor", r.high_freq_factor, d.high_freq_factor);
    v("beta_fast", r.beta_fast, d.beta_fast);
    v("beta_slow", r.beta_slow, d.beta_slow);
    v("truncate", r.truncate, d.truncate);
    v("attention_factor", r.attention_factor, d.attention_factor);
    v("short_factor", r.short_factor, d.short_factor);
    v("long_factor", r.long_factor, d.long_factor);
  }
};

template <>
struct Fields<Attention> {
  static void each(auto& v, auto& a, const Attention& d) {
    v("heads", a.heads, d.heads);
    v("kv_heads", a.kv_heads, d.kv_heads);
    v("qk_dim", a.qk_dim, d.qk_dim);
    v("v_dim", a.v_dim, d.v_dim);
    v("q_rank", a.q_rank, d.q_rank);
    v("kv_rank", a.kv_rank, d.kv_rank);
    v("kv_from", a.kv_from, d.kv_from);
    v("window", a.window, d.window);
    v("sinks", a.sinks, d.sinks);
    v("sink_logits", a.sink_logits, d.sink_logits);
    v("softcap", a.softcap, d.softcap);
    v("scale", a.scale, d.scale);
    v("q_norm", a.q_norm, d.q_norm);
    v("k_norm", a.k_norm, d.k_norm);
    v("q_down_norm", a.q_down_norm, d.q_down_norm);
    v("kv_down_norm", a.kv_down_norm, d.kv_down_norm);
    v("rope", a.rope, d.rope);
    v("q", a.q, d.q);
    v("k", a.k, d.k);
    v("v", a.v, d.v);
    v("o", a.o, d.o);
    v("q_down", a.q_down, d.q_down);
    v("kv_down", a.kv_down, d.kv_down);
  }
};

template <>
struct Fields<Ffn> {
  static void each(auto& v, auto& f, const Ffn& d) {
    v("act", f.act, d.act);
    v("gated", f.gated, d.gated);
    v("gate", f.gate, d.gate);
    v("up", f.up, d.up);
    v("down", f.down, d.down);
    v("experts", f.experts, d.experts);
    v("active_experts", f.active_experts, d.active_experts);
    v("shared_experts", f.shared_experts, d.shared_experts);
  }
};

template <>
struct Fields<Block> {
  static void each(auto& v, auto& b, const Block& d) {
    v("attn", b.attn, d.attn);
    v("ffn", b.ffn, d.ffn);
    v("before_attn", b.before_attn, d.before_attn);
    v("after_attn", b.after_attn, d.after_attn);
    v("before_ffn", b.before_ffn, d.before_ffn);
    v("after_ffn", b.after_ffn, d.after_ffn);
    v("parallel", b.parallel, d.parallel);
    v("residual_scale", b.residual_scale, d.residual_scale);
  }
};

template <>
struct Fields<Spec> {
  static void each(auto& v, auto& s, const Spec& d) {
    v("dim", s.dim, d.dim);
    v("vocab", s.vocab, d.vocab);
    v("max_positions", s.max_positions, d.max_positions);
    v("learned_positions", s.learned_positions, d.learned_positions);
    v("final_norm", s.final_norm, d.final_norm);
    v("embed", s.embed, d.embed);
    v("head", s.head, d.head);
    v("tied", s.tied, d.tied);
    v("embed_scale", s.embed_scale, d.embed_scale);
    v("logit_cap", s.logit_cap, d.logit_cap);
    v("logit_scale", s.logit_scale, d.logit_scale);
    v("kv", s.kv, d.kv);
    v("blocks", s.blocks, d.blocks);
  }
};

constexpr auto scalings =
    std::to_array<std::string_view>({"none", "linear", "dynamic", "llama3", "yarn", "longrope"});
constexpr auto acts =
    std::to_array<std::string_view>({"silu", "gelu", "gelu_tanh", "relu", "relu2"});

// ---- writing ----

class Writer {
 public:
  template <class T>
  void operator()(const char* name, const T& value, const T& usual) {
    if (!(value == usual)) object_.set(name, put(value));
  }
  template <class T>
  static Json object(const T& value) {
    Writer writer;
    const T usual{};
    Fields<T>::each(writer, value, usual);
    return std::move(writer.object_);
  }

 private:
  static Json put(bool x) { return x; }
  static Json put(i64 x) { return x; }
  static Json put(double x) { return x; }
  static Json put(float x) { return arch::shortest(x); }
  static Json put(RopeScaling x) { return scalings[static_cast<std::size_t>(x)]; }
  static Json put(Act x) { return acts[static_cast<std::size_t>(x)]; }
  static Json put(const Scheme& x) { return to_string(x); }
  static Json put(const Activation& x) { return to_string(x); }
  static Json put(const std::optional<KvScheme>& x) { return x ? Json(to_string(*x)) : Json(); }
  static Json put(const std::vector<double>& x) {
    Json::Array list;
    for (double d : x) list.emplace_back(d);
    return list;
  }
  static Json put(const std::vector<Block>& blocks) {
    Json::Array runs;
    for (std::size_t begin = 0; begin < blocks.size();) {
      std::size_t end = begin + 1;
      while (end < blocks.size() && blocks[end] == blocks[begin]) end++;
      runs.push_back(
          Json::object({{"count", Json(end - begin)}, {"block", object(blocks[begin])}}));
      begin = end;
    }
    return runs;
  }
  template <class T>
  static Json put(const std::optional<T>& x) {
    return x ? object(*x) : Json();
  }
  template <class T>
  static Json put(const T& x) {
    return object(x);
  }

  Json object_ = Json::object();
};

// ---- reading ----

class SpecReader {
 public:
  SpecReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object.is_object()) wrong(path_, "an object");
  }

  template <class T>
  void operator()(const char* name, T& value, const T&) {
    known_.insert(name);
    if (const Json* found = object_.find(name)) get(*found, path_ + "." + name, value);
  }
  template <class T>
  static void object(const Json& j, const std::string& path, T& value) {
    SpecReader reader(j, path);
    const T usual{};
    Fields<T>::each(reader, value, usual);
    for (const Json::Member& m : j.as_object())
      if (!reader.known_.contains(m.first)) wrong(path + "." + m.first, "a known field");
  }

 private:
  [[noreturn]] static void wrong(const std::string& path, const char* need) {
    fail_input("MO-016", "the Spec of a model in Pare's own form is damaged",
               {{"field", pare::quoted(path)}, {"need", need}});
  }

  static void get(const Json& j, const std::string& path, bool& x) {
    if (!j.is_bool()) wrong(path, "true or false");
    x = j.as_bool();
  }
  static void get(const Json& j, const std::string& path, i64& x) {
    constexpr i64 most = i64{1} << 40;
    if (!j.is_int() || j.as_int() > most || j.as_int() < -1) wrong(path, "an integer in range");
    x = j.as_int();
  }
  static void get(const Json& j, const std::string& path, double& x) {
    if (!j.is_number()) wrong(path, "a number");
    x = j.as_number();
  }
  static void get(const Json& j, const std::string& path, float& x) {
    double wide = 0;
    get(j, path, wide);
    if (!(std::abs(wide) <= 3.4e38)) wrong(path, "a number in range");
    x = static_cast<float>(wide);
  }
  template <class E, std::size_t n>
  static void word(const Json& j, const std::string& path,
                   const std::array<std::string_view, n>& words, E& x) {
    for (std::size_t i = 0; i < n; i++)
      if (j == Json(words[i])) {
        x = static_cast<E>(i);
        return;
      }
    wrong(path, "one of the known words");
  }
  static void get(const Json& j, const std::string& path, RopeScaling& x) {
    word(j, path, scalings, x);
  }
  static void get(const Json& j, const std::string& path, Act& x) { word(j, path, acts, x); }
  static const std::string& text(const Json& j, const std::string& path) {
    if (!j.is_string()) wrong(path, "a string");
    return j.as_string();
  }
  static void get(const Json& j, const std::string& path, Scheme& x) {
    x = parse_scheme(text(j, path));
  }
  static void get(const Json& j, const std::string& path, Activation& x) {
    x = parse_activation(text(j, path));
  }
  static void get(const Json& j, const std::string& path, std::optional<KvScheme>& x) {
    x = parse_kv_scheme(text(j, path));
  }
  static void get(const Json& j, const std::string& path, std::vector<double>& x) {
    if (!j.is_array() || j.as_array().size() > 65536) wrong(path, "a list of numbers");
    for (const Json& item : j.as_array()) get(item, path, x.emplace_back());
  }
  static void get(const Json& j, const std::string& path, std::vector<Block>& x) {
    if (!j.is_array()) wrong(path, "a list of runs");
    for (const Json& run : j.as_array()) {
      const Json *count = run.find("count"), *block = run.find("block");
      if (count == nullptr || block == nullptr || run.as_object().size() != 2 || !count->is_int() ||
          count->as_int() < 1 || count->as_int() > arch::max_layers - static_cast<i64>(x.size()))
        wrong(path, "runs of blocks: count, block; at most 4096 in all");
      Block one;
      object(*block, fmt::format("{}[{}]", path, x.size()), one);
      x.insert(x.end(), static_cast<std::size_t>(count->as_int()), one);
    }
  }
  template <class T>
  static void get(const Json& j, const std::string& path, std::optional<T>& x) {
    object(j, path, x.emplace());
  }
  template <class T>
  static void get(const Json& j, const std::string& path, T& x) {
    object(j, path, x);
  }

  const Json& object_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace

Json spec_to_json(const Spec& spec) { return Writer::object(spec); }

Spec spec_from_json(const Json& j) {
  Spec spec;
  SpecReader::object(j, "spec", spec);
  check(spec);
  return spec;
}

}  // namespace pare
