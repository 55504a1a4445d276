// Matrices brought into memory while a model is loaded: re-encoded exactly into panels (kernels/cpu/packed.h),
// quantised, or read from the file in which they are used.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/plan.h"

namespace engine {

struct BringJob {
  const WeightInfo* weight;
  const std::string* name;
  const MappedFile* file;
  uint8_t* out;  // [panels · panel_bytes]; null for a matrix that is used where it lies
  size_t panel_bytes;
};

// Does the jobs on `num_threads` threads, or as many as the system allows.
// Pages of what is packed are given back as soon as their panels are made, so that memory never holds both.
// WEIGHT_NOT_FINITE, OUT_OF_MEMORY; DISPOSED once `cancelled`.
Failure BringIn(const kernels::Kernels& kernels, const std::vector<BringJob>& jobs, int32_t num_threads,
                const std::atomic<bool>& cancelled);

}  // namespace engine
