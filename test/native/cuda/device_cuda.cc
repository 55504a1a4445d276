#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

#include "device.h"

namespace engine::cuda::test {
namespace {

DeviceLimits limits;
Stream stream = {};
constexpr size_t kNumWays = 4;

}  // namespace

void Expect(int error) {
  if (error == cudaSuccess) error = cudaGetLastError();
  if (error == cudaSuccess) return;
  printf("%s\n", cudaGetErrorString(static_cast<cudaError_t>(error)));
  exit(1);
}

void OpenDevice() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    printf("skipped: no CUDA device\n");
    exit(77);
  }
  const auto attribute = [](cudaDeviceAttr name) {
    int value = 0;
    Expect(cudaDeviceGetAttribute(&value, name, 0));
    return value;
  };
  limits = {.compute_capability =
                10 * attribute(cudaDevAttrComputeCapabilityMajor) + attribute(cudaDevAttrComputeCapabilityMinor),
            .num_multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
            .shared_block_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
            .shared_multiprocessor_bytes = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)};
  limits.warpgroups = HasLinearWarpgroup();
  Expect(cudaStreamCreate(&stream.handle));
}
const DeviceLimits& Limits() { return limits; }
Stream TestStream() { return stream; }

void* AllocateDevice(size_t bytes, Content) {
  void* memory = nullptr;
  Expect(cudaMalloc(&memory, bytes == 0 ? 1 : bytes));
  Expect(cudaMemset(memory, 0xff, bytes));
  return memory;
}
void FreeDevice(void* memory) { Expect(cudaFree(memory)); }
void CopyToDevice(void* to, const void* from, size_t bytes) {
  Expect(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
void CopyFromDevice(void* to, const void* from, size_t bytes) {
  Expect(cudaDeviceSynchronize());
  Expect(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

Ways::Ways() = default;
Ways::~Ways() { stream.overlaps = false; }
bool Ways::Next() {
  stream.overlaps = way_ % 2 == 1 && limits.compute_capability >= 90;
  return way_++ < kNumWays;
}

}  // namespace engine::cuda::test
