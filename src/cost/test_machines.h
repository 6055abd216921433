#pragma once

// Machines in round numbers for the tests of this layer.

#include "machine/machine.h"

namespace rooftree::cost::test {

inline void set_rate(machine::Chip& chip, Arithmetic a, double matrix, double vector, double sparse = 1) {
  chip.arithmetic[static_cast<std::size_t>(a)] = {FlopPerSecond{matrix}, FlopPerSecond{vector}, sparse};
}

// A GPU in round numbers: 400 TFLOP/s bf16, 2 TB/s, 80 GB, 40 MB of L2 at 8 TB/s, a 50 GB/s link to 256 GB of host memory.
inline machine::Machine gpu() {
  machine::Machine m;
  m.id = "test-gpu";
  machine::Chip chip;
  chip.id = "test-gpu";
  chip.family = "test";
  chip.kind = machine::ChipKind::kGpu;
  chip.cores = 100;
  set_rate(chip, Arithmetic::kFp32, 0, 20e12);
  set_rate(chip, Arithmetic::kBf16, 400e12, 40e12, 2.0);
  set_rate(chip, Arithmetic::kFp16, 400e12, 40e12, 2.0);
  set_rate(chip, Arithmetic::kInt8, 800e12, 0, 1.0);
  chip.ladder = {{.name = "shared",
                  .capacity = Bytes{20.0 * 1048576},
                  .bandwidth = BytesPerSecond{20e12},
                  .instances = 100,
                  .managed = true},
                 {.name = "L2", .capacity = Bytes{40e6}, .bandwidth = BytesPerSecond{8e12}},
                 {.name = "HBM", .capacity = Bytes{80e9}, .bandwidth = BytesPerSecond{2e12}}};
  chip.power_max = Watts{400};
  chip.power_idle = Watts{50};
  chip.host_link_per_direction = BytesPerSecond{50e9};
  m.root.chip = chip;
  m.root.host = {.memory_capacity = Bytes{256e9}, .memory_bandwidth = BytesPerSecond{200e9}, .disk_read = BytesPerSecond{5e9}};
  return m;
}

// All of the memory is SRAM: 0.23 GB at 80 TB/s.
inline machine::Machine sram_chip() {
  machine::Machine m = gpu();
  machine::Chip& chip = m.chip();
  chip.id = "test-sram";
  chip.kind = machine::ChipKind::kDataflow;
  chip.ladder = {{.name = "SRAM", .capacity = Bytes{0.23e9}, .bandwidth = BytesPerSecond{80e12}, .managed = true}};
  return m;
}

}  // namespace rooftree::cost::test
