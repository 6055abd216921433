#include "cost/estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cost/ownership.h"

namespace rooftree::cost {
namespace {

using model::Role;
constexpr std::size_t at(Role role) { return static_cast<std::size_t>(role); }

constexpr std::array<std::string_view, kBoundCount> kBoundNames = {
    "compute", "special functions", "on-chip memory", "memory", "host link", "disk", "overhead", "host"};
constexpr std::array<std::string_view, 3> kPriceNames = {"none", "rental", "purchase over 5 years"};

// Classes of error: the deviations of operators of one class come from the same constants, so they add up; classes are fitted
// apart, so they combine as root of squares.
enum ErrorClass : std::uint8_t { kProducts, kAttention, kStreams, kHostSide, kTransfers, kComposition, kErrorClasses };

constexpr std::array<ErrorClass, static_cast<std::size_t>(model::OperatorKind::kCount)> kClassOf = {
    kProducts,  // MatMul
    kProducts,  // GroupedMatMul
    kAttention,
    kStreams,   // Norm
    kStreams,   // Elementwise
    kStreams,   // Softmax
    kStreams,   // Embedding
    kStreams,   // EmbeddingBag
    kProducts,  // Convolution
    kStreams,   // Pool
    kStreams,   // CacheWrite
    kStreams,   // Route
    kStreams,   // CrossEntropy
    kStreams,   // OptimizerStep
};

// Half-widths (log) of the 90 % band of what is not an operator. Assumed: host constants differ by stack release.
constexpr double kHostLog = 0.4;
constexpr double kTransferLogHigh = 0.3;
// Whole models against sums of kernels: real operand values lower the clock by 10 to 12 % against the operator tables that the
// constants come from (in the layer tables of Vidur: u 0.77 against 0.876), graphs overlap a little.
constexpr double kCompositionLog = 0.10;

// Backward pass of one layer against its forward pass, as launched by the host: 2.2 against 0.67 ms (vTrain, tensor parallel
// 1).
constexpr double kBackwardHostRatio = 3.3;

// Power = idle + (max - idle) * activity, activity = busy + compute share * u_compute / u_full + memory share * u_memory, at
// most 1, over the time that the chip computes. Chosen so that large products reach the power limit and bandwidth-bound decode
// stays near half of it: Splitwise (ISCA 2024) finds decode unharmed by a cap at half of the H100's 700 W; compute-bound
// prefill draws the limit (POLCA, ASPLOS 2024). Assumed, hence the wide band.
constexpr double kBusyActivity = 0.15;
constexpr double kComputeActivity = 0.75;
constexpr double kFullCompute = 0.75;
constexpr double kMemoryActivity = 0.45;
constexpr double kOnChipActivity = 0.25;
constexpr double kPowerBand = 0.25;  // of the activity part, either way
// Idle power where the chip states none, as a share of the maximum (assumed: an idle H100 draws 60 to 75 of 700 W, server CPUs
// a quarter to a third).
constexpr double kIdleShare = 0.12;
constexpr double kIdleShareCpu = 0.3;

constexpr double kGib = 1073741824.0;

// (a^4 + b^4)^(1/4): the larger of two overlapping times with a soft knee.
double smooth_max(double a, double b) {
  const double larger = std::max(a, b);
  if (larger <= 0) return 0;
  const double ratio = std::min(a, b) / larger;
  const double square = ratio * ratio;
  return larger * std::sqrt(std::sqrt(1 + square * square));
}

double idle_power(const machine::Chip& chip) {
  if (chip.power_idle > Watts{}) return chip.power_idle.value();
  return chip.power_max.value() * (chip.kind == machine::ChipKind::kCpu ? kIdleShareCpu : kIdleShare);
}

// exp() of the few constants that the operators of a class share, without calling it for each.
struct ExpCache {
  double argument = 0;
  double value = 1;
  double operator()(double x) {
    if (x != argument) {
      argument = x;
      value = std::exp(x);
    }
    return value;
  }
};

}  // namespace

std::string_view name(Bound bound) { return kBoundNames[static_cast<std::size_t>(bound)]; }
std::string_view name(PriceBasis basis) { return kPriceNames[static_cast<std::size_t>(basis)]; }

Status check_machine(const machine::Machine& machine) {
  const machine::Chip& chip = machine.chip();
  const auto missing = [&](std::string_view what) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: {} is not known; expected a value, for example with --set chip.{}", chip.id, what, what)};
  };
  if (chip.ladder.empty() || chip.main_memory().capacity <= Bytes{}) return missing("dram.capacity");
  if (chip.main_memory().bandwidth <= BytesPerSecond{}) return missing("dram.bandwidth");
  for (int i = 0; i < kArithmeticCount; ++i) {
    if (machine::product_rate(chip, static_cast<Arithmetic>(i)) > FlopPerSecond{}) return Ok{};
  }
  return missing("bf16.matrix");
}

Estimator::Estimator(const machine::Machine& machine, const CalibrationTable& calibration, const Plan& plan)
    : Estimator(machine, calibration.resolve(machine.chip(), software_of(plan)), plan) {}

Estimator::Estimator(const machine::Machine& machine, const ChipCalibration& calibration, const Plan& plan)
    : machine_(machine), calibration_(calibration), plan_(plan), types_(resolve_types(machine_.chip(), plan)) {
  ROOFTREE_CHECK(check_plan(plan).has_value(), "the plan must pass check_plan");
  const auto arithmetic = static_cast<std::size_t>(types_.arithmetic);
  ladder_ = storage_ladder(machine_, plan_.memory_reserve, calibration_.gemm[arithmetic].l2_ratio);

  Operands& w = weight_operands_;
  w.arithmetic = types_.arithmetic;
  w.weight_only = types_.weight_only;
  w.weight_bytes = types_.weight_bytes;
  w.activation_bytes = types_.bytes[at(Role::kActivation)];
  w.kv_bytes = types_.bytes[at(Role::kKvCache)];
  w.output_bytes = types_.bytes[at(Role::kOutput)];
  w.gradient_bytes = types_.bytes[at(Role::kGradient)];
  w.optimizer_bytes = types_.bytes[at(Role::kOptimizerState)];
  // Sparsity is folded into weight_bytes and product_speedup, per value of the dense tensor.
  w.weight_density = 1;
  w.product_speedup = types_.product_speedup;

  // Where a faster memory stands before the main one (HBM before DDR), the feeds that are calibrated as multiples of the
  // memory's bandwidth follow the faster one.
  for (const machine::MemoryLevel& level : machine_.chip().ladder) {
    if (is_dram(level.name)) {
      calibration_.memory_bandwidth = std::max(calibration_.memory_bandwidth, level.bandwidth.value());
    } else if (level.capacity > Bytes{} && &level != &machine_.chip().ladder.back()) {
      calibration_.last_cache_bytes = level.capacity.value();
    }
  }
  // Unknown is not limiting: zero bandwidth would make infinite and undefined times.
  constexpr double kNotLimiting = 1e30;
  if (!(calibration_.memory_bandwidth > 0)) calibration_.memory_bandwidth = kNotLimiting;
  if (!(calibration_.vector_rate > 0)) calibration_.vector_rate = kNotLimiting;
  if (!(calibration_.exponential_rate > 0)) calibration_.exponential_rate = kNotLimiting;
  for (double& inverse : calibration_.inverse_product_rate) {
    if (!std::isfinite(inverse)) inverse = 0;
  }

  // Kernels that follow each other draw more power, so the clock falls; eager stacks also launch helpers one by one.
  const HostConstants& host = calibration_.host[static_cast<std::size_t>(plan_.stack)];
  const bool eager = plan_.stack == Stack::kEager || plan_.stack == Stack::kMegatron;
  for (auto* set : {&calibration_.gemm, &calibration_.gemm_weight_only, &calibration_.grouped_gemm}) {
    for (GemmConstants& c : *set) {
      c.peak_share *= host.product_share;
      if (eager) c.fixed += c.eager_fixed;
    }
  }
  price_ = price_of(machine_);
}

Estimator::Price Estimator::price_of(const machine::Machine& machine) {
  const machine::Chip& chip = machine.chip();
  std::vector<double> rates;
  Price out;
  out.energy = ownership().energy;
  double low = std::numeric_limits<double>::infinity();
  double high = 0;
  const double service = ownership().service.value();
  const auto collect = [&](const std::vector<machine::Price>& prices, double chips, bool rental) {
    for (const machine::Price& p : prices) {
      double from = (rental ? p.rate_low.value() : p.purchase_low.value() / service) / chips;
      double to = (rental ? p.rate_high.value() : p.purchase_high.value() / service) / chips;
      if (from <= 0) from = to;
      if (to <= 0) to = from;
      if (to <= 0) continue;
      low = std::min(low, from);
      high = std::max(high, to);
      rates.push_back(std::sqrt(from * to));
    }
  };
  for (const bool rental : {true, false}) {
    collect(chip.prices, 1, rental);
    if (rates.empty()) collect(machine.root.prices, std::max(1.0, machine.chip_count()), rental);
    if (rates.empty()) continue;
    std::sort(rates.begin(), rates.end());
    const double best = rates[rates.size() / 2];
    out.basis = rental ? PriceBasis::kRental : PriceBasis::kPurchase;
    out.rate = {DollarsPerSecond{low}, DollarsPerSecond{best}, DollarsPerSecond{high}};
    break;
  }
  return out;
}

namespace {

// Values of the expert matrices of a graph, all layers.
double expert_values(const model::Graph& graph) {
  double values = 0;
  for (const model::Block& block : graph.blocks) {
    for (const model::Node& node : block.nodes) {
      const auto* op = std::get_if<model::GroupedMatMul>(&node.op);
      if (op == nullptr || node.pass != model::Pass::kForward) continue;
      values += static_cast<double>(op->experts * op->n * op->k) * static_cast<double>(block.repeat);
    }
  }
  return values;
}

}  // namespace

WorkingSet Estimator::working_set(const model::Graph& graph, double weight_bytes_per_value) const {
  const model::Footprint& f = graph.footprint;
  WorkingSet set;
  set.training = f.gradients > 0;
  const auto& bytes = types_.bytes;
  set.live_activations = f.activations_live * bytes[at(Role::kActivation)];
  set.bytes[at(Role::kWeight)] = f.weights * weight_bytes_per_value;
  if (plan_.expert_weights.has_value()) [[unlikely]] {
    const double experts = std::min(expert_values(graph), f.weights);
    set.bytes[at(Role::kWeight)] += experts * (types_.expert_weight_bytes - weight_bytes_per_value);
  }
  set.bytes[at(Role::kActivation)] = set.live_activations + f.activations_saved * bytes[at(Role::kActivation)];
  set.bytes[at(Role::kKvCache)] = f.kv_cache * bytes[at(Role::kKvCache)];
  set.bytes[at(Role::kGradient)] = f.gradients * bytes[at(Role::kGradient)];
  set.bytes[at(Role::kOptimizerState)] = f.optimizer_state_bytes;
  set.bytes[at(Role::kInput)] = static_cast<double>(graph.tokens_processed) * bytes[at(Role::kInput)];
  // The loss is computed from fp32 logits whatever the activations' type.
  set.bytes[at(Role::kOutput)] = f.logits * (set.training ? 4.0 : bytes[at(Role::kOutput)]);
  for (const double b : set.bytes) set.total += b;
  return set;
}

Estimate Estimator::estimate(const model::Graph& graph) const {
  Estimate out;
  estimate_into(graph, out);
  return out;
}

void Estimator::estimate_into(const model::Graph& graph, Estimate& out) const {
  const machine::Chip& chip = machine_.chip();
  const WorkingSet set = working_set(graph, types_.weight_bytes);
  PlacementResult placed;
  place(set, ladder_, placed);

  // Memory.
  for (std::size_t r = 0; r < set.bytes.size(); ++r) out.memory.by_role[r] = Bytes{set.bytes[r]};
  out.memory.total = Bytes{set.total};
  out.memory.capacity = Bytes{ladder_.capacity};
  out.memory.reserve = Bytes{ladder_.capacity - ladder_.memory.capacity};
  out.memory.fits = set.total <= ladder_.memory.capacity;
  out.placement = placed.roles;
  out.regime = placed.regime;

  // Operands with the pace of the levels where each role lives.
  Operands weight_operands = weight_operands_;
  weight_operands.weight_seconds_per_byte = placed.seconds_per_byte[at(Role::kWeight)];
  weight_operands.activation_seconds_per_byte = placed.seconds_per_byte[at(Role::kActivation)];
  weight_operands.kv_seconds_per_byte = placed.seconds_per_byte[at(Role::kKvCache)];
  weight_operands.weights_on_chip = placed.weights_on_chip;
  Operands attention_operands = weight_operands;
  attention_operands.arithmetic = types_.attention_arithmetic;
  attention_operands.weight_only = false;
  attention_operands.product_speedup = 1;
  Operands expert_operands = weight_operands;
  expert_operands.weight_bytes = types_.expert_weight_bytes;
  expert_operands.weight_only = types_.expert_weight_only;
  const bool typed_experts = plan_.expert_weights.has_value();
  // Products that make the gradient of a weight: in the weights' arithmetic, but no sparse operand.
  Operands gradient_operands = weight_operands;
  gradient_operands.weight_only = false;
  gradient_operands.product_speedup = 1;

  // Datasheet roofs: seconds per value of each role, and per FLOP.
  std::array<double, model::kRoleCount> roof_per_value{};
  for (std::size_t r = 0; r < roof_per_value.size(); ++r) {
    roof_per_value[r] = placed.seconds_per_byte[r] * types_.bytes[r];
  }
  {
    const Placement& activation = placed.roles[at(Role::kActivation)];
    if (activation.share_on_chip > 0 && ladder_.count > 0 && placed.regime != Regime::kWeightsOnChip) {
      const StorageLadder::Level& last = ladder_.levels[static_cast<std::size_t>(ladder_.count - 1)];
      const double pace =
          activation.share_on_chip * last.seconds_per_byte + (1 - activation.share_on_chip) * ladder_.memory.seconds_per_byte;
      const std::size_t r = at(Role::kActivation);
      roof_per_value[r] = std::min(roof_per_value[r], pace * types_.bytes[r]);
    }
  }
  const auto inverse_rate = [&](Arithmetic a) {
    const double rate = machine::product_rate(chip, a).value();
    return rate > 0 ? 1 / rate : 0.0;
  };
  const double weight_flop_time = inverse_rate(types_.arithmetic);
  const double attention_flop_time = inverse_rate(types_.attention_arithmetic);
  const double executed_share = 1 / types_.product_speedup;
  const double weight_on_chip = placed.roles[at(Role::kWeight)].share_on_chip;
  const double activation_on_chip = placed.roles[at(Role::kActivation)].share_on_chip;
  const double kv_on_chip = placed.roles[at(Role::kKvCache)].share_on_chip;
  const double state_on_chip = placed.roles[at(Role::kOptimizerState)].share_on_chip;

  const HostConstants& host = calibration_.host[static_cast<std::size_t>(plan_.stack)];
  // Eager stacks launch kernel by kernel: the launches are a floor under the kernels. Captured graphs start each kernel on the
  // device, after the one before it: that gap adds.
  const bool eager = plan_.stack == Stack::kEager || plan_.stack == Stack::kMegatron;
  const double gap = eager ? 0 : host.per_kernel;
  const double launch = eager ? host.per_kernel : 0;

  std::array<double, kBoundCount> by_bound{};
  std::array<double, kErrorClasses> below{}, above{};
  std::array<double, 5> by_distance{};
  std::array<ExpCache, kErrorClasses> exp_low, exp_high;
  double operators_time = 0, host_time = 0, transfer_time = 0, roof_total = 0;
  double flop = 0, peak_time = 0, bytes_dram = 0, bytes_on_chip = 0, bytes_link = 0, bytes_disk = 0, kernels = 0;
  double first_fill = 0;
  bool fill_from_disk = false;

  std::size_t count = 0;
  for (const model::Block& block : graph.blocks) count += block.nodes.size();
  out.operators.resize(count);
  std::size_t slot = 0;

  for (std::size_t b = 0; b < graph.blocks.size(); ++b) {
    const model::Block& block = graph.blocks[b];
    const auto repeat = static_cast<double>(block.repeat);
    const std::size_t first_slot = slot;
    double forward = 0, backward = 0, roof_block = 0;
    double backward_kernels = 0;
    double in_host = 0, out_host = 0, in_disk = 0;
    for (std::size_t n = 0; n < block.nodes.size(); ++n) {
      const model::Node& node = block.nodes[n];
      const model::OperatorKind kind = model::kind(node.op);
      const model::Work work = model::work(node.op);
      const Operands* operands = &weight_operands;
      if (work.read[at(Role::kWeight)] <= 0 && work.product > Flop{}) {
        operands = work.written[at(Role::kGradient)] > 0 ? &gradient_operands : &attention_operands;
      } else if (typed_experts && kind == model::OperatorKind::kGroupedMatMul) [[unlikely]] {
        operands = &expert_operands;
      }
      const KernelTime kt = kernel_time(node.op, work, *operands, calibration_);

      const bool of_weights = operands == &weight_operands || operands == &expert_operands;
      const double executed = of_weights ? work.product.value() * executed_share : work.product.value();
      double roof_bytes = 0;
      for (std::size_t r = 0; r < roof_per_value.size(); ++r) {
        roof_bytes += (work.read[r] + work.written[r]) * roof_per_value[r];
      }
      if (operands == &expert_operands) [[unlikely]] {
        const double extra = types_.expert_weight_bytes / types_.weight_bytes - 1;
        roof_bytes += work.read[at(Role::kWeight)] * extra * roof_per_value[at(Role::kWeight)];
      }
      const double at_peak = executed * (operands == &attention_operands ? attention_flop_time : weight_flop_time);
      const double roof = std::max(roof_bytes, at_peak);
      const double time = std::max(kt.time, roof);

      OperatorEstimate& line = out.operators[slot++];
      line.block = static_cast<std::uint32_t>(b);
      line.node = static_cast<std::uint32_t>(n);
      line.count = repeat;
      line.time = Seconds{time * repeat};
      const double line_flop = (executed + work.vector.value()) * repeat;
      line.flop = Flop{line_flop};
      const double on_chip = (kt.weight_bytes * weight_on_chip + kt.activation_bytes * activation_on_chip +
                              kt.kv_bytes * kv_on_chip + kt.state_bytes * state_on_chip) *
                             repeat;
      const double all = (kt.weight_bytes + kt.activation_bytes + kt.kv_bytes + kt.state_bytes) * repeat;
      const double dram = std::max(0.0, all - on_chip);
      line.bytes_on_chip = Bytes{on_chip};
      line.bytes_dram = Bytes{dram};
      line.log_low = kt.log_low;
      line.log_high = kt.log_high;
      line.distance = static_cast<Distance>(kt.distance);
      Bound bound = on_chip > dram ? Bound::kOnChip : Bound::kMemory;
      double largest = kt.memory;
      if (kt.compute > largest) {
        largest = kt.compute;
        bound = Bound::kCompute;
      }
      if (kt.special > largest) {
        largest = kt.special;
        bound = Bound::kSpecial;
      }
      if (kt.fixed > largest) bound = Bound::kOverhead;
      line.bound = bound;

      flop += line_flop;
      peak_time += at_peak * repeat;
      bytes_dram += dram;
      bytes_on_chip += on_chip;
      by_distance[kt.distance] += time * repeat;
      const auto error_class = kClassOf[static_cast<std::size_t>(kind)];
      below[error_class] += repeat * std::min(time - time * exp_low[error_class](kt.log_low), time - roof);
      above[error_class] += repeat * (time * exp_high[error_class](kt.log_high) - time);
      roof_block += roof;
      kernels += repeat;
      if (node.pass == model::Pass::kBackward) {
        backward += time;
        backward_kernels += 1;
      } else {
        forward += time;
      }
      if (placed.spills) [[unlikely]] {
        for (const Role role : {Role::kWeight, Role::kKvCache, Role::kOptimizerState}) {
          const std::size_t r = at(role);
          const bool of_expert = role == Role::kWeight && operands == &expert_operands;
          const double bytes = of_expert ? types_.expert_weight_bytes : types_.bytes[r];
          const double off = placed.roles[r].share_off_chip * bytes;
          const double disk = placed.roles[r].share_disk * bytes;
          in_host += work.read[r] * off;
          out_host += work.written[r] * off;
          in_disk += (work.read[r] + work.written[r]) * disk;
        }
      }
    }

    const double device = forward + backward;
    operators_time += device * repeat;
    // Host: a floor under each pass of a repeated block, a gap after each kernel of a captured graph.
    const double layer = block.repeat > 1 ? host.per_layer : 0;
    const double nodes = static_cast<double>(block.nodes.size());
    const double host_forward = forward > 0 ? layer + launch * (nodes - backward_kernels) : 0;
    const double host_backward = backward > 0 ? layer * kBackwardHostRatio + launch * backward_kernels : 0;
    double with_host = device + gap * nodes;
    if (host_forward + host_backward > 0) {
      with_host = smooth_max(forward, host_forward) + smooth_max(backward, host_backward) + gap * nodes;
    }
    host_time += (with_host - device) * repeat;

    // Transfers run beside the computation of the block before.
    if (placed.spills) [[unlikely]] {
      // Everything crosses the link, reads and writes in opposite directions; the disk's part also waits for the disk.
      const double link_time = std::max(in_host, out_host) * ladder_.host.seconds_per_byte;
      const double disk_time = in_disk * ladder_.disk.seconds_per_byte;
      const double transfer = std::max(link_time, disk_time);
      const double total = std::max(with_host, transfer);
      transfer_time += (total - with_host) * repeat;
      roof_block = std::max(roof_block, std::max(link_time * kHostLinkShare, disk_time));
      bytes_link += (in_host + out_host) * repeat * (ladder_.host.capacity > 0 ? 1 : 0);
      bytes_disk += in_disk * repeat;
      if (transfer > first_fill) {
        first_fill = transfer;
        fill_from_disk = disk_time > link_time;
      }
      if (transfer > with_host) {
        by_bound[static_cast<std::size_t>(disk_time > link_time ? Bound::kDisk : Bound::kHostLink)] += total * repeat;
        roof_total += roof_block * repeat;
        continue;
      }
    }
    roof_total += roof_block * repeat;
    // Who waits: the host where its floor is the longer part, else each operator for its own resource.
    if (host_forward + host_backward > device) {
      by_bound[static_cast<std::size_t>(Bound::kHost)] += with_host * repeat;
    } else {
      by_bound[static_cast<std::size_t>(Bound::kHost)] += (with_host - device) * repeat;
      for (std::size_t i = first_slot; i < slot; ++i) {
        by_bound[static_cast<std::size_t>(out.operators[i].bound)] += out.operators[i].time.value();
      }
    }
  }

  if (first_fill > 0) {
    transfer_time += first_fill;
    by_bound[static_cast<std::size_t>(fill_from_disk ? Bound::kDisk : Bound::kHostLink)] += first_fill;
  }
  // What a serving engine spends on scheduling, sampling and detokenising belongs to sequences that generate: a batch of images
  // or clicks runs as one captured graph.
  const bool schedules = plan_.stack != Stack::kEngine || graph.footprint.kv_cache > 0;
  const double step_host = schedules ? host.per_step + host.per_sequence * static_cast<double>(graph.sequences) : 0.0;
  host_time += step_host;
  by_bound[static_cast<std::size_t>(Bound::kHost)] += step_host;

  const double time = operators_time + host_time + transfer_time;
  static const double kHostBelow = 1 - std::exp(-kHostLog), kHostAbove = std::exp(kHostLog) - 1;
  static const double kTransferAbove = std::exp(kTransferLogHigh) - 1;
  static const double kCompositionBelow = 1 - std::exp(-kCompositionLog), kCompositionAbove = std::exp(kCompositionLog) - 1;
  below[kHostSide] = host_time * kHostBelow;
  above[kHostSide] = host_time * kHostAbove;
  below[kTransfers] = transfer_time * (1 - kHostLinkShare);
  above[kTransfers] = transfer_time * kTransferAbove;
  below[kComposition] = time * kCompositionBelow;
  above[kComposition] = time * kCompositionAbove;
  double below_square = 0, above_square = 0;
  for (std::size_t c = 0; c < kErrorClasses; ++c) {
    below_square += below[c] * below[c];
    above_square += above[c] * above[c];
  }
  const double time_low = std::min(time, std::max(time - std::sqrt(below_square), roof_total));
  const double time_high = time + std::sqrt(above_square);

  out.time = {Seconds{time_low}, Seconds{time}, Seconds{time_high}};
  out.host_time = Seconds{host_time};
  out.transfer_time = Seconds{transfer_time};
  out.roof_time = Seconds{roof_total};
  std::size_t bound = 0;
  for (std::size_t i = 0; i < by_bound.size(); ++i) {
    out.time_by_bound[i] = Seconds{by_bound[i]};
    if (by_bound[i] > by_bound[bound]) bound = i;
  }
  out.bound = static_cast<Bound>(bound);
  out.flop = Flop{flop};
  out.bytes_dram = Bytes{bytes_dram};
  out.bytes_on_chip = Bytes{bytes_on_chip};
  out.bytes_host_link = Bytes{bytes_link};
  out.bytes_disk = Bytes{bytes_disk};
  out.intensity = bytes_dram > 0 ? out.flop / out.bytes_dram : FlopPerByte{};
  out.arithmetic = types_.arithmetic;
  out.ridge = machine::ridge(chip, types_.arithmetic);
  std::size_t distance = 0;
  for (std::size_t i = 0; i < by_distance.size(); ++i) {
    if (by_distance[i] > by_distance[distance]) distance = i;
  }
  out.distance = static_cast<Distance>(distance);
  out.kernels = kernels;
  out.tokens = static_cast<double>(graph.tokens_processed > 0 ? graph.tokens_processed : graph.sequences);
  const double per_second = time > 0 ? 1 / time : 0;
  out.tokens_per_second = out.tokens * per_second;
  out.utilisation_compute = peak_time * per_second;
  out.utilisation_dram = bytes_dram * ladder_.memory.seconds_per_byte * per_second;
  out.utilisation_host_link =
      chip.host_link_per_direction > BytesPerSecond{} ? bytes_link / chip.host_link_per_direction.value() * per_second : 0;

  // Energy.
  out.has_energy = chip.power_max > Watts{};
  out.power = Watts{};
  out.energy = {};
  if (out.has_energy) {
    const double idle = idle_power(chip);
    const double swing = std::max(0.0, chip.power_max.value() - idle);
    const double busy = time > 0 ? operators_time / time : 0;
    double on_chip_share = 0;
    if (ladder_.count > 0) {
      on_chip_share = bytes_on_chip * ladder_.levels[static_cast<std::size_t>(ladder_.count - 1)].seconds_per_byte * per_second;
    }
    const double activity = kBusyActivity * busy + kComputeActivity * std::min(1.0, out.utilisation_compute / kFullCompute) +
                            kMemoryActivity * std::min(1.0, out.utilisation_dram) +
                            kOnChipActivity * std::min(1.0, on_chip_share);
    const auto watts = [&](double factor) { return idle + swing * std::min(1.0, activity * factor); };
    out.power = Watts{watts(1)};
    out.energy = {Watts{watts(1 - kPowerBand)} * out.time.low, out.power * out.time.best,
                  Watts{watts(1 + kPowerBand)} * out.time.high};
  }

  // Money.
  out.price_basis = price_.basis;
  out.money = {price_.rate.low * out.time.low, price_.rate.best * out.time.best, price_.rate.high * out.time.high};
  if (price_.basis == PriceBasis::kPurchase) {
    // An owner also pays for the energy.
    out.money.low += out.energy.low * price_.energy;
    out.money.best += out.energy.best * price_.energy;
    out.money.high += out.energy.high * price_.energy;
  }
}

std::vector<std::string> Estimator::explain(const model::Graph& graph, const Estimate& estimate) const {
  std::vector<std::string> out = types_.facts;
  const machine::Chip& chip = machine_.chip();
  const DType current = plan_.type(Role::kWeight);

  // The widest weight type, narrower than the current one, with which a capacity is met.
  const auto first_type_within = [&](double capacity) -> std::optional<DType> {
    constexpr std::array kCandidates = {DType::kBf16, DType::kInt8, DType::kInt4, DType::kQ3K, DType::kTq2_0};
    for (const DType type : kCandidates) {
      if (info(type).bits_per_value >= info(current).bits_per_value) continue;
      const double bytes = sparse_bytes_per_value(info(type).bits_per_value / 8, plan_.sparsity);
      if (working_set(graph, bytes).total <= capacity) return type;
    }
    return std::nullopt;
  };
  const double missing = -estimate.memory.headroom().value();
  const auto remedy = [&]() {
    std::string text = fmt::format("needs {:.1f} GiB more {}", missing / kGib, ladder_.memory.name);
    if (estimate.memory.by_role[at(Role::kGradient)] > Bytes{}) {
      text += ", recomputation, a smaller batch, or sharding over more chips";
    } else if (const auto type = first_type_within(ladder_.memory.capacity)) {
      text += fmt::format("; fits from {} weights on", name(*type));
    }
    if (ladder_.memory.capacity > 0) {
      text += fmt::format("; {:.0f} such chips hold it", std::ceil(estimate.memory.total.value() / ladder_.memory.capacity));
    }
    return text;
  };

  switch (estimate.regime) {
    case Regime::kWeightsOnChip:
      if (ladder_.memory_on_chip) {
        out.push_back(fmt::format("everything lives in the chip's {}: {:.2f} of {:.2f} GiB", ladder_.memory.name,
                                  estimate.memory.total.value() / kGib, ladder_.capacity / kGib));
      } else {
        out.push_back(
            fmt::format("weights stay in {}: data streams through them", estimate.placement[at(Role::kWeight)].level));
      }
      break;
    case Regime::kWeightsInMemory: {
      out.push_back(fmt::format("weights stream from {} once per step", ladder_.memory.name));
      const StorageLadder::Level* largest = nullptr;
      for (int i = 0; i < ladder_.count; ++i) {
        const StorageLadder::Level& level = ladder_.levels[static_cast<std::size_t>(i)];
        if (level.on_die && (largest == nullptr || level.capacity > largest->capacity)) largest = &level;
      }
      if (largest != nullptr && largest->capacity > 0) {
        if (const auto type = first_type_within(largest->capacity)) {
          out.push_back(fmt::format("fits on chip ({}) from {} weights on", largest->name, name(*type)));
        } else {
          out.push_back(fmt::format("the working set is {:.0f}x what {} can keep ({:.3g} MiB)",
                                    estimate.memory.total.value() / largest->capacity, largest->name,
                                    largest->capacity / 1048576.0));
        }
      }
      break;
    }
    case Regime::kWeightsFromHost:
    case Regime::kWeightsFromDisk: {
      std::string spilled;
      for (const Placement& p : estimate.placement) {
        if (p.share_off_chip <= 0) continue;
        if (!spilled.empty()) spilled += ", ";
        spilled += fmt::format("{:.0f} % of the {} from {}", 100 * p.share_off_chip, name(p.role),
                               p.share_disk > 0.5 * p.share_off_chip ? "disk" : "host memory");
      }
      out.push_back(fmt::format("every step streams {}; {}", spilled, remedy()));
      if (ladder_.host_assumed) out.push_back("the host's memory size is not known: it is taken as large enough");
      break;
    }
    case Regime::kDoesNotFit:
      out.push_back(fmt::format("does not fit: {}; the times are those of a chip with enough memory", remedy()));
      break;
  }
  if (estimate.distance != Distance::kOwn) {
    out.push_back(fmt::format("{} has no measured constants: those of its {} are used and the interval is wider", chip.id,
                              name(estimate.distance)));
  }
  if (!estimate.has_energy) out.push_back(fmt::format("{} states no power: no energy is given", chip.id));
  if (estimate.price_basis == PriceBasis::kNone) out.push_back(fmt::format("no price of {} is known", chip.id));
  return out;
}

}  // namespace rooftree::cost
