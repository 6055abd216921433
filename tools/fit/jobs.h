#pragma once

// What is fitted on what, in the order that later sets build on earlier ones.

#include <string>
#include <vector>

#include "fit.h"

namespace rooftree::fit {

std::vector<Job> all_jobs();

// The note of a partial set: how its one constant was found.
std::string job_note(const Job& job);

}  // namespace rooftree::fit
