// Times kernels: what `engine bench kernels` shows, and the peaks that other measurements are compared with.
#pragma once

#include <atomic>
#include <span>

#include "native/failure.h"
#include "native/measured_kernel.h"

namespace engine {

struct MeasureRequest {
  KernelRequest kernel;
  bool oversubscribed;  // more threads than processors
  double budget;        // nanoseconds: runs end once they took so long, but not before kMinRuns
};

inline constexpr size_t kMinRuns = 3;

struct Measured {
  size_t runs = 0;        // that were timed
  double bytes = 0;       // of one run, see MeasuredKernel
  double operations = 0;  // of one run
};

// The wall time of each run, as many as there is room for in `nanoseconds`, from when all threads
// are there until all are done. A run before them warms up. OUT_OF_MEMORY, INTERNAL, and ABORTED once `cancelled` is
// set. Throws std::bad_alloc.
Failure Measure(const MeasureRequest& request, const std::atomic<bool>& cancelled, std::span<double> nanoseconds,
                Measured* measured);

}  // namespace engine
