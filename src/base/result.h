#pragma once

// Expected failures at library boundaries. Result<T> holds a T or an Error; the names follow std::expected so that the later
// swap is one alias. Errors say where, what was found and what was expected.

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace rooftree {

// The kinds map to exit codes of the command line: 2 wrong use or bad input, 3 environment.
enum class ErrorCode {
  kParse,        // a file or expression is malformed
  kInvalid,      // well-formed but not acceptable (unknown name, out of range, unsupported architecture)
  kNotFound,     // a named thing does not exist in the catalogue
  kEnvironment,  // missing file, device or permission
};

struct Error {
  ErrorCode code = ErrorCode::kInvalid;
  std::string message;  // "where: what was found; what was expected"

  // The same error seen from one level up: `where` is put in front.
  [[nodiscard]] Error within(const std::string& where) const { return Error{code, where + ": " + message}; }
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  [[nodiscard]] const T& value() const& {
    ROOFTREE_CHECK(has_value(), "Result::value() on an error");
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T& value() & {
    ROOFTREE_CHECK(has_value(), "Result::value() on an error");
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T&& value() && {
    ROOFTREE_CHECK(has_value(), "Result::value() on an error");
    return std::move(*std::get_if<0>(&state_));
  }
  [[nodiscard]] const Error& error() const {
    ROOFTREE_CHECK(!has_value(), "Result::error() on a value");
    return *std::get_if<1>(&state_);
  }
  const T& operator*() const& { return value(); }
  T& operator*() & { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const T* operator->() const { return &value(); }
  T* operator->() { return &value(); }

 private:
  std::variant<T, Error> state_;
};

// Success or an Error.
struct Ok {};
using Status = Result<Ok>;

}  // namespace rooftree

// Returns the error of a Result-valued expression from the enclosing function, or binds its value.
#define ROOFTREE_CONCAT_INNER(a, b) a##b
#define ROOFTREE_CONCAT(a, b) ROOFTREE_CONCAT_INNER(a, b)
#define ROOFTREE_TRY(declaration, expression) ROOFTREE_TRY_IMPL(ROOFTREE_CONCAT(result_, __LINE__), declaration, expression)
#define ROOFTREE_TRY_IMPL(name, declaration, expression) \
  auto name = (expression);                              \
  if (!name) return name.error();                        \
  declaration = std::move(name).value()
#define ROOFTREE_TRY_VOID(expression)          \
  if (auto status_ = (expression); !status_) { \
    return status_.error();                    \
  }                                            \
  static_assert(true, "")
