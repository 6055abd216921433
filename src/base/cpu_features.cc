#include "base/cpu_features.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace rooftree {
namespace {

constexpr std::array<std::string_view, 4> kIsaNames = {"portable", "avx2", "avx512", "neon"};

constexpr bool bit(std::uint64_t word, int position) { return ((word >> position) & 1) != 0; }

// "model name" (x86) or nothing in /proc/cpuinfo; the fallback where the CPU does not tell its name itself.
[[maybe_unused]] std::string name_from_cpuinfo() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    for (const std::string_view key : {"model name", "Model", "Hardware"}) {
      const std::size_t colon = line.find(':');
      if (line.rfind(key, 0) == 0 && colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
    }
  }
  return {};
}

std::string trimmed(std::string_view text) {
  text = text.substr(0, text.find('\0'));
  std::string result;  // runs of blanks become one
  for (const char c : text) {
    if (c != ' ' || (!result.empty() && result.back() != ' ')) result += c;
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

#if defined(__x86_64__)
std::uint64_t read_xcr0() {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | (std::uint64_t{high} << 32);
}

// Linux gives the tile data state only to processes that ask (arch_prctl, since 5.16; Documentation/arch/x86/xstate.rst).
bool request_amx() {
  constexpr long kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

CpuFeatures ask_this_machine() {
  X86Registers r;
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  r.max_leaf = static_cast<std::uint32_t>(__get_cpuid_max(0, nullptr));
  if (r.max_leaf >= 1) {
    __cpuid(1, a, b, c, d);
    r.leaf1_ecx = c;
    if (bit(c, 27)) r.xcr0 = read_xcr0();
  }
  if (r.max_leaf >= 7) {
    __cpuid_count(7, 0, a, b, c, d);
    const std::uint32_t last_subleaf = a;
    r.leaf7_ebx = b;
    r.leaf7_ecx = c;
    r.leaf7_edx = d;
    if (last_subleaf >= 1) {
      __cpuid_count(7, 1, a, b, c, d);
      r.leaf7_1_eax = a;
    }
    if (bit(r.leaf7_edx, 24)) r.amx_permitted = request_amx();
  }
  if (static_cast<std::uint32_t>(__get_cpuid_max(0x80000000, nullptr)) >= 0x80000004) {
    std::array<char, 48> text{};
    for (unsigned i = 0; i < 3; ++i) {
      const std::array<std::uint32_t, 4> words = [&] {
        std::array<std::uint32_t, 4> w{};
        __cpuid(0x80000002 + i, w[0], w[1], w[2], w[3]);
        return w;
      }();
      std::memcpy(text.data() + 16 * i, words.data(), 16);
    }
    r.brand.assign(text.data(), text.size());
  }
  CpuFeatures features = decode_x86(r);
  if (features.cpu_name.empty()) features.cpu_name = name_from_cpuinfo();
  return features;
}
#elif defined(__aarch64__)
CpuFeatures ask_this_machine() {
  CpuFeatures features = decode_aarch64(getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
  features.cpu_name = name_from_cpuinfo();
  return features;
}
#else
CpuFeatures ask_this_machine() {
  CpuFeatures features;
  features.cpu_name = name_from_cpuinfo();
  return features;
}
#endif

}  // namespace

std::string_view name(Isa isa) { return kIsaNames[static_cast<std::size_t>(isa)]; }

Result<Isa> parse_isa(std::string_view text) {
  for (std::size_t i = 0; i < kIsaNames.size(); ++i) {
    if (kIsaNames[i] == text) return static_cast<Isa>(i);
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("instruction set '{}' is unknown; expected one of {}", text, fmt::join(kIsaNames, ", "))};
}

Isa CpuFeatures::isa() const {
  if (neon) return Isa::kNeon;
  if (!avx2 || !fma || !f16c) return Isa::kPortable;
  return avx512f && avx512bw && avx512vl && avx512dq ? Isa::kAvx512 : Isa::kAvx2;
}

// Bit positions: Intel 64 SDM volume 2A, CPUID; XCR0 components: volume 1, chapter 13.
CpuFeatures decode_x86(const X86Registers& r) {
  CpuFeatures f;
  f.cpu_name = trimmed(r.brand);
  const bool ymm_saved = (r.xcr0 & 0x6) == 0x6;                 // SSE, AVX
  const bool zmm_saved = ymm_saved && (r.xcr0 & 0xE0) == 0xE0;  // opmask, ZMM_Hi256, Hi16_ZMM
  const bool tiles_saved = (r.xcr0 & 0x60000) == 0x60000 && r.amx_permitted;
  const bool leaf7 = r.max_leaf >= 7;
  if (ymm_saved && bit(r.leaf1_ecx, 28)) {
    f.fma = bit(r.leaf1_ecx, 12);
    f.f16c = bit(r.leaf1_ecx, 29);
    f.avx2 = leaf7 && bit(r.leaf7_ebx, 5);
    f.avx_vnni = f.avx2 && bit(r.leaf7_1_eax, 4);
  }
  if (leaf7 && zmm_saved && bit(r.leaf7_ebx, 16)) {
    f.avx512f = true;
    f.avx512dq = bit(r.leaf7_ebx, 17);
    f.avx512bw = bit(r.leaf7_ebx, 30);
    f.avx512vl = bit(r.leaf7_ebx, 31);
    f.avx512_vnni = bit(r.leaf7_ecx, 11);
    f.avx512_bf16 = bit(r.leaf7_1_eax, 5);
    f.avx512_fp16 = bit(r.leaf7_edx, 23);
  }
  if (leaf7 && tiles_saved && bit(r.leaf7_edx, 24)) {
    f.amx_tile = true;
    f.amx_bf16 = bit(r.leaf7_edx, 22);
    f.amx_int8 = bit(r.leaf7_edx, 25);
  }
  return f;
}

// Bit positions: Linux arch/arm64/include/uapi/asm/hwcap.h.
CpuFeatures decode_aarch64(std::uint64_t hwcap, std::uint64_t hwcap2) {
  CpuFeatures f;
  f.neon = bit(hwcap, 1);              // ASIMD
  f.fp16 = f.neon && bit(hwcap, 10);   // ASIMDHP
  f.dot = f.neon && bit(hwcap, 20);    // ASIMDDP
  f.sve = f.neon && bit(hwcap, 22);    // SVE
  f.i8mm = f.neon && bit(hwcap2, 13);  // I8MM
  f.bf16 = f.neon && bit(hwcap2, 14);  // BF16
  return f;
}

CpuFeatures limit(CpuFeatures f, Isa isa) {
  if (isa != Isa::kNeon) f.neon = f.dot = f.i8mm = f.bf16 = f.fp16 = f.sve = false;
  if (isa != Isa::kAvx512) {
    f.avx512f = f.avx512bw = f.avx512vl = f.avx512dq = f.avx512_vnni = f.avx512_bf16 = f.avx512_fp16 = false;
    f.amx_tile = f.amx_int8 = f.amx_bf16 = false;
  }
  if (isa != Isa::kAvx512 && isa != Isa::kAvx2) f.avx2 = f.fma = f.f16c = f.avx_vnni = false;
  return f;
}

const CpuFeatures& detected_cpu_features() {
  static const CpuFeatures features = ask_this_machine();
  return features;
}

Result<CpuFeatures> usable_cpu_features() {
  const char* text = std::getenv("ROOFTREE_ISA");
  if (text == nullptr || *text == '\0') return detected_cpu_features();
  const Result<Isa> isa = parse_isa(text);
  if (!isa) return isa.error().within("ROOFTREE_ISA");
  return limit(detected_cpu_features(), *isa);
}

std::string to_text(const CpuFeatures& f) {
  std::string text;
  const auto add = [&text](bool present, std::string_view word, std::string_view separator = " ") {
    if (!present) return;
    if (!text.empty()) text += separator;
    text += word;
  };
  add(f.avx2, "AVX2");
  add(f.fma, "FMA");
  add(f.f16c, "F16C");
  add(f.avx_vnni, "AVX-VNNI");
  add(f.avx512f, "AVX-512 F");
  add(f.avx512bw, "BW", "/");
  add(f.avx512vl, "VL", "/");
  add(f.avx512dq, "DQ", "/");
  add(f.avx512_vnni, "VNNI", "/");
  add(f.avx512_bf16, "BF16", "/");
  add(f.avx512_fp16, "FP16", "/");
  add(f.amx_tile, "AMX");
  add(f.amx_int8, "INT8", "/");
  add(f.amx_bf16, "BF16", "/");
  add(f.neon, "NEON");
  add(f.fp16, "FP16");
  add(f.dot, "DOT");
  add(f.i8mm, "I8MM");
  add(f.bf16, "BF16");
  add(f.sve, "SVE");
  return text.empty() ? "no vector extensions" : text;
}

}  // namespace rooftree
