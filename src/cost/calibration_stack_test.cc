// Constants by software stack: which sets a stack sees, and what the limits per core do.

#include <gtest/gtest.h>

#include "cost/calibration.h"
#include "cost/kernel_time.h"
#include "cost/plan.h"

namespace rooftree::cost {
namespace {

machine::Chip test_chip() {
  machine::Chip chip;
  chip.id = "test-chip";
  chip.vendor = "NVIDIA";
  chip.family = "nvidia-ampere";
  chip.cores = 100;
  chip.clock = Hertz{1e9};
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp16)].matrix = FlopPerSecond{100e12};
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp32)].vector = FlopPerSecond{10e12};
  chip.power_max = Watts{100};
  machine::MemoryLevel cache;
  cache.name = "L2";
  cache.capacity = Bytes{1e6};
  machine::MemoryLevel memory;
  memory.name = "DRAM";
  memory.capacity = Bytes{80e9};
  memory.bandwidth = BytesPerSecond{1e12};
  chip.ladder = {cache, memory};
  return chip;
}

ConstantSet gemm_set(std::string variant, double memory_share) {
  ConstantSet set;
  set.set_class = SetClass::kGemm;
  set.arithmetic = Arithmetic::kFp16;
  set.variant = std::move(variant);
  set.values = {{"memory_share", memory_share}, {"peak_share", 0.9}, {"fixed", 0}, {"fill", 0}};
  set.log_low = -0.1;
  set.log_high = 0.1;
  return set;
}

Family ampere(double flop_per_joule) {
  Family family;
  family.id = "nvidia-ampere";
  family.vendor = "NVIDIA";
  family.fp32_flop_per_joule = flop_per_joule;
  return family;
}

const GemmConstants& fp16(const ChipCalibration& c) { return c.gemm[static_cast<std::size_t>(Arithmetic::kFp16)]; }

TEST(StackConstants, AStacksOwnSetComesBeforeANearerOne) {
  ConstantSet own = gemm_set("", 0.8);
  own.chip = "test-chip";
  const ConstantSet of_stack = gemm_set("llamacpp", 0.5);
  const auto table = CalibrationTable::from_sets({own, of_stack}, {ampere(0)});
  EXPECT_EQ(fp16(table.resolve(test_chip(), {.stack = Stack::kLlamaCpp})).memory_share, 0.5);
  EXPECT_EQ(fp16(table.resolve(test_chip(), {.stack = Stack::kEngine})).memory_share, 0.8);
  EXPECT_EQ(fp16(table.resolve(test_chip())).memory_share, 0.8);
}

TEST(StackConstants, AStacksSetServesItsOwnWidthAndKindOnly) {
  const ConstantSet general = gemm_set("", 0.8);
  ConstantSet of_stack = gemm_set("eager", 0.5);
  of_stack.kind = machine::ChipKind::kGpu;
  const auto table = CalibrationTable::from_sets({general, of_stack}, {ampere(0)});
  const ChipCalibration gpu = table.resolve(test_chip(), {.stack = Stack::kEager});
  EXPECT_EQ(fp16(gpu).memory_share, 0.5);
  EXPECT_EQ(gpu.gemm[static_cast<std::size_t>(Arithmetic::kFp32)].memory_share, 0.8);
  machine::Chip cpu = test_chip();
  cpu.kind = machine::ChipKind::kCpu;
  cpu.family = "cpu";
  EXPECT_EQ(fp16(table.resolve(cpu, {.stack = Stack::kEager})).memory_share, 0.8);
}

// 4 bytes per clock on 100 cores at 1 GHz are 400 GB/s: 0.4 of the memory's bandwidth.
TEST(StackConstants, LoadsPerCoreBoundTheBandwidth) {
  ConstantSet set = gemm_set("", 0.9);
  set.values.emplace_back("core_load", 4);
  const auto table = CalibrationTable::from_sets({set}, {ampere(0)});
  EXPECT_DOUBLE_EQ(fp16(table.resolve(test_chip())).memory_share, 0.4);
  machine::Chip narrow = test_chip();
  narrow.ladder.back().bandwidth = BytesPerSecond{0.1e12};
  EXPECT_DOUBLE_EQ(fp16(table.resolve(narrow)).memory_share, 0.9);
}

// 500 FLOP per clock and core are 50 TFLOP/s: half of the peak.
TEST(StackConstants, FlopPerCoreBoundsTheProducts) {
  ConstantSet set = gemm_set("", 0.9);
  set.values.emplace_back("core_flop", 500);
  const auto table = CalibrationTable::from_sets({set}, {ampere(0)});
  EXPECT_DOUBLE_EQ(fp16(table.resolve(test_chip())).peak_share, 0.5);
}

TEST(StackConstants, UnpackingAddsItsTimeToTheReads) {
  ConstantSet set = gemm_set("", 1.0);
  const auto plain = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  set.values.emplace_back("core_unpack", 50);
  const auto unpacking = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  const model::Operator op = model::MatMul{.m = 1, .n = 8192, .k = 8192};
  Operands operands;
  operands.arithmetic = Arithmetic::kFp16;
  operands.weight_bytes = 0.5;
  operands.weight_seconds_per_byte = operands.activation_seconds_per_byte = 1e-12;
  const double without = kernel_time(op, model::work(op), operands, plain).memory;
  const double with = kernel_time(op, model::work(op), operands, unpacking).memory;
  // 8192 x 8192 weights at 50 x 100 x 1e9 per second.
  EXPECT_NEAR(with - without, 8192.0 * 8192.0 / 5e12, 1e-9);
}

TEST(StackConstants, CachedKeysAreReadPerRowWhereTheKernelDoesSo) {
  ConstantSet set = gemm_set("", 1.0);
  const auto shared = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  set.values.emplace_back("one_by_one", 16);
  const auto per_row = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  model::MatMul product{.m = 4, .n = 100000, .k = 128, .batch = 8, .weight = false, .cached = true};
  Operands operands;
  operands.arithmetic = Arithmetic::kFp16;
  operands.kv_seconds_per_byte = 1e-12;
  const auto kv_bytes = [&](const ChipCalibration& c) {
    const model::Operator op = product;
    return kernel_time(op, model::work(op), operands, c).kv_bytes;
  };
  EXPECT_DOUBLE_EQ(kv_bytes(per_row), 4 * kv_bytes(shared));
  product.m = 512;  // a prompt: tiles of rows share what they read
  EXPECT_DOUBLE_EQ(kv_bytes(per_row), kv_bytes(shared));
}

TEST(StackConstants, ExpertsAreReadPerPairWhereTheKernelDoesSo) {
  ConstantSet set = gemm_set("", 1.0);
  set.set_class = SetClass::kGroupedGemm;
  const auto shared = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  set.values.emplace_back("one_by_one", 16);
  const auto per_pair = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(test_chip());
  model::GroupedMatMul product{.tokens = 16, .n = 1024, .k = 1024, .experts = 8, .top_k = 2};
  Operands operands;
  operands.arithmetic = Arithmetic::kFp16;
  operands.weight_bytes = 2;
  const auto weight_bytes = [&](const ChipCalibration& c) {
    const model::Operator op = product;
    return kernel_time(op, model::work(op), operands, c).weight_bytes;
  };
  const double expert = 1024.0 * 1024.0 * 2;
  EXPECT_DOUBLE_EQ(weight_bytes(per_pair), 32 * expert);
  EXPECT_LE(weight_bytes(shared), 8 * expert);
  product.tokens = 512;
  EXPECT_DOUBLE_EQ(weight_bytes(per_pair), weight_bytes(shared));
}

// On general ALUs at a thin share of 1/4 and tiles of 64 rows: 8 rows cost 32, 32 rows cost 64, 65 rows cost 128.
TEST(StackConstants, FewRowsOnGeneralAlusCostMore) {
  machine::Chip chip = test_chip();
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp16)] = {.vector = FlopPerSecond{10e12}};
  ConstantSet set = gemm_set("", 1.0);
  set.values = {{"memory_share", 1}, {"peak_share", 1}, {"fixed", 0}, {"thin_share", 0.25}, {"tile", 64}};
  const auto c = CalibrationTable::from_sets({set}, {ampere(0)}).resolve(chip);
  Operands operands;
  operands.arithmetic = Arithmetic::kFp16;
  const auto compute = [&](std::int64_t m) {
    const model::Operator op = model::MatMul{.m = m, .n = 1000, .k = 1000};
    return kernel_time(op, model::work(op), operands, c).compute;
  };
  const double row = 2.0 * 1000 * 1000 / 10e12;
  EXPECT_NEAR(compute(8), 32 * row, 1e-15);
  EXPECT_NEAR(compute(32), 64 * row, 1e-15);
  EXPECT_NEAR(compute(65), 128 * row, 1e-15);
  EXPECT_NEAR(compute(640), 640 * row, 1e-15);
}

TEST(StackConstants, AStackMayRunAStreamInItsOwnWay) {
  ConstantSet loss;
  loss.set_class = SetClass::kStream;
  loss.variant = "loss";
  loss.chip = "test-chip";
  loss.values = {{"memory_share", 0.8}};
  loss.log_low = -0.1;
  loss.log_high = 0.1;
  ConstantSet of_stack = loss;
  of_stack.chip.clear();
  of_stack.variant = "loss megatron";
  of_stack.values = {{"memory_share", 0.1}};
  const auto table = CalibrationTable::from_sets({loss, of_stack}, {ampere(0)});
  const auto at = static_cast<std::size_t>(StreamClass::kLoss);
  EXPECT_EQ(table.resolve(test_chip(), {.stack = Stack::kMegatron}).stream[at].memory_share, 0.1);
  EXPECT_EQ(table.resolve(test_chip(), {.stack = Stack::kEager}).stream[at].memory_share, 0.8);
  EXPECT_EQ(table.resolve(test_chip()).stream[at].memory_share, 0.8);
}

// A board of 100 W pays for 100 x 20e9 FLOP/s, a fifth of the chip's fp32 peak; other types keep theirs.
TEST(StackConstants, PowerBoundsFp32Products) {
  const auto limited = CalibrationTable::from_sets({gemm_set("", 0.9)}, {ampere(20e9)}).resolve(test_chip());
  EXPECT_DOUBLE_EQ(limited.product_rate[static_cast<std::size_t>(Arithmetic::kFp32)], 2e12);
  EXPECT_DOUBLE_EQ(limited.product_rate[static_cast<std::size_t>(Arithmetic::kFp16)], 100e12);
  machine::Chip unknown = test_chip();
  unknown.power_max = Watts{};
  const auto free = CalibrationTable::from_sets({gemm_set("", 0.9)}, {ampere(20e9)}).resolve(unknown);
  EXPECT_DOUBLE_EQ(free.product_rate[static_cast<std::size_t>(Arithmetic::kFp32)], 10e12);
}

TEST(StackConstants, FilesMayNameStacksAndRefuseOthers) {
  const auto parse = [](std::string_view cls, std::string_view variant) {
    const std::string text = std::string(R"({"sets": [{"class": ")") + std::string(cls) + R"(", "variant": ")" +
                             std::string(variant) +
                             R"(", "constants": {"memory_share": 0.5}, "note": "test", "date": "2026-11-24"}]})";
    return CalibrationTable::parse(text, "test").has_value();
  };
  EXPECT_TRUE(parse("gemm", "llamacpp"));
  EXPECT_TRUE(parse("gemm_weight_only", "compiled"));
  EXPECT_TRUE(parse("stream", "loss megatron"));
  EXPECT_FALSE(parse("gemm", "nobody"));
  EXPECT_FALSE(parse("stream", "loss nobody"));
  EXPECT_FALSE(parse("stream", "megatron"));
  EXPECT_FALSE(parse("stream", " megatron"));
}

}  // namespace
}  // namespace rooftree::cost
