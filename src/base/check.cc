#include "base/check.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace rooftree {
namespace {

void print_to_stderr(const char* file, int line, const char* expression, const char* message) {
  std::fprintf(stderr, "%s:%d: check failed: %s (%s)\n", file, line, expression, message);
}

std::atomic<CheckHandler> g_handler{&print_to_stderr};

}  // namespace

CheckHandler set_check_handler(CheckHandler handler) {
  return g_handler.exchange(handler != nullptr ? handler : &print_to_stderr);
}

void check_failed(const char* file, int line, const char* expression, const char* message) {
  g_handler.load()(file, line, expression, message);
  std::abort();
}

}  // namespace rooftree
