#include "base/cpu_features.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace rooftree {
namespace {

constexpr std::uint32_t kAvxFmaF16c = (1U << 28) | (1U << 12) | (1U << 29) | (1U << 27);

// Registers of a Sapphire-Rapids-like CPU with everything on.
X86Registers everything() {
  X86Registers r;
  r.max_leaf = 0x20;
  r.leaf1_ecx = kAvxFmaF16c;
  r.leaf7_ebx = (1U << 5) | (1U << 16) | (1U << 17) | (1U << 30) | (1U << 31);
  r.leaf7_ecx = 1U << 11;
  r.leaf7_edx = (1U << 22) | (1U << 23) | (1U << 24) | (1U << 25);
  r.leaf7_1_eax = (1U << 4) | (1U << 5);
  r.xcr0 = 0x600E7;
  r.amx_permitted = true;
  r.brand = std::string("  Some   CPU @ 2 GHz ") + '\0' + "rubbish";
  return r;
}

TEST(CpuFeatures, EverythingOn) {
  const CpuFeatures f = decode_x86(everything());
  EXPECT_TRUE(f.avx2 && f.fma && f.f16c && f.avx_vnni && f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq);
  EXPECT_TRUE(f.avx512_vnni && f.avx512_bf16 && f.avx512_fp16 && f.amx_tile && f.amx_int8 && f.amx_bf16);
  EXPECT_FALSE(f.neon || f.sve);
  EXPECT_EQ(f.isa(), Isa::kAvx512);
  EXPECT_EQ(f.cpu_name, "Some CPU @ 2 GHz");
}

TEST(CpuFeatures, TheSystemMustSaveTheRegisters) {
  X86Registers r = everything();
  r.xcr0 = 0x7;  // ymm only
  CpuFeatures f = decode_x86(r);
  EXPECT_EQ(f.isa(), Isa::kAvx2);
  EXPECT_FALSE(f.avx512f || f.avx512_vnni || f.avx512_bf16 || f.amx_tile || f.amx_int8);
  r.xcr0 = 0x67;  // opmask and half of the zmm state
  EXPECT_FALSE(decode_x86(r).avx512f);
  r.xcr0 = 0x3;  // xmm only
  f = decode_x86(r);
  EXPECT_FALSE(f.avx2 || f.fma || f.f16c || f.avx_vnni);
  EXPECT_EQ(f.isa(), Isa::kPortable);
}

TEST(CpuFeatures, AmxNeedsPermission) {
  X86Registers r = everything();
  r.amx_permitted = false;
  const CpuFeatures f = decode_x86(r);
  EXPECT_FALSE(f.amx_tile || f.amx_int8 || f.amx_bf16);
  EXPECT_TRUE(f.avx512_fp16);
}

TEST(CpuFeatures, OldCpuWithoutLeaf7) {
  X86Registers r = everything();
  r.max_leaf = 6;
  const CpuFeatures f = decode_x86(r);
  EXPECT_FALSE(f.avx2 || f.avx512f || f.amx_tile);
  EXPECT_TRUE(f.fma);
}

TEST(CpuFeatures, Avx512NeedsAllOfItsParts) {
  for (const int position : {17, 30, 31}) {  // DQ, BW, VL: Knights Landing has F alone
    X86Registers r = everything();
    r.leaf7_ebx &= ~(1U << position);
    EXPECT_EQ(decode_x86(r).isa(), Isa::kAvx2) << position;
  }
}

TEST(CpuFeatures, Aarch64) {
  const CpuFeatures all = decode_aarch64((1U << 1) | (1U << 10) | (1U << 20) | (1U << 22), (1U << 13) | (1U << 14));
  EXPECT_TRUE(all.neon && all.fp16 && all.dot && all.sve && all.i8mm && all.bf16);
  EXPECT_EQ(all.isa(), Isa::kNeon);
  const CpuFeatures plain = decode_aarch64(1U << 1, 0);
  EXPECT_TRUE(plain.neon);
  EXPECT_FALSE(plain.fp16 || plain.dot || plain.sve || plain.i8mm || plain.bf16);
  EXPECT_EQ(decode_aarch64(~std::uint64_t{2}, ~std::uint64_t{0}), CpuFeatures{});
}

TEST(CpuFeatures, LimitsOnlyRemove) {
  const CpuFeatures x86 = decode_x86(everything());
  EXPECT_EQ(limit(x86, Isa::kAvx512), x86);
  const CpuFeatures avx2 = limit(x86, Isa::kAvx2);
  EXPECT_EQ(avx2.isa(), Isa::kAvx2);
  EXPECT_TRUE(avx2.avx_vnni);
  EXPECT_FALSE(avx2.avx512_vnni || avx2.amx_int8);
  EXPECT_EQ(limit(x86, Isa::kPortable).isa(), Isa::kPortable);
  EXPECT_EQ(limit(x86, Isa::kNeon).isa(), Isa::kPortable);
  EXPECT_EQ(limit(decode_aarch64(2, 0), Isa::kAvx512).isa(), Isa::kPortable);
  EXPECT_EQ(limit(CpuFeatures{}, Isa::kAvx512), CpuFeatures{});
}

TEST(CpuFeatures, NamesRoundTripAndBadOnesAreRefused) {
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kNeon}) EXPECT_EQ(*parse_isa(name(isa)), isa);
  for (const char* bad : {"", "AVX2", "avx-512", "sse", "avx2 "}) {
    const Result<Isa> isa = parse_isa(bad);
    ASSERT_FALSE(isa) << bad;
    EXPECT_EQ(isa.error().code, ErrorCode::kInvalid);
    EXPECT_NE(isa.error().message.find("portable, avx2, avx512, neon"), std::string::npos);
  }
}

class IsaEnvironment : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* old = std::getenv("ROOFTREE_ISA")) old_ = old;
  }
  void TearDown() override {
    if (old_.empty()) {
      unsetenv("ROOFTREE_ISA");
    } else {
      setenv("ROOFTREE_ISA", old_.c_str(), 1);
    }
  }
  std::string old_;
};

TEST_F(IsaEnvironment, LimitsThisMachine) {
  unsetenv("ROOFTREE_ISA");
  EXPECT_EQ(*usable_cpu_features(), detected_cpu_features());
  setenv("ROOFTREE_ISA", "portable", 1);
  EXPECT_EQ(usable_cpu_features()->isa(), Isa::kPortable);
  setenv("ROOFTREE_ISA", "fast", 1);
  const Result<CpuFeatures> bad = usable_cpu_features();
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message.rfind("ROOFTREE_ISA: instruction set 'fast'", 0), 0U) << bad.error().message;
}

#if defined(__x86_64__)
// The compiler's run-time library asks the same questions independently.
TEST(CpuFeatures, AgreesWithTheCompilersRuntime) {
  const CpuFeatures& f = detected_cpu_features();
  EXPECT_EQ(f.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(f.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(f.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(f.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(f.avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
}
#endif

TEST(CpuFeatures, TextNamesWhatIsThere) {
  EXPECT_EQ(to_text(CpuFeatures{}), "no vector extensions");
  EXPECT_EQ(to_text(limit(decode_x86(everything()), Isa::kAvx2)), "AVX2 FMA F16C AVX-VNNI");
  EXPECT_EQ(to_text(decode_x86(everything())), "AVX2 FMA F16C AVX-VNNI AVX-512 F/BW/VL/DQ/VNNI/BF16/FP16 AMX/INT8/BF16");
}

}  // namespace
}  // namespace rooftree
