#pragma once

// How long work reports and is stopped: the library calls a Progress, the command line decides whether anybody sees it.

#include <chrono>
#include <cstdio>
#include <string_view>

namespace rooftree {

class Progress {
 public:
  virtual ~Progress() = default;
  // `fraction` from 0 to 1; cheap enough to be called thousands of times per second.
  virtual void update(double fraction, std::string_view doing) = 0;
  // True: give up at the next safe point and return an error.
  [[nodiscard]] virtual bool cancelled() const { return false; }
};

// One line that overwrites itself, at most ten times per second, on `stream` if that is a terminal; nothing otherwise. Erased
// by the destructor.
class ProgressLine : public Progress {
 public:
  explicit ProgressLine(std::FILE* stream);
  ~ProgressLine() override;
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void update(double fraction, std::string_view doing) override;

 private:
  std::FILE* stream_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_{};
};

// While it lives, SIGINT and SIGTERM set a flag instead of ending the process (a second signal ends it). One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  [[nodiscard]] static bool interrupted();
};

}  // namespace rooftree
