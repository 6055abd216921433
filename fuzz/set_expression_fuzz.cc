// --set expressions and machine names of the command line: an error or a change, never anything else.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "machine/catalog.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree::machine;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const Machine kNode = Catalog::builtin().find("dgx-h100").value();
  Machine machine = kNode;
  const auto status = apply_override(machine, text);
  if (!status && status.error().message.empty()) std::abort();
  if (status) {
    for (const Property& property : properties(machine)) {
      if (property.path.empty() || property.value.empty()) std::abort();
    }
    if (!std::isfinite(machine.chip().main_memory().bandwidth.value())) std::abort();
  }
  // A path to a file would read it: leave those out. Names that are not found search the whole catalogue: a quarter is enough.
  if (size % 4 == 0 && text.find('/') == std::string_view::npos && text.find(".json") == std::string_view::npos &&
      text != "this") {
    const auto resolved = Catalog::builtin().resolve(text.substr(0, 200));
    if (!resolved && resolved.error().message.empty()) std::abort();
  }
  return 0;
}
