#include "native/session.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <system_error>

#include "native/kv_blocks.h"
#include "native/step_work.h"

namespace engine {
namespace {

// Nanoseconds of one thread. With less, waiting for other threads costs as much as they save, and far more on a busy
// machine.
constexpr double kSmallStep = 50'000;

}  // namespace

Failure Session::Start() {
  try {
    executor_ = std::thread(&Session::Execute, this);
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
  if (executor_.joinable()) executor_.join();
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
  Free();
}

Failure Session::Run(Job* job) {
  if (job->kind == Job::Kind::kDispose) {
    Free();
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
  schedule_ = MakeSchedule(plan_);
  if (Failure failure =
          weights_.emplace().Load(plan_, request->files, request->names, *kernels_, request->num_threads, cancelled_))
    return failure;
  if (Failure failure = workspace_.emplace().Allocate(plan_, schedule_, request->num_threads)) return failure;
  adaptive_ = request->adaptive;
  chunk_time_ = request->chunk_time;
  team_.emplace(request->num_threads, request->oversubscribed, cancelled_);
  return {};
}

Failure Session::Step(const Batch& batch, const StepOutputs& outputs) {
  if (!team_) return Internal("a step before the session was loaded");
  if (std::string problem = CheckBatch(batch, plan_); !problem.empty()) return Internal(std::move(problem));
  last_rows_[static_cast<int32_t>(Rows::kTokens)] = batch.num_tokens();
  last_rows_[static_cast<int32_t>(Rows::kLogits)] = batch.sampling.num_rows();
  if (batch.num_tokens() > 0) {
    workspace_->ExtendRope(plan_, *std::max_element(batch.positions.begin(), batch.positions.end()) + 1);
  }
  const bool with_head = outputs.hidden == nullptr || outputs.logits != nullptr || batch.sampling.needs_logits();
  const size_t num_stages = with_head ? schedule_.stages.size() : schedule_.num_hidden_stages;
  StepContext context{*kernels_, plan_, schedule_, *weights_, *workspace_, batch, outputs, num_stages};
  const bool alone = adaptive_ && StepTime(context) < kSmallStep;
  const int32_t num_threads = alone ? 1 : team_->NumThreads();
  StepWork work(context, num_threads, chunk_time_);
  return team_->Run(&work, num_threads) ? Failure{} : Disposed();
}

Failure Session::Read(int32_t buffer, std::vector<float>* rows) const {
  if (!team_) return Internal("a read before the session was loaded");
  if (buffer < 0 || static_cast<size_t>(buffer) >= plan_.buffers.size()) {
    return Internal("the plan has no buffer " + std::to_string(buffer));
  }
  const BufferInfo& info = plan_.buffers[buffer];
  const size_t count =
      static_cast<size_t>(last_rows_[static_cast<int32_t>(info.rows)]) * static_cast<size_t>(info.width);
  const float* data = workspace_->buffer(plan_, buffer);
  rows->assign(data, data + count);
  return {};
}

Failure Session::MoveBlocks(const Job& job) const {
  if (!team_) return Internal("blocks were named before the session was loaded");
  const KvBlocks blocks(plan_, *workspace_, cancelled_);
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
              workspace_->sample_scratch(), outputs);
  }
  return {};
}

void Session::Free() {
  team_.reset();
  workspace_.reset();
  weights_.reset();
}

}  // namespace engine
