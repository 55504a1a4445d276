// A session: its memory, its threads and its queue of work. Knows nothing of Node.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "native/batch.h"
#include "native/failure.h"
#include "native/run_cpu.h"
#include "native/team.h"

namespace engine {

// What a session is made of.
struct LoadRequest {
  std::vector<int32_t> words;      // src/backend/encode-plan.ts
  std::vector<std::string> names;  // of the weights
  std::vector<FileStamp> files;
  const kernels::Kernels* kernels;
  int32_t num_threads;
  bool oversubscribed;  // more threads than processors
  bool adaptive;        // small steps may use one thread
  double chunk_time;    // nanoseconds of work that are worth sharing out
};

// One piece of work for the executor, made by the caller, who gets it back when it is done.
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
  // `done` is called on the executor's thread for every job, in order.
  using Done = void (*)(void* context, std::unique_ptr<Job> job);
  Session(Done done, void* context) : done_(done), context_(context) {}
  // Waits for the thread; jobs not yet begun are dropped.
  ~Session() { Stop(); }

  // Starts the executor's thread; INTERNAL if the system allows none.
  Failure Start();

  void Submit(std::unique_ptr<Job> job);

  // All jobs that have not finished fail with DISPOSED; a running step stops before its next stage.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  // Cancels, waits for the job in flight and ends the thread. Completions of dropped jobs are not reported.
  void Stop();

  // Below: valid once the load job has succeeded, until a dispose job has finished.

  // The sampling op alone, on the calling thread.
  Failure Sample(const SamplingInputs& inputs, std::span<const float> logits, std::span<const int32_t> positions,
                 const SamplingOutputs& outputs) const;

  const Plan& plan() const { return plan_; }
  // Memory other than mapped files.
  uint64_t bytes() const { return workspace_->bytes() + weights_->copied_bytes(); }
  int32_t num_threads() const { return team_->size(); }

 private:
  void Execute();
  Failure Run(Job* job);
  Failure Load(LoadRequest* request);
  Failure Step(const Batch& batch, const StepOutputs& outputs);
  Failure Read(int32_t buffer, std::vector<float>* rows) const;
  Failure MoveBlocks(const Job& job) const;
  void Free();

  const Done done_;
  void* const context_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> queue_;
  bool stopping_ = false;
  std::atomic<bool> cancelled_ = false;
  std::thread executor_;

  const kernels::Kernels* kernels_ = nullptr;
  Plan plan_;
  Schedule schedule_;
  std::optional<WeightStore> weights_;
  std::optional<Workspace> workspace_;
  std::optional<Team> team_;
  bool adaptive_ = false;
  double chunk_time_ = 0;
  int32_t last_rows_[2] = {};  // of the last step, by Rows
};

}  // namespace engine
