// The geometry of launches: what every device of the build list can hold.
#include <string>

#include "check.h"
#include "device.h"

namespace engine::cuda::test {
namespace {

constexpr DeviceLimits kDevices[] = {
    {80, 108, 163 << 10, 164 << 10}, {86, 84, 99 << 10, 100 << 10},    {89, 128, 99 << 10, 100 << 10},
    {90, 132, 227 << 10, 228 << 10}, {100, 148, 227 << 10, 228 << 10},
};

LinearArgs Args(TileFormat format, int32_t rows, int32_t columns, int32_t num_rows) {
  LinearArgs args = {};
  args.weight = {nullptr, nullptr, format, rows, columns, 1};
  args.x = {nullptr, nullptr, nullptr, num_rows, RoundUp(columns, kColumnUnit), 1, ActivationOrder::kLanes};
  return args;
}

int32_t BytesOfBlock(const LaunchShape& shape) { return shape.shared_bytes + kSharedVariableBytes; }

void CheckLinearShapes(const DeviceLimits& limits) {
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    for (const int32_t num_rows : {1, 8, 9, 16, 17, 32}) {
      for (const int32_t columns : {64, 2048, 4096, 14336}) {
        const LinearArgs args = Args(static_cast<TileFormat>(f), 4096, columns, num_rows);
        const LaunchShape shape = ShapeOfLinear(limits, FewOf(args));
        if (BytesOfBlock(shape) > limits.shared_block_bytes) Wrong("%d bytes of shared memory", shape.shared_bytes);
        if (shape.threads > 1024 || shape.threads % 32 != 0) Wrong("%d threads", shape.threads);
        if (shape.grid_x < 1 || shape.grid_x > 2 * limits.num_multiprocessors) Wrong("%d blocks", shape.grid_x);
        // The order of a sum is the matrix's alone.
        const LinearTiling alone = LinearTilingOf(limits, FewOf(Args(static_cast<TileFormat>(f), 4096, columns, 1)));
        if (LinearTilingOf(limits, FewOf(args)).split_k != alone.split_k)
          Wrong("a sum that depends on the number of rows");
      }
    }
  }
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    for (const int32_t num_rows : {1, 17, 64, 65, 128, 129, kMaxBatchRows}) {
      const LaunchShape shape = ShapeOfLinearBatch(Args(static_cast<TileFormat>(f), 4080, 4096, num_rows));
      const int32_t block_tokens = num_rows <= 64 ? 64 : 128;
      if (shape.shared_bytes > limits.shared_block_bytes) Wrong("%d bytes of shared memory", shape.shared_bytes);
      if (shape.grid_x != 64 || shape.grid_y != CeilDivide(num_rows, block_tokens)) {
        Wrong("%d rows: %d by %d blocks", num_rows, shape.grid_x, shape.grid_y);
      }
    }
  }
  if (ShapeOfLinearMany(Args(TileFormat::kHalf, 4096, 4096, 512)).shared_bytes > limits.shared_block_bytes) {
    Wrong("stages of the large product do not fit");
  }
}

// Blocks that prepare their rows, and launches that end with what follows them.
void CheckFewShapes(const DeviceLimits& limits) {
  const bool overlaps = limits.compute_capability >= 90;
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    const auto format = static_cast<TileFormat>(f);
    for (const int32_t num_rows : {1, 2, 3, 8, 17, 32}) {
      for (int32_t columns = 64; columns <= 16384; columns += 64) {
        for (const int32_t parts : {1, 2}) {
          LinearFewArgs args = FewOf(Args(format, 4096, columns, num_rows));
          args.x.parts = parts;
          const LinearTiling before = LinearTilingOf(limits, args);
          const int32_t two = 2 * (BytesOfBlock(ShapeOfLinear(limits, args)) + 1024);
          if (overlaps && two > limits.shared_multiprocessor_bytes) Wrong("no room for the next launch");
          if (!CanPrepareInBlocks(limits, args.x)) continue;
          const float x = 0.0f;
          Highest highest;
          args.source = {&x, &x, nullptr, 1e-5f, columns};
          args.highest = &highest;
          const LinearTiling tiling = LinearTilingOf(limits, args);
          const LaunchShape shape = ShapeOfLinear(limits, args);
          if (BytesOfBlock(shape) > limits.shared_block_bytes) Wrong("%d bytes of shared memory", shape.shared_bytes);
          if (overlaps && 2 * (BytesOfBlock(shape) + 1024) > limits.shared_multiprocessor_bytes) {
            Wrong("%d rows of %d: no room for the next launch", num_rows, columns);
          }
          if (tiling.split_k != before.split_k) Wrong("a sum that depends on who prepares the rows");
          if (tiling.split_k > 4 || tiling.row_tiles % 2 != 0) Wrong("no pairs of row tiles in a block");
          if (tiling.stages < 2) Wrong("%d stages", tiling.stages);
        }
      }
    }
  }
}

// That decoding prepares its rows in blocks: one row of a large model, or some of a small one.
void CheckPreparation() {
  const auto can = [](const DeviceLimits& limits, int32_t num_rows, int32_t columns) {
    return CanPrepareInBlocks(limits, Args(TileFormat::kInt4, 16, columns, num_rows).x);
  };
  for (const DeviceLimits& limits : kDevices) {
    if (!can(limits, 1, 4096) || !can(limits, 1, 8192) || !can(limits, 2, 2048)) {
      Wrong("compute capability %d: rows that should fit", limits.compute_capability);
    }
    if (can(limits, 8, 4096) || can(limits, 1, 32768) || can(limits, 33, 256)) {
      Wrong("compute capability %d: too many rows", limits.compute_capability);
    }
  }
  if (!can(kDevices[3], 1, 14336) || !can(kDevices[3], 3, 4096)) Wrong("rows that should fit on Hopper");

  const HeadRotation halves = {nullptr, nullptr, nullptr, 64, false};
  const HeadRotation pairs = {nullptr, nullptr, nullptr, 16, true};
  const HeadRotation partial = {nullptr, nullptr, nullptr, 16, false};
  const HeadRotation narrow = {nullptr, nullptr, nullptr, 20, false};
  const auto cache = [](KvDType dtype, int32_t head_dim) { return KvCache{nullptr, nullptr, dtype, 8, head_dim, 16}; };
  if (!CanEndWithHeads(halves, cache(KvDType::kF16, 128)) || !CanEndWithHeads(pairs, cache(KvDType::kF32, 36)) ||
      !CanEndWithHeads({}, cache(KvDType::kF16, 40))) {
    Wrong("heads that should be possible");
  }
  if (CanEndWithHeads(halves, cache(KvDType::kInt8, 128)) || CanEndWithHeads(partial, cache(KvDType::kF16, 128)) ||
      CanEndWithHeads(narrow, cache(KvDType::kF16, 40)) || CanEndWithHeads(pairs, cache(KvDType::kF16, 36))) {
    Wrong("heads that should not be possible");
  }
}

void CheckSizes() {
  if (LinearKindOf(kMaxLinearRows) != LinearKind::kFew || LinearKindOf(kMaxLinearRows + 1) != LinearKind::kBatch ||
      LinearKindOf(kMaxBatchRows) != LinearKind::kBatch || LinearKindOf(kMaxBatchRows + 1) != LinearKind::kMany) {
    Wrong("a kernel for another number of rows");
  }
  const LaunchShape many = ShapeOfLinearMany(Args(TileFormat::kHalf, 4097, 4096, 129));
  if (many.grid_x != 33 || many.grid_y != 2) Wrong("%d by %d blocks", many.grid_x, many.grid_y);
  // 4.5 bits a weight, with the factors of our own int4.
  const TiledMatrix int4 = {nullptr, nullptr, TileFormat::kInt4, 4096, 4096, 1};
  if (int4.tile_bytes() != size_t{4096} * 4096 * 9 / 16) Wrong("int4 takes %zu bytes", int4.tile_bytes());
  const TiledMatrix half = {nullptr, nullptr, TileFormat::kHalf, 17, 300, 2};
  if (half.tile_bytes() != size_t{2 * 16} * 512 * 2 * 2) Wrong("two planes take %zu bytes", half.tile_bytes());
  if (KvBlockBytes(KvDType::kF16, 128, 16) != 4096) Wrong("a block of keys");
  if (KvBlockBytes(KvDType::kInt8, 40, 16) != 16 * 48 + 64) Wrong("a block of 8-bit keys");
}

}  // namespace

void CheckShapes() {
  for (const DeviceLimits& limits : kDevices) {
    Case("launches fit compute capability " + std::to_string(limits.compute_capability),
         [&] { CheckLinearShapes(limits); });
    Case("launches of few rows fit compute capability " + std::to_string(limits.compute_capability),
         [&] { CheckFewShapes(limits); });
  }
  Case("what blocks prepare and end with", [] { CheckPreparation(); });
  Case("sizes", [] { CheckSizes(); });
}

}  // namespace engine::cuda::test
