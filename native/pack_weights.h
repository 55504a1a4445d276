// Matrices brought into panels (kernels/cpu/packed.h) while a model is loaded: re-encoded exactly, or quantised.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/plan.h"

namespace engine {

// Panels of one matrix that are to be made.
struct PackJob {
  const WeightInfo* weight;
  const std::string* name;
  const MappedFile* file;
  uint8_t* out;  // [panels · panel_bytes]
  size_t panel_bytes;
};

// Does the jobs on `num_threads` threads, or as many as the system allows. Pages of the source are given back as soon
// as their panels are made, so that memory never holds both. WEIGHT_NOT_FINITE, OUT_OF_MEMORY; DISPOSED once
// `cancelled`.
Failure PackWeights(const kernels::Kernels& kernels, const std::vector<PackJob>& jobs, int32_t num_threads,
                    const std::atomic<bool>& cancelled);

}  // namespace engine
