#pragma once

// Files compiled into the program (see cmake/embed.cmake), sorted by name.

#include <span>
#include <string_view>

namespace rooftree {

struct EmbeddedFile {
  const char* path;  // relative to the embedded folder: "chips/nvidia-a100-sxm-80.json"
  const char* begin;
  const char* end;
  [[nodiscard]] std::string_view name() const { return path; }
  [[nodiscard]] std::string_view text() const { return {begin, static_cast<std::size_t>(end - begin)}; }
};

std::span<const EmbeddedFile> embedded_machines();     // catalog/{chips,systems,fabrics}; in layer machine
std::span<const EmbeddedFile> embedded_models();       // catalog/models; in layer model
std::span<const EmbeddedFile> embedded_calibration();  // catalog/calibration; in layer cost
std::span<const EmbeddedFile> embedded_page();         // the HTML page's parts; in layer report

}  // namespace rooftree
