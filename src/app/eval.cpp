// pare eval: how well a model predicts, and how far it is from another.
#include <algorithm>

#include "app/commands.h"
#include "file/publish.h"
#include "file/safetensors.h"
#include "probe/tasks.h"
#include "text/tokenizer.h"

namespace pare {

Json divergence_json(const Divergence& d) {
  return Json::object({{"kl_mean", Json(d.kl_mean)},
                       {"kl_median", Json(d.kl_median)},
                       {"kl_p99", Json(d.kl_p99)},
                       {"kl_max", Json(d.kl_max)},
                       {"top1_agreement", Json(d.top1_agreement)},
                       {"same_top_p", Json(d.same_top_p)},
                       {"rms_delta_p", Json(d.rms_delta_p)}});
}

namespace {

// A model with its engine: what eval needs twice.
struct Loaded {
  Model model;
  Engine engine;
};

Loaded open(const std::string& argument, const EvalOptions& o, const CommonOptions& common,
            const std::string& kv, Pool& pool) {
  Model model = load_model(argument, {common.tokenizer});
  EngineOptions options;
  options.reference = o.reference;
  options.kv = parse_kv(kv);
  Engine engine(model, pool, options);
  return {std::move(model), std::move(engine)};
}

Tokenizer tokenizer_of(const Model& model, const std::string& argument) {
  if (model.tokenizer.empty())
    fail_input("RN-001", "the model has no tokenizer, so text cannot be scored",
               {{"model", argument}}, "give --tokenizer FILE, or token ids with --ids FILE");
  return load_tokenizer(model.tokenizer);
}

void check_ids(const std::vector<Sequence>& sequences, i64 vocab) {
  for (std::size_t s = 0; s < sequences.size(); s++)
    for (std::int32_t id : sequences[s].ids)
      if (id >= vocab)
        fail_input("CL-005", "a token id is outside the model's vocabulary",
                   {{"sequence", std::to_string(s)},
                    {"found", std::to_string(id)},
                    {"need", fmt::format("0 to {}", vocab - 1)}});
}

// f32 logits of every position: tensors seq0, seq1, ... of shape (tokens, vocabulary).
void write_logits(Engine& engine, const std::vector<Sequence>& sequences, const std::string& path,
                  bool force, const Log& log) {
  const i64 vocab = engine.spec().vocab;
  std::vector<TensorPlan> plan;
  for (std::size_t s = 0; s < sequences.size(); s++) {
    const i64 n = static_cast<i64>(sequences[s].ids.size());
    if (n > engine.spec().max_positions)
      fail_input("EV-003", "a sequence is longer than the model's context",
                 {{"sequence", std::to_string(s)},
                  {"found", fmt::format("{} tokens", n)},
                  {"need", fmt::format("at most {}", engine.spec().max_positions)}});
    plan.push_back({fmt::format("seq{}", s), Dtype::F32, {n, vocab}});
  }
  Publisher publisher(path, force);
  SafetensorsWriter writer(publisher.path(), plan);
  Progress progress(log, "logits", static_cast<double>(sequences.size()), "sequences");
  for (std::size_t s = 0; s < sequences.size(); s++) {
    stop_if_interrupted();
    KvCache cache = engine.make_cache(static_cast<i64>(sequences[s].ids.size()));
    const Input input{&cache, sequences[s].ids};
    const Matrix<const float> logits = engine.step({&input, 1}, Want::all);
    PARE_CHECK(logits.stride == logits.cols);
    writer.write(
        plan[s].name,
        std::as_bytes(std::span(logits.data, static_cast<std::size_t>(logits.rows * logits.cols))));
    progress.add(1);
  }
  writer.finish();
  publisher.commit();
}

Json score_json(const Score& score) {
  return Json::object({{"tokens", Json(score.tokens)},
                       {"nll_per_token", Json(score.nll_per_token())},
                       {"perplexity", Json(score.perplexity())},
                       {"bits_per_byte", score.bytes > 0 ? Json(score.bits_per_byte()) : Json()}});
}

std::string score_text(const Score& score) {
  std::string text =
      fmt::format("  tokens         {}\n  nll per token  {:.6f}\n  perplexity     {:.4f}\n",
                  score.tokens, score.nll_per_token(), score.perplexity());
  if (score.bytes > 0) text += fmt::format("  bits per byte  {:.5f}\n", score.bits_per_byte());
  return text;
}

void print_scores(const EvalOptions& o, const EvalResult& r, const Output& out) {
  if (out.json) {
    Json result = score_json(r.score);
    result.set("model", o.model);
    result.set("protocol", Json::object({{"window", Json(r.protocol.window)},
                                         {"stride", Json(r.protocol.stride)},
                                         {"limit", Json(r.protocol.limit)},
                                         {"text", Json(to_string(r.protocol))}}));
    if (r.sequences.size() > 1) {
      Json::Array list;
      for (const Score& s : r.sequences) list.push_back(score_json(s));
      result.set("sequences", Json(std::move(list)));
    }
    if (r.divergence) {
      result.set("against", o.against);
      result.set("base", score_json(*r.base_score));
      const Json divergence = divergence_json(*r.divergence);
      for (const Json::Member& m : divergence.as_object()) result.set(m.first, m.second);
    }
    return out.result("eval", result);
  }
  std::string text = fmt::format("{}\n  protocol       {}\n", o.model, to_string(r.protocol));
  text += score_text(r.score);
  if (r.divergence) {
    const Divergence& d = *r.divergence;
    text += fmt::format(
        "against {}\n  perplexity     {:.4f}\n  KL (nats)      mean {:.6f}, median {:.6f}, 99 % "
        "{:.6f}, "
        "max {:.6f}\n  same top-1     {:.2f} %\n  same top-p     {:.2f} % (overlap of the first 90 "
        "% of "
        "probability)\n  rms change     {:.3f} % of the right token's probability\n",
        o.against, r.base_score->perplexity(), d.kl_mean, d.kl_median, d.kl_p99, d.kl_max,
        100 * d.top1_agreement, 100 * d.same_top_p, 100 * d.rms_delta_p);
  }
  out.text(text);
}

void eval_tasks(const EvalOptions& o, Loaded& loaded, Pool& pool, const Output& out) {
  const Tokenizer tokenizer = tokenizer_of(loaded.model, o.model);
  const TaskResult r = run_tasks(loaded.engine, tokenizer, read_tasks(o.tasks), pool, out.log);
  if (out.json)
    return out.result("eval", Json::object({{"model", Json(o.model)},
                                            {"tasks", Json(o.tasks)},
                                            {"items", Json(r.items)},
                                            {"accuracy", Json(r.accuracy())},
                                            {"accuracy_normalized", Json(r.accuracy_normalized())},
                                            {"standard_error", Json(r.standard_error())}}));
  out.text(
      fmt::format("{}\n  items          {}\n  accuracy       {:.2f} % +- {:.2f}\n  per byte       "
                  "{:.2f} %\n",
                  o.tasks, r.items, 100 * r.accuracy(), 100 * r.standard_error(),
                  100 * r.accuracy_normalized()));
}

}  // namespace

void command_eval(const EvalOptions& o, const CommonOptions& common, const Output& out) {
  const int inputs = (o.text.empty() ? 0 : 1) + (o.ids.empty() ? 0 : 1) + (o.tasks.empty() ? 0 : 1);
  if (inputs != 1)
    fail(Exit::usage, "EV-001", "give one of --text, --ids and --tasks",
         {{"found", fmt::format("{} of them", inputs)}});
  if (!o.logits.empty() && o.ids.empty())
    fail(Exit::usage, "EV-002", "--logits needs --ids", {},
         "`pare tokenize MODEL --file F` makes ids");
  if (!o.tasks.empty() && !o.against.empty())
    fail(Exit::usage, "EV-004", "--against compares texts, not tasks", {}, "use --text or --ids");
  Pool pool(common.threads);
  Loaded loaded = open(o.model, o, common, o.kv, pool);
  if (!o.tasks.empty()) return eval_tasks(o, loaded, pool, out);
  std::vector<Sequence> sequences;
  Protocol protocol = o.protocol;
  if (!o.ids.empty()) {
    sequences = read_ids(o.ids);
  } else {
    const std::string text = read_text_argument(o.text);
    const Tokenizer tokenizer = tokenizer_of(loaded.model, o.model);
    sequences.push_back({tokenizer.encode(text), static_cast<i64>(text.size())});
    const std::vector<std::int32_t> empty = tokenizer.encode("");
    if (protocol.second_half && !empty.empty() && empty[0] == tokenizer.bos())
      protocol.begin_token = empty[0];
  }
  check_ids(sequences, loaded.engine.spec().vocab);
  if (!o.logits.empty()) write_logits(loaded.engine, sequences, o.logits, o.force, out.log);
  std::optional<Loaded> base;
  // What is compared with keeps its own cache, so that --kv can be measured.
  if (!o.against.empty()) base.emplace(open(o.against, o, common, "", pool));
  const EvalResult result =
      evaluate(loaded.engine, base ? &base->engine : nullptr, sequences, protocol, pool, out.log);
  print_scores(o, result, out);
}

}  // namespace pare
