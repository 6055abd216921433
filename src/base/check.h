#pragma once

// Our own bugs. ROOFTREE_CHECK is always on; ROOFTREE_DCHECK only where NDEBUG is not set. A failed check calls the
// handler (replaceable, so that a server can log its request) and aborts.

namespace rooftree {

using CheckHandler = void (*)(const char* file, int line, const char* expression, const char* message);

// Installs a handler and returns the previous one. The handler may return; the process aborts afterwards.
CheckHandler set_check_handler(CheckHandler handler);

[[noreturn]] void check_failed(const char* file, int line, const char* expression, const char* message);

}  // namespace rooftree

#define ROOFTREE_CHECK(condition, message)                               \
  do {                                                                   \
    if (!(condition)) [[unlikely]]                                       \
      ::rooftree::check_failed(__FILE__, __LINE__, #condition, message); \
  } while (false)

#ifdef NDEBUG
#define ROOFTREE_DCHECK(condition, message) \
  do {                                      \
    if (false) {                            \
      (void)(condition);                    \
    }                                       \
  } while (false)
#else
#define ROOFTREE_DCHECK(condition, message) ROOFTREE_CHECK(condition, message)
#endif
