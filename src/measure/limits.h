#pragma once

// The limits of the machine as they are this second, for ratios: bandwidth and rates drift on shared machines, so a share of
// the limit means something only if the limit was measured between the same samples.

#include <cstddef>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace rooftree::measure {

class LimitProbe {
 public:
  // A buffer of `read_bytes` (a few times the last cache) to stream; kEnvironment when it cannot be had.
  static Result<LimitProbe> make(ThreadPool& pool, std::size_t read_bytes);
  LimitProbe(LimitProbe&& other) noexcept;
  LimitProbe& operator=(LimitProbe&&) = delete;
  LimitProbe(const LimitProbe&) = delete;
  LimitProbe& operator=(const LimitProbe&) = delete;
  ~LimitProbe();

  // One pass over the buffer by all threads, each its own linear part: bytes/s.
  double read_bytes_per_second();
  // About 5 ms of independent multiply-add chains on all threads: FLOP/s (multiply-add = 2) of the fastest instruction that
  // this CPU and ROOFTREE_ISA offer for the type; 0 where there is none.
  double flop_per_second(Arithmetic type);

 private:
  LimitProbe(ThreadPool& pool, double* buffer, std::size_t values);
  ThreadPool& pool_;
  double* buffer_;
  std::size_t values_;
};

}  // namespace rooftree::measure
