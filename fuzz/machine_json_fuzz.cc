// Machine files of users: any bytes either parse or give an error; what parses is written and read back the same.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "machine/catalog.h"
#include "machine/catalog_format.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree::machine;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const References references{[](std::string_view id) { return Catalog::builtin().find(id); },
                              [](std::string_view id) { return Catalog::builtin().find_fabric(id); }};
  const auto parsed = parse_machine(text, "input", references);
  if (!parsed) {
    if (parsed.error().message.empty()) std::abort();
    return 0;
  }
  (void)parsed->host_per_chip();
  (void)check_complete(parsed->chip());
  (void)properties(*parsed);
  const std::string written = to_catalog_json(*parsed);
  const auto again = parse_machine(written, "written", references);
  if (!again || to_catalog_json(*again) != written) std::abort();
  return 0;
}
