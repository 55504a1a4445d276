// Kernels on random data, as a session runs them: what Measure times. Data is made here, and lies as a session's does:
// matrices packed, activations as codes, in memory of huge pages.
#pragma once

#include <memory>
#include <string>

#include "kernels/cpu/kernels.h"
#include "native/memory.h"

namespace engine {

// Sizes mean, kernel by kernel:
//   read          [rows, columns] bytes
//   multiply_add  rows · kMultiplyAddStep multiply-adds of floats by each of `chunks`
//   dot4 … dot8   rows · kDotStep multiply-adds of codes of so many bits by each of `chunks`
//   linear        a matrix [rows, columns] of storage type dtype, and `tokens` rows of activations
//   attention     `tokens` sequences that decode one token each after `rows` positions; dtype is a KvDType, columns the
//                 width of all heads (kHeads · kHeadDim)
//   rms_norm      [tokens, columns]
//   silu_mul      [tokens, columns]
struct KernelRequest {
  const kernels::Kernels* kernels;
  std::string what;
  int32_t dtype;
  int32_t rows;
  int32_t columns;
  int32_t tokens;
  int32_t threads;
  // What a step would find out of the caches is there so often that all copies together take at least so many bytes;
  // runs take turns.
  uint64_t cold_bytes;
};

// Attention is that of TinyLlama's layers.
inline constexpr int32_t kHeads = 32, kKvHeads = 4, kHeadDim = 64;

class MeasuredKernel {
 public:
  virtual ~MeasuredKernel() = default;
  // Takes memory; called first without a base, to measure, and then with one.
  virtual void Carve(Carver* carver) = 0;
  // Makes the data. Throws std::bad_alloc.
  virtual void Fill() = 0;
  // A share of run number `run`.
  virtual void Run(int64_t run, kernels::Part part, int32_t thread) = 0;

  // Bytes read of what is cold, or all that is read and written where nothing is; of one run.
  virtual double bytes() const = 0;
  // Multiplications and additions of one run.
  virtual double operations() const = 0;
  // How many shares a run may have at most.
  virtual int32_t max_chunks() const { return INT32_MAX; }
};

// Null if `what` is unknown or cannot have these sizes.
std::unique_ptr<MeasuredKernel> MakeMeasuredKernel(const KernelRequest& request);

}  // namespace engine
