#include "validate/kernel_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "validate/e2e_text.h"

namespace rooftree::validate {

Prediction predict(const KernelCase& kernel_case, const std::vector<model::Work>& work,
                   const cost::ChipCalibration& constants) {
  Prediction p;
  for (std::size_t i = 0; i < kernel_case.terms.size(); ++i) {
    const Term& term = kernel_case.terms[i];
    const cost::KernelTime t = cost::kernel_time(term.op, work[i], term.operands, constants);
    double time = t.time;
    if (kernel_case.timing == Timing::kEager) time += t.eager;
    time *= term.count;
    p.time += time;
    p.low += time * std::exp(t.log_low);
    p.high += time * std::exp(t.log_high);
  }
  return p;
}

Prediction predict(const KernelCase& kernel_case, const cost::ChipCalibration& constants) {
  std::vector<model::Work> work;
  work.reserve(kernel_case.terms.size());
  for (const Term& term : kernel_case.terms) work.push_back(model::work(term.op));
  return predict(kernel_case, work, constants);
}

void KernelAdapter::read(const Row& row, Context& context, Outcome& outcome) {
  for (KernelCase& k : kernels(row, context, outcome)) {
    const Prediction ours = predict(k, context.constants(*k.chip, k.software));
    // The baseline knows nothing of caches either: every operand comes from main memory.
    KernelCase cold = k;
    for (Term& term : cold.terms) {
      term.operands.weight_cached_share = term.operands.activation_cached_share = term.operands.kv_cached_share = 0;
    }
    Case c;
    c.what = std::move(k.what);
    c.group = std::move(k.group);
    c.measured = k.measured;
    c.predicted = ours.time;
    c.low = ours.low;
    c.high = ours.high;
    c.baseline = predict(cold, context.datasheet(*k.chip)).time;
    outcome.cases.push_back(std::move(c));
  }
}

const machine::Chip* chip_named(std::string_view text, Context& context) {
  if (text.empty()) return nullptr;
  if (const machine::Machine* exact = context.machine(text)) return &exact->chip();
  auto device = parse_device(text);
  if (!device) return nullptr;
  const machine::Machine* machine = context.machine(device->chip);
  return machine != nullptr ? &machine->chip() : nullptr;
}

const machine::Chip* chip_named(std::string_view text, Context& context, Outcome& outcome) {
  const machine::Chip* chip = chip_named(text, context);
  if (chip == nullptr) outcome.refuse(fmt::format("chip {} is not in the catalogue", text));
  return chip;
}

cost::Operands plain_operands(const machine::Chip& chip, Arithmetic arithmetic) {
  cost::Operands o;
  o.arithmetic = arithmetic;
  const double pace = 1 / chip.main_memory().bandwidth.value();
  o.weight_seconds_per_byte = pace;
  o.activation_seconds_per_byte = pace;
  o.kv_seconds_per_byte = pace;
  return o;
}

}  // namespace rooftree::validate
