#pragma once

// Which levels of the numeric contract this device and build hold: fixed work of every kind, hashed, compared with the hashes
// that the contract's portable definition gives everywhere.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu_features.h"
#include "base/progress.h"
#include "base/result.h"
#include "kernels/backend.h"

namespace rooftree::engine {

struct CertifyCase {
  std::string name;  // "product q4_0", "attention bf16", "model q8_0", …
  kernels::Level level = kernels::Level::kA;
  std::string hash;      // first 16 digits of the SHA-256 over all outputs
  std::string expected;  // of contract version 1; empty: none is recorded
  bool held = false;     // equal to `expected`, and the same for every number of threads and every batch tried
  std::string why;       // when not held
};

struct Certificate {
  std::string backend, cpu, compiler;
  std::vector<std::pair<std::string, bool>> facts;  // "subnormals are kept", …: what the arithmetic must do
  std::vector<CertifyCase> cases;
  std::array<bool, 3> held{};  // by Level
  std::string hash;            // over the hashes of all cases, level by level: what two machines compare
};

// `features` choose the kernels (limit() them to certify a lower instruction set). kEnvironment when cancelled.
Result<Certificate> certify(const CpuFeatures& features, Progress* progress = nullptr);

}  // namespace rooftree::engine
