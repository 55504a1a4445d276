// The weight table in memory: matrices where they lie in their mapped files; packed or quantised copies
// (pack_weights.h); copies the right way round of what is stored transposed; norm weights and biases as float32,
// whatever the file says.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/memory.h"
#include "native/plan.h"

namespace engine {

class WeightStore {
 public:
  // `names` are those of plan.weights. Stops early, with nothing usable, once `cancelled` is set.
  Failure Load(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
               const kernels::Kernels& kernels, int32_t num_threads, const std::atomic<bool>& cancelled);

  const kernels::Matrix& matrix(int32_t id) const { return matrices_[id]; }

  // The values of a norm weight or bias; null for the absent weight −1.
  const float* vector(int32_t id) const { return id < 0 ? nullptr : vectors_[id]; }

  // Bytes of memory other than mapped files.
  uint64_t copied_bytes() const { return copies_.size(); }

 private:
  // Takes memory for every copy. matrices_[id].data stays null for a matrix that is used where it lies.
  void Carve(const Plan& plan, const std::vector<bool>& vectors, const std::vector<bool>& met, Carver* carver);

  std::vector<MappedFile> files_;
  Reservation copies_;
  std::vector<kernels::Matrix> matrices_;
  std::vector<float*> vectors_;  // null for weights that are no op's norm weight or bias
};

}  // namespace engine
