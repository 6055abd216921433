#pragma once

// Fits the constants of software stacks (catalog/calibration/stacks.json) on whole-model measurements, through the same cases
// that `validate` scores. What the file states without a fit stays as it is.

#include <filesystem>
#include <string>

#include "base/result.h"

namespace rooftree::fit {

// Reads the rows of the calibrate folder `data`, improves the values of `directory`/stacks.json and writes the file back
// (unless `dry_run`). Prints one line per fit.
Status fit_stacks(const std::filesystem::path& data, const std::filesystem::path& directory, const std::string& date,
                  bool dry_run);

}  // namespace rooftree::fit
