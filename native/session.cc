#include "native/session.h"

#include <algorithm>
#include <new>
#include <system_error>

#include "native/kv_blocks.h"

namespace engine {

Failure Session::Start() {
  try {
    thread_ = std::thread(&Session::Execute, this);
  } catch (const std::system_error& error) {
    return Internal(std::string("cannot start a thread: ") + error.what());
  }
  return {};
}

void Session::Submit(std::unique_ptr<Job> job) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void Session::Stop() {
  Cancel();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Session::Execute() {
  for (bool disposed = false; !disposed;) {
    std::unique_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) break;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    disposed = job->kind == Job::Kind::kDispose;
    try {
      job->failure = Run(job.get());
    } catch (const std::bad_alloc&) {
      job->failure = OutOfMemory(0, "the session's bookkeeping");
    }
    done_(context_, std::move(job));
  }
  executor_.reset();
}

Failure Session::Run(Job* job) {
  if (job->kind == Job::Kind::kDispose) {
    executor_.reset();
    sample_scratch_.Release();
    return {};
  }
  if (cancelled_.load(std::memory_order_relaxed)) return Disposed();
  switch (job->kind) {
    case Job::Kind::kLoad:
      return Load(&job->load);
    case Job::Kind::kStep:
      return Step(job->batch, job->outputs);
    case Job::Kind::kRead:
      return Read(job->buffer, &job->rows);
    default:
      return MoveBlocks(*job);
  }
}

Failure Session::Load(LoadRequest* request) {
  if (std::string problem = DecodePlan(request->words, request->files.size(), &plan_); !problem.empty()) {
    return Internal(std::move(problem));
  }
  if (request->names.size() != plan_.weights.size())
    return Internal("the plan's weights and their names differ in number");
  kernels_ = request->kernels;
  const size_t scratch_bytes = kernels::sample_scratch_bytes(plan_.vocab_size());
  if (!sample_scratch_.Reserve(scratch_bytes)) return OutOfMemory(scratch_bytes, "the memory for sampling");
  std::unique_ptr<Executor> executor =
      request->cuda ? MakeCudaExecutor(plan_, cancelled_) : MakeCpuExecutor(plan_, cancelled_);
  if (Failure failure = executor->Load(*request)) return failure;
  executor_ = std::move(executor);
  bytes_ = executor_->bytes() + sample_scratch_.size();
  return {};
}

Failure Session::Step(const Batch& batch, const StepOutputs& outputs) {
  if (!executor_) return Internal("a step before the session was loaded");
  if (std::string problem = CheckBatch(batch, plan_); !problem.empty()) return Internal(std::move(problem));
  if (batch.num_steps > executor_->max_steps()) {
    return Internal("a call of " + std::to_string(batch.num_steps) + " steps; this session does at most " +
                    std::to_string(executor_->max_steps()));
  }
  if (batch.num_steps > 1 && (outputs.logits != nullptr || outputs.hidden != nullptr)) {
    return Internal("a call of several steps gives neither logits nor hidden states");
  }
  return executor_->Step(batch, outputs);
}

Failure Session::Read(int32_t buffer, std::vector<float>* rows) const {
  if (!executor_) return Internal("a read before the session was loaded");
  if (buffer < 0 || static_cast<size_t>(buffer) >= plan_.buffers.size()) {
    return Internal("the plan has no buffer " + std::to_string(buffer));
  }
  return executor_->Read(buffer, rows);
}

Failure Session::MoveBlocks(const Job& job) const {
  if (!executor_) return Internal("blocks were named before the session was loaded");
  const KvBlocks blocks(plan_, executor_->blocks(), cancelled_);
  if (job.kind == Job::Kind::kCopyBlocks) return blocks.Copy(job.blocks);
  if (job.kind == Job::Kind::kSaveBlocks) return blocks.Save(job.path, job.blocks, job.label);
  return blocks.Load(job.path, job.blocks, job.label);
}

Failure Session::Sample(const SamplingInputs& inputs, std::span<const float> logits, std::span<const int32_t> positions,
                        const SamplingOutputs& outputs) const {
  const auto vocab_size = static_cast<size_t>(plan_.vocab_size());
  const size_t rows = std::min(logits.size() / vocab_size, positions.size());
  if (rows > INT32_MAX) return Internal("too many rows of logits");
  if (std::string problem = CheckSampling(inputs, static_cast<int32_t>(rows), plan_.vocab_size()); !problem.empty()) {
    return Internal(std::move(problem));
  }
  for (int32_t r = 0; r < inputs.num_rows(); r++) {
    const auto row = static_cast<size_t>(inputs.records[r].row);
    SampleRow(*kernels_, inputs, r, logits.data() + row * vocab_size, positions[row], plan_.vocab_size(),
              sample_scratch_.data(), outputs);
  }
  return {};
}

}  // namespace engine
