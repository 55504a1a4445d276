// The functions of kernels.h for a launch that is data. Part of the libraries that hold the kernels.
#pragma once

#include "native/cuda/device.h"

namespace engine::cuda {

LaunchShape ShapeOf(const DeviceLimits& limits, const Launch& launch);
int Start(Stream stream, const DeviceLimits& limits, const Launch& launch);

// Fills in what does not depend on who runs the kernels.
void SetKernels(DeviceApi* api);

}  // namespace engine::cuda
