// What a session on a CUDA device would do, told without one being loaded.
#pragma once

#include <string>

#include "native/executor.h"

namespace engine::cuda {

// Of as many sequences as rows, which share the tokens evenly.
struct StepSize {
  int32_t num_tokens;
  int32_t num_rows;
  int32_t context_len;  // the longest
};

// The launches of a step that samples, one per line (launches.h). BACKEND_UNAVAILABLE, DEVICE_UNSUPPORTED.
Failure DescribeLaunches(const Plan& plan, const CudaRequest& request, const StepSize& step, std::string* text);

}  // namespace engine::cuda
