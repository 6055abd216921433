// rooftree-proof: prints the hash of every piece of work of the numeric contract's certificate, one per line, for the kernels
// that ROOFTREE_ISA allows. Small enough to cross-compile: tests/equal_bits.py builds it for other architectures, compilers and
// optimisation levels, and compares the lines.

#include <fmt/format.h>

#include <cstdio>

#include "engine/certify.h"

int main() {
  const rooftree::Result<rooftree::CpuFeatures> features = rooftree::usable_cpu_features();
  if (!features) {
    fmt::print(stderr, "{}\n", features.error().message);
    return 2;
  }
  const auto certificate = rooftree::engine::certify(*features);
  if (!certificate) {
    fmt::print(stderr, "{}\n", certificate.error().message);
    return 3;
  }
  bool held = true;
  for (const auto& [fact, holds] : certificate->facts) {
    if (!holds) fmt::print("NOT HELD: {}\n", fact);
    held = held && holds;
  }
  for (const rooftree::engine::CertifyCase& c : certificate->cases) {
    fmt::print("{} {} {}{}\n", rooftree::kernels::name(c.level), c.hash, c.name, c.held ? "" : " NOT HELD: " + c.why);
    held = held && c.held;
  }
  fmt::print("{}\n", certificate->hash);
  return held ? 0 : 1;
}
