// What GPTQ (Frantar et al. 2022, arXiv 2210.17323) needs of calibration. With inputs X [n, K] of a matrix, errors E of
// a row of its weights change outputs by E H Eᵀ, H = Xᵀ X. Written as H = M D² Mᵀ, M upper triangular with ones on its
// diagonal, that is Σ D²[j] (E M)[j]²: column j's error counts D²[j] times, once columns before it have been made up
// for by it and its successors. Row j of M⁻¹ is how: x[k] −= error[j] · M⁻¹[j][k].
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/cpu/kernels.h"
#include "native/failure.h"

namespace engine {

// gram [columns, columns] += Xᵀ X, on and above the diagonal; x [num_rows, columns]. ABORTED. Throws std::bad_alloc.
Failure AddGram(const kernels::Kernels& kernels, const float* x, int32_t num_rows, int32_t columns, int32_t threads,
                const std::atomic<bool>& cancelled, double* gram);

// Of H = gram + damping · mean of its diagonal · I: weights [columns] = D² / max D² and feedback [columns, columns] =
// M⁻¹. Columns without any input count alike. Overwrites gram, which is finite. ABORTED. Throws std::bad_alloc.
Failure MakeErrorModel(double* gram, int32_t columns, double damping, int32_t threads,
                       const std::atomic<bool>& cancelled, float* weights, float* feedback);

}  // namespace engine
