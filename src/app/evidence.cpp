// Evidence of a model: measured once, kept, and completed when more is asked.
#include "app/evidence.h"

#include <algorithm>
#include <filesystem>

#include "app/commands.h"
#include "base/fingerprint.h"
#include "file/io.h"
#include "file/publish.h"
#include "number/encode.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

// Codes that are also run at their width. Five and six bits are run as bytes: who wants to save
// storage alone may name them.
constexpr const char* default_candidates[] = {"int2:g64",  "int3:g128", "int3:g64", "int3:g32",
                                              "int4:g128", "int4:g64",  "int4:g32", "int8:channel"};

constexpr std::size_t most_bytes = std::size_t{64} << 20;

const Scheme& own_scheme(const Spec& spec, const std::string& name) {
  for (const auto& [found, linear] : linears(spec))
    if (found == name) return linear->scheme;
  return spec.embed;
}

std::string block_of(const std::string& name) {
  return name.starts_with("blocks.") ? name.substr(0, name.find('.', 7)) : name;
}

MatrixLosses* find(Sensitivities& s, const std::string& name) {
  for (MatrixLosses& m : s.matrices)
    if (m.name == name) return &m;
  return nullptr;
}

// Candidates of a matrix that are not known yet.
std::vector<Scheme> missing(Sensitivities& s, const EvidenceJob& job, const Spec& spec,
                            const std::string& name) {
  std::vector<Scheme> list;
  const MatrixLosses* m = find(s, name);
  for (const Scheme& scheme : job.candidates) {
    if (scheme == own_scheme(spec, name)) continue;
    const bool known =
        m != nullptr && std::any_of(m->options.begin(), m->options.end(),
                                    [&](const SchemeLoss& o) { return o.scheme == scheme; });
    if (!known) list.push_back(scheme);
  }
  return list;
}

template <class List, class Wanted, class Member>
std::vector<Wanted> not_in(const std::vector<Wanted>& wanted, const List& known, Member member) {
  std::vector<Wanted> list;
  for (const Wanted& w : wanted)
    if (std::none_of(known.begin(), known.end(),
                     [&](const auto& item) { return item.*member == w; }))
      list.push_back(w);
  return list;
}

// Measures what is missing and keeps each piece.
class Gatherer {
 public:
  Gatherer(const Model& model, const EvidenceJob& job, Sensitivities& s,
           const std::function<std::vector<Sequence>()>& text, Pool& pool, const Log& log)
      : model_(model), job_(job), s_(s), make_text_(text), pool_(pool), log_(log) {}

  void matrices() {
    std::size_t i = 0;
    while (i < job_.matrices.size()) {
      const std::vector<Scheme> need = missing(s_, job_, model_.spec, job_.matrices[i]);
      std::vector<std::string> names;
      for (; i < job_.matrices.size(); i++) {
        const std::string& name = job_.matrices[i];
        if (!names.empty() && (block_of(name) != block_of(names.front()) ||
                               missing(s_, job_, model_.spec, name) != need))
          break;
        names.push_back(name);
      }
      if (!need.empty()) measure(names, need);
    }
  }

  void caches() {
    const auto need = not_in(job_.caches, s_.caches, &CacheLoss::scheme);
    if (need.empty()) return;
    log_.info(fmt::format("measuring {} schemes of the cache", need.size()));
    const auto kl = measure_cache_losses(model_, need, text(), pool_, log_);
    for (std::size_t i = 0; i < need.size(); i++) s_.caches.push_back({need[i], kl[i]});
    keep();
  }

  void activations() {
    const auto need = not_in(job_.activations, s_.activations, &ActivationLoss::activation);
    if (need.empty()) return;
    const auto kl = measure_activation_losses(model_, need, text(), pool_);
    for (std::size_t i = 0; i < need.size(); i++) s_.activations.push_back({need[i], kl[i]});
    keep();
  }

 private:
  const std::vector<Sequence>& text() {
    if (text_.empty()) {
      text_ = make_text_();
      const std::string data = fingerprint_of(text_);
      if (s_.data.empty()) {
        s_.data = data;
        s_.tokens = tokens_of(text_);
      }
      if (s_.data != data)
        fail(Exit::usage, "CH-005", "the sensitivities so far were measured on another text",
             {{"file", job_.file},
              {"found", fmt::format("{} tokens of {}, {}", tokens_of(text_), job_.text, data)},
              {"need", fmt::format("{} tokens of {}, {}", s_.tokens, s_.text, s_.data)}},
             "give the same --text, --tokens, --window and --seed, or another file");
    }
    return text_;
  }

  void measure(const std::vector<std::string>& names, const std::vector<Scheme>& schemes) {
    SensitivityJob job{names, schemes, text(), {}};
    FitOptions fit;
    fit.range = job_.range;
    job.round = [fit, this](const std::string&, const Tensor& weights, const Scheme& scheme) {
      return requantize(weights, scheme, fit, {}, &pool_);
    };
    log_.info(fmt::format("measuring {}: {} matrices in {} schemes", block_of(names.front()),
                          names.size(), schemes.size()));
    const auto kl = measure_sensitivities(model_, job, pool_, log_);
    for (std::size_t i = 0; i < names.size(); i++) {
      MatrixLosses* m = find(s_, names[i]);
      if (m == nullptr) m = &s_.matrices.emplace_back(shape_of(model_.spec, names[i]));
      for (std::size_t c = 0; c < schemes.size(); c++)
        m->options.push_back({schemes[c], stored_bytes(schemes[c], m->rows, m->cols), kl[i][c]});
    }
    keep();
  }

  void keep() {
    if (!job_.file.empty()) write_text(job_.file, true, to_json(s_).dump(1) + "\n");
  }

  const Model& model_;
  const EvidenceJob& job_;
  Sensitivities& s_;
  const std::function<std::vector<Sequence>()>& make_text_;
  std::vector<Sequence> text_;
  Pool& pool_;
  const Log& log_;
};

// Only what was asked, in the order of the model.
Sensitivities asked(Sensitivities s, const EvidenceJob& job) {
  std::vector<MatrixLosses> matrices;
  for (const std::string& name : job.matrices) {
    MatrixLosses* m = find(s, name);
    if (m == nullptr) continue;  // each candidate is its own scheme
    std::erase_if(m->options, [&](const SchemeLoss& o) {
      return std::find(job.candidates.begin(), job.candidates.end(), o.scheme) ==
             job.candidates.end();
    });
    matrices.push_back(std::move(*m));
  }
  s.matrices = std::move(matrices);
  std::erase_if(s.caches, [&](const CacheLoss& c) {
    return std::find(job.caches.begin(), job.caches.end(), c.scheme) == job.caches.end();
  });
  std::erase_if(s.activations, [&](const ActivationLoss& a) {
    return std::find(job.activations.begin(), job.activations.end(), a.activation) ==
           job.activations.end();
  });
  return s;
}

}  // namespace

std::vector<Scheme> candidate_schemes(const std::vector<std::string>& given) {
  std::vector<std::string> words = given;
  if (words.empty()) words.assign(std::begin(default_candidates), std::end(default_candidates));
  std::vector<Scheme> schemes;
  for (const std::string& word : words) {
    const Scheme scheme = parse_scheme(word);
    if (std::find(schemes.begin(), schemes.end(), scheme) == schemes.end())
      schemes.push_back(scheme);
  }
  return schemes;
}

std::vector<std::int32_t> ids_of_text(const Model& model, const std::string& file) {
  if (model.tokenizer.empty())
    fail_input("RN-001", "the model has no tokenizer, so text cannot be read",
               {{"model", model.path.string()}}, "give --tokenizer FILE, or leave out the text");
  const auto ids = load_tokenizer(model.tokenizer).encode(read_text_argument(file));
  for (std::int32_t id : ids)
    if (id < 0 || id >= model.spec.vocab)
      fail_input(
          "CL-005", "a token id is outside the model's vocabulary",
          {{"found", std::to_string(id)}, {"need", fmt::format("0 to {}", model.spec.vocab - 1)}});
  return ids;
}

std::vector<Sequence> written_text(const Model& model, i64 tokens, i64 window, std::uint64_t seed,
                                   Pool& pool) {
  const std::int32_t first = model.tokenizer.empty() ? -1 : load_tokenizer(model.tokenizer).bos();
  Engine engine(model, pool);
  return self_written(engine, first < model.spec.vocab ? first : -1, tokens, window, seed);
}

std::string words_of_text(const std::string& file, std::uint64_t seed) {
  if (file.empty()) return fmt::format("text written by the model, seed {}", seed);
  return file == "-" ? "standard input" : file;
}

std::string fingerprint_of(const std::vector<Sequence>& sequences) {
  std::uint64_t hash = 0;
  for (const Sequence& s : sequences) hash = fingerprint(std::as_bytes(std::span(s.ids)), hash);
  return fmt::format("{:016x}", hash);
}

i64 tokens_of(const std::vector<Sequence>& sequences) {
  i64 tokens = 0;
  for (const Sequence& s : sequences) tokens += static_cast<i64>(s.ids.size());
  return tokens;
}

MatrixLosses shape_of(const Spec& spec, const std::string& name) {
  MatrixLosses m{name, spec.vocab, spec.dim, {}};
  for (const auto& [found, linear] : linears(spec))
    if (found == name) m.rows = linear->out, m.cols = linear->in;
  return m;
}

void write_text(const std::string& path, bool force, const std::string& text) {
  Publisher publisher(path, force);
  write_file(publisher.path(), text);
  publisher.commit();
}

Sensitivities gather(const Model& model, const EvidenceJob& job,
                     const std::function<std::vector<Sequence>()>& text, Pool& pool,
                     const Log& log) {
  Sensitivities s;
  if (!job.file.empty() && std::filesystem::exists(job.file)) {
    s = parse_sensitivities(read_text_file(job.file, most_bytes), job.file);
    check(s, model.spec, job.model);
    if (s.rounding != job.rounding)
      fail(Exit::usage, "CH-004", "the sensitivities have been measured with another rounding",
           {{"file", job.file}, {"found", s.rounding}, {"need", job.rounding}},
           "give the same --range, or name another file");
  } else {
    s.base = job.base;
    s.model = job.model;
    s.text = job.text;
    s.rounding = job.rounding;
  }
  Gatherer gatherer(model, job, s, text, pool, log);
  gatherer.matrices();
  gatherer.caches();
  gatherer.activations();
  return asked(std::move(s), job);
}

}  // namespace pare
