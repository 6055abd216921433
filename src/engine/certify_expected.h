#pragma once

// The hashes of version 1 of the numeric contract: what the portable kernels give for the work of certify.cc. They change with
// the contract's version only.

#include <string_view>

namespace rooftree::engine {

// Empty: none is recorded.
[[nodiscard]] std::string_view expected_hash(std::string_view name);

}  // namespace rooftree::engine
