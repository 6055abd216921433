#include "base/progress.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace rooftree {
namespace {

std::atomic<bool> g_interrupted{false};
std::atomic<bool> g_guarded{false};
struct sigaction g_old_int, g_old_term;  // guarded by g_guarded

extern "C" void rooftree_note_interrupt(int signal_number) {
  g_interrupted.store(true, std::memory_order_relaxed);
  signal(signal_number, SIG_DFL);
}

}  // namespace

ProgressLine::ProgressLine(std::FILE* stream) : stream_(stream), terminal_(isatty(fileno(stream)) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_) {
    std::fputs("\r\033[K", stream_);
    std::fflush(stream_);
  }
}

void ProgressLine::update(double fraction, std::string_view doing) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (shown_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  shown_ = true;
  constexpr int kWidth = 30;
  const int done = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kWidth);
  char bar[kWidth + 1];
  std::fill(bar, bar + done, '=');
  std::fill(bar + done, bar + kWidth, ' ');
  bar[kWidth] = '\0';
  std::fprintf(stream_, "\r\033[K[%s] %3.0f %%  %.*s", bar, 100.0 * std::clamp(fraction, 0.0, 1.0),
               static_cast<int>(std::min<std::size_t>(doing.size(), 40)), doing.data());
  std::fflush(stream_);
}

InterruptGuard::InterruptGuard() {
  ROOFTREE_CHECK(!g_guarded.exchange(true), "InterruptGuard: only one at a time");
  g_interrupted.store(false);
  struct sigaction action {};
  action.sa_handler = rooftree_note_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &g_old_int);
  sigaction(SIGTERM, &action, &g_old_term);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &g_old_int, nullptr);
  sigaction(SIGTERM, &g_old_term, nullptr);
  g_guarded.store(false);
}

bool InterruptGuard::interrupted() { return g_interrupted.load(std::memory_order_relaxed); }

}  // namespace rooftree
