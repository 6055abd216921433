// A CSV file of measurements, whatever it holds, becomes a scoreboard or an error, never a crash. The first byte chooses the
// file name, that is the adapter.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "validate/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree;
  static validate::Context context(machine::Catalog::builtin(), cost::CalibrationTable::builtin());
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\n'), input.size());
  const std::string file(input.substr(0, end));
  const std::string_view text = input.substr(std::min(end + 1, input.size()));
  const auto scored = validate::validate_text(text, file, context, {});
  if (!scored) {
    ROOFTREE_CHECK(!scored.error().message.empty(), "an error says what is wrong");
  } else {
    ROOFTREE_CHECK(scored->total.coverage_90 >= 0 && scored->total.coverage_90 <= 1, "a share is between 0 and 1");
  }
  return 0;
}
