#include "cost/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/embedded.h"
#include "base/json.h"
#include "cost/plan.h"

namespace rooftree::cost {
namespace {

using machine::ChipKind;

// --------------------------------------------------------------------------------------------- constants by name

template <class C>
struct Member {
  ConstantName name;
  double C::*member;
};
constexpr std::array<Member<GemmConstants>, 15> kGemmMembers = {{
    {{"peak_share", "1"}, &GemmConstants::peak_share},
    {{"memory_share", "1"}, &GemmConstants::memory_share},
    {{"fixed", "s"}, &GemmConstants::fixed},
    {{"fill", "s"}, &GemmConstants::fill},
    {{"tile_epilogue", "s"}, &GemmConstants::tile_epilogue},
    {{"l2_ratio", "1"}, &GemmConstants::l2_ratio},
    {{"tile_feed", "bytes_per_flop"}, &GemmConstants::tile_feed},
    {{"activation_cast", "bytes"}, &GemmConstants::activation_cast_bytes},
    {{"eager_fixed", "s"}, &GemmConstants::eager_fixed},
    {{"core_load", "bytes_per_clock"}, &GemmConstants::core_load_bytes},
    {{"core_flop", "per_clock"}, &GemmConstants::core_flop},
    {{"core_unpack", "per_clock"}, &GemmConstants::core_unpack},
    {{"one_by_one", "rows"}, &GemmConstants::rows_one_by_one},
    {{"thin_share", "1"}, &GemmConstants::thin_share},
    {{"tile", "rows"}, &GemmConstants::tile_rows},
}};
constexpr std::array<Member<AttentionPrefillConstants>, 7> kPrefillMembers = {{
    {{"fixed", "s"}, &AttentionPrefillConstants::fixed},
    {{"memory_share", "1"}, &AttentionPrefillConstants::memory_share},
    {{"peak_share", "1"}, &AttentionPrefillConstants::peak_share},
    {{"exponential_share", "1"}, &AttentionPrefillConstants::exponential_share},
    {{"extra_tokens", "tokens"}, &AttentionPrefillConstants::extra_tokens},
    {{"tail", "1"}, &AttentionPrefillConstants::tail},
    {{"backward_flop", "1"}, &AttentionPrefillConstants::backward_flop},
}};
constexpr std::array<Member<AttentionDecodeConstants>, 7> kDecodeMembers = {{
    {{"fixed", "s"}, &AttentionDecodeConstants::fixed},
    {{"cold_fixed", "s"}, &AttentionDecodeConstants::cold_fixed},
    {{"l2_multiple", "1"}, &AttentionDecodeConstants::l2_multiple},
    {{"memory_share", "1"}, &AttentionDecodeConstants::memory_share},
    {{"split_fixed", "s"}, &AttentionDecodeConstants::split_fixed},
    {{"per_wave", "s"}, &AttentionDecodeConstants::per_wave},
    {{"peak_share", "1"}, &AttentionDecodeConstants::peak_share},
}};
constexpr std::array<Member<StreamConstants>, 3> kStreamMembers = {{
    {{"memory_share", "1"}, &StreamConstants::memory_share},
    {{"fixed", "s"}, &StreamConstants::fixed},
    {{"eager_fixed", "s"}, &StreamConstants::eager_fixed},
}};
constexpr std::array<Member<HostConstants>, 5> kHostMembers = {{
    {{"per_step", "s"}, &HostConstants::per_step},
    {{"per_sequence", "s"}, &HostConstants::per_sequence},
    {{"per_layer", "s"}, &HostConstants::per_layer},
    {{"per_kernel", "s"}, &HostConstants::per_kernel},
    {{"product_share", "1"}, &HostConstants::product_share},
}};

template <class C, std::size_t N>
constexpr std::array<ConstantName, N> names_of(const std::array<Member<C>, N>& members) {
  std::array<ConstantName, N> names{};
  for (std::size_t i = 0; i < N; ++i) names[i] = members[i].name;
  return names;
}
constexpr auto kGemmNames = names_of(kGemmMembers);
constexpr auto kPrefillNames = names_of(kPrefillMembers);
constexpr auto kDecodeNames = names_of(kDecodeMembers);
constexpr auto kStreamNames = names_of(kStreamMembers);
constexpr auto kHostNames = names_of(kHostMembers);

template <class C, std::size_t N>
void assign(C& constants, const std::array<Member<C>, N>& members, const ConstantSet& set) {
  for (const auto& [name, value] : set.values) {
    for (const Member<C>& m : members) {
      if (m.name.name == name) constants.*(m.member) = value;
    }
  }
}

constexpr std::array<std::string_view, static_cast<std::size_t>(SetClass::kCount)> kSetClassNames = {
    "gemm", "gemm_weight_only", "grouped_gemm", "attention_prefill", "attention_decode", "stream", "host"};
constexpr std::array<std::string_view, static_cast<std::size_t>(AttentionKernel::kCount)> kAttentionKernelNames = {
    "engine", "unfused", "flash1", "triton", "flash2", "flash3", "cudnn", "triton_early"};
constexpr std::array<std::string_view, 6> kStackNames = {"engine", "compiled", "llamacpp", "megatron", "eager", "rooftree"};
constexpr std::array<std::string_view, static_cast<std::size_t>(StreamClass::kCount)> kStreamNamesByClass = {
    "elementwise", "activation", "rope", "norm", "softmax", "embedding", "optimizer", "loss"};
constexpr std::string_view kSimple = " simple";  // ends the variant of streams with one element per thread
constexpr std::array<std::string_view, 5> kKindNames = {"gpu", "cpu", "tpu", "dataflow", "npu"};

template <std::size_t N>
std::optional<std::size_t> index_of(const std::array<std::string_view, N>& names, std::string_view text) {
  for (std::size_t i = 0; i < N; ++i) {
    if (names[i] == text) return i;
  }
  return std::nullopt;
}

// --------------------------------------------------------------------------------------------- choosing a set

double bits(Arithmetic a) {
  switch (a) {
    case Arithmetic::kFp64:
      return 64;
    case Arithmetic::kFp32:
    case Arithmetic::kTf32:
      return 32;
    case Arithmetic::kBf16:
    case Arithmetic::kFp16:
      return 16;
    case Arithmetic::kFp8:
    case Arithmetic::kInt8:
      return 8;
    case Arithmetic::kFp6:
      return 6;
    default:
      return 4;
  }
}

// How unlike two arithmetic types are as far as their kernels go: bf16 and fp16 are the same kernel.
double arithmetic_penalty(Arithmetic wanted, Arithmetic found) {
  if (wanted == found) return 0;
  if (bits(wanted) == bits(found)) return bits(wanted) == 16 ? 0.25 : 2;
  return 2 + std::abs(std::log2(bits(wanted) / bits(found)));
}

constexpr double kNextGeneration = 0.95;

struct Choice {
  const ConstantSet* set = nullptr;
  Distance distance = Distance::kGeneric;
  bool other_arithmetic = false;
  bool other_variant = false;  // another kernel's constants stand in
  double rank = std::numeric_limits<double>::infinity();
};

struct Chooser {
  const machine::Chip& chip;
  const std::vector<ConstantSet>& sets;
  const std::vector<Family>& families;
  const Family* own_family;

  [[nodiscard]] const Family* family(std::string_view id) const {
    for (const Family& f : families) {
      if (f.id == id) return &f;
    }
    return nullptr;
  }

  // An attention kernel depends on the matrix instruction of its generation more than on the width of its operands.
  static double relative_weight(SetClass set_class) {
    return set_class == SetClass::kAttentionPrefill || set_class == SetClass::kAttentionDecode ? 4 : 1;
  }

  // Distance of a set, and a rank that orders sets: ten per step of distance, one per place in the list of relatives.
  [[nodiscard]] std::pair<Distance, double> distance(const ConstantSet& set) const {
    if (!set.chip.empty() && set.chip == chip.id) return {Distance::kOwn, 0};
    if (!set.family.empty() && set.family == chip.family) return {Distance::kFamily, set.chip.empty() ? 10 : 10.5};
    const Family* other = family(set.family);
    if (other != nullptr) {
      if (own_family != nullptr && other->vendor == own_family->vendor && other->kind == own_family->kind) {
        const auto& r = own_family->relatives;
        const auto at = std::find(r.begin(), r.end(), set.family);
        return {Distance::kVendor, 20 + std::min(9.0, relative_weight(set.set_class) * static_cast<double>(at - r.begin()))};
      }
      if (other->kind == chip.kind) {
        double place = 5;
        if (own_family != nullptr) {
          const auto& r = own_family->relatives;
          const auto at = std::find(r.begin(), r.end(), set.family);
          if (at != r.end()) place = static_cast<double>(at - r.begin());
        }
        return {Distance::kKind, 30 + std::min(9.0, place)};
      }
      return {Distance::kGeneric, 45};
    }
    if (set.kind.has_value())
      return *set.kind == chip.kind ? std::pair{Distance::kKind, 38.0} : std::pair{Distance::kGeneric, 48.0};
    return {Distance::kGeneric, 40};
  }

  // Product kernels that belong to one stack serve no other, no other width of arithmetic and no other kind of chip; where a
  // stack has its own, they come before the library's, however near those are, and a set for a kind of chip comes before
  // another vendor's family.
  static double stack_penalty(std::string_view wanted, const ConstantSet& set, Distance distance, double arithmetic_rank) {
    const bool of_family = !set.chip.empty() || !set.family.empty();
    if (!index_of(kStackNames, set.variant).has_value()) return wanted.empty() ? 0 : 60;
    const bool other_kind = distance == Distance::kGeneric && (of_family || set.kind.has_value());
    if (set.variant != wanted || other_kind || arithmetic_rank > 1) return std::numeric_limits<double>::infinity();
    return of_family && distance >= Distance::kKind ? 9 : 0;
  }

  // Attention kernels that nobody measured on any chip borrow from the nearest generation.
  static double variant_penalty(SetClass set_class, std::string_view wanted, std::string_view found) {
    if (wanted == found) return 0;
    if (set_class == SetClass::kAttentionPrefill) {
      const auto modern = [](std::string_view v) { return v == "flash3" || v == "cudnn" || v == "engine"; };
      if (modern(wanted) && modern(found)) return 15;
      if (wanted == "triton_early" && (found == "triton" || found == "flash1")) return 15;
      if (wanted == "triton" && found == "flash2") return 15;  // the same algorithm, compiled for the chip at hand
      return 60;
    }
    if (set_class == SetClass::kStream) {
      // A stack's own stream comes before everybody's, however near that is.
      if (const auto space = wanted.rfind(' ');
          space != std::string_view::npos && index_of(kStackNames, wanted.substr(space + 1)).has_value()) {
        wanted = wanted.substr(0, space);
        if (found == wanted) return 60;
        return found == "elementwise" ? 85 : std::numeric_limits<double>::infinity();
      }
      if (wanted.ends_with(kSimple)) {
        wanted.remove_suffix(kSimple.size());
        if (found == wanted) return 15;
      }
      return found == "elementwise" ? 25 : std::numeric_limits<double>::infinity();
    }
    if (set_class == SetClass::kAttentionDecode) return 15;
    if (set_class == SetClass::kHost) return std::numeric_limits<double>::infinity();
    return 15;  // block-scaled products fall back to tensor-scaled ones
  }

  [[nodiscard]] bool states(SetClass set_class, std::string_view variant) const {
    return std::any_of(sets.begin(), sets.end(), [&](const ConstantSet& s) {
      return s.set_class == set_class && s.variant == variant && s.log_low != s.log_high;
    });
  }

  // `stack`: whose product kernels are wanted; empty = nobody's in particular.
  [[nodiscard]] Choice choose(SetClass set_class, Arithmetic arithmetic, std::string_view variant,
                              std::string_view stack = {}) const {
    Choice best;
    const bool products = set_class <= SetClass::kGroupedGemm;
    for (const ConstantSet& set : sets) {
      if (set.set_class != set_class || set.log_low == set.log_high) continue;  // partial sets only refine
      const auto [distance_of_set, rank_of_set] = distance(set);
      const bool typed = set_class <= SetClass::kAttentionDecode;
      const double arithmetic_rank = typed ? arithmetic_penalty(arithmetic, set.arithmetic) : 0;
      double rank = rank_of_set + arithmetic_rank;
      // Hosts, too: a set for a kind of chip before another vendor's family.
      if (set_class == SetClass::kHost && !set.family.empty() && distance_of_set >= Distance::kKind) rank += 9;
      if (products) rank += stack_penalty(stack, set, distance_of_set, arithmetic_rank);
      if (!products || stack.empty() || set.variant != stack) rank += variant_penalty(set_class, variant, set.variant);
      if (rank < best.rank) {
        best = Choice{&set, distance_of_set, arithmetic_rank > 1, set.variant != variant && set.variant != stack, rank};
      }
    }
    return best;
  }

  // Product rate of products that follow each other over that of one repeated alone, on a chip where both were measured.
  [[nodiscard]] double sustained_share(Arithmetic arithmetic) const {
    const auto peak_share = [](const ConstantSet& set) {
      for (const auto& [name, value] : set.values) {
        if (name == "peak_share") return value;
      }
      return 0.0;
    };
    for (const ConstantSet& sustained : sets) {
      if (sustained.set_class != SetClass::kGemm || sustained.variant != "sustained") continue;
      for (const ConstantSet& alone : sets) {
        if (alone.set_class != SetClass::kGemm || !alone.variant.empty() || alone.chip != sustained.chip) continue;
        if (arithmetic_penalty(arithmetic, sustained.arithmetic) > 1 || arithmetic_penalty(arithmetic, alone.arithmetic) > 1)
          continue;
        if (alone.log_low != alone.log_high && peak_share(alone) > 0) return peak_share(sustained) / peak_share(alone);
      }
    }
    return 1;
  }

  // Sets that state only some constants, from nearer than (or as near as) the base: applied over it, farthest first.
  [[nodiscard]] std::vector<const ConstantSet*> refinements(SetClass set_class, Arithmetic arithmetic, std::string_view variant,
                                                            Distance base, std::string_view stack = {}) const {
    std::vector<std::pair<double, const ConstantSet*>> found;
    for (const ConstantSet& set : sets) {
      if (set.set_class != set_class || set.log_low != set.log_high) continue;
      if (set.variant != variant && (stack.empty() || set.variant != stack)) continue;
      if (arithmetic_penalty(arithmetic, set.arithmetic) > 1) continue;
      const auto [d, rank] = distance(set);
      // What one vendor's chip reaches says nothing about another's.
      const bool foreign = d >= Distance::kKind && (!set.chip.empty() || !set.family.empty());
      if (d <= base && !foreign) found.emplace_back(rank, &set);
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<const ConstantSet*> result;
    for (const auto& [rank, set] : found) result.push_back(set);
    return result;
  }
};

// Interval of a set at a distance: the calibration's 90 % band of residuals, widened. Same family x 1.2; next generation of the
// vendor x 2; other vendors x 3 (found by carrying H100 constants to H200 and B200). However well a kernel is known on one
// generation, the next differs by what A100's constants miss on H100's calibration rows: 90 % of products within a quarter,
// of attention within a third.
template <class C>
void set_interval(C& constants, const Choice& choice) {
  const bool attention =
      choice.set->set_class == SetClass::kAttentionPrefill || choice.set->set_class == SetClass::kAttentionDecode;
  double factor = 1;
  double least = 0.03;
  switch (choice.distance) {
    case Distance::kOwn:
      break;
    case Distance::kFamily:
      factor = 1.2;
      break;
    case Distance::kVendor:
      factor = 2;
      least = attention ? 0.33 : 0.25;
      break;
    case Distance::kKind:
    case Distance::kGeneric:
      factor = 3;
      least = 0.4;
      break;
  }
  // Bandwidth-bound kernels differ most between vendors' libraries.
  if (choice.set->set_class == SetClass::kStream && choice.distance >= Distance::kKind) least = 0.7;
  if (choice.other_arithmetic) factor *= 1.5;
  if (choice.other_variant) least = std::max(least, 0.33);
  constexpr double kWidest = 1.6;  // a factor of five either way: nothing is known beyond
  constants.log_low = -std::clamp(-factor * choice.set->log_low, least, kWidest);
  constants.log_high = std::clamp(factor * choice.set->log_high, least, kWidest);
  constants.distance = choice.distance;
}

// What changes when constants are carried to another chip. Latencies inside a kernel are cycles, so they shrink with a faster
// clock. Another generation's kernels reach 5 % less of its rates until they are tuned for it (measured H100 -> B200), and no
// more than its power allows.
double cycle_ratio(const Choice& from, const Chooser& chooser) {
  if (from.set->clock_hz <= 0 || chooser.chip.clock.value() <= 0) return 1;
  // Stated clocks mix sustained and maximum ones: differences below a fifth say nothing.
  const double ratio = std::clamp(from.set->clock_hz / chooser.chip.clock.value(), 0.5, 2.0);
  return ratio > 0.83 && ratio < 1.2 ? 1 : ratio;
}
template <class C>
void carry(C&, const Choice&, const Chooser&, std::string_view /*variant*/) {}
void carry(GemmConstants& g, const Choice& from, const Chooser& chooser, std::string_view wanted) {
  if (wanted == "sustained" && from.set->variant != "sustained") g.peak_share *= chooser.sustained_share(from.set->arithmetic);
  const double cycles = cycle_ratio(from, chooser);
  g.fill *= cycles;
  g.tile_epilogue *= cycles;
  if (from.distance != Distance::kVendor) return;
  g.peak_share *= kNextGeneration;
  g.memory_share *= kNextGeneration;
  if (chooser.own_family != nullptr) g.peak_share *= chooser.own_family->power_share;
}
void carry(AttentionPrefillConstants& a, const Choice& from, const Chooser& chooser, std::string_view wanted) {
  // The engines' kernel also rotates q and k and writes the cache: three times the traffic of attention alone.
  if (from.set->variant == "engine" && wanted != "engine") a.memory_share *= 3;
  a.fixed *= cycle_ratio(from, chooser);
  if (from.distance != Distance::kVendor) return;
  a.peak_share *= kNextGeneration;
  if (chooser.own_family != nullptr) a.peak_share *= chooser.own_family->power_share;
}
void carry(AttentionDecodeConstants& a, const Choice& from, const Chooser& chooser, std::string_view /*variant*/) {
  const double cycles = cycle_ratio(from, chooser);
  a.fixed *= cycles;
  a.cold_fixed *= cycles;
  a.split_fixed *= cycles;
  a.per_wave *= cycles;
}

template <class C, std::size_t N>
C resolve_one(const Chooser& chooser, const std::array<Member<C>, N>& members, SetClass set_class, Arithmetic arithmetic,
              std::string_view variant, std::string_view stack = {}) {
  C constants;
  const Choice choice = chooser.choose(set_class, arithmetic, variant, stack);
  if (choice.set == nullptr) {
    constants.log_low = -1;
    constants.log_high = 1;
    return constants;
  }
  assign(constants, members, *choice.set);
  set_interval(constants, choice);
  carry(constants, choice, chooser, variant);
  for (const ConstantSet* set : chooser.refinements(set_class, arithmetic, variant, choice.distance, stack)) {
    assign(constants, members, *set);
  }
  return constants;
}

// A dataflow chip runs a program that was scheduled ahead: no launch and no grid of tiles per operator. Constants borrowed from
// GPUs keep their shares; of their fixed times a tenth is assumed (synchronisation between regions of the chip), in a band of a
// factor of two at least.
void without_launches(ChipCalibration& c) {
  constexpr double kShare = 0.1;
  const auto borrowed = [](auto& constants) {
    if (constants.distance != Distance::kGeneric) return false;
    constants.fixed *= kShare;
    constants.log_low = std::min(constants.log_low, -0.7);
    constants.log_high = std::max(constants.log_high, 0.7);
    return true;
  };
  for (auto* set : {&c.gemm, &c.gemm_weight_only, &c.grouped_gemm}) {
    for (GemmConstants& g : *set) {
      if (!borrowed(g)) continue;
      g.fill *= kShare;
      g.tile_epilogue *= kShare;
    }
  }
  for (AttentionPrefillConstants& a : c.attention_prefill) borrowed(a);
  for (auto* a : {&c.attention_decode_multi_head, &c.attention_decode_grouped, &c.attention_decode_multi_head_8bit,
                  &c.attention_decode_grouped_8bit}) {
    if (!borrowed(*a)) continue;
    a->cold_fixed *= kShare;
    a->split_fixed *= kShare;
    a->per_wave *= kShare;
  }
  for (StreamConstants& s : c.stream) borrowed(s);
}

ChipCalibration rates_of(const machine::Chip& chip) {
  ChipCalibration c;
  for (std::size_t i = 0; i < static_cast<std::size_t>(kArithmeticCount); ++i) {
    const double rate = machine::product_rate(chip, static_cast<Arithmetic>(i)).value();
    c.product_rate[i] = rate;
    c.inverse_product_rate[i] = rate > 0 ? 1 / rate : std::numeric_limits<double>::infinity();
  }
  // Types that the chip does not multiply are widened to the next one that it has: 4 -> 6 -> 8 -> 16 -> 32 bit.
  constexpr std::array<std::pair<Arithmetic, Arithmetic>, 9> kWider = {{{Arithmetic::kFp32, Arithmetic::kFp64},
                                                                        {Arithmetic::kTf32, Arithmetic::kFp32},
                                                                        {Arithmetic::kBf16, Arithmetic::kTf32},
                                                                        {Arithmetic::kFp16, Arithmetic::kBf16},
                                                                        {Arithmetic::kFp8, Arithmetic::kFp16},
                                                                        {Arithmetic::kInt8, Arithmetic::kFp8},
                                                                        {Arithmetic::kFp6, Arithmetic::kFp8},
                                                                        {Arithmetic::kFp4, Arithmetic::kFp6},
                                                                        {Arithmetic::kInt4, Arithmetic::kInt8}}};
  for (const auto& [narrow, wide] : kWider) {
    const auto n = static_cast<std::size_t>(narrow);
    const auto w = static_cast<std::size_t>(wide);
    if (c.product_rate[n] <= 0) {
      c.product_rate[n] = c.product_rate[w];
      c.inverse_product_rate[n] = c.inverse_product_rate[w];
    }
  }
  // bf16 also runs on chips that only have fp16 (and the other way round).
  const auto bf16 = static_cast<std::size_t>(Arithmetic::kBf16);
  const auto fp16 = static_cast<std::size_t>(Arithmetic::kFp16);
  if (machine::product_rate(chip, Arithmetic::kBf16).value() <= 0 && c.product_rate[fp16] > c.product_rate[bf16]) {
    c.product_rate[bf16] = c.product_rate[fp16];
    c.inverse_product_rate[bf16] = c.inverse_product_rate[fp16];
  }
  const double fp32 = chip.rate(Arithmetic::kFp32).vector.value();
  c.vector_rate = fp32 > 0 ? fp32 : c.product_rate[static_cast<std::size_t>(Arithmetic::kFp32)];
  if (c.vector_rate <= 0) c.vector_rate = *std::max_element(c.product_rate.begin(), c.product_rate.end()) / 16;
  c.memory_bandwidth = chip.main_memory().bandwidth.value();
  if (chip.ladder.size() >= 2) {
    const machine::MemoryLevel& last = chip.ladder[chip.ladder.size() - 2];
    c.last_cache_bytes = last.capacity.value();
    c.shared_cache_bytes = c.last_cache_bytes / std::max(1, last.instances);
  }
  // Tiles and waves are those of GPU-sized cores (2.9 TFLOP/s in 16 bit on Ampere, 15 on Blackwell). A chip whose core count
  // is unknown holds many product units of that size, each with a tile of its own; the hundreds of thousands of cores of a
  // wafer share one. The large arrays of a TPU have no waves at all, see tile_time.
  c.cores = std::max(1, chip.cores);
  constexpr double kLargeCore = 25e12;
  constexpr double kSmallCore = 0.5e12;
  constexpr double kUnit = 10e12;
  const double rate16 = std::max(c.product_rate[bf16], c.product_rate[fp16]);
  if (rate16 > kLargeCore * c.cores && chip.kind != ChipKind::kTpu) c.cores = std::ceil(rate16 / kUnit);
  if (chip.kind == ChipKind::kDataflow && rate16 < kSmallCore * c.cores)
    c.cores = std::max(1.0, std::floor(rate16 / kSmallCore));
  bool has_matrix = false;
  for (const machine::ArithmeticRate& r : chip.arithmetic) has_matrix = has_matrix || r.matrix.value() > 0;
  c.tile_rows = has_matrix ? 16 : 1;
  // An exponential on general ALUs is a polynomial of about 16 fused operations.
  c.exponential_rate = c.vector_rate / 32;
  return c;
}

}  // namespace

std::string_view name(Distance distance) {
  constexpr std::array<std::string_view, 5> kNames = {"own", "family", "vendor", "kind", "generic"};
  return kNames[static_cast<std::size_t>(distance)];
}
std::string_view name(AttentionKernel kernel) { return kAttentionKernelNames[static_cast<std::size_t>(kernel)]; }
std::string_view name(SetClass set_class) { return kSetClassNames[static_cast<std::size_t>(set_class)]; }

std::span<const ConstantName> constant_names(SetClass set_class) {
  switch (set_class) {
    case SetClass::kGemm:
    case SetClass::kGemmWeightOnly:
    case SetClass::kGroupedGemm:
      return kGemmNames;
    case SetClass::kAttentionPrefill:
      return kPrefillNames;
    case SetClass::kAttentionDecode:
      return kDecodeNames;
    case SetClass::kStream:
      return kStreamNames;
    case SetClass::kHost:
      return kHostNames;
    case SetClass::kCount:
      break;
  }
  return {};
}

ChipCalibration CalibrationTable::datasheet(const machine::Chip& chip) {
  ChipCalibration c = rates_of(chip);
  c.ideal = true;
  for (HostConstants& h : c.host) h = HostConstants{.per_step = 0, .per_sequence = 0};
  return c;
}

ChipCalibration CalibrationTable::resolve(const machine::Chip& chip, const Software& software) const {
  ChipCalibration c = rates_of(chip);
  Chooser chooser{chip, sets_, families_, nullptr};
  chooser.own_family = chooser.family(chip.family);
  if (chooser.own_family != nullptr) c.shared_cache_bytes /= chooser.own_family->cache_partitions;
  // The clock that the peaks assume; where it is not stated, what the vector rate implies.
  const Family* own = chooser.own_family;
  const double core_clocks = chip.clock.value() > 0 ? std::max(1, chip.cores) * chip.clock.value()
                                                    : c.vector_rate / (own != nullptr ? own->vector_flop_per_core_clock : 256);
  if (own != nullptr && own->exponentials_per_core_clock > 0)
    c.exponential_rate = own->exponentials_per_core_clock * core_clocks;
  if (own != nullptr && own->fp32_flop_per_joule > 0 && chip.power_max.value() > 0) {
    const auto fp32 = static_cast<std::size_t>(Arithmetic::kFp32);
    c.product_rate[fp32] = std::min(c.product_rate[fp32], chip.power_max.value() * own->fp32_flop_per_joule);
    c.inverse_product_rate[fp32] = 1 / c.product_rate[fp32];
  }
  const std::string_view scaling = software.scaling == Scaling::kBlock ? "block" : "";
  const bool simple = software.streams == StreamKernels::kSimple;
  const bool legacy = software.attention == AttentionKernel::kFlash1 || software.attention == AttentionKernel::kFlash2 ||
                      software.attention == AttentionKernel::kTritonEarly;
  const std::string_view stack =
      software.stack.has_value() ? kStackNames[static_cast<std::size_t>(*software.stack)] : std::string_view{};
  const auto products = [&](SetClass set_class, std::size_t arithmetic, std::string_view variant) {
    GemmConstants g = resolve_one(chooser, kGemmMembers, set_class, static_cast<Arithmetic>(arithmetic), variant, stack);
    if (g.core_load_bytes > 0) g.memory_share = std::min(g.memory_share, g.core_load_bytes * core_clocks / c.memory_bandwidth);
    if (g.core_flop > 0) g.peak_share = std::min(g.peak_share, g.core_flop * core_clocks * c.inverse_product_rate[arithmetic]);
    if (g.core_unpack > 0) g.unpack_seconds = 1 / (g.core_unpack * core_clocks);
    return g;
  };
  for (std::size_t i = 0; i < static_cast<std::size_t>(kArithmeticCount); ++i) {
    const auto a = static_cast<Arithmetic>(i);
    c.gemm[i] = products(SetClass::kGemm, i, bits(a) <= 8 ? scaling : software.sustained ? "sustained" : "");
    c.gemm_weight_only[i] = products(SetClass::kGemmWeightOnly, i, "");
    c.grouped_gemm_weight_only[i] = products(SetClass::kGroupedGemm, i, "weight_only");
    c.grouped_gemm[i] = products(SetClass::kGroupedGemm, i, bits(a) <= 8 ? scaling : "");
    c.attention_prefill[i] = resolve_one(chooser, kPrefillMembers, SetClass::kAttentionPrefill, a, name(software.attention));
    if (legacy && c.attention_prefill[i].distance >= Distance::kVendor && chooser.own_family != nullptr) {
      c.attention_prefill[i].peak_share *= chooser.own_family->legacy_product_share;
    }
  }
  c.attention_decode_multi_head =
      resolve_one(chooser, kDecodeMembers, SetClass::kAttentionDecode, Arithmetic::kBf16, "multi_head");
  c.attention_decode_grouped = resolve_one(chooser, kDecodeMembers, SetClass::kAttentionDecode, Arithmetic::kBf16, "grouped");
  c.attention_decode_multi_head_8bit =
      resolve_one(chooser, kDecodeMembers, SetClass::kAttentionDecode, Arithmetic::kFp8, "multi_head");
  c.attention_decode_grouped_8bit =
      resolve_one(chooser, kDecodeMembers, SetClass::kAttentionDecode, Arithmetic::kFp8, "grouped");
  for (std::size_t i = 0; i < c.stream.size(); ++i) {
    std::string variant = std::string(kStreamNamesByClass[i]) + std::string(simple ? kSimple : "");
    // A stream that a stack runs in its own way: "loss megatron".
    if (const std::string of_stack = fmt::format("{} {}", kStreamNamesByClass[i], stack);
        !stack.empty() && chooser.states(SetClass::kStream, of_stack)) {
      variant = of_stack;
    }
    c.stream[i] = resolve_one(chooser, kStreamMembers, SetClass::kStream, Arithmetic::kBf16, variant);
  }
  for (std::size_t i = 0; i < c.host.size(); ++i) {
    const Choice choice = chooser.choose(SetClass::kHost, Arithmetic::kBf16, kStackNames[i]);
    if (choice.set != nullptr) assign(c.host[i], kHostMembers, *choice.set);
  }
  if (chip.kind == ChipKind::kDataflow) without_launches(c);
  return c;
}

CalibrationTable CalibrationTable::from_sets(std::vector<ConstantSet> sets, std::vector<Family> families) {
  CalibrationTable table;
  table.sets_ = std::move(sets);
  table.families_ = std::move(families);
  return table;
}

void CalibrationTable::merge(CalibrationTable other) {
  for (ConstantSet& set : other.sets_) sets_.push_back(std::move(set));
  for (Family& family : other.families_) families_.push_back(std::move(family));
}

// ------------------------------------------------------------------------------------------------------------ files

namespace {

// Reads typed fields of one object and remembers the first problem with the place where it is.
struct Fields {
  const Json& object;
  std::string where;
  std::string problem;

  void fail(std::string_view key, std::string_view expected) {
    if (problem.empty()) problem = fmt::format("{}.{}: expected {}", where, key, expected);
  }
  std::string text(std::string_view key, bool required) {
    const auto it = object.find(key);
    if (it == object.end()) {
      if (required) fail(key, "a string; it is missing");
      return {};
    }
    if (!it->is_string()) {
      fail(key, "a string");
      return {};
    }
    return it->get<std::string>();
  }
  double number(std::string_view key, double absent) {
    const auto it = object.find(key);
    if (it == object.end()) return absent;
    if (!it->is_number()) {
      fail(key, "a number");
      return absent;
    }
    const auto v = it->get<double>();
    if (!std::isfinite(v)) fail(key, "a finite number");
    return v;
  }
};

Result<Family> parse_family(const Json& j, const std::string& where) {
  if (!j.is_object()) return Error{ErrorCode::kParse, fmt::format("{}: expected an object", where)};
  Fields f{j, where, {}};
  Family family;
  family.id = f.text("id", true);
  family.vendor = f.text("vendor", true);
  const auto kind = index_of(kKindNames, f.text("kind", true));
  if (!kind.has_value()) f.fail("kind", fmt::format("one of {}", fmt::join(kKindNames, ", ")));
  family.kind = static_cast<ChipKind>(kind.value_or(0));
  family.exponentials_per_core_clock = f.number("exponentials_per_core_clock", 0);
  family.vector_flop_per_core_clock = f.number("vector_flop_per_core_clock", 256);
  if (!(family.vector_flop_per_core_clock > 0)) f.fail("vector_flop_per_core_clock", "a positive number");
  family.power_share = f.number("power_share", 1);
  if (!(family.power_share > 0 && family.power_share <= 1)) f.fail("power_share", "a share in (0, 1]");
  family.cache_partitions = f.number("cache_partitions", 1);
  if (!(family.cache_partitions >= 1)) f.fail("cache_partitions", "a number from 1");
  family.legacy_product_share = f.number("legacy_product_share", 1);
  if (!(family.legacy_product_share > 0 && family.legacy_product_share <= 1))
    f.fail("legacy_product_share", "a share in (0, 1]");
  family.fp32_flop_per_joule = f.number("fp32_flop_per_joule", 0);
  if (family.fp32_flop_per_joule < 0) f.fail("fp32_flop_per_joule", "a number that is not negative");
  family.source = f.text("source", true);
  if (const auto it = j.find("relatives"); it != j.end()) {
    if (!it->is_array()) f.fail("relatives", "a list of families");
    for (const Json& r : *it) {
      if (r.is_string()) {
        family.relatives.push_back(r.get<std::string>());
      } else {
        f.fail("relatives", "names of families");
      }
    }
  }
  if (!f.problem.empty()) return Error{ErrorCode::kInvalid, f.problem};
  return family;
}

bool known_variant(SetClass set_class, std::string_view variant) {
  switch (set_class) {
    case SetClass::kAttentionPrefill:
      return index_of(kAttentionKernelNames, variant).has_value();
    case SetClass::kAttentionDecode:
      return variant == "multi_head" || variant == "grouped";
    case SetClass::kStream:
      if (variant.ends_with(kSimple)) variant.remove_suffix(kSimple.size());
      for (const std::string_view stack : kStackNames) {
        if (variant.ends_with(stack) && variant.size() > stack.size() + 1) {
          variant.remove_suffix(stack.size() + 1);
          break;
        }
      }
      return index_of(kStreamNamesByClass, variant).has_value();
    case SetClass::kHost:
      return index_of(kStackNames, variant).has_value();
    default:
      return variant.empty() || variant == "block" || variant == "weight_only" || variant == "sustained" ||
             index_of(kStackNames, variant).has_value();
  }
}

Result<ConstantSet> parse_set(const Json& j, const std::string& where) {
  if (!j.is_object()) return Error{ErrorCode::kParse, fmt::format("{}: expected an object", where)};
  Fields f{j, where, {}};
  ConstantSet set;
  const std::string class_name = f.text("class", true);
  const auto set_class = index_of(kSetClassNames, class_name);
  if (!set_class.has_value()) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}.class: \"{}\"; expected one of {}", where, class_name, fmt::join(kSetClassNames, ", "))};
  }
  set.set_class = static_cast<SetClass>(*set_class);
  set.chip = f.text("chip", false);
  set.family = f.text("family", false);
  if (const std::string kind = f.text("kind", false); !kind.empty()) {
    const auto index = index_of(kKindNames, kind);
    if (!index.has_value()) f.fail("kind", fmt::format("one of {}", fmt::join(kKindNames, ", ")));
    set.kind = static_cast<ChipKind>(index.value_or(0));
  }
  if (const std::string arithmetic = f.text("arithmetic", false); !arithmetic.empty()) {
    auto parsed = parse_arithmetic(arithmetic);
    if (!parsed) return parsed.error().within(where);
    set.arithmetic = *parsed;
  }
  set.variant = f.text("variant", false);
  set.clock_hz = 1e6 * f.number("clock_mhz", 0);
  if (!known_variant(set.set_class, set.variant)) f.fail("variant", fmt::format("a variant of {}", class_name));
  set.note = f.text("note", false);
  set.date = f.text("date", true);

  const auto names = constant_names(set.set_class);
  if (const auto it = j.find("constants"); it == j.end() || !it->is_object() || it->empty()) {
    f.fail("constants", "an object with at least one constant");
  } else {
    for (const auto& [key, value] : it->items()) {
      // "fixed_s": the unit ends the key.
      const ConstantName* known = nullptr;
      for (const ConstantName& n : names) {
        const std::string spelled = n.unit == "1" ? std::string(n.name) : fmt::format("{}_{}", n.name, n.unit);
        if (spelled == key) known = &n;
      }
      if (known == nullptr) {
        f.fail("constants", fmt::format("constants of class {} with their units; found \"{}\"", class_name, key));
      } else if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) {
        f.fail(fmt::format("constants.{}", key), "a number that is not negative");
      } else {
        const auto v = value.get<double>();
        if (v == 0 && known->name.ends_with("_share")) f.fail(fmt::format("constants.{}", key), "a share above zero");
        set.values.emplace_back(std::string(known->name), v);
      }
    }
  }
  if (const auto it = j.find("residual_log"); it != j.end()) {
    if (!it->is_object()) {
      f.fail("residual_log", "an object with p05 and p95");
    } else {
      Fields r{*it, where + ".residual_log", {}};
      set.log_low = r.number("p05", 0);
      set.log_high = r.number("p95", 0);
      if (!r.problem.empty()) return Error{ErrorCode::kInvalid, r.problem};
      if (!(set.log_low < set.log_high)) f.fail("residual_log", "p05 below p95");
    }
  }
  if (const auto it = j.find("error"); it != j.end() && it->is_object()) {
    Fields e{*it, where + ".error", {}};
    set.median_error = e.number("median", 0);
    set.p90_error = e.number("p90", 0);
    if (!e.problem.empty()) return Error{ErrorCode::kInvalid, e.problem};
  }
  if (const auto it = j.find("fitted_on"); it != j.end()) {
    if (!it->is_array()) f.fail("fitted_on", "a list");
    for (const Json& on : *it) {
      if (!on.is_object()) {
        f.fail("fitted_on", "objects with file, where and rows");
        continue;
      }
      Fields o{on, where + ".fitted_on", {}};
      set.fitted_on.push_back(
          {o.text("file", true), o.text("where", false), static_cast<int>(std::clamp(o.number("rows", 0), 0.0, 1e9))});
      if (!o.problem.empty()) return Error{ErrorCode::kInvalid, o.problem};
    }
  }
  if (set.fitted_on.empty() && set.note.empty())
    f.fail("fitted_on", "what the constants were fitted on, or a note that says where they come from");
  if (!f.problem.empty()) return Error{ErrorCode::kInvalid, f.problem};
  return set;
}

}  // namespace

Result<CalibrationTable> CalibrationTable::parse(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where));
  if (!json.is_object()) return Error{ErrorCode::kParse, fmt::format("{}: expected an object", where)};
  CalibrationTable table;
  if (const auto it = json.find("families"); it != json.end() && it->is_array()) {
    std::size_t index = 0;
    for (const Json& j : *it) {
      ROOFTREE_TRY(Family family, parse_family(j, fmt::format("{}: families[{}]", where, index++)));
      table.families_.push_back(std::move(family));
    }
  }
  if (const auto it = json.find("sets"); it != json.end() && it->is_array()) {
    std::size_t index = 0;
    for (const Json& j : *it) {
      ROOFTREE_TRY(ConstantSet set, parse_set(j, fmt::format("{}: sets[{}]", where, index++)));
      table.sets_.push_back(std::move(set));
    }
  }
  if (table.sets_.empty() && table.families_.empty()) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: expected \"sets\" or \"families\"", where)};
  }
  return table;
}

Result<CalibrationTable> CalibrationTable::from_directory(const std::filesystem::path& directory) {
  std::error_code ec;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ec)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  }
  if (ec) return Error{ErrorCode::kEnvironment, fmt::format("{}: {}", directory.string(), ec.message())};
  std::sort(paths.begin(), paths.end());
  CalibrationTable table;
  for (const auto& path : paths) {
    ROOFTREE_TRY(const std::string text, read_file(path));
    ROOFTREE_TRY(CalibrationTable part, parse(text, path.string()));
    table.merge(std::move(part));
  }
  if (table.sets_.empty()) return Error{ErrorCode::kInvalid, fmt::format("{}: no calibration files", directory.string())};
  return table;
}

const CalibrationTable& CalibrationTable::builtin() {
  static const CalibrationTable table = [] {
    CalibrationTable all;
    for (const EmbeddedFile& file : embedded_calibration()) {
      auto part = parse(file.text(), file.name());
      ROOFTREE_CHECK(part.has_value(), part.has_value() ? "" : part.error().message.c_str());
      all.merge(std::move(part).value());
    }
    return all;
  }();
  return table;
}

std::string CalibrationTable::to_json() const {
  Json out;
  if (!families_.empty()) {
    Json list = Json::array();
    for (const Family& family : families_) {
      Json j;
      j["id"] = family.id;
      j["vendor"] = family.vendor;
      j["kind"] = kKindNames[static_cast<std::size_t>(family.kind)];
      j["relatives"] = family.relatives;
      if (family.exponentials_per_core_clock > 0) j["exponentials_per_core_clock"] = family.exponentials_per_core_clock;
      if (family.exponentials_per_core_clock > 0) j["vector_flop_per_core_clock"] = family.vector_flop_per_core_clock;
      if (family.power_share < 1) j["power_share"] = family.power_share;
      if (family.cache_partitions > 1) j["cache_partitions"] = family.cache_partitions;
      if (family.legacy_product_share < 1) j["legacy_product_share"] = family.legacy_product_share;
      if (family.fp32_flop_per_joule > 0) j["fp32_flop_per_joule"] = family.fp32_flop_per_joule;
      j["source"] = family.source;
      list.push_back(std::move(j));
    }
    out["families"] = std::move(list);
  }
  Json list = Json::array();
  // Four significant digits: more than the fits can tell, few enough to read.
  const auto rounded = [](double v) { return v == 0 ? 0.0 : std::stod(fmt::format("{:.4g}", v)); };
  for (const ConstantSet& set : sets_) {
    Json j;
    j["class"] = name(set.set_class);
    if (!set.chip.empty()) j["chip"] = set.chip;
    if (!set.family.empty()) j["family"] = set.family;
    if (set.kind.has_value()) j["kind"] = kKindNames[static_cast<std::size_t>(*set.kind)];
    if (set.set_class <= SetClass::kAttentionDecode) j["arithmetic"] = rooftree::name(set.arithmetic);
    if (!set.variant.empty()) j["variant"] = set.variant;
    if (set.clock_hz > 0) j["clock_mhz"] = set.clock_hz * 1e-6;
    Json constants;
    for (const auto& [key, value] : set.values) {
      for (const ConstantName& n : constant_names(set.set_class)) {
        if (n.name == key)
          constants[n.unit == "1" ? std::string(n.name) : fmt::format("{}_{}", n.name, n.unit)] = rounded(value);
      }
    }
    j["constants"] = std::move(constants);
    if (set.log_low != set.log_high) {
      j["residual_log"] = {{"p05", rounded(set.log_low)}, {"p95", rounded(set.log_high)}};
      if (!set.fitted_on.empty()) j["error"] = {{"median", rounded(set.median_error)}, {"p90", rounded(set.p90_error)}};
    }
    Json on = Json::array();
    for (const ConstantSet::FittedOn& f : set.fitted_on) {
      on.push_back({{"file", f.file}, {"where", f.rows_where}, {"rows", f.rows}});
    }
    if (!on.empty()) j["fitted_on"] = std::move(on);
    if (!set.note.empty()) j["note"] = set.note;
    j["date"] = set.date;
    list.push_back(std::move(j));
  }
  out["sets"] = std::move(list);
  return out.dump(1) + "\n";
}

}  // namespace rooftree::cost
