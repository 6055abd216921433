#pragma once

// A chip and an analysis with round numbers, for the tests of this layer.

#include <string>
#include <utility>

#include "report/analysis.h"

namespace rooftree::report {

// 100 TFLOP/s bf16, 200 TFLOP/s int8, 20 TFLOP/s fp32; 64 GiB at 1 TB/s behind a 32 MiB cache at 5 TB/s. Ridge 100 FLOP/byte.
inline machine::Machine hand_made_machine() {
  machine::Chip chip;
  chip.id = "hand-made";
  chip.name = "Hand-made 100";
  chip.vendor = "nobody";
  chip.family = "none";
  chip.cores = 100;
  const auto rate = [&](Arithmetic a, double matrix, double vector) {
    chip.arithmetic[static_cast<std::size_t>(a)] = {FlopPerSecond{matrix}, FlopPerSecond{vector}, 1.0};
  };
  rate(Arithmetic::kBf16, 100e12, 20e12);
  rate(Arithmetic::kFp16, 100e12, 20e12);
  rate(Arithmetic::kInt8, 200e12, 0);
  rate(Arithmetic::kFp32, 0, 20e12);
  machine::MemoryLevel cache;
  cache.name = "L2";
  cache.capacity = Bytes{32.0 * 1048576};
  cache.bandwidth = BytesPerSecond{5e12};
  machine::MemoryLevel memory;
  memory.name = "HBM";
  memory.capacity = Bytes{64.0 * 1073741824};
  memory.bandwidth = BytesPerSecond{1e12};
  chip.ladder = {cache, memory};
  chip.power_max = Watts{400};
  machine::Machine machine;
  machine.id = chip.id;
  machine.name = chip.name;
  machine.root.chip = std::move(chip);
  return machine;
}

// One decode step of a made-up model: 10 ms, mostly memory.
inline Analysis hand_made_analysis() {
  Analysis a;
  a.model_id = "toy-1b";
  a.model_name = "Toy 1B";
  a.parameters = 1e9;
  a.machine = hand_made_machine();
  a.phase = model::Phase::decode(2, 1024);
  const auto add = [&](const char* block, double repeat, const char* name, model::OperatorKind kind, double ms, double flop,
                       double dram, cost::Bound bound) {
    OperatorRow row;
    row.block = block;
    row.repeat = repeat;
    row.name = name;
    row.kind = kind;
    row.count = repeat;
    row.time = Seconds{ms * 1e-3};
    row.flop = Flop{flop};
    row.bytes_dram = Bytes{dram};
    row.bytes_on_chip = Bytes{dram / 8};
    row.bound = bound;
    if (bound == cost::Bound::kMemory) row.best_move = "int8 weights: 1.9x";
    a.operators.push_back(std::move(row));
  };
  add("embedding", 1, "tokens", model::OperatorKind::kEmbedding, 0.02, 0, 8192, cost::Bound::kOverhead);
  add("layer", 16, "qkv", model::OperatorKind::kMatMul, 2.0, 3.2e9, 1.6e9, cost::Bound::kMemory);
  add("layer", 16, "attention", model::OperatorKind::kAttention, 1.48, 4e9, 1e9, cost::Bound::kMemory);
  add("layer", 16, "up_gate", model::OperatorKind::kMatMul, 5.0, 8e9, 4e9, cost::Bound::kMemory);
  add("layer", 16, "norm", model::OperatorKind::kNorm, 0.5, 1e6, 2e6, cost::Bound::kOverhead);
  add("head", 1, "lm_head", model::OperatorKind::kMatMul, 1.0, 1.6e9, 0.8e9, cost::Bound::kMemory);

  cost::Estimate& e = a.estimate;
  e.time = {Seconds{9e-3}, Seconds{10e-3}, Seconds{12e-3}};
  e.bound = cost::Bound::kMemory;
  e.regime = cost::Regime::kWeightsInMemory;
  for (const OperatorRow& row : a.operators) {
    e.flop += row.flop;
    e.bytes_dram += row.bytes_dram;
    e.bytes_on_chip += row.bytes_on_chip;
  }
  e.intensity = e.flop / e.bytes_dram;
  e.ridge = FlopPerByte{100};
  e.arithmetic = Arithmetic::kBf16;
  e.tokens = 2;
  e.tokens_per_second = 200;
  const auto role = [&](model::Role r, double bytes) {
    e.memory.by_role[static_cast<std::size_t>(r)] = Bytes{bytes};
    e.memory.total += Bytes{bytes};
    e.placement[static_cast<std::size_t>(r)] = {r, Bytes{bytes}, "HBM", 0, 0, 0};
  };
  role(model::Role::kWeight, 6.4e9);
  role(model::Role::kKvCache, 1e9);
  role(model::Role::kActivation, 1e6);
  e.memory.capacity = a.machine.root.chip->ladder.back().capacity;
  e.memory.reserve = e.memory.capacity * 0.05;
  e.has_energy = true;
  e.power = Watts{300};
  e.energy = {Joules{2.7}, Joules{3.0}, Joules{3.6}};
  e.money = {Dollars{4.5e-6}, Dollars{5e-6}, Dollars{6e-6}};
  e.price_basis = cost::PriceBasis::kRental;
  e.utilisation_compute = 0.0168;
  e.utilisation_dram = 0.74;
  const auto move = [&](cost::Sensitivity::Kind kind, const char* knob, double time, const char* note) {
    a.sensitivities.push_back({kind, knob, time, time, time, note});
  };
  move(cost::Sensitivity::Kind::kSoftware, "batch 2 -> 16", 0.2, "each token takes 1.6x as long");
  move(cost::Sensitivity::Kind::kSoftware, "weights bf16 -> int8", 0.6, "accuracy: usually kept");
  move(cost::Sensitivity::Kind::kHardware, "memory.bandwidth +10 %", 0.93, "");
  a.crossing = RidgeCrossing{120, 65536, 96};
  a.notes = {"Numbers of this chip are made up."};
  return a;
}

}  // namespace rooftree::report
