// What runs a session's plan on one device. Everything but the destructor is called by one thread, the session's own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "native/batch.h"
#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/plan.h"

namespace engine {

// What runs on a CUDA device instead of this machine's processor.
struct CudaRequest {
  std::string library;  // path of the one with the kernels
  int32_t device;       // its index
  int32_t parts;        // halves that stand for an activation: 1, or 2 for 22 bits of it
  bool graphs;          // steps that come again are captured and replayed as one launch
  bool fused;           // several ops are one launch where they can be
  bool overlaps;        // a launch may begin while the one before it ends, where the device can do that
  bool synthetic;       // weights are drawn in place, for measuring; no file is read
};

// What an executor is made of, besides the plan.
struct LoadRequest {
  std::vector<int32_t> words;      // src/backend/encode-plan.ts
  std::vector<std::string> names;  // of the weights
  std::vector<FileStamp> files;
  const kernels::Kernels* kernels;  // of this machine's processor
  int32_t num_threads;
  bool oversubscribed;  // more threads than processors
  bool adaptive;        // small steps may use one thread
  double chunk_time;    // nanoseconds of work that are worth sharing out
  std::optional<CudaRequest> cuda;
};

// Where results of a step go: arrays that JavaScript made and keeps alive.
struct StepOutputs {
  SamplingOutputs sampling;
  float* logits;  // [num_rows, vocab_size], or null if not wanted
  float* hidden;  // [num_rows, width of plan.hidden], or null if not wanted

  bool needs_head(const Batch& batch) const {
    return hidden == nullptr || logits != nullptr || batch.sampling.needs_logits();
  }
};

// Keys and values of all layers, block by block, as this process can read and write them.
class BlockMemory {
 public:
  virtual ~BlockMemory() = default;
  // How a device lays blocks out; written into files.
  virtual uint32_t layout() const = 0;
  // Bytes of the keys, or of the values, of one block of a layer.
  virtual size_t segment_bytes(int32_t layer) const = 0;
  // Until the next call, segment() is the block's bytes: as they are (`read`), or to be overwritten, after which Store
  // makes them the block's.
  virtual Failure Open(int32_t block, bool read) = 0;
  virtual uint8_t* segment(int32_t layer, bool values) = 0;
  virtual Failure Store() = 0;
  virtual Failure Copy(int32_t from, int32_t to) = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;  // frees everything
  virtual Failure Load(const LoadRequest& request) = 0;
  // Steps of one call.
  virtual int32_t max_steps() const { return 1; }
  // The batch is checked, and has no more steps. With several only sampling outputs are asked for.
  virtual Failure Step(const Batch& batch, const StepOutputs& outputs) = 0;
  // The rows of a buffer of the plan as the last step left them.
  virtual Failure Read(int32_t buffer, std::vector<float>* rows) = 0;
  virtual BlockMemory& blocks() = 0;
  // Of this machine's memory, other than mapped files.
  virtual uint64_t bytes() const = 0;
};

// Both end soon, with DISPOSED, once `cancelled` is set, and refer to it and to the plan.
std::unique_ptr<Executor> MakeCpuExecutor(const Plan& plan, const std::atomic<bool>& cancelled);
std::unique_ptr<Executor> MakeCudaExecutor(const Plan& plan, const std::atomic<bool>& cancelled);

}  // namespace engine
