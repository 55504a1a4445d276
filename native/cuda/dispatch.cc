#include "native/cuda/dispatch.h"

namespace engine::cuda {

LaunchShape ShapeOf(const DeviceLimits& limits, const Launch& launch) {
  switch (launch.kernel) {
    case KernelId::kEmbed:
      return ShapeOfEmbed(launch.embed);
    case KernelId::kRmsNorm:
    case KernelId::kLayerNorm:
      return ShapeOfNorm(launch.norm);
    case KernelId::kRope:
      return ShapeOfRope(launch.rope);
    case KernelId::kSiluMul:
    case KernelId::kGelu:
    case KernelId::kAdd:
      return ShapeOfPointwise(limits, launch.pointwise.count);
    case KernelId::kSelectRows:
      return ShapeOfSelectRows(launch.select_rows);
    case KernelId::kPrepare:
      return ShapeOfPrepare(launch.prepare);
    case KernelId::kLinear:
      return ShapeOfLinear(limits, launch.linear_few);
    case KernelId::kLinearBatch:
      return ShapeOfLinearBatch(launch.linear);
    case KernelId::kLinearWarpgroup:
      return ShapeOfLinearWarpgroup(limits, launch.linear);
    case KernelId::kHalve:
      return ShapeOfHalve(launch.halve.matrix);
    case KernelId::kLinearMany:
      return ShapeOfLinearMany(launch.linear);
    case KernelId::kWriteKv:
      return ShapeOfWriteKv(launch.write_kv);
    case KernelId::kHeads:
      return ShapeOfHeads(launch.heads);
    case KernelId::kAttention:
      return ShapeOfAttention(launch.attention);
    case KernelId::kAttentionMany:
      return ShapeOfAttentionMany(launch.attention_many);
    case KernelId::kSample:
      return ShapeOfSample(limits, launch.sample);
    case KernelId::kAdvance:
      return ShapeOfAdvance(launch.advance);
  }
  return {};
}

int Start(Stream stream, const DeviceLimits& limits, const Launch& launch) {
  const PointwiseArgs& p = launch.pointwise;
  switch (launch.kernel) {
    case KernelId::kEmbed:
      return LaunchEmbed(stream, launch.embed);
    case KernelId::kRmsNorm:
      return LaunchRmsNorm(stream, launch.norm);
    case KernelId::kLayerNorm:
      return LaunchLayerNorm(stream, launch.norm);
    case KernelId::kRope:
      return LaunchRope(stream, launch.rope);
    case KernelId::kSiluMul:
      return LaunchSiluMul(stream, limits, p.out, p.x, p.y, p.count);
    case KernelId::kGelu:
      return LaunchGelu(stream, limits, p.out, p.x, p.count, p.approximate);
    case KernelId::kAdd:
      return LaunchAdd(stream, limits, p.out, p.y, p.count);
    case KernelId::kSelectRows:
      return LaunchSelectRows(stream, launch.select_rows);
    case KernelId::kPrepare:
      return LaunchPrepare(stream, launch.prepare);
    case KernelId::kLinear:
      return LaunchLinear(stream, limits, launch.linear_few);
    case KernelId::kLinearBatch:
      return LaunchLinearBatch(stream, launch.linear);
    case KernelId::kLinearWarpgroup:
      return LaunchLinearWarpgroup(stream, limits, launch.linear);
    case KernelId::kHalve:
      return LaunchHalve(stream, launch.halve.out, launch.halve.matrix);
    case KernelId::kLinearMany:
      return LaunchLinearMany(stream, launch.linear);
    case KernelId::kWriteKv:
      return LaunchWriteKv(stream, launch.write_kv);
    case KernelId::kHeads:
      return LaunchHeads(stream, launch.heads);
    case KernelId::kAttention:
      return LaunchAttention(stream, launch.attention);
    case KernelId::kAttentionMany:
      return LaunchAttentionMany(stream, launch.attention_many);
    case KernelId::kSample:
      return LaunchSample(stream, limits, launch.sample);
    case KernelId::kAdvance:
      return LaunchAdvance(stream, launch.advance);
  }
  return -1;
}

void SetKernels(DeviceApi* api) {
  api->version = kDeviceApiVersion;
  api->shape = &ShapeOf;
  api->launch = &Start;
  api->prepared_bytes = &PreparedBytesOf;
  api->can_prepare_in_blocks = &CanPrepareInBlocks;
  api->can_end_with_heads = &CanEndWithHeads;
  api->half_tile_bytes = &HalfTileBytes;
  api->halved_matrix = &HalvedMatrix;
  api->make_attention_tiles = &MakeAttentionTiles;
  api->make_many_attention_tiles = &MakeManyAttentionTiles;
  api->attention_partial_floats = &AttentionPartialFloats;
  api->sample_scratch_bytes = &SampleScratchBytes;
}

}  // namespace engine::cuda
