// A warp's tiles of weights on their way through shared memory.
#pragma once

#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

inline constexpr int32_t kFewestStages = 2;

// Tiles in the order in which the warp reads them. There are kStages places, or kFewestStages.
template <int kTileBytes, int kStages>
class TileRing {
 public:
  static_assert(kTileBytes % 16 == 0 && kStages >= kFewestStages);

  ENGINE_DEVICE TileRing(uint8_t* memory, uint64_t* barriers, int stages, int lane)
      : memory_(memory), barriers_(barriers), stages_(stages), lane_(lane) {
    if (HasBulkCopies()) {
      if (lane == 0) {
        for (int s = 0; s < stages; s++) BarrierInit(barriers + s);
      }
      SyncWarp();
    }
  }

  // Fetches the next tile; null if there is none.
  ENGINE_DEVICE void Fetch(const uint8_t* tile) {
    uint8_t* to = memory_ + fetched_ * kTileBytes;
    if (HasBulkCopies()) {
      if (lane_ == 0 && tile != nullptr) {
        BarrierExpect(barriers_ + fetched_, kTileBytes);
        BulkCopy(to, tile, kTileBytes, barriers_ + fetched_);
      }
    } else {
      if (tile != nullptr) {
        for (int i = lane_; i < kTileBytes / 16; i += 32) CopyAsync16(to + 16 * i, tile + 16 * i);
      }
      CommitCopies();
    }
    fetched_ = fetched_ + 1 == stages_ ? 0 : fetched_ + 1;
  }

  // The oldest tile, once it is there. It stays until Drop; as many as there are places have been fetched by now.
  ENGINE_DEVICE const uint8_t* Front() {
    if (HasBulkCopies()) {
      BarrierWait(barriers_ + front_, parity_);
    } else {
      if (stages_ == kStages) {
        WaitCopies<kStages - 1>();
      } else {
        WaitCopies<kFewestStages - 1>();
      }
      SyncWarp();
    }
    return memory_ + front_ * kTileBytes;
  }
  ENGINE_DEVICE void Drop() {
    if (HasBulkCopies()) EndReadsBeforeBulkCopies();
    SyncWarp();
    front_++;
    if (front_ == stages_) {
      front_ = 0;
      parity_ ^= 1;
    }
  }
  // Once all tiles are dropped.
  ENGINE_DEVICE void End() {
    if (!HasBulkCopies()) WaitCopies<0>();
  }

 private:
  uint8_t* memory_;
  uint64_t* barriers_;
  int stages_;
  int lane_;
  int fetched_ = 0;
  int front_ = 0;
  uint32_t parity_ = 0;
};

}  // namespace
}  // namespace engine::cuda
