#include "fit.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace rooftree::fit {

double soft_l1(double residual, double scale) {
  const double z = residual / scale;
  return 2 * (std::sqrt(1 + z * z) - 1);
}

double minimise(const std::function<double(const std::vector<double>&)>& f, std::vector<double>& x,
                const std::vector<double>& low, const std::vector<double>& high, int evaluations) {
  const std::size_t n = x.size();
  const auto inside = [&](std::vector<double> p) {
    for (std::size_t i = 0; i < n; ++i) p[i] = std::clamp(p[i], low[i], high[i]);
    return p;
  };
  x = inside(x);
  double best = f(x);
  // Every restart builds a fresh simplex around the best point, with alternating sign and shrinking size.
  double size = 0.25;
  for (int restart = 0; restart < 6; ++restart, size *= -0.6) {
    std::vector<std::vector<double>> simplex(n + 1, x);
    std::vector<double> value(n + 1, best);
    for (std::size_t i = 0; i < n; ++i) {
      const double step = size * std::max(0.2, std::abs(high[i] - low[i]) * 0.2);
      simplex[i + 1][i] += step;
      simplex[i + 1] = inside(simplex[i + 1]);
      if (simplex[i + 1][i] == x[i]) simplex[i + 1][i] = std::clamp(x[i] - step, low[i], high[i]);
      value[i + 1] = f(simplex[i + 1]);
    }
    for (int used = 0; used < evaluations / 6;) {
      std::vector<std::size_t> order(n + 1);
      for (std::size_t i = 0; i <= n; ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return value[a] < value[b]; });
      const std::size_t worst = order[n];
      if (value[worst] - value[order[0]] < 1e-10 * (1 + std::abs(value[order[0]]))) break;
      std::vector<double> center(n, 0);
      for (std::size_t i = 0; i <= n; ++i) {
        if (i == worst) continue;
        for (std::size_t j = 0; j < n; ++j) center[j] += simplex[i][j] / static_cast<double>(n);
      }
      const auto along = [&](double t) {
        std::vector<double> p(n);
        for (std::size_t j = 0; j < n; ++j) p[j] = center[j] + t * (simplex[worst][j] - center[j]);
        return inside(std::move(p));
      };
      auto reflected = along(-1);
      double v = f(reflected);
      ++used;
      if (v < value[order[0]]) {
        auto expanded = along(-2);
        const double w = f(expanded);
        ++used;
        if (w < v) {
          reflected = std::move(expanded);
          v = w;
        }
      } else if (v >= value[order[n > 0 ? n - 1 : 0]]) {
        auto contracted = along(v < value[worst] ? -0.5 : 0.5);
        const double w = f(contracted);
        ++used;
        if (w < std::min(v, value[worst])) {
          reflected = std::move(contracted);
          v = w;
        } else {
          for (std::size_t i = 0; i <= n; ++i) {
            if (i == order[0]) continue;
            for (std::size_t j = 0; j < n; ++j) simplex[i][j] = 0.5 * (simplex[i][j] + simplex[order[0]][j]);
            value[i] = f(simplex[i]);
            ++used;
          }
          continue;
        }
      }
      if (v < value[worst]) {
        simplex[worst] = std::move(reflected);
        value[worst] = v;
      }
    }
    for (std::size_t i = 0; i <= n; ++i) {
      if (value[i] < best) {
        best = value[i];
        x = simplex[i];
      }
    }
  }
  return best;
}

cost::ConstantSet fit(const Job& job, const std::vector<const LoadedCase*>& cases, const cost::CalibrationTable& table) {
  std::vector<double> x;
  std::vector<double> low;
  std::vector<double> high;
  for (const Free& p : job.free) {
    x.push_back(std::log(p.start));
    low.push_back(std::log(p.low));
    high.push_back(std::log(p.high));
  }
  const auto set_of = [&](const std::vector<double>& p) {
    cost::ConstantSet set = job.set;
    if (!cases.empty() && set.set_class <= cost::SetClass::kAttentionDecode)
      set.clock_hz = cases[0]->kernel_case.chip->clock.value();
    for (std::size_t i = 0; i < job.free.size(); ++i) set.values.emplace_back(job.free[i].name, std::exp(p[i]));
    return set;
  };
  const auto residuals = [&](const std::vector<double>& p, std::vector<double>& out) {
    cost::ConstantSet set = set_of(p);
    if (set.log_low == set.log_high && !(job.set.note == "partial")) {
      set.log_low = -0.1;  // so that it counts as a whole set while it is being fitted
      set.log_high = 0.1;
    }
    std::vector<cost::ConstantSet> sets{set};
    // The set under the knife comes first: with equal ranks the first wins.
    for (const cost::ConstantSet& other : table.sets()) sets.push_back(other);
    const cost::CalibrationTable with = cost::CalibrationTable::from_sets(std::move(sets), table.families());
    std::map<std::string, cost::ChipCalibration> resolved;
    out.clear();
    for (const LoadedCase* c : cases) {
      const cost::Software& s = c->kernel_case.software;
      const std::string key =
          c->kernel_case.chip->id + std::to_string(static_cast<int>(s.attention) * 100 + static_cast<int>(s.scaling) * 10 +
                                                   static_cast<int>(s.streams) * 2 + (s.sustained ? 1 : 0));
      auto it = resolved.find(key);
      if (it == resolved.end()) it = resolved.emplace(key, with.resolve(*c->kernel_case.chip, s)).first;
      const double predicted = validate::predict(c->kernel_case, c->work, it->second).time;
      out.push_back(std::log(predicted / c->kernel_case.measured));
    }
  };
  std::vector<double> r;
  constexpr double kScale = 0.07;
  const auto loss = [&](const std::vector<double>& p) {
    residuals(p, r);
    double sum = 0;
    for (const double v : r) sum += soft_l1(v, kScale);
    return sum / static_cast<double>(std::max<std::size_t>(1, r.size()));
  };
  if (job.best_shape) {
    // The measured rate over the peak, as it is.
    double rate = 0;
    for (const LoadedCase* c : cases) {
      const double peak = machine::product_rate(*c->kernel_case.chip, job.set.arithmetic).value();
      for (const model::Work& w : c->work) rate = std::max(rate, w.product.value() / c->kernel_case.measured / peak);
    }
    cost::ConstantSet set = job.set;
    set.values = {{"peak_share", rate}};
    set.fitted_on = {{"calibrate/" + job.file, job.where, static_cast<int>(cases.size())}};
    return set;
  }
  if (!job.free.empty()) minimise(loss, x, low, high, 1500);
  cost::ConstantSet set = set_of(x);
  residuals(x, r);
  std::vector<double> measured_over_predicted;
  std::vector<double> absolute;
  for (const double v : r) {
    measured_over_predicted.push_back(-v);
    absolute.push_back(std::abs(std::exp(v) - 1));
  }
  if (job.set.note != "partial") {
    set.log_low = validate::quantile(measured_over_predicted, 0.05);
    set.log_high = validate::quantile(measured_over_predicted, 0.95);
  }
  set.median_error = validate::quantile(absolute, 0.5);
  set.p90_error = validate::quantile(absolute, 0.9);
  set.fitted_on = {{"calibrate/" + job.file, job.where, static_cast<int>(cases.size())}};
  return set;
}

}  // namespace rooftree::fit
