// Columns are walked in blocks: within a block every step is applied at once, and what lies beyond
// gets a whole block's errors in one product (kernel/outer.h), so nearly all arithmetic is a dense
// product and the result has the same bits on every ISA with any number of threads. Rows are
// independent.
//
// The loss of a walk is the sum of ((w_j - stored_j) / U_jj)^2, w_j as the walk finds it. So a unit
// is fitted with the importances 1 / U_jj^2; and as moves within the unit carry weights beyond its
// range, of which the fit knows nothing, its range is then stretched to what loses least.
#include "pass/quantize/gptq_walk.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernel/outer.h"
#include "kernel/walk.h"

namespace pare {

Route route_of(const InputStatistics& inputs, ActOrder order, i64 unit_cols) {
  Route route;
  const i64 cols = static_cast<i64>(inputs.sum_square.size());
  route.columns.resize(static_cast<std::size_t>(cols));
  std::iota(route.columns.begin(), route.columns.end(), 0);
  const auto square = [&](i64 col) { return inputs.sum_square[static_cast<std::size_t>(col)]; };
  const auto by_square = [&](auto begin, auto end) {
    std::stable_sort(begin, end, [&](i64 a, i64 b) { return square(a) > square(b); });
  };
  // A unit as wide as the matrix is met before anything has moved.
  if (order == ActOrder::fixed || unit_cols >= cols) {
    if (order != ActOrder::none) by_square(route.columns.begin(), route.columns.end());
    return route;
  }
  std::vector<std::pair<double, i64>> units;  // mean of E[x^2], first column
  for (i64 col = 0; col < cols; col += unit_cols) {
    double sum = 0;
    const i64 end = std::min(cols, col + unit_cols);
    for (i64 k = col; k < end; k++) sum += square(k);
    units.emplace_back(sum / static_cast<double>(end - col), col);
  }
  if (order == ActOrder::groups)
    std::stable_sort(units.begin(), units.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
  i64 at = 0;
  for (const auto& [mean, col] : units) {
    const i64 n = std::min(unit_cols, cols - col);
    const auto first = route.columns.begin() + at;
    std::iota(first, first + n, col);
    if (order == ActOrder::groups) by_square(first, first + n);
    route.units.push_back({at, at + n, col});
    at += n;
  }
  return route;
}

namespace {

constexpr i64 rows_at_once = 8, rows_polished = 384;

struct RowWalk {
  const MatrixTask& task;
  const Route& route;
  const Damped& damped;
  Pool& pool;
  Encoder encoder;
  unsigned isa = isa_here();
  i64 rows, cols, unit_rows, unit_cols;
  std::optional<std::pair<float, float>> even;
  std::vector<float> importance;  // by column
  Panels<float> weights;          // (rows, cols) in the order of the walk
  std::vector<float> errors,
      u;  // of a block: (columns, rows); rows of U from the diagonal block on

  RowWalk(const MatrixTask& t, const Route& r, const Damped& d, Encoder e, Pool& team)
      : task(t),
        route(r),
        damped(d),
        pool(team),
        encoder(std::move(e)),
        rows(t.weights.rows),
        cols(t.weights.cols),
        unit_rows(encoder.unit_rows()),
        unit_cols(encoder.unit_cols()),
        even(task.fit.range == Range::mse ? encoder.even_codes() : std::nullopt),
        importance(static_cast<std::size_t>(cols)) {
    for (i64 j = 0; j < cols; j++) {
      const double diagonal = damped.inverse.diagonal(j);
      const bool dead = task.inputs->gram_view().row(column(j))[column(j)] == 0.0f;
      importance[static_cast<std::size_t>(column(j))] =
          dead ? 0.0f : static_cast<float>(1 / (diagonal * diagonal));
    }
  }

  i64 column(i64 place) const { return route.columns[static_cast<std::size_t>(place)]; }

  // ---- fitting ----

  void fit(i64 row, i64 col, Matrix<const float> values) {
    encoder.fit(row, col, values,
                std::span<const float>(importance)
                    .subspan(static_cast<std::size_t>(col), static_cast<std::size_t>(values.cols)));
  }

  void fit_all() {
    pool.run((rows + unit_rows - 1) / unit_rows, 1, [&](i64 begin, i64 end) {
      for (i64 row = begin * unit_rows; row < std::min(rows, end * unit_rows); row += unit_rows)
        for (i64 col = 0; col < cols; col += unit_cols)
          fit(row, col,
              {task.weights.row(row) + col, std::min(unit_rows, rows - row),
               std::min(unit_cols, cols - col), task.weights.stride});
    });
  }

  // A unit of some rows as the walk finds it in the block [first, last), its columns put where they
  // belong.
  void fit_unit(i64 row, const Route::Unit& unit, i64 first, i64 last, std::vector<float>& values) {
    const i64 count = std::min(unit_rows, rows - row), n = unit.end - unit.begin;
    values.resize(static_cast<std::size_t>(count * n));
    for (i64 r = 0; r < count; r++)
      for (i64 j = unit.begin; j < unit.end; j++)
        values[static_cast<std::size_t>(r * n + column(j) - unit.col)] =
            weights[static_cast<std::size_t>((row + r) * cols + j)];
    fit(row, unit.col, {values.data(), count, n});
    if (!even || count > 1 || n > walk_columns || unit.end > last) return;
    // What an input that is always zero would lose counts for nothing.
    const auto own = importance.begin() + unit.col;
    if (std::find(own, own + n, 0.0f) == own + n)
      stretch(row, unit,
              {u.data() + (unit.begin - first) * (cols - first + 1), n, n, cols - first});
  }

  void stretch(i64 row, const Route::Unit& unit, Matrix<const float> steps) {
    constexpr int middle = 7;  // the lane of the range as it is
    const auto factor = [](i64 lane) { return 1 + 0.04f * static_cast<float>(lane - middle); };
    const float scale = encoder.scale(row, unit.col), minimum = encoder.minimum(row, unit.col);
    WalkLanes lanes;
    lanes.low = even->first;
    lanes.high = even->second;
    float loss[walk_lanes];
    for (int lane = 0; lane < walk_lanes; lane++) {
      lanes.scale[lane] = scale * factor(lane);
      lanes.inverse[lane] = 1 / lanes.scale[lane];
      lanes.minimum[lane] = minimum * factor(lane);
    }
    walk_errors(weights.data() + row * cols + unit.begin, steps, lanes, loss, isa);
    const i64 best = std::min_element(loss, loss + walk_lanes) - loss;
    if (loss[best] < loss[middle]) encoder.stretch(row, unit.col, factor(best));
  }

  // ---- walking ----

  void arrange() {
    weights.resize(static_cast<std::size_t>(rows * cols));
    pool.run(rows, 16, [&](i64 begin, i64 end) {
      for (i64 r = begin; r < end; r++)
        for (i64 j = 0; j < cols; j++)
          weights[static_cast<std::size_t>(r * cols + j)] = task.weights.row(r)[column(j)];
    });
  }

  // Columns [from, to) of a few rows within the block [first, last). A step of one row waits for
  // its rounding; the other rows' steps fill that time.
  void walk_rows(i64 begin, i64 end, i64 from, i64 to, i64 first, i64 last) {
    for (i64 j = from; j < to; j++) {
      const float* step = u.data() + (j - first) * (cols - first);  // zero before its diagonal
      const float diagonal = step[j - first];
      // From a whole vector on: the columns before j in it get zero.
      const i64 start = (j + 1 - first) / 16 * 16;
      for (i64 row = begin; row < end; row++) {
        float* w = weights.data() + row * cols;
        const float stored = encoder.snap(row, column(j), w[j]);
        const float error = (w[j] - stored) / diagonal;
        errors[static_cast<std::size_t>((j - first) * rows + row)] = error;
        if (error != 0)
          subtract_scaled(step + start, error, last - first - start, w + first + start, isa);
        w[j] = stored;
      }
    }
  }

  // The unit that lies at a place or behind it; null when all are fitted.
  const Route::Unit* unit_at(i64 place) const {
    const auto unit = std::find_if(route.units.begin(), route.units.end(),
                                   [&](const Route::Unit& one) { return place < one.end; });
    return unit == route.units.end() ? nullptr : &*unit;
  }

  // Rows [begin, end), which are whole units where units are fitted on the way.
  void walk_block(i64 begin, i64 end, i64 first, i64 last) {
    std::vector<float> values;
    for (i64 from = first; from < last;) {
      const Route::Unit* unit = unit_at(from);
      const i64 to = unit != nullptr ? std::min(last, unit->end) : last;
      if (unit != nullptr && unit->begin == from)
        for (i64 row = begin; row < end; row += unit_rows)
          fit_unit(row, *unit, first, last, values);
      for (i64 row = begin; row < end; row += rows_at_once)
        walk_rows(row, std::min(end, row + rows_at_once), from, to, first, last);
      from = to;
    }
  }

  // Blocks end where a unit starts that reaches beyond them, so that all of its weights are current
  // when it is fitted.
  i64 block_end(i64 first, i64 block) const {
    const i64 last = std::min(cols, first + block);
    const Route::Unit* unit = last < cols ? unit_at(last) : nullptr;
    return unit != nullptr && unit->begin > first ? unit->begin : last;
  }

  void walk(i64 block) {
    arrange();
    if (route.units.empty()) fit_all();
    const i64 team = route.units.empty() ? 1 : unit_rows;
    for (i64 first = 0; first < cols;) {
      const i64 last = block_end(first, block), size = last - first;
      u.resize(static_cast<std::size_t>(size * (cols - first)));
      damped.inverse.rows(first, last, {u.data(), size, cols - first});
      errors.assign(static_cast<std::size_t>(size * rows), 0.0f);
      const i64 portion = ceil_div(4 * rows_at_once, team) * team;
      pool.share(ceil_div(rows, portion), [&](i64 i) {
        walk_block(i * portion, std::min(rows, (i + 1) * portion), first, last);
      });
      if (last < cols)
        outer(Outer::subtract, {weights.data() + last, rows, cols - last, cols},
              Matrix<const float>(errors.data(), size, rows),
              Matrix<const float>(u.data() + size, size, cols - last, cols - first), false, pool,
              isa);
      first = last;
    }
  }

  // ---- polishing ----

  // Changes of a row's weights, by column, that surely leave their codes as they are: not half of a
  // step. Nothing where codes are not evenly spaced.
  void find_idle(i64 row, float* idle) {
    std::fill_n(idle, cols, 0.0f);
    if (encoder.even_codes())
      for (i64 col = 0; col < cols; col += unit_cols)
        std::fill_n(idle + col, std::min(unit_cols, cols - col),
                    0.499f * std::abs(encoder.scale(row, col)));
  }

  // Coordinate descent on e H e^T from where the walk ends (QuantEase, Behdin et al. 2023,
  // arXiv:2309.01885): each code in turn takes the value that is best for all others as they are,
  // until none changes or `sweeps` are over. No step makes the loss larger. `down` (columns) is
  // (w - stored) H of a row, `diagonal` that of H, by column.
  void polish_row(i64 row, int sweeps, const std::vector<float>& diagonal, float* down,
                  std::vector<float>& idle) {
    const Matrix<const float> gram = task.inputs->gram_view();
    float* stored = weights.data() + row * cols;
    idle.resize(static_cast<std::size_t>(cols));
    find_idle(row, idle.data());
    for (bool moved = true; moved && sweeps > 0; sweeps--) {
      moved = false;
      for (i64 j = 0; j < cols; j++) {
        const i64 col = column(j);
        const float wish = down[col] / diagonal[static_cast<std::size_t>(col)];
        if (std::abs(wish) < idle[static_cast<std::size_t>(col)]) continue;
        const float now = encoder.snap(row, col, stored[j] + wish), change = now - stored[j];
        if (change == 0) continue;
        moved = true;
        stored[j] = now;
        subtract_scaled(gram.row(col), change, cols, down, isa);
        down[col] -= change * static_cast<float>(damped.added[static_cast<std::size_t>(col)]);
      }
    }
  }

  void polish(int sweeps) {
    if (sweeps == 0) return;
    const Matrix<const float> gram = task.inputs->gram_view();
    std::vector<float> diagonal;
    for (i64 col = 0; col < cols; col++)
      diagonal.push_back(gram.row(col)[col] +
                         static_cast<float>(damped.added[static_cast<std::size_t>(col)]));
    Panels<float> error(static_cast<std::size_t>(cols * rows_polished)),
        down(static_cast<std::size_t>(rows_polished * cols));
    for (i64 first = 0; first < rows; first += rows_polished) {
      const i64 count = std::min(rows_polished, rows - first);
      pool.run(cols, 16, [&](i64 begin, i64 end) {
        for (i64 r = 0; r < count; r++)
          for (i64 j = begin; j < end; j++) {
            const i64 col = column(j);
            const float e = task.weights.row(first + r)[col] -
                            weights[static_cast<std::size_t>((first + r) * cols + j)];
            error[static_cast<std::size_t>(col * count + r)] = e;
            down[static_cast<std::size_t>(r * cols + col)] =
                e * static_cast<float>(damped.added[static_cast<std::size_t>(col)]);
          }
      });
      outer(Outer::add, {down.data(), count, cols}, Matrix<const float>(error.data(), cols, count),
            gram, false, pool, isa);
      // Some rows take more sweeps than others.
      pool.share(ceil_div(count, rows_at_once), [&](i64 i) {
        std::vector<float> idle;
        for (i64 r = i * rows_at_once; r < std::min(count, (i + 1) * rows_at_once); r++)
          polish_row(first + r, sweeps, diagonal, down.data() + r * cols, idle);
      });
    }
  }
};

}  // namespace

Tensor go_along(const MatrixTask& task, const GptqOptions& options, const Route& route,
                const Damped& damped, Encoder encoder, Pool& pool) {
  RowWalk walk(task, route, damped, std::move(encoder), pool);
  walk.walk(options.block);
  walk.polish(options.polish);
  return walk.encoder.finish();
}

}  // namespace pare
