// Collecting and keeping statistics of inputs.
//
// The file is a safetensors file with five tensors an input: NAME.sum_abs, .sum_square (F64),
// .max_abs, .sample and .gram (F32, n x n), and of every block that caches keys and values their
// ranges. Its metadata says for how many tokens, of what text and of which model. Writing goes
// input by input, so no more than a block's Gram matrices are ever in memory.
#include "engine/statistics.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "kernel/gram.h"

namespace pare {
namespace {

constexpr const char* format_name = "pare-statistics-1";

// "attn.q" of "blocks.3.attn.q", and 3.
std::pair<i64, std::string> place_of(const std::string& linear) {
  const std::size_t dot = linear.find('.', 7);
  PARE_CHECK(linear.starts_with("blocks.") && dot != std::string::npos);
  i64 block = 0;
  std::from_chars(linear.data() + 7, linear.data() + dot, block);
  return {block, linear.substr(dot + 1)};
}

// The first Linear that reads the input of the attention.
std::string attention_input(const Attention& a) {
  if (a.q_down.present()) return "attn.q_down";
  if (a.q.present()) return "attn.q";
  return a.mla() ? "attn.kv_down" : "attn.k";
}

}  // namespace

std::string input_name(const Spec& spec, const std::string& linear) {
  if (linear == "head") return linear;
  const auto [index, word] = place_of(linear);
  const Block& b = spec.blocks.at(static_cast<std::size_t>(index));
  const Attention& a = b.attn;
  std::string first = word;
  const bool of_latent = (word == "attn.q" && a.q_down.present()) ||
                         (a.mla() && (word == "attn.k" || word == "attn.v"));
  if (of_latent) {
    if (word != "attn.q") first = "attn.k";
  } else if (word == "attn.q_down" || word == "attn.q" || word == "attn.kv_down" ||
             word == "attn.k" || word == "attn.v") {
    first = attention_input(a);
  } else if (word == "ffn.gate" || word == "ffn.up") {
    const bool shared = b.parallel && !b.before_ffn;
    first = shared ? attention_input(a) : b.ffn.gated ? "ffn.gate" : "ffn.up";
  }
  return fmt::format("blocks.{}.{}", index, first);
}

std::vector<InputSlot> input_slots(const Spec& spec) {
  std::vector<InputSlot> list;
  for (const auto& [name, linear] : linears(spec)) {
    const std::string input = input_name(spec, name);
    const auto found =
        std::find_if(list.begin(), list.end(), [&](const InputSlot& s) { return s.name == input; });
    if (found == list.end())
      list.push_back({input, linear->in, {name}});
    else
      found->members.push_back(name);
  }
  return list;
}

// ---- sums ----

namespace {

constexpr i64 lanes = 16;

// Of `lanes` values: loops of known length, which the compiler turns into vectors.
void add_lanes(const float* x, double* sum, double* square, float* most) {
  float a[lanes];
  for (i64 k = 0; k < lanes; k++) a[k] = std::fabs(x[k]);
  for (i64 k = 0; k < lanes; k++) sum[k] += static_cast<double>(a[k]);
  for (i64 k = 0; k < lanes; k++)
    square[k] += static_cast<double>(a[k]) * static_cast<double>(a[k]);
  for (i64 k = 0; k < lanes; k++)  // a NaN stays
    most[k] = a[k] <= most[k] || most[k] != most[k] ? most[k] : a[k];
}

// Columns [begin, end) of a row.
void add_row(InputStatistics& s, const float* row, i64 begin, i64 end) {
  double *sum = s.sum_abs.data(), *square = s.sum_square.data();
  float* most = s.max_abs.data();
  i64 k = begin;
  for (; k + lanes <= end; k += lanes) add_lanes(row + k, sum + k, square + k, most + k);
  if (k == end) return;
  const i64 n = end - k;
  float x[lanes] = {}, m[lanes] = {};
  double a[lanes] = {}, q[lanes] = {};
  std::copy_n(row + k, n, x);
  std::copy_n(sum + k, n, a);
  std::copy_n(square + k, n, q);
  std::copy_n(most + k, n, m);
  add_lanes(x, a, q, m);
  std::copy_n(a, n, sum + k);
  std::copy_n(q, n, square + k);
  std::copy_n(m, n, most + k);
}

}  // namespace

struct InputSum::State {
  InputStatistics sums;
  std::optional<GramSum> gram;
};

InputSum::InputSum(i64 n, bool with_gram) : state_(std::make_unique<State>()) {
  const auto size = static_cast<std::size_t>(n);
  state_->sums.sum_abs.assign(size, 0);
  state_->sums.sum_square.assign(size, 0);
  state_->sums.max_abs.assign(size, 0);
  if (with_gram) state_->gram.emplace(n);
}
InputSum::~InputSum() = default;
InputSum::InputSum(InputSum&&) noexcept = default;

void InputSum::add(Matrix<const float> x, Pool& pool) {
  InputStatistics& s = state_->sums;
  PARE_CHECK(x.cols == s.size());
  keep_sample(s, x);
  s.tokens += x.rows;
  pool.run((x.cols + lanes - 1) / lanes, 4, [&](i64 begin, i64 end) {
    for (i64 r = 0; r < x.rows; r++)
      add_row(s, x.row(r), begin * lanes, std::min(x.cols, end * lanes));
  });
  if (state_->gram) state_->gram->add(x, pool);
}

InputStatistics InputSum::finish(Pool& pool) {
  if (state_->gram) state_->sums.gram = state_->gram->mean(pool);
  return std::move(state_->sums);
}

// ---- file ----

namespace {

std::vector<TensorPlan> plan_input(const std::string& name, i64 n, i64 tokens, bool gram) {
  std::vector<TensorPlan> plan = {{name + ".sum_abs", Dtype::F64, {n}},
                                  {name + ".sum_square", Dtype::F64, {n}},
                                  {name + ".max_abs", Dtype::F32, {n}},
                                  {name + ".sample", Dtype::F32, {sample_rows(tokens), n}}};
  if (gram) plan.push_back({name + ".gram", Dtype::F32, {n, n}});
  return plan;
}

// Widths of the rows of a block that the cache is made of, before rotation; 0 0: it has none.
std::pair<i64, i64> kv_widths(const Block& b) {
  const Attention& a = b.attn;
  if (a.mla() || !a.k.present()) return {0, 0};
  return {a.k.out, a.v.out};
}

std::vector<TensorPlan> plan_kv(i64 block, const Block& b) {
  const auto [k, v] = kv_widths(b);
  if (k == 0) return {};
  std::vector<TensorPlan> plan;
  for (const char* word : {"k_min", "k_max", "v_min", "v_max"})
    plan.push_back(
        {fmt::format("blocks.{}.kv.{}", block, word), Dtype::F32, {word[0] == 'k' ? k : v}});
  return plan;
}

std::string shape_words(const std::vector<i64>& shape) {
  return fmt::format("{}", fmt::join(shape, " x "));
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

template <class T>
std::vector<T> values_of(const StoredTensor& t) {
  std::vector<T> values(t.bytes.size() / sizeof(T));
  std::copy_n(t.bytes.data(), values.size() * sizeof(T),
              reinterpret_cast<std::byte*>(values.data()));
  return values;
}

}  // namespace

StatisticsWriter::StatisticsWriter(const std::filesystem::path& path, const Spec& spec, bool gram,
                                   i64 tokens, const std::string& source)
    : gram_(gram) {
  std::vector<TensorPlan> plan;
  const auto append = [&](std::vector<TensorPlan> more) {
    plan.insert(plan.end(), more.begin(), more.end());
  };
  for (const InputSlot& input : input_slots(spec))
    append(plan_input(input.name, input.size, tokens, gram));
  for (std::size_t i = 0; i < spec.blocks.size(); i++)
    append(plan_kv(static_cast<i64>(i), spec.blocks[i]));
  writer_ = std::make_unique<SafetensorsWriter>(
      path, plan,
      Metadata{{"format", format_name}, {"tokens", std::to_string(tokens)}, {"source", source}});
}

void StatisticsWriter::write(const std::string& name, const InputStatistics& s) {
  writer_->write(name + ".sum_abs", bytes_of(s.sum_abs));
  writer_->write(name + ".sum_square", bytes_of(s.sum_square));
  writer_->write(name + ".max_abs", bytes_of(s.max_abs));
  writer_->write(name + ".sample", bytes_of(s.sample));
  if (gram_) writer_->write(name + ".gram", bytes_of(s.gram));
}

void StatisticsWriter::write(i64 block, const KvStatistics& s) {
  const std::string at = fmt::format("blocks.{}.kv.", block);
  writer_->write(at + "k_min", bytes_of(s.k_min));
  writer_->write(at + "k_max", bytes_of(s.k_max));
  writer_->write(at + "v_min", bytes_of(s.v_min));
  writer_->write(at + "v_max", bytes_of(s.v_max));
}

void StatisticsWriter::finish() { writer_->finish(); }

StatisticsFile::StatisticsFile(const std::filesystem::path& path, const Spec& spec)
    : path_(path.string()) {
  const Safetensors file = parse_safetensors(map_file(path), path_);
  bool known = false;
  for (const auto& [key, value] : file.metadata) {
    known = known || (key == "format" && value == format_name);
    if (key == "source") source_ = value;
    if (key == "tokens") std::from_chars(value.data(), value.data() + value.size(), tokens_);
  }
  if (!known || tokens_ <= 0)
    fail_input("SA-001", "a file holds no statistics",
               {{"file", path_}, {"need", fmt::format("metadata format {}, tokens", format_name)}},
               "`pare calibrate MODEL -o FILE` makes one");
  for (const StoredTensor& t : file.tensors) tensors_.emplace(t.name, t);
  for (const InputSlot& input : input_slots(spec))
    for (const TensorPlan& p : plan_input(input.name, input.size, tokens_, false)) {
      const auto it = tensors_.find(p.name);
      if (it == tensors_.end() || it->second.dtype != p.dtype || it->second.shape != p.shape)
        fail_input("SA-002", "the statistics are not of this model",
                   {{"file", path_},
                    {"tensor", p.name},
                    {"found", it == tensors_.end() ? "nothing" : shape_words(it->second.shape)},
                    {"need", shape_words(p.shape)}},
                   "collect them again from the model at hand");
    }
}

InputStatistics StatisticsFile::read(const std::string& name) const {
  InputStatistics s;
  s.tokens = tokens_;
  s.sum_abs = values_of<double>(tensors_.at(name + ".sum_abs"));
  s.sum_square = values_of<double>(tensors_.at(name + ".sum_square"));
  s.max_abs = values_of<float>(tensors_.at(name + ".max_abs"));
  s.sample = values_of<float>(tensors_.at(name + ".sample"));
  const auto gram = tensors_.find(name + ".gram");
  if (gram == tensors_.end()) return s;
  const i64 n = s.size();
  if (gram->second.dtype != Dtype::F32 || gram->second.shape != std::vector<i64>{n, n})
    fail_input(
        "SA-002", "the statistics are not of this model",
        {{"file", path_}, {"tensor", name + ".gram"}, {"need", fmt::format("F32 {} x {}", n, n)}});
  s.gram = values_of<float>(gram->second);
  return s;
}

bool StatisticsFile::has_gram() const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [](const auto& item) { return item.first.ends_with(".gram"); });
}

}  // namespace pare
