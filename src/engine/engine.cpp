// The engine around the forward pass: checking inputs, cutting them into chunks, gathering logits,
// counting.
//
// A step may hold tokens of many sequences. They run in chunks of at most chunk_tokens, each a list
// of pieces (consecutive tokens of one sequence), so matrices are multiplied once for all pieces
// while attention and caches stay apart. A model whose frequencies jump with the length of the
// sequence (longrope) is replayed from its tokens when a sequence crosses that length, so decoding
// gives what one long prefill would give.
#include "engine/engine.h"

#include <algorithm>
#include <set>
#include <variant>

#include "engine/counts.h"
#include "engine/cpu_ops.h"
#include "engine/ref_ops.h"

namespace pare {
namespace {

// A net with its operations.
template <class Ops>
struct Machine {
  std::unique_ptr<typename Ops::Net> net;  // the operations refer to it
  Ops ops;
  template <class... Rest>
  explicit Machine(std::unique_ptr<typename Ops::Net> made, Rest&&... rest)
      : net(std::move(made)), ops(*net, std::forward<Rest>(rest)...) {}
};

}  // namespace

struct Engine::Impl {
  Spec spec;
  EngineOptions options;
  Code kv = Code::f16;
  std::variant<std::monostate, Machine<CpuOps>, Machine<RefOps>> machine;
  std::vector<float> logits;  // (rows, vocab) of the last step

  void check_input(const Input& input) const {
    PARE_CHECK(input.cache != nullptr);
    if (input.tokens.empty()) fail(Exit::usage, "EN-005", "a sequence has no tokens");
    for (std::int32_t id : input.tokens)
      if (id < 0 || id >= spec.vocab)
        fail_input(
            "EN-001", "a token is outside the model's vocabulary",
            {{"found", std::to_string(id)}, {"need", fmt::format("0 to {}", spec.vocab - 1)}});
    const i64 need = input.cache->size() + static_cast<i64>(input.tokens.size());
    if (need > input.cache->capacity())
      fail(Exit::usage, "EN-002", "the cache is full",
           {{"found", fmt::format("{} positions", input.cache->capacity())},
            {"need", fmt::format("{}", need)}},
           "use a longer context");
  }

  // The length at which rotations change, or 0.
  i64 jump_length() const {
    for (const Block& b : spec.blocks)
      if (b.attn.rope.dims > 0 && b.attn.rope.scaling == RopeScaling::longrope &&
          b.attn.rope.short_factor != b.attn.rope.long_factor)
        return b.attn.rope.original_positions;
    return 0;
  }

  template <class Ops>
  void run_chunk(Machine<Ops>& m, const Chunk& chunk, const std::vector<i64>& wanted,
                 const Tap* tap) {
    m.ops.begin(chunk);
    Forward<Ops> forward(m.ops, *m.net, tap);
    const typename Ops::Array x = forward.hidden();
    for (const Piece& piece : chunk.pieces)
      for (KvStore& store : piece.cache->stores)
        if (store.present() && store.shared()) store.commit();
    if (wanted.empty()) return;
    const typename Ops::Array y = static_cast<i64>(wanted.size()) == chunk.rows()
                                      ? forward.logits(x)
                                      : forward.logits(m.ops.select(x, wanted));
    const Matrix<const float> rows = m.ops.view(y);
    for (i64 r = 0; r < rows.rows; r++)
      logits.insert(logits.end(), rows.row(r), rows.row(r) + rows.cols);
  }

  void run(const Chunk& chunk, const std::vector<i64>& wanted, const Tap* tap) {
    if (auto* cpu = std::get_if<Machine<CpuOps>>(&machine))
      run_chunk(*cpu, chunk, wanted, tap);
    else
      run_chunk(std::get<Machine<RefOps>>(machine), chunk, wanted, tap);
    for (const Piece& piece : chunk.pieces)
      piece.cache->append({chunk.tokens.data() + piece.row, static_cast<std::size_t>(piece.count)});
  }

  void step(std::span<const Input> inputs, Want want, const Tap* tap) {
    Chunk chunk;
    std::vector<i64> wanted;
    const auto flush = [&] {
      if (chunk.rows() > 0) run(chunk, wanted, tap);
      chunk = {};
      wanted.clear();
    };
    for (const Input& input : inputs) {
      KvCache::State& cache = input.cache->state();
      const i64 total = static_cast<i64>(input.tokens.size()), before = cache.size;
      for (i64 done = 0; done < total;) {
        if (chunk.rows() == options.chunk_tokens) flush();
        const i64 count = std::min(total - done, options.chunk_tokens - chunk.rows());
        chunk.pieces.push_back({&cache, chunk.rows(), count, before + done, before + total});
        for (i64 t = 0; t < count; t++) {
          const bool last = done + t + 1 == total;
          if (want == Want::all || (want == Want::last && last)) wanted.push_back(chunk.rows());
          chunk.tokens.push_back(input.tokens[static_cast<std::size_t>(done + t)]);
        }
        done += count;
      }
    }
    flush();
  }

  // Rebuilds a cache whose keys were rotated for shorter sequences.
  void replay(KvCache& cache, i64 length) {
    const std::vector<std::int32_t> tokens = cache.state().tokens;
    cache.truncate(0);
    cache.state().long_ropes = 1;
    for (std::size_t done = 0; done < tokens.size();) {
      const std::size_t count =
          std::min(tokens.size() - done, static_cast<std::size_t>(options.chunk_tokens));
      Chunk chunk;
      chunk.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(done),
                          tokens.begin() + static_cast<std::ptrdiff_t>(done + count));
      chunk.pieces.push_back(
          {&cache.state(), 0, static_cast<i64>(count), static_cast<i64>(done), length});
      run(chunk, {}, nullptr);
      done += count;
    }
  }
};

Engine::Engine(const Model& model, Pool& pool, const EngineOptions& options)
    : impl_(std::make_unique<Impl>()) {
  impl_->spec = model.spec;
  impl_->options = options;
  impl_->kv = options.kv ? *options.kv : default_kv_code(model.spec);
  PARE_CHECK(options.chunk_tokens > 0);
  if (options.reference)
    impl_->machine.emplace<Machine<RefOps>>(reference_net(model));
  else
    impl_->machine.emplace<Machine<CpuOps>>(packed_net(model, options.isa, pool), pool,
                                            options.isa);
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

const Spec& Engine::spec() const { return impl_->spec; }
Code Engine::kv_code() const { return impl_->kv; }
KvCache Engine::make_cache(i64 positions) const {
  return KvCache(impl_->spec, positions, impl_->kv);
}

Matrix<const float> Engine::step(std::span<const Input> inputs, Want want, const Tap* tap) {
  Impl& m = *impl_;
  std::set<const KvCache*> seen;
  for (const Input& input : inputs) {
    m.check_input(input);
    PARE_CHECK(seen.insert(input.cache).second);  // one sequence, one input
  }
  const i64 jump = m.jump_length();
  for (const Input& input : inputs) {
    const i64 before = input.cache->size(), after = before + static_cast<i64>(input.tokens.size());
    if (jump == 0 || after <= jump) continue;
    if (before > 0 && input.cache->state().long_ropes == 0) m.replay(*input.cache, after);
    input.cache->state().long_ropes = 1;
  }
  m.logits.clear();
  m.step(inputs, want, tap);
  return {m.logits.data(), static_cast<i64>(m.logits.size()) / m.spec.vocab, m.spec.vocab};
}

i64 Engine::weight_bytes_per_step(i64 batch) const {
  const auto* cpu = std::get_if<Machine<CpuOps>>(&impl_->machine);
  if (cpu == nullptr) return weight_bytes(impl_->spec);
  i64 bytes = 0;
  for (const PackedLinear* p : decode_products(*cpu->net)) bytes += p->bytes_streamed(batch);
  return bytes;
}

i64 Engine::kv_bytes_per_step(i64 batch, i64 context) const {
  return batch * kv_bytes_read(impl_->spec, impl_->kv, context);
}

double Engine::flops_per_step(i64 tokens, i64 context) const {
  return forward_flops(impl_->spec, tokens, context);
}

std::vector<std::string> Engine::kernels(i64 batch) const {
  const auto* cpu = std::get_if<Machine<CpuOps>>(&impl_->machine);
  if (cpu == nullptr) return {"reference"};
  std::set<std::string> names;
  for (const PackedLinear* p : decode_products(*cpu->net)) names.emplace(p->kernel_name(batch));
  return {names.begin(), names.end()};
}

}  // namespace pare
