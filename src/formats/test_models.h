#pragma once

// The reference models beside the repository (tests only): path of an unpacked file, or empty where the folder is missing.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/test_folder.h"

namespace rooftree::test {

inline std::filesystem::path shared_models(const char* source_dir) {
  return std::filesystem::path(source_dir) / ".." / "shared" / "models";
}

// "llama-q4_0.gguf": as it is, or unpacked from .gz into `folder`.
inline std::filesystem::path model_file(const char* source_dir, const std::string& name, const TestFolder& folder) {
  const std::filesystem::path plain = shared_models(source_dir) / name, packed = shared_models(source_dir) / (name + ".gz");
  if (std::filesystem::exists(plain)) return plain;
  if (!std::filesystem::exists(packed)) return {};
  const std::filesystem::path out = folder.path() / name;
  if (std::filesystem::exists(out)) return out;
  const std::string command = "gzip -dc '" + packed.string() + "' > '" + out.string() + "'";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? out : std::filesystem::path{};
}

}  // namespace rooftree::test
