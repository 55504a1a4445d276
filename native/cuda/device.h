// What a CUDA session needs of a device, as one table of functions that a library of its own exports: engine_cuda, made
// by nvcc, or the emulated one of the test suite. The addon knows nothing else of CUDA, so it loads where there is no
// driver.
//
// The addon and the library may come from different compilers: only plain structs and pointers cross. Functions return
// a cudaError_t as an integer, 0 for success, and never throw.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace engine::cuda {

enum class KernelId : int32_t {
  kEmbed,
  kRmsNorm,
  kLayerNorm,
  kRope,
  kSiluMul,
  kGelu,
  kAdd,
  kSelectRows,
  kPrepare,
  kLinear,
  kLinearBatch,
  kLinearWarpgroup,
  kHalve,
  kLinearMany,
  kWriteKv,
  kHeads,
  kAttention,  // with its join, if it is split
  kAttentionMany,
  kSample,
  kAdvance,
};
inline constexpr int32_t kNumKernels = 20;

struct PointwiseArgs {
  float* out;
  const float* x;
  const float* y;
  int64_t count;
  bool approximate;
};

struct HalveArgs {
  uint8_t* out;
  TiledMatrix matrix;
};

// A kernel and what it is called with.
struct Launch {
  KernelId kernel;
  int32_t op;  // of the plan; their number: sampling, and what makes the next step's inputs
  union {
    EmbedArgs embed;
    NormArgs norm;
    RopeArgs rope;
    PointwiseArgs pointwise;
    SelectRowsArgs select_rows;
    PrepareArgs prepare;
    LinearFewArgs linear_few;
    LinearArgs linear;
    HalveArgs halve;
    WriteKvArgs write_kv;
    HeadsArgs heads;
    AttentionArgs attention;
    ManyAttentionArgs attention_many;
    SampleArgs sample;
    AdvanceArgs advance;
  };
};

struct DeviceInfo {
  char name[256];
  DeviceLimits limits;
  int32_t driver_version;   // 1000 · major + 10 · minor of the newest CUDA that it knows; 0: no driver
  int32_t runtime_version;  // of the library
  uint64_t memory_bytes;
  uint64_t free_bytes;
  uint64_t memory_bytes_per_second;  // by the clock of its memory and the width of its bus; 0: unknown
};

struct CapturedGraph;
using Graph = CapturedGraph*;

struct DeviceApi {
  int32_t version;

  int (*count)(int32_t* num_devices);
  int (*describe)(int32_t device, DeviceInfo* info);
  // For all that the calling thread does from now on.
  int (*use)(int32_t device);
  const char* (*explain)(int error);
  bool (*is_out_of_memory)(int error);

  int (*allocate)(void** memory, size_t bytes);
  int (*free)(void* memory);
  // Of this machine, at full speed for copies.
  int (*allocate_pinned)(void** memory, size_t bytes);
  int (*free_pinned)(void* memory);

  int (*create_stream)(Stream* stream);
  int (*destroy_stream)(Stream stream);
  // All on a stream happen one after another; `wait` returns when they are done.
  int (*copy)(Stream stream, void* to, const void* from, size_t bytes);
  int (*clear)(Stream stream, void* memory, size_t bytes);
  int (*wait)(Stream stream);

  // What is launched between the two becomes a graph and does not run yet.
  int (*begin_graph)(Stream stream);
  int (*end_graph)(Stream stream, Graph* graph);
  int (*run_graph)(Stream stream, Graph graph);
  int (*destroy_graph)(Graph graph);

  // Of kernels.h, for any of them.
  LaunchShape (*shape)(const DeviceLimits& limits, const Launch& launch);
  int (*launch)(Stream stream, const DeviceLimits& limits, const Launch& launch);
  decltype(&PreparedBytesOf) prepared_bytes;
  decltype(&CanPrepareInBlocks) can_prepare_in_blocks;
  decltype(&CanEndWithHeads) can_end_with_heads;
  decltype(&HalfTileBytes) half_tile_bytes;
  decltype(&HalvedMatrix) halved_matrix;
  decltype(&MakeAttentionTiles) make_attention_tiles;
  decltype(&MakeManyAttentionTiles) make_many_attention_tiles;
  decltype(&AttentionPartialFloats) attention_partial_floats;
  decltype(&SampleScratchBytes) sample_scratch_bytes;
};

// Raised whenever anything above, or the structs of kernels.h, change.
inline constexpr int32_t kDeviceApiVersion = 6;
// The library exports this function under this name.
using DeviceApiFunction = const DeviceApi*();
inline constexpr const char* kDeviceApiName = "engine_cuda_device_api";

}  // namespace engine::cuda
