#pragma once

// What the CPU and the operating system let us execute, found at run time: code for every instruction set is compiled into one
// program (function target attributes) and chosen by these flags. ROOFTREE_ISA limits what is used.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace rooftree {

// The vector level that kernels are written for; each contains the ones before it on its architecture.
enum class Isa : std::uint8_t { kPortable, kAvx2, kAvx512, kNeon };
[[nodiscard]] std::string_view name(Isa isa);  // "portable", "avx2", "avx512", "neon": the values of ROOFTREE_ISA
Result<Isa> parse_isa(std::string_view text);

// A flag is set only if the CPU has the instructions and the system saves their registers.
struct CpuFeatures {
  std::string cpu_name;  // "AMD EPYC 9654 96-Core Processor"; empty if unknown

  // x86-64
  bool avx2 = false, fma = false, f16c = false, avx_vnni = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false;
  bool avx512_vnni = false, avx512_bf16 = false, avx512_fp16 = false;
  bool amx_tile = false, amx_int8 = false, amx_bf16 = false;

  // AArch64
  bool neon = false, dot = false, i8mm = false, bf16 = false, fp16 = false, sve = false;

  // avx2 needs AVX2, FMA and F16C; avx512 needs F, BW, VL and DQ on top.
  [[nodiscard]] Isa isa() const;
  friend bool operator==(const CpuFeatures&, const CpuFeatures&) = default;
};

// The registers that CPUID and XGETBV return, as far as they are read here. Decoding is pure, for tests on any machine.
struct X86Registers {
  std::uint32_t max_leaf = 0;
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0;
  std::uint32_t leaf7_1_eax = 0;
  std::uint64_t xcr0 = 0;      // 0 where OSXSAVE is not set
  bool amx_permitted = false;  // the kernel granted the tile registers to this process
  std::string brand;           // leaves 0x80000002..4
};
[[nodiscard]] CpuFeatures decode_x86(const X86Registers& registers);

// The hwcap words of the auxiliary vector on AArch64 Linux.
[[nodiscard]] CpuFeatures decode_aarch64(std::uint64_t hwcap, std::uint64_t hwcap2);

// Removes what lies above `isa`: AVX-512 and AMX go with less than avx512, everything with portable. A level of the other
// architecture, or one that this CPU lacks, leaves the portable level or the CPU's own; nothing is ever added.
[[nodiscard]] CpuFeatures limit(CpuFeatures features, Isa isa);

// Asks this machine, once; requests the permission for AMX from the kernel if the CPU has it.
[[nodiscard]] const CpuFeatures& detected_cpu_features();

// Detected, limited by ROOFTREE_ISA; kInvalid when that holds anything but a level's name.
Result<CpuFeatures> usable_cpu_features();

// "AVX2 FMA F16C AVX-512 F/BW/VL/DQ/VNNI/BF16", for people.
[[nodiscard]] std::string to_text(const CpuFeatures& features);

}  // namespace rooftree
