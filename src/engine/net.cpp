// From a Model to what multiplies.
//
// A model's weights are promises; this file keeps them one at a time, so that the peak is the
// packed model plus one tensor. Two details are not obvious:
//   * A tied head is packed from the embedding, and the rows of the embedding are still gathered
//     from the planes; both share the planes' memory.
//   * MLA's up-projections are cut into heads. A head is a range of rows, and rows of any scheme
//   can
//     be cut, except where a block of weights under one scale crosses the cut: then the values are
//     kept as f32, which changes none of them.
#include "engine/net.h"

#include <algorithm>

#include "number/tensor.h"

namespace pare {
namespace {

// The tensors of one Linear before they are packed.
struct Parts {
  Tensor weight, outlier, low_rank_a, low_rank_b;
  std::vector<float> bias, input_scale;
  std::vector<std::int32_t> permutation, outlier_index;
  float static_scale = 0;
};

class Loader {
 public:
  explicit Loader(const Model& model) : model_(model) {}

  Tensor tensor(const std::string& name) const {
    const auto found = model_.weights.find(name);
    PARE_CHECK(found != model_.weights.end());  // check(model) has compared all names
    return found->second.load();
  }

  std::vector<float> floats(const std::string& name) const { return decode(tensor(name)); }

  // Indices are stored as numbers; each must be whole and below `limit`.
  std::vector<std::int32_t> indices(const std::string& name, i64 limit) const {
    std::vector<std::int32_t> out;
    for (float value : floats(name)) {
      const bool good = value >= 0 && value < static_cast<float>(limit) &&
                        value == static_cast<float>(static_cast<std::int32_t>(value));
      if (!good)
        fail_input("EN-009", "a stored index is not a column of its matrix",
                   {{"tensor", name},
                    {"found", fmt::format("{}", value)},
                    {"need", fmt::format("0 to {}", limit - 1)}});
      out.push_back(static_cast<std::int32_t>(value));
    }
    return out;
  }

  std::vector<std::int32_t> permutation(const std::string& name, i64 n) const {
    std::vector<std::int32_t> order = indices(name, n);
    std::vector<bool> seen(static_cast<std::size_t>(n));
    for (std::int32_t k : order) {
      if (seen[static_cast<std::size_t>(k)])
        fail_input("EN-009", "a stored permutation names a column twice",
                   {{"tensor", name}, {"found", std::to_string(k)}});
      seen[static_cast<std::size_t>(k)] = true;
    }
    return order;
  }

  NormSite norm(const std::string& name, const Norm& spec) const {
    NormSite site;
    site.spec = &spec;
    site.weight = floats(name + ".weight");
    if (spec.bias) site.bias = floats(name + ".bias");
    return site;
  }
  NormSite norm(const std::string& name, const std::optional<Norm>& spec) const {
    return spec ? norm(name, *spec) : NormSite();
  }

  Parts linear(const std::string& name, const Linear& l, bool tied) const {
    Parts p;
    p.weight = tensor(tied ? "embed.weight" : name + ".weight");
    if (l.bias) p.bias = floats(name + ".bias");
    if (l.input_scaled) p.input_scale = floats(name + ".input_scale");
    if (l.permuted) p.permutation = permutation(name + ".permutation", l.in);
    if (l.activation.is_static) p.static_scale = floats(name + ".static_scale").at(0);
    if (l.rank > 0) {
      p.low_rank_a = tensor(name + ".low_rank_a");
      p.low_rank_b = tensor(name + ".low_rank_b");
    }
    if (l.outliers > 0) {
      p.outlier = tensor(name + ".outlier_weight");
      p.outlier_index = indices(name + ".outlier_index", l.in);
    }
    return p;
  }

 private:
  const Model& model_;
};

// How each engine makes a product of a tensor.
struct MakeReference {
  using Product = Tensor;
  static constexpr bool split_latent = false;
  Tensor operator()(Tensor weight, const Activation&, float) const { return weight; }
};
struct MakePacked {
  using Product = PackedLinear;
  static constexpr bool split_latent = true;
  unsigned isa;
  Pool& pool;
  PackedLinear operator()(Tensor weight, const Activation& activation, float scale) const {
    return PackedLinear(std::move(weight), activation, scale, isa, pool);
  }
};

template <class Make>
LinearSite<typename Make::Product> pack(Parts p, const std::string& name, const Linear& l,
                                        const Make& make) {
  LinearSite<typename Make::Product> site;
  site.name = name;
  site.spec = &l;
  site.out = p.weight.rows();
  site.static_scale = p.static_scale;
  site.bias = std::move(p.bias);
  site.input_scale = std::move(p.input_scale);
  site.permutation = std::move(p.permutation);
  site.outlier_index = std::move(p.outlier_index);
  site.product = make(std::move(p.weight), l.activation, p.static_scale);
  if (l.rank > 0) {
    site.low_rank_a = make(std::move(p.low_rank_a), Activation{}, 0);
    site.low_rank_b = make(std::move(p.low_rank_b), Activation{}, 0);
  }
  if (l.outliers > 0) site.outlier = make(std::move(p.outlier), Activation{}, 0);
  return site;
}

Tensor cut_rows(const Tensor& t, i64 begin, i64 count) {
  const i64 tile = t.scheme.grouping == Grouping::block ? t.scheme.rows : 1;
  if (begin % tile == 0 && count % tile == 0) {
    const RowRange range{begin, count};
    return select_rows(t, {&range, 1});
  }
  std::vector<float> values(static_cast<std::size_t>(count * t.cols()));
  for (i64 r = 0; r < count; r++)
    decode_row(t, begin + r,
               std::span(values).subspan(static_cast<std::size_t>(r * t.cols()),
                                         static_cast<std::size_t>(t.cols())));
  return plain_tensor(values, {count, t.cols()});
}

Parts cut_rows(const Parts& p, i64 begin, i64 count) {
  Parts cut = p;
  cut.weight = cut_rows(p.weight, begin, count);
  if (p.outlier.count() > 1 || !p.outlier_index.empty())
    cut.outlier = cut_rows(p.outlier, begin, count);
  if (!p.low_rank_b.shape.empty()) cut.low_rank_b = cut_rows(p.low_rank_b, begin, count);
  if (!p.bias.empty()) cut.bias.assign(p.bias.begin() + begin, p.bias.begin() + begin + count);
  return cut;
}

bool bare(const Linear& l) {
  return !l.bias && l.activation.per == Activation::Per::none && l.rank == 0 && l.outliers == 0 &&
         !l.permuted && !l.input_scaled && l.rotation == 0;
}

// (out, in) -> (in, out) with the same values; groups of a scheme do not survive that, floats do.
Tensor transposed(const Tensor& t) {
  if (t.scheme.plain() && t.scheme.sparsity == Sparsity::dense) return transpose(t);
  return transpose(plain_tensor(decode(t), t.shape));
}

template <class Make>
void split_latent(BlockSite<typename Make::Product>& site, const Attention& a, const Loader& load,
                  const Make& make) {
  const std::string name = site.name + ".attn";
  const i64 nope = a.qk_dim - a.rope.dims;
  const Parts k = load.linear(name + ".k", a.k, false), v = load.linear(name + ".v", a.v, false);
  const bool absorbable = bare(a.k) && bare(a.v);
  for (i64 h = 0; h < a.heads; h++) {
    Parts k_head = cut_rows(k, h * nope, nope);
    if (absorbable) site.k_absorbed.push_back(make(transposed(k_head.weight), Activation{}, 0));
    site.k_heads.push_back(pack(std::move(k_head), name + ".k", a.k, make));
    site.v_heads.push_back(pack(cut_rows(v, h * a.v_dim, a.v_dim), name + ".v", a.v, make));
  }
}

i64 rope_index(std::vector<Rope>& ropes, const Rope& rope) {
  const auto found = std::find(ropes.begin(), ropes.end(), rope);
  const i64 index = found - ropes.begin();
  if (found == ropes.end()) ropes.push_back(rope);
  return index;
}

template <class Make>
void build_attention(BlockSite<typename Make::Product>& site, const Loader& load,
                     const Make& make) {
  const Attention& a = site.spec->attn;
  const std::string name = site.name + ".attn";
  site.q_norm = load.norm(name + ".q_norm", a.q_norm);
  site.k_norm = load.norm(name + ".k_norm", a.k_norm);
  site.q_down_norm = load.norm(name + ".q_down_norm", a.q_down_norm);
  site.kv_down_norm = load.norm(name + ".kv_down_norm", a.kv_down_norm);
  if (a.sink_logits) site.sink_logits = load.floats(name + ".sink_logits");
  const bool split = Make::split_latent && a.mla() && a.k.present();
  for (auto [word, linear, target] : {std::tuple{".q_down", &a.q_down, &site.q_down},
                                      {".q", &a.q, &site.q},
                                      {".kv_down", &a.kv_down, &site.kv_down},
                                      {".k", &a.k, &site.k},
                                      {".v", &a.v, &site.v},
                                      {".o", &a.o, &site.o}}) {
    if (!linear->present() || (split && (linear == &a.k || linear == &a.v))) continue;
    *target = pack(load.linear(name + word, *linear, false), name + word, *linear, make);
  }
  if (split) split_latent(site, a, load, make);
}

template <class Make>
void build_ffn(BlockSite<typename Make::Product>& site, const Loader& load, const Make& make) {
  const Ffn& f = site.spec->ffn;
  const std::string name = site.name + ".ffn";
  if (f.gated)
    site.gate = pack(load.linear(name + ".gate", f.gate, false), name + ".gate", f.gate, make);
  site.up = pack(load.linear(name + ".up", f.up, false), name + ".up", f.up, make);
  site.down = pack(load.linear(name + ".down", f.down, false), name + ".down", f.down, make);
}

// A block that reads another's cache may not look further back than that cache reaches: what it saw
// would depend on the steps a sequence came in.
bool reaches(const Attention& lender, const Attention& reader) {
  return lender.window == 0 ||
         (reader.window > 0 && reader.window <= lender.window && reader.sinks <= lender.sinks);
}

void refuse_what_no_engine_runs(const Model& model) {
  check(model);
  const std::vector<Block>& blocks = model.spec.blocks;
  for (std::size_t i = 0; i < blocks.size(); i++) {
    const Attention& a = blocks[i].attn;
    if (blocks[i].ffn.experts > 0)
      fail_input("EN-008", "mixtures of experts cannot be run yet",
                 {{"block", std::to_string(i)},
                  {"found", fmt::format("{} experts", blocks[i].ffn.experts)}});
    if (a.kv_from < 0) continue;
    const Attention& lender = blocks[static_cast<std::size_t>(a.kv_from)].attn;
    if (!reaches(lender, a))
      fail_input(
          "EN-008", "a block looks further back than the cache it shares",
          {{"block", std::to_string(i)},
           {"found", fmt::format("window {}, sinks {}", a.window, a.sinks)},
           {"need", fmt::format("at most window {}, sinks {}", lender.window, lender.sinks)}});
  }
}

template <class Make>
void build_block(BlockSite<typename Make::Product>& site, const Loader& load, const Make& make) {
  const Block& block = *site.spec;
  site.before_attn = load.norm(site.name + ".before_attn", block.before_attn);
  site.after_attn = load.norm(site.name + ".after_attn", block.after_attn);
  site.before_ffn = load.norm(site.name + ".before_ffn", block.before_ffn);
  site.after_ffn = load.norm(site.name + ".after_ffn", block.after_ffn);
  build_attention(site, load, make);
  build_ffn(site, load, make);
}

// Blocks [first, first + count) of the model; the net counts them from 0, names from the model's 0.
template <class Make>
void build_blocks(Net<typename Make::Product>& net, const Model& model, i64 first,
                  const Make& make) {
  const Loader load(model);
  net.blocks.reserve(net.spec.blocks.size());
  for (std::size_t i = 0; i < net.spec.blocks.size(); i++) {
    const Block& block = net.spec.blocks[i];
    BlockSite<typename Make::Product>& site = net.blocks.emplace_back();
    site.spec = &block;
    site.name = fmt::format("blocks.{}", first + static_cast<i64>(i));
    site.store = block.attn.kv_from >= 0 ? block.attn.kv_from : static_cast<i64>(i);
    site.rope = rope_index(net.ropes, block.attn.rope);
    build_block(site, load, make);
  }
}

template <class Make>
void build_ends(Net<typename Make::Product>& net, const Model& model, const Make& make) {
  const Loader load(model);
  const Spec& spec = net.spec;
  net.embed = load.tensor("embed.weight");
  if (spec.learned_positions > 0) net.positions = load.floats("positions.weight");
  net.norm = load.norm("norm", spec.final_norm);
  net.head = pack(load.linear("head", spec.head, spec.tied), "head", spec.head, make);
}

template <class Make>
std::unique_ptr<Net<typename Make::Product>> build(const Model& model, const Make& make) {
  refuse_what_no_engine_runs(model);
  auto net = std::make_unique<Net<typename Make::Product>>();
  net->spec = model.spec;
  build_blocks(*net, model, 0, make);
  build_ends(*net, model, make);
  return net;
}

}  // namespace

std::unique_ptr<Net<Tensor>> reference_net(const Model& model) {
  return build(model, MakeReference{});
}

std::unique_ptr<Net<PackedLinear>> packed_net(const Model& model, unsigned isa, Pool& pool) {
  return build(model, MakePacked{isa, pool});
}

std::unique_ptr<Net<PackedLinear>> packed_blocks(const Model& model, i64 first, i64 count,
                                                 unsigned isa, Pool& pool) {
  PARE_CHECK(first >= 0 && count >= 0 &&
             first + count <= static_cast<i64>(model.spec.blocks.size()));
  refuse_what_no_engine_runs(model);
  auto net = std::make_unique<Net<PackedLinear>>();
  net->spec = model.spec;
  net->spec.blocks.assign(model.spec.blocks.begin() + first,
                          model.spec.blocks.begin() + first + count);
  for (Block& block : net->spec.blocks) {
    PARE_CHECK(block.attn.kv_from < 0 || block.attn.kv_from >= first);
    if (block.attn.kv_from >= 0) block.attn.kv_from -= first;
  }
  build_blocks(*net, model, first, MakePacked{isa, pool});
  return net;
}

std::unique_ptr<Net<PackedLinear>> packed_ends(const Model& model, unsigned isa, Pool& pool) {
  auto net = std::make_unique<Net<PackedLinear>>();
  net->spec = model.spec;
  net->spec.blocks.clear();
  build_ends(*net, model, MakePacked{isa, pool});
  return net;
}

void repack(Net<PackedLinear>& net, i64 index, const Model& model, i64 first,
            const std::string& name, unsigned isa, Pool& pool) {
  BlockSite<PackedLinear>& site = net.blocks[static_cast<std::size_t>(index)];
  Block& mine = net.spec.blocks[static_cast<std::size_t>(index)];
  const Block& block = model.spec.blocks[static_cast<std::size_t>(first + index)];
  const MakePacked make{isa, pool};
  const Loader load(model);
  using Site = LinearSite<PackedLinear>;
  const std::tuple<const char*, Linear&, const Linear&, Site&> all[] = {
      {".attn.q_down", mine.attn.q_down, block.attn.q_down, site.q_down},
      {".attn.q", mine.attn.q, block.attn.q, site.q},
      {".attn.kv_down", mine.attn.kv_down, block.attn.kv_down, site.kv_down},
      {".attn.k", mine.attn.k, block.attn.k, site.k},
      {".attn.v", mine.attn.v, block.attn.v, site.v},
      {".attn.o", mine.attn.o, block.attn.o, site.o},
      {".ffn.gate", mine.ffn.gate, block.ffn.gate, site.gate},
      {".ffn.up", mine.ffn.up, block.ffn.up, site.up},
      {".ffn.down", mine.ffn.down, block.ffn.down, site.down}};
  for (const auto& [word, to, from, target] : all) {
    if (name != site.name + word) continue;
    to = from;
    const bool latent = mine.attn.mla() && (&to == &mine.attn.k || &to == &mine.attn.v);
    if (!latent) {
      target = pack(load.linear(name, from, false), name, to, make);
      return;
    }
    site.k_heads.clear();
    site.v_heads.clear();
    site.k_absorbed.clear();
    mine.attn.k = block.attn.k;  // both are cut anew: whether they can be absorbed hangs on both
    mine.attn.v = block.attn.v;
    split_latent(site, mine.attn, load, make);
    return;
  }
  PARE_CHECK(false);
}

std::vector<const PackedLinear*> decode_products(const Net<PackedLinear>& net) {
  std::vector<const PackedLinear*> all;
  const auto add = [&](const LinearSite<PackedLinear>& site) {
    if (!site) return;
    for (const PackedLinear* p : {&site.product, &site.outlier, &site.low_rank_a, &site.low_rank_b})
      if (p->out() > 0) all.push_back(p);
  };
  for (const BlockSite<PackedLinear>& b : net.blocks) {
    for (const auto* site :
         {&b.q_down, &b.q, &b.kv_down, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down})
      add(*site);
    for (const PackedLinear& p : b.k_absorbed) all.push_back(&p);
    if (!b.absorbable())
      for (const auto& site : b.k_heads) add(site);
    for (const auto& site : b.v_heads) add(site);
  }
  add(net.head);
  return all;
}

}  // namespace pare
