// From inputs to chunks, and what a step may be given.
//
// A step's tokens, of all sequences, are laid one after the other and cut into chunks of bounded
// size: linears run over all rows of a chunk, attention over each sequence's piece. The order of
// rows never changes, so logits come out in the order of the inputs however they were cut.
//
// Rotations with longrope depend on whether the sequence is long at the end of the step. A cache
// remembers its tokens; when the answer changes for keys that it already holds, the step runs those
// tokens again in front of the new ones. That costs one prefill at the crossing and nothing else.
#include "engine/engine.h"

#include <algorithm>
#include <list>
#include <set>
#include <variant>

#include "cost/count.h"
#include "engine/cpu_ops.h"
#include "engine/ref_ops.h"

namespace pare {
namespace {

// One sequence's tokens of a step: the new ones, behind those that must be run again.
struct Work {
  KvCache::State* cache = nullptr;
  std::span<const std::int32_t> tokens;
  i64 skip = 0;    // tokens in front whose logits nobody asked for
  i64 length = 0;  // of the sequence when the step ends
  i64 done = 0;
  i64 left() const { return static_cast<i64>(tokens.size()) - done; }
};

void check_inputs(const Spec& spec, std::span<const Input> inputs) {
  std::set<const KvCache*> seen;
  for (const Input& input : inputs) {
    PARE_CHECK(input.cache != nullptr && seen.insert(input.cache).second);
    PARE_CHECK(input.cache->state().stores.size() == spec.blocks.size());
    if (input.tokens.empty())
      fail(Exit::usage, "EN-005", "a sequence has no tokens", {{"need", "at least one"}});
    if (input.cache->state().in_step)
      fail(Exit::failed, "EN-005", "the last step of a cache was cut short", {},
           "truncate the cache to 0 and run the sequence again");
    for (std::size_t i = 0; i < input.tokens.size(); i++)
      if (input.tokens[i] < 0 || input.tokens[i] >= spec.vocab)
        fail_input("EN-001", "a token is outside the model's vocabulary",
                   {{"position", std::to_string(input.cache->size() + static_cast<i64>(i))},
                    {"found", std::to_string(input.tokens[i])},
                    {"need", fmt::format("0 to {}", spec.vocab - 1)}});
    const i64 room = input.cache->capacity() - input.cache->size();
    if (static_cast<i64>(input.tokens.size()) > room)
      fail(Exit::usage, "EN-002", "the cache is full",
           {{"found",
             fmt::format("{} more tokens behind {}", input.tokens.size(), input.cache->size())},
            {"need", fmt::format("at most {} positions", input.cache->capacity())}},
           "use a longer context");
  }
}

// Which of the ropes use their long factors for a sequence of this length, a bit each.
std::uint64_t long_ropes(const std::vector<Rope>& ropes, i64 length) {
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(64, ropes.size()); i++)
    if (ropes[i].scaling == RopeScaling::longrope && length > ropes[i].original_positions)
      mask |= std::uint64_t{1} << i;
  return mask;
}

// `joined` keeps the tokens of sequences that are run again.
std::vector<Work> plan(std::span<const Input> inputs, const std::vector<Rope>& ropes,
                       std::list<std::vector<std::int32_t>>& joined) {
  std::vector<Work> works;
  for (const Input& input : inputs) {
    KvCache::State& state = input.cache->state();
    Work work{&state, input.tokens, 0, state.size + static_cast<i64>(input.tokens.size()), 0};
    const std::uint64_t mask = long_ropes(ropes, work.length);
    if (state.size > 0 && mask != state.long_ropes) {
      work.skip = state.size;
      joined.push_back(state.tokens);
      joined.back().insert(joined.back().end(), input.tokens.begin(), input.tokens.end());
      work.tokens = joined.back();
      input.cache->truncate(0);
    }
    state.long_ropes = mask;
    works.push_back(work);
  }
  return works;
}

// The next chunk of at most `limit` tokens, and the rows of it whose logits are wanted.
Chunk next_chunk(std::vector<Work>& works, i64 limit, Want want, std::vector<i64>& wanted) {
  Chunk chunk;
  for (Work& work : works) {
    const i64 count = std::min(work.left(), limit - chunk.rows());
    if (count == 0) continue;
    chunk.pieces.push_back({work.cache, chunk.rows(), count, work.cache->size, work.length});
    for (i64 t = work.done; t < work.done + count; t++) {
      const bool last = t + 1 == static_cast<i64>(work.tokens.size());
      if (t >= work.skip && (want == Want::all || (want == Want::last && last)))
        wanted.push_back(chunk.rows());
      chunk.tokens.push_back(work.tokens[static_cast<std::size_t>(t)]);
    }
    work.done += count;
  }
  return chunk;
}

// A net with its operations.
template <class Ops>
struct Machine {
  std::unique_ptr<typename Ops::Net> net;  // the operations refer to it
  Ops ops;
  template <class... Rest>
  explicit Machine(std::unique_ptr<typename Ops::Net> made, Rest&&... rest)
      : net(std::move(made)), ops(*net, std::forward<Rest>(rest)...) {}

  // Appends the logits of the wanted rows.
  void run(const Chunk& chunk, std::span<const i64> wanted, const Tap* tap,
           std::vector<float>& logits) {
    for (const Piece& piece : chunk.pieces) piece.cache->in_step = true;
    ops.begin(chunk);
    Forward<Ops> forward(ops, *net, tap);
    typename Ops::Array x = forward.hidden();
    const std::span<const std::int32_t> tokens = chunk.tokens;
    for (const Piece& piece : chunk.pieces) {
      for (KvStore& store : piece.cache->stores) store.commit();
      piece.cache->append(tokens.subspan(static_cast<std::size_t>(piece.row),
                                         static_cast<std::size_t>(piece.count)));
      piece.cache->in_step = false;
    }
    if (wanted.empty()) return;
    if (static_cast<i64>(wanted.size()) < chunk.rows()) x = ops.select(x, wanted);
    const typename Ops::Array y = forward.logits(x);
    const Matrix<const float> rows = ops.view(y);
    for (i64 r = 0; r < rows.rows; r++)
      logits.insert(logits.end(), rows.row(r), rows.row(r) + rows.cols);
  }
};

i64 vector_bytes(const Spec& spec) {
  i64 count = 0;
  for (const Slot& slot : slots(spec))
    if (slot.vector) count += slot.shape.at(0);
  return count * static_cast<i64>(sizeof(float));
}

}  // namespace

struct Engine::Impl {
  EngineOptions options;
  KvScheme kv;
  std::variant<std::monostate, Machine<CpuOps>, Machine<RefOps>> machine;
  std::vector<float> logits;  // (rows, vocab) of the last step

  const Machine<CpuOps>* cpu() const { return std::get_if<Machine<CpuOps>>(&machine); }
  const Spec& spec() const {
    return cpu() ? cpu()->net->spec : std::get<Machine<RefOps>>(machine).net->spec;
  }
  const std::vector<Rope>& ropes() const {
    return cpu() ? cpu()->net->ropes : std::get<Machine<RefOps>>(machine).net->ropes;
  }
  void run(const Chunk& chunk, std::span<const i64> wanted, const Tap* tap) {
    if (auto* fast = std::get_if<Machine<CpuOps>>(&machine))
      fast->run(chunk, wanted, tap, logits);
    else
      std::get<Machine<RefOps>>(machine).run(chunk, wanted, tap, logits);
  }
};

Engine::Engine(const Model& model, Pool& pool, const EngineOptions& options)
    : impl_(std::make_unique<Impl>()) {
  PARE_CHECK(options.chunk_tokens > 0);
  impl_->options = options;
  impl_->kv = options.kv ? *options.kv : default_kv(model.spec);
  if (options.reference)
    impl_->machine.emplace<Machine<RefOps>>(reference_net(model));
  else
    impl_->machine.emplace<Machine<CpuOps>>(packed_net(model, options.isa, pool), pool,
                                            options.isa);
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

const Spec& Engine::spec() const { return impl_->spec(); }
const KvScheme& Engine::kv() const { return impl_->kv; }
KvCache Engine::make_cache(i64 positions) const { return KvCache(spec(), positions, impl_->kv); }

Matrix<const float> Engine::step(std::span<const Input> inputs, Want want, const Tap* tap) {
  Impl& m = *impl_;
  check_inputs(spec(), inputs);
  std::list<std::vector<std::int32_t>> joined;
  std::vector<Work> works = plan(inputs, m.ropes(), joined);
  m.logits.clear();
  while (std::any_of(works.begin(), works.end(), [](const Work& w) { return w.left() > 0; })) {
    std::vector<i64> wanted;
    const Chunk chunk = next_chunk(works, m.options.chunk_tokens, want, wanted);
    m.run(chunk, wanted, tap);
  }
  const i64 vocab = spec().vocab;
  return {m.logits.data(), static_cast<i64>(m.logits.size()) / vocab, vocab};
}

void Engine::count(Tally* tally) {
  auto* fast = std::get_if<Machine<CpuOps>>(&impl_->machine);
  PARE_CHECK(fast != nullptr);
  fast->ops.count(tally);
}

void Engine::time(PartTimes* times) {
  auto* fast = std::get_if<Machine<CpuOps>>(&impl_->machine);
  PARE_CHECK(fast != nullptr);
  fast->ops.time(times);
}

i64 Engine::weight_bytes_per_step(i64 batch) const {
  const Spec& s = spec();
  i64 bytes = vector_bytes(s) + batch * stored_bytes(s.embed, 1, s.dim);
  if (s.learned_positions > 0) bytes += batch * s.dim * static_cast<i64>(sizeof(float));
  if (const Machine<CpuOps>* cpu = impl_->cpu()) {
    for (const PackedLinear* p : decode_products(*cpu->net)) bytes += p->bytes_streamed(batch);
    return bytes;
  }
  for (const Slot& slot : slots(s))
    if (slot.linear != nullptr) bytes += stored_bytes(slot.scheme, slot.shape[0], slot.shape[1]);
  return s.tied ? bytes + stored_bytes(s.embed, s.vocab, s.dim) : bytes;
}

i64 Engine::kv_bytes_per_step(i64 batch, i64 context) const {
  return batch * kv_bytes_read(spec(), impl_->kv, context);
}

double Engine::flops_per_step(i64 tokens, i64 context) const {
  return forward_flops(spec(), tokens, context);
}

std::vector<std::string> Engine::kernels(i64 batch) const {
  const Machine<CpuOps>* cpu = impl_->cpu();
  if (cpu == nullptr) return {"reference"};
  std::set<std::string> names;
  for (const PackedLinear* p : decode_products(*cpu->net)) names.emplace(p->kernel_name(batch));
  return {names.begin(), names.end()};
}

}  // namespace pare
