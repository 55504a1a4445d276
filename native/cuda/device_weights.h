// The weight table on a device: matrices in the tiles of kernels/cuda/tiles.h, packed here by several threads and
// copied piece by piece; norm weights and biases as float32.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "native/cuda/memory.h"
#include "native/executor.h"

namespace engine::cuda {

class DeviceWeights {
 public:
  // What every weight becomes, and how many bytes that is; nothing is allocated yet.
  void Plan(const engine::Plan& plan);
  uint64_t planned_bytes() const { return planned_bytes_; }

  // Returns the device's error.
  int Allocate(const DeviceApi& api) { return memory_.Allocate(api, planned_bytes_); }

  // DISPOSED once `cancelled`; OUT_OF_MEMORY, WEIGHT_NOT_FINITE, DEVICE_FAILED and what OpenWeightFiles fails with.
  Failure Load(const engine::Plan& plan, const Device& device, int32_t index, const LoadRequest& request,
               const std::atomic<bool>& cancelled);

  const std::vector<TiledMatrix>& matrices() const { return matrices_; }
  const std::vector<const float*>& vectors() const { return vectors_; }

  // Weights drawn from a seed instead: those of a model with random weights, but for rows of tiles that are repeated.
  Failure Draw(const engine::Plan& plan, const Device& device);

 private:
  void Carve(const engine::Plan& plan, Carver* carver);

  DeviceAllocation memory_;
  uint64_t planned_bytes_ = 0;
  std::vector<TiledMatrix> matrices_;  // of weights that are matrices
  std::vector<const float*> vectors_;  // null for weights that are not
};

}  // namespace engine::cuda
