// Random weight matrices of every storage type.
#pragma once

#include <string>
#include <vector>

#include "check.h"
#include "device.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cuda/pack.h"

namespace engine::cuda::test {

struct StorageType {
  const char* name;
  kernels::DType dtype;
  std::vector<int32_t> f16_places;  // in a block, where a scale is; empty for floats and our own types
};
const std::vector<StorageType>& StorageTypes();

class RandomMatrix {
 public:
  RandomMatrix(const StorageType& type, int32_t rows, int32_t columns, Random* random);

  kernels::Matrix source() const;
  TiledMatrix tiled() const;
  // [rows, columns], by the scalar CPU kernels.
  std::vector<float> Weights() const;

 private:
  const StorageType& type_;
  int32_t rows_, columns_;
  std::vector<uint8_t> bytes_;
  DeviceArray<uint8_t> tiles_;
  DeviceArray<RowFactors> factors_;
};

}  // namespace engine::cuda::test
