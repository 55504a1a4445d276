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

void CheckLinearShapes(const DeviceLimits& limits) {
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    for (const int32_t num_rows : {1, 8, 9, 16, 17, 32}) {
      for (const int32_t columns : {64, 2048, 4096, 14336}) {
        const LinearArgs args = Args(static_cast<TileFormat>(f), 4096, columns, num_rows);
        const LaunchShape shape = ShapeOfLinear(limits, FewOf(args));
        if (shape.shared_bytes > limits.shared_block_bytes) Wrong("%d bytes of shared memory", shape.shared_bytes);
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
  }
  Case("sizes", [] { CheckSizes(); });
}

}  // namespace engine::cuda::test
