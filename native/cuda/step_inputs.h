// The inputs of a step on their way to the device: one buffer here, one there, one copy. Places of what all steps of a
// bucket have follow from the bucket; block tables, histories, biases and masks lie behind.
#pragma once

#include <vector>

#include "native/batch.h"
#include "native/cuda/launches.h"

namespace engine::cuda {

// Of a step whose sequences have query_start[s + 1] − query_start[s] tokens, padded to `num_tokens`.
TileCounts TileCountsOf(const Plan& plan, int32_t parts, const std::vector<int32_t>& query_start, int32_t num_tokens);

class StepInputs {
 public:
  StepInputs(const Plan& plan, const Device& device) : plan_(plan), device_(device) {}

  // Makes room for the batch. `moved`: launches that refer to the buffer on the device are void.
  Failure Reserve(const Batch& batch, const Bucket& bucket, bool* moved);

  // Where launches of a bucket find their inputs.
  InputPlaces places(const Bucket& bucket) const;

  // Starts the copy of a batch there is room for; `logits` is where the device keeps them.
  int Send(Stream stream, const Batch& batch, const Bucket& bucket, const float* logits);

  uint64_t bytes() const { return staging_.size(); }

 private:
  // Writes the batch to where `host` carves; without a base it only counts. `device` carves the same from the buffer
  // there.
  void Lay(const Batch& batch, const Bucket& bucket, const float* logits, Carver* host, Carver* device) const;
  void LayTiles(const Batch& batch, const Bucket& bucket, const InputPlaces& to) const;
  void LaySampling(const Batch& batch, const float* logits, SamplingRow* rows, Carver* host, Carver* device) const;

  const Plan& plan_;
  const Device& device_;
  PinnedMemory staging_;
  DeviceAllocation memory_;
};

}  // namespace engine::cuda
