// The table of native/cuda/device.h over the emulator. Its device is small, so that kernels need several turns and
// memory runs out. Variables make it fail: with ENGINE_EMULATED_FAILURE=n the n-th launch from now on and all after it
// are lost, ENGINE_EMULATED_NONE takes it away, ENGINE_EMULATED_CAPABILITY=75 makes it old.
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "emulator.h"
#include "native/cuda/dispatch.h"

namespace engine::cuda {

struct CapturedGraph {
  std::vector<Launch> launches;
};

namespace {

constexpr DeviceLimits kLimits = {.compute_capability = 90,
                                  .num_multiprocessors = 4,
                                  .shared_block_bytes = 99 << 10,
                                  .shared_multiprocessor_bytes = 228 << 10,
                                  .warpgroups = true};
constexpr uint64_t kMemoryBytes = uint64_t{1} << 30;
constexpr uint64_t kMemoryBytesPerSecond = 100'000'000'000;

enum Error { kSuccess, kOutOfMemory, kLost };

// The emulator runs one kernel at a time; sessions have threads of their own.
struct State {
  std::recursive_mutex mutex;
  std::map<void*, size_t> allocations;
  size_t allocated = 0;
  std::map<CUstream_st*, Graph> captures;
  long launches = 0;
};
State state;

int Count(int32_t* num_devices) {
  *num_devices = std::getenv("ENGINE_EMULATED_NONE") == nullptr ? 1 : 0;
  return kSuccess;
}

int Describe(int32_t, DeviceInfo* info) {
  const std::lock_guard lock(state.mutex);
  *info = {};
  std::strcpy(info->name, "Emulated GPU");
  info->limits = kLimits;
  if (const char* capability = std::getenv("ENGINE_EMULATED_CAPABILITY")) {
    info->limits.compute_capability = std::atoi(capability);
    info->limits.warpgroups = info->limits.compute_capability == 90;
  }
  info->driver_version = info->runtime_version = 13000;
  info->memory_bytes = kMemoryBytes;
  info->free_bytes = kMemoryBytes - state.allocated;
  info->memory_bytes_per_second = kMemoryBytesPerSecond;
  return kSuccess;
}

int Use(int32_t) { return kSuccess; }
const char* Explain(int error) { return error == kOutOfMemory ? "out of memory" : "the emulated device was lost"; }
bool IsOutOfMemory(int error) { return error == kOutOfMemory; }

int Allocate(void** memory, size_t bytes) {
  const std::lock_guard lock(state.mutex);
  if (bytes > kMemoryBytes - state.allocated) return kOutOfMemory;
  *memory = emulator::Allocate(bytes);
  state.allocations[*memory] = bytes;
  state.allocated += bytes;
  return kSuccess;
}

int Free(void* memory) {
  const std::lock_guard lock(state.mutex);
  const auto found = state.allocations.find(memory);
  state.allocated -= found->second;
  state.allocations.erase(found);
  emulator::Free(memory);
  return kSuccess;
}

int AllocatePinned(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return *memory == nullptr ? kOutOfMemory : kSuccess;
}
int FreePinned(void* memory) {
  std::free(memory);
  return kSuccess;
}

int CreateStream(Stream* stream) {
  *stream = {reinterpret_cast<CUstream_st*>(new char), true};
  return kSuccess;
}
int DestroyStream(Stream stream) {
  delete reinterpret_cast<char*>(stream.handle);
  return kSuccess;
}
// Whatever else a stream does waits for launches before it to end.
int Copy(Stream, void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(state.mutex);
  emulator::FinishLaunches();
  std::memcpy(to, from, bytes);
  return kSuccess;
}
int Clear(Stream, void* memory, size_t bytes) {
  const std::lock_guard lock(state.mutex);
  emulator::FinishLaunches();
  std::memset(memory, 0, bytes);
  return kSuccess;
}
int Wait(Stream) {
  const std::lock_guard lock(state.mutex);
  emulator::FinishLaunches();
  return kSuccess;
}

int StartOrCapture(Stream stream, const DeviceLimits& limits, const Launch& launch) {
  const std::lock_guard lock(state.mutex);
  if (const auto capture = state.captures.find(stream.handle); capture != state.captures.end()) {
    capture->second->launches.push_back(launch);
    return kSuccess;
  }
  const char* failure = std::getenv("ENGINE_EMULATED_FAILURE");
  state.launches = failure == nullptr ? 0 : state.launches + 1;
  if (failure != nullptr && state.launches >= std::atol(failure)) return kLost;
  return Start(stream, limits, launch);
}

int BeginGraph(Stream stream) {
  const std::lock_guard lock(state.mutex);
  state.captures[stream.handle] = new CapturedGraph;
  return kSuccess;
}
int EndGraph(Stream stream, Graph* graph) {
  const std::lock_guard lock(state.mutex);
  *graph = state.captures[stream.handle];
  state.captures.erase(stream.handle);
  return kSuccess;
}
int RunGraph(Stream stream, Graph graph) {
  for (const Launch& launch : graph->launches) {
    if (const int error = StartOrCapture(stream, kLimits, launch); error != kSuccess) return error;
  }
  return kSuccess;
}
int DestroyGraph(Graph graph) {
  delete graph;
  return kSuccess;
}

DeviceApi MakeApi() {
  DeviceApi api = {};
  SetKernels(&api);
  api.launch = &StartOrCapture;
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

extern "C" __attribute__((visibility("default"))) const engine::cuda::DeviceApi* engine_cuda_device_api() {
  static const engine::cuda::DeviceApi api = engine::cuda::MakeApi();
  return &api;
}
