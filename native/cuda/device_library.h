// The library with the kernels, found at run time.
#pragma once

#include <string>
#include <vector>

#include "native/cuda/device.h"
#include "native/failure.h"

namespace engine::cuda {

// The functions of a device and how to speak of it in errors.
struct Device {
  const DeviceApi* api = nullptr;
  DeviceInfo info = {};

  // DEVICE_FAILED for an error other than 0.
  Failure Check(int error) const;
};

// The oldest with the matrix units and asynchronous copies that kernels use.
inline constexpr int32_t kMinComputeCapability = 80;

// All devices that the library finds. BACKEND_UNAVAILABLE.
Failure ListDevices(const std::string& library, std::vector<DeviceInfo>* devices);

// Opens the library and a device of it; the calling thread uses it from now on. BACKEND_UNAVAILABLE.
Failure OpenDevice(const std::string& library, int32_t index, Device* device);

}  // namespace engine::cuda
