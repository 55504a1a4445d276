// How kernels are started: Launch(stream, shape, kernel, arguments…).
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/primitives.cuh"

#if !defined(ENGINE_CUDA_EMULATOR)
#include <cuda_runtime_api.h>
#endif

namespace engine::cuda {
namespace {

#if defined(ENGINE_CUDA_EMULATOR)

template <class Kernel, class... Arguments>
int Launch(Stream stream, const LaunchShape& shape, Kernel kernel, const Arguments&... arguments) {
  const auto size = [](int32_t count) { return static_cast<unsigned>(count); };
  emulator::Launch({.grid = {size(shape.grid_x), size(shape.grid_y), 1},
                    .block = {size(shape.threads), 1, 1},
                    .shared_bytes = size(shape.shared_bytes)},
                   [=] { kernel(arguments...); }, stream.overlaps);
  return 0;
}

#else

// Lets blocks of a kernel have `bytes` of shared memory and more: always as much as any launch of it may ask for. What is
// allowed is the kernel's for the whole process, so a smaller number would be in the way of other sessions, and of
// graphs whose launches were captured with more.
inline cudaError_t AllowSharedMemory(const void* kernel, int32_t bytes) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  most -= kSharedVariableBytes;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes < most ? most : bytes);
}

template <class... Parameters, class... Arguments>
int Launch(Stream stream, const LaunchShape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) {
  // What a block gets unasked is 48 KB with the kernel's own variables.
  if (shape.shared_bytes > (48 << 10) - kSharedVariableBytes) {
    const cudaError_t error = AllowSharedMemory(reinterpret_cast<const void*>(kernel), shape.shared_bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.grid_x), static_cast<unsigned>(shape.grid_y), 1);
  config.blockDim = dim3(static_cast<unsigned>(shape.threads), 1, 1);
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream.handle;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = stream.overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

#endif

}  // namespace
}  // namespace engine::cuda
