// What a device's memory gives at most, as far as a copy shows it.
#pragma once

#include "native/cuda/device_library.h"

namespace engine::cuda {

// Bytes read and written per second while memory of the device is copied to memory of the device, larger than caches:
// the median of a few rounds. DEVICE_FAILED, OUT_OF_MEMORY.
Failure MeasureCopyRate(const Device& device, double* bytes_per_second);

}  // namespace engine::cuda
