// A session: its queue of work and the thread that does it, on whatever device. Knows nothing of Node or of devices.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "native/executor.h"
#include "native/memory.h"

namespace engine {

// One piece of work for the session's thread, made by the caller, who gets it back when it is done.
struct Job {
  enum class Kind { kLoad, kStep, kRead, kCopyBlocks, kSaveBlocks, kLoadBlocks, kDispose };

  explicit Job(Kind kind) : kind(kind) {}
  virtual ~Job() = default;

  const Kind kind;
  Failure failure;

  LoadRequest load;         // kLoad
  Batch batch;              // kStep
  StepOutputs outputs;      // kStep
  int32_t buffer;           // kRead
  std::vector<float> rows;  // kRead: the result

  std::vector<int32_t> blocks;  // ids; kCopyBlocks: pairs of them
  std::string path;             // kSaveBlocks, kLoadBlocks; UTF-8
  std::vector<uint8_t> label;
};

class Session {
 public:
  // `done` is called on the session's thread for every job, in order.
  using Done = void (*)(void* context, std::unique_ptr<Job> job);
  Session(Done done, void* context) : done_(done), context_(context) {}
  // Waits for the thread; jobs not yet begun are dropped.
  ~Session() { Stop(); }

  // Starts the thread; INTERNAL if the system allows none.
  Failure Start();

  void Submit(std::unique_ptr<Job> job);

  // All jobs that have not finished fail with DISPOSED; a running step stops before its next stage.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  // Cancels, waits for the job in flight and ends the thread. Completions of dropped jobs are not reported.
  void Stop();

  // Below: valid once the load job has succeeded, until a dispose job has finished.

  // The sampling op alone, on the calling thread: every device samples the same tokens.
  Failure Sample(const SamplingInputs& inputs, std::span<const float> logits, std::span<const int32_t> positions,
                 const SamplingOutputs& outputs) const;

  const Plan& plan() const { return plan_; }
  // Of this machine's memory, other than mapped files, as it was when the load job was done.
  uint64_t bytes() const { return bytes_; }

 private:
  void Execute();
  Failure Run(Job* job);
  Failure Load(LoadRequest* request);
  Failure Step(const Batch& batch, const StepOutputs& outputs);
  Failure Read(int32_t buffer, std::vector<float>* rows) const;
  Failure MoveBlocks(const Job& job) const;

  const Done done_;
  void* const context_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  bool stopping_ = false;
  std::atomic<bool> cancelled_ = false;
  std::thread thread_;

  Plan plan_;
  const kernels::Kernels* kernels_ = nullptr;
  Reservation sample_scratch_;          // for sampling on the JavaScript thread, while a step may be running
  std::unique_ptr<Executor> executor_;  // once loaded
  uint64_t bytes_ = 0;
};

}  // namespace engine
