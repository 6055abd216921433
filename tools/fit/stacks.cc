#include "stacks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <vector>

#include "base/json.h"
#include "cost/calibration.h"
#include "fit.h"
#include "validate/csv.h"
#include "validate/e2e_cases.h"
#include "validate/validate.h"

namespace rooftree::fit {
namespace {

using cost::ConstantSet;
using cost::SetClass;

constexpr const char* kStacksFile = "stacks.json";
constexpr double kLossScale = 0.07;
constexpr int kEvaluations = 240;

// One number that several sets share (llama.cpp reads fp16 and quantised weights at one share of bandwidth).
struct Parameter {
  std::string constant;
  double low, high;
  std::vector<SetClass> classes;
  std::vector<std::string> variants;  // empty: that of the job
};
struct StackJob {
  std::string file, variant, family;  // family empty: any
  std::vector<Parameter> parameters;
};

std::vector<StackJob> stack_jobs() {
  const std::vector<SetClass> products = {SetClass::kGemm, SetClass::kGemmWeightOnly, SetClass::kGroupedGemm};
  const std::vector<SetClass> narrow = {SetClass::kGemmWeightOnly, SetClass::kGroupedGemm};
  const std::vector<SetClass> streams = {SetClass::kStream};
  const std::vector<SetClass> host = {SetClass::kHost};
  return {
      {"infer_gptfast_batch1_decode.csv",
       "compiled",
       "",
       {{"memory_share", 0.3, 0.97, products, {}},
        {"core_unpack", 10, 1000, narrow, {}},
        {"per_kernel", 1e-7, 2e-5, host, {}}}},
      {"infer_llamacpp_scoreboards.csv",
       "llamacpp",
       "apple-m",
       {{"memory_share", 0.3, 0.97, products, {}},
        {"peak_share", 0.2, 1, {SetClass::kGemm}, {}},
        {"peak_share", 0.2, 1, narrow, {}},
        {"core_unpack", 10, 5000, narrow, {}},
        {"per_kernel", 1e-7, 5e-5, host, {}}}},
      {"train_mosaic_llmfoundry_mpt.csv",
       "eager",
       "",
       {{"peak_share", 0.3, 1, {SetClass::kGemm}, {}},
        {"peak_share", 0.1, 1, {SetClass::kAttentionPrefill}, {"triton_early"}},
        {"memory_share", 0.01, 0.95, streams, {"loss eager"}},
        {"memory_share", 0.1, 0.95, streams, {"elementwise eager", "activation eager", "norm eager"}}}},
      {"train_vtrain_megatron_a100.csv",
       "megatron",
       "",
       {{"per_layer", 1e-5, 5e-3, host, {}},
        {"product_share", 0.3, 1, host, {}},
        {"memory_share", 0.01, 0.95, streams, {"loss megatron"}},
        {"memory_share", 0.1, 0.95, streams, {"elementwise megatron"}},
        {"memory_share", 0.1, 0.95, streams, {"softmax megatron"}}}},
  };
}

bool applies(const StackJob& job, const Parameter& p, const ConstantSet& set) {
  if (std::find(p.classes.begin(), p.classes.end(), set.set_class) == p.classes.end()) return false;
  if (!job.family.empty() && set.family != job.family) return false;
  if (p.variants.empty()) return set.variant == job.variant;
  return std::find(p.variants.begin(), p.variants.end(), set.variant) != p.variants.end();
}

double* value_of(ConstantSet& set, std::string_view constant) {
  for (auto& [name, value] : set.values) {
    if (name == constant) return &value;
  }
  return nullptr;
}

// Four significant digits: what the fit can tell.
double rounded(double v) {
  if (v == 0) return 0;
  const double unit = std::pow(10.0, std::floor(std::log10(std::abs(v))) - 3);
  return std::round(v / unit) * unit;
}

Result<std::vector<validate::E2eCase>> load(const std::filesystem::path& path, validate::E2eWorld& world) {
  ROOFTREE_TRY(const std::string text, read_file(path));
  ROOFTREE_TRY(const validate::Csv csv, validate::Csv::parse(text, path.string()));
  std::vector<validate::E2eCase> cases;
  for (std::size_t i = 0; i < csv.rows(); ++i) {
    const validate::Row row = csv.row(i);
    if (row.text("certainty").starts_with("recalled")) continue;
    const validate::Fields fields = [&row](std::string_view column) { return row.text(column); };
    for (auto& e2e : validate::e2e_cases(path.filename().string(), fields, world)) {
      if (e2e) cases.push_back(std::move(e2e).value());
    }
  }
  return cases;
}

}  // namespace

Status fit_stacks(const std::filesystem::path& data, const std::filesystem::path& directory, const std::string& date,
                  bool dry_run) {
  ROOFTREE_TRY(const std::string text, read_file(directory / kStacksFile));
  ROOFTREE_TRY(const cost::CalibrationTable stacks, cost::CalibrationTable::parse(text, kStacksFile));
  ROOFTREE_TRY(const cost::CalibrationTable all, cost::CalibrationTable::from_directory(directory));
  std::vector<ConstantSet> sets = stacks.sets();
  // Everything that other files state: sets of this file are the last ones of their names, so they are told apart by identity.
  std::vector<ConstantSet> others;
  for (const ConstantSet& s : all.sets()) {
    const bool own = std::any_of(sets.begin(), sets.end(), [&s](const ConstantSet& o) {
      return o.set_class == s.set_class && o.variant == s.variant && o.family == s.family && o.kind == s.kind &&
             o.chip == s.chip && o.arithmetic == s.arithmetic && o.values == s.values;
    });
    if (!own) others.push_back(s);
  }
  const auto table_of = [&](const std::vector<ConstantSet>& with) {
    std::vector<ConstantSet> both = with;
    both.insert(both.end(), others.begin(), others.end());
    return cost::CalibrationTable::from_sets(std::move(both), all.families());
  };

  validate::E2eWorld world(machine::Catalog::builtin(), model::ModelCatalog::builtin());
  for (const StackJob& job : stack_jobs()) {
    ROOFTREE_TRY(const std::vector<validate::E2eCase> cases, load(data / job.file, world));
    std::vector<double> x, low, high;
    for (const Parameter& p : job.parameters) {
      double start = 0;
      for (ConstantSet& set : sets) {
        if (!applies(job, p, set)) continue;
        if (const double* v = value_of(set, p.constant)) start = *v;
      }
      if (start <= 0) {
        return Error{ErrorCode::kInvalid, fmt::format("{}: no set of {} states {}; the fit needs a value to start from",
                                                      kStacksFile, job.variant, p.constant)};
      }
      x.push_back(std::log(start));
      low.push_back(std::log(p.low));
      high.push_back(std::log(p.high));
    }
    const auto with = [&](const std::vector<double>& at, bool round) {
      std::vector<ConstantSet> out = sets;
      for (std::size_t i = 0; i < job.parameters.size(); ++i) {
        const double value = round ? rounded(std::exp(at[i])) : std::exp(at[i]);
        for (ConstantSet& set : out) {
          if (!applies(job, job.parameters[i], set)) continue;
          if (double* v = value_of(set, job.parameters[i].constant)) *v = value;
        }
      }
      return out;
    };
    std::vector<double> residual;
    const auto residuals = [&](const std::vector<ConstantSet>& candidate) {
      residual.clear();
      const cost::CalibrationTable table = table_of(candidate);
      for (const validate::E2eCase& c : cases) {
        const auto p = validate::predict(c, table);
        if (p) residual.push_back(std::log(c.measured / p->value.best));
      }
    };
    minimise(
        [&](const std::vector<double>& at) {
          residuals(with(at, false));
          double loss = 0;
          for (const double r : residual) loss += soft_l1(r, kLossScale);
          return residual.empty() ? 1e9 : loss / static_cast<double>(residual.size());
        },
        x, low, high, kEvaluations);
    sets = with(x, true);
    residuals(sets);
    std::vector<double> absolute;
    for (const double r : residual) absolute.push_back(std::abs(std::exp(-r) - 1));
    const double median = validate::quantile(absolute, 0.5);
    const double p90 = validate::quantile(absolute, 0.9);
    std::string values;
    for (std::size_t i = 0; i < job.parameters.size(); ++i) {
      values += fmt::format(" {}={:.4g}", job.parameters[i].constant, rounded(std::exp(x[i])));
    }
    fmt::print("{:<32} {:<10} {:>5} values  {:5.1f} / {:5.1f} %  [{:+.3f} {:+.3f}]{}\n", job.file, job.variant, residual.size(),
               100 * median, 100 * p90, validate::quantile(residual, 0.05), validate::quantile(residual, 0.95), values);
    for (ConstantSet& set : sets) {
      for (ConstantSet::FittedOn& on : set.fitted_on) {
        if (on.file != job.file) continue;
        on.rows = static_cast<int>(residual.size());
        set.median_error = median;
        set.p90_error = p90;
        set.date = date;
      }
    }
  }
  if (!dry_run) {
    std::ofstream out(directory / kStacksFile, std::ios::binary);
    out << cost::CalibrationTable::from_sets(sets, stacks.families()).to_json();
    if (!out) return Error{ErrorCode::kEnvironment, fmt::format("{}: cannot be written", (directory / kStacksFile).string())};
  }
  return Ok{};
}

}  // namespace rooftree::fit
