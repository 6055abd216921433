#include "validate/adapters.h"
#include "validate/e2e_cases.h"

namespace rooftree::validate {
namespace {

class WholeModel final : public Adapter {
 public:
  explicit WholeModel(std::string_view file) : file_(file) {}

  void read(const Row& row, Context& context, Outcome& outcome) override {
    if (!world_) world_ = std::make_unique<E2eWorld>(context.catalog(), model::ModelCatalog::builtin());
    const Fields fields = [&row](std::string_view column) { return row.text(column); };
    for (const Result<E2eCase>& e2e : e2e_cases(file_, fields, *world_)) {
      if (!e2e) {
        outcome.refuse(e2e.error().message);
        continue;
      }
      const Result<E2ePrediction> prediction = predict(*e2e, context.calibration());
      if (!prediction) {
        outcome.refuse(prediction.error().message);
        continue;
      }
      Case c;
      c.what = e2e->what;
      c.group = e2e->group;
      c.measured = e2e->measured;
      c.predicted = prediction->value.best;
      c.low = prediction->value.low;
      c.high = prediction->value.high;
      c.baseline = prediction->baseline;
      outcome.cases.push_back(std::move(c));
    }
  }

 private:
  std::string_view file_;
  std::unique_ptr<E2eWorld> world_;
};

}  // namespace

std::unique_ptr<Adapter> whole_model(std::string_view file) {
  for (const std::string_view known : e2e_files()) {
    if (known == file) return std::make_unique<WholeModel>(known);
  }
  return nullptr;
}

}  // namespace rooftree::validate
