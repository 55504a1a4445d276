// The table of device.h over the CUDA runtime, which is linked in: the machine needs a driver and nothing else.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "native/cuda/dispatch.h"

namespace engine::cuda {
namespace {

int Count(int32_t* num_devices) {
  *num_devices = 0;
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return cudaSuccess;  // there is none
  const cudaError_t error = cudaGetDeviceCount(&count);
  *num_devices = error == cudaSuccess ? count : 0;
  cudaGetLastError();  // no device is no error of a later call
  return error;
}

int Describe(int32_t device, DeviceInfo* info) {
  *info = {};
  cudaDriverGetVersion(&info->driver_version);
  cudaRuntimeGetVersion(&info->runtime_version);
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device); error != cudaSuccess) return error;
  std::snprintf(info->name, sizeof info->name, "%s", properties.name);
  info->limits = {.compute_capability = 10 * properties.major + properties.minor,
                  .num_multiprocessors = properties.multiProcessorCount,
                  .shared_block_bytes = static_cast<int32_t>(properties.sharedMemPerBlockOptin),
                  .shared_multiprocessor_bytes = static_cast<int32_t>(properties.sharedMemPerMultiprocessor)};
  int clock = 0, width = 0;  // kHz, bits
  cudaDeviceGetAttribute(&clock, cudaDevAttrMemoryClockRate, device);
  cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, device);
  cudaGetLastError();  // a driver that does not say leaves zeros
  // Two transfers a cycle.
  info->memory_bytes_per_second = 2 * static_cast<uint64_t>(clock) * 1000 * static_cast<uint64_t>(width) / 8;
  if (const cudaError_t error = cudaSetDevice(device); error != cudaSuccess) return error;
  info->limits.warpgroups = HasLinearWarpgroup();
  size_t free = 0, total = 0;
  const cudaError_t error = cudaMemGetInfo(&free, &total);
  info->memory_bytes = total;
  info->free_bytes = free;
  return error;
}

int Use(int32_t device) { return cudaSetDevice(device); }
const char* Explain(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }
bool IsOutOfMemory(int error) { return error == cudaErrorMemoryAllocation; }

int Allocate(void** memory, size_t bytes) {
  const cudaError_t error = cudaMalloc(memory, bytes);
  if (error != cudaSuccess) cudaGetLastError();  // reported once
  return error;
}
int Free(void* memory) { return cudaFree(memory); }
int AllocatePinned(void** memory, size_t bytes) {
  const cudaError_t error = cudaMallocHost(memory, bytes);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}
int FreePinned(void* memory) { return cudaFreeHost(memory); }

int CreateStream(Stream* stream) {
  constexpr int kGraphsOverlap = 12030;  // the first CUDA whose graphs keep overlapping launches
  int device = 0, major = 0, driver = 0, runtime = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDriverGetVersion(&driver);
  if (error == cudaSuccess) error = cudaRuntimeGetVersion(&runtime);
  stream->overlaps = major >= 9 && driver >= kGraphsOverlap && runtime >= kGraphsOverlap;
  return error == cudaSuccess ? cudaStreamCreateWithFlags(&stream->handle, cudaStreamNonBlocking) : error;
}
int DestroyStream(Stream stream) { return cudaStreamDestroy(stream.handle); }
int Copy(Stream stream, void* to, const void* from, size_t bytes) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.handle);
}
int Clear(Stream stream, void* memory, size_t bytes) { return cudaMemsetAsync(memory, 0, bytes, stream.handle); }
int Wait(Stream stream) { return cudaStreamSynchronize(stream.handle); }

// Other sessions may allocate meanwhile: only what this thread does can spoil the capture.
int BeginGraph(Stream stream) { return cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal); }
int EndGraph(Stream stream, Graph* graph) {
  *graph = nullptr;
  cudaGraph_t captured = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream.handle, &captured);
  if (error != cudaSuccess) return error;
  cudaGraphExec_t executable = nullptr;
  error = cudaGraphInstantiate(&executable, captured, 0);
  cudaGraphDestroy(captured);
  *graph = reinterpret_cast<Graph>(executable);
  return error;
}
int RunGraph(Stream stream, Graph graph) {
  return cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream.handle);
}
int DestroyGraph(Graph graph) { return cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph)); }

DeviceApi MakeApi() {
  DeviceApi api = {};
  SetKernels(&api);
  api.count = &Count;
  api.describe = &Describe;
  api.use = &Use;
  api.explain = &Explain;
  api.is_out_of_memory = &IsOutOfMemory;
  api.allocate = &Allocate;
  api.free = &Free;
  api.allocate_pinned = &AllocatePinned;
  api.free_pinned = &FreePinned;
  api.create_stream = &CreateStream;
  api.destroy_stream = &DestroyStream;
  api.copy = &Copy;
  api.clear = &Clear;
  api.wait = &Wait;
  api.begin_graph = &BeginGraph;
  api.end_graph = &EndGraph;
  api.run_graph = &RunGraph;
  api.destroy_graph = &DestroyGraph;
  return api;
}

}  // namespace
}  // namespace engine::cuda

#ifdef _WIN32
#define ENGINE_EXPORT __declspec(dllexport)
#else
#define ENGINE_EXPORT __attribute__((visibility("default")))
#endif

extern "C" ENGINE_EXPORT const engine::cuda::DeviceApi* engine_cuda_device_api() {
  static const engine::cuda::DeviceApi api = engine::cuda::MakeApi();
  return &api;
}
