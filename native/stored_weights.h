// Weights as they lie in files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/plan.h"

namespace engine {

// Maps the files; every weight lies within its own. `names` are those of plan.weights. FILE_NOT_FOUND, FILE_UNREADABLE,
// FILE_CHANGED, FORMAT_INVALID.
Failure OpenWeightFiles(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
                        std::vector<MappedFile>* mapped);

// Which weights are norm weights or biases.
std::vector<bool> VectorsOf(const Plan& plan);

// out [columns] = a norm weight or bias.
void CopyVector(float* out, const WeightInfo& weight, const uint8_t* stored);

// out [rows, columns] = a matrix that is stored transposed, the right way round.
void CopyTransposed(uint8_t* out, const WeightInfo& weight, const uint8_t* stored);

}  // namespace engine
