// AWQ's clip search: for each group of each row, the range max|w| (1 - i/20), i = 0..9, whose
// clamped and rounded weights change the group's partial product least.
//
// That change is e^T G e over the group's columns alone, with the block of the Gram matrix that
// belongs to them: all tokens, where the published search multiplies 512 of them. Clamping the
// weights before they are handed to the encoder serves any scheme; the encoder's own search of
// ranges, where it is on, starts from the clamped range.
//
// Groups under one second-level scale are tried together and chosen apart, so a row is checked as a
// whole at the end and left unclamped if it lost.
#include <algorithm>
#include <cmath>

#include "pass/quantize/awq.h"

namespace pare {
namespace {

std::size_t place(i64 k) { return static_cast<std::size_t>(k); }

class ClipSearch {
 public:
  ClipSearch(const MatrixTask& task, Pool& pool)
      : task_(task),
        pool_(pool),
        importance_(importances(task.inputs, {})),
        cols_(task.weights.cols),
        width_(task.scheme.grouping == Grouping::group ? std::min(task.scheme.cols, cols_) : cols_),
        groups_((cols_ + width_ - 1) / width_) {
    for (i64 g = 0; g < groups_; g++)
      norms_.emplace_back(*task.inputs, g * width_, std::min(width_, cols_ - g * width_));
  }

  // Rows [begin, begin + count); what is kept goes into `result`, whose weights are the originals.
  void rows(i64 begin, i64 count, int points, Clipped& result, double& before, double& after) {
    const Matrix<const float> w(task_.weights.row(begin), count, cols_, task_.weights.stride);
    const std::vector<double> first = errors_of(w, copy_of(w));
    std::vector<double> best = first;
    std::vector<float> factor(best.size(), 1.0f);
    for (int i = 1; i < points; i++) {
      const float f = 1 - 0.5f * static_cast<float>(i) / static_cast<float>(points);
      const std::vector<double> got = errors_of(w, clamped(w, std::vector<float>(best.size(), f)));
      for (std::size_t k = 0; k < got.size(); k++)
        if (got[k] < best[k]) best[k] = got[k], factor[k] = f;
    }
    const std::vector<double> together = errors_of(w, clamped(w, factor));
    for (i64 r = 0; r < count; r++) {
      const auto part = [&](const std::vector<double>& list) {
        double sum = 0;
        for (i64 g = 0; g < groups_; g++) sum += list[place(r * groups_ + g)];
        return sum;
      };
      before += part(first);
      const bool wins = part(together) < part(first);
      after += part(wins ? together : first);
      for (i64 g = 0; g < groups_; g++) {
        float& f = factor[place(r * groups_ + g)];
        if (!wins) f = 1;
        if (f < 1) result.groups++;
      }
    }
    const std::vector<float> chosen = clamped(w, factor);
    std::copy(chosen.begin(), chosen.end(), result.weights.begin() + begin * cols_);
  }

  // sum of w^T G w over all rows and groups
  double power() {
    double sum = 0;
    for (double x : group_errors(task_.weights)) sum += x;
    return sum;
  }

 private:
  static std::vector<float> copy_of(Matrix<const float> w) {
    std::vector<float> copy;
    for (i64 r = 0; r < w.rows; r++) copy.insert(copy.end(), w.row(r), w.row(r) + w.cols);
    return copy;
  }

  // factor: one a row and group.
  std::vector<float> clamped(Matrix<const float> w, const std::vector<float>& factor) const {
    std::vector<float> out = copy_of(w);
    for (i64 r = 0; r < w.rows; r++)
      for (i64 g = 0; g < groups_; g++) {
        const float f = factor[place(r * groups_ + g)];
        if (!(f < 1)) continue;
        const std::span<float> part = std::span(out).subspan(
            place(r * cols_ + g * width_), place(std::min(width_, cols_ - g * width_)));
        float top = 0;
        for (float x : part) top = std::max(top, std::abs(x));
        for (float& x : part) x = std::clamp(x, -top * f, top * f);
      }
    return out;
  }

  // Of every row and group when `stored` is rounded in place of w.
  std::vector<double> errors_of(Matrix<const float> w, const std::vector<float>& stored) const {
    std::vector<float> e =
        round_trip({stored.data(), w.rows, cols_}, task_.scheme, task_.fit, importance_, pool_);
    for (i64 r = 0; r < w.rows; r++)
      for (i64 k = 0; k < cols_; k++) {
        float& x = e[place(r * cols_ + k)];
        x = w.row(r)[k] - x;
      }
    return group_errors({e.data(), w.rows, cols_});
  }

  std::vector<double> group_errors(Matrix<const float> e) const {
    std::vector<double> out(place(e.rows * groups_));
    pool_.run(groups_, 1, [&](i64 begin, i64 end) {
      for (i64 g = begin; g < end; g++) {
        const i64 n = std::min(width_, cols_ - g * width_);
        const std::vector<double> rows =
            norms_[place(g)].rows({e.data + g * width_, e.rows, n, e.stride}, nullptr);
        for (i64 r = 0; r < e.rows; r++) out[place(r * groups_ + g)] = rows[place(r)];
      }
    });
    return out;
  }

  const MatrixTask& task_;
  Pool& pool_;
  std::vector<float> importance_;
  i64 cols_, width_, groups_;
  std::vector<OutputNorm> norms_;
};

std::string obstacle(const MatrixTask& task) {
  if (task.scheme.plain()) return "its scheme has no ranges";
  if (task.scheme.grouping == Grouping::tensor || task.scheme.grouping == Grouping::block)
    return "its rows share scales";
  if (task.name.ends_with(".attn.q") || task.name.ends_with(".attn.k"))
    return "queries and keys are not clipped";
  if (task.inputs == nullptr || task.inputs->tokens == 0) return "no statistics";
  return {};
}

}  // namespace

Clipped awq_clip(const MatrixTask& task, const AwqOptions& options, Pool& pool) {
  Clipped result;
  for (i64 r = 0; r < task.weights.rows; r++)
    result.weights.insert(result.weights.end(), task.weights.row(r),
                          task.weights.row(r) + task.weights.cols);
  result.note = obstacle(task);
  if (!result.note.empty()) return result;
  PARE_CHECK(task.inputs->size() == task.weights.cols);
  ClipSearch search(task, pool);
  const double power = search.power();
  // A scale of the whole tensor must see the whole tensor; other rows come in pieces.
  const bool whole = task.scheme.second_level && task.scheme.super_count == 0;
  const i64 piece = whole ? task.weights.rows : 512;
  double before = 0, after = 0;
  for (i64 r = 0; r < task.weights.rows; r += piece)
    search.rows(r, std::min(piece, task.weights.rows - r), options.clip_points, result, before,
                after);
  if (power > 0) result.before = before / power, result.after = after / power;
  return result;
}

}  // namespace pare
