#include "native/step_work.h"

#include <algorithm>
#include <cmath>

namespace engine {
namespace {

// So many chunks for each thread: one that comes late, or is slow, holds up the others less than with one. More of them
// cost more than that: linears fetch ahead beyond a chunk's end, and begin each with memory that was not fetched.
// Measured for a 110M model in Q4_0 on 2 threads: 4 per thread decode 20 % slower than 2, which are as fast as 1.
constexpr int32_t kChunksPerThread = 2;

double NumPairs(const Batch& batch) {
  double pairs = 0;
  for (int32_t s = 0; s < batch.num_seqs(); s++) {
    pairs += static_cast<double>(batch.query_start[s + 1] - batch.query_start[s]) * batch.context_lens[s];
  }
  return pairs;
}

// In nanoseconds.
double TimeOf(const StepContext& context, const Task& task, double num_pairs) {
  if (context.NumRows(task.rows) == 0) return 0;
  return task.cost.fixed + context.NumRows(task.rows) * task.cost.per_row + num_pairs * task.cost.per_pair;
}

}  // namespace

StepWork::StepWork(const StepContext& context, int32_t num_threads, double chunk_time)
    : context_(context),
      num_threads_(num_threads),
      chunk_time_(std::max(1.0, chunk_time)),
      num_pairs_(NumPairs(context.batch)) {
  chunk_begins_.reserve(kMaxTasksPerStage);
}

int32_t StepWork::NextStage() {
  const auto num_stages = static_cast<int64_t>(context_.num_stages);
  stage_++;
  if (stage_ > num_stages) return 0;
  num_chunks_ =
      stage_ < num_stages ? ShareOut(context_.schedule.stages[static_cast<size_t>(stage_)]) : ShareOutSampling();
  return num_chunks_;
}

int32_t StepWork::ShareOutSampling() const {
  if (num_threads_ == 1) return 1;
  return std::clamp(context_.NumRows(Rows::kLogits), 1, num_threads_ * kChunksPerThread);
}

int32_t StepWork::ShareOut(const Stage& stage) {
  chunk_begins_.clear();
  double time = 0;
  for (const Task& task : stage.tasks) time += TimeOf(context_, task, num_pairs_);
  if (num_threads_ == 1 || time < 2 * chunk_time_) return 1;
  const double chunk_time = std::max(chunk_time_, time / (num_threads_ * kChunksPerThread));
  int32_t num_chunks = 0;
  for (const Task& task : stage.tasks) {
    chunk_begins_.push_back(num_chunks);
    num_chunks += NumChunks(task, TimeOf(context_, task, num_pairs_), chunk_time);
  }
  return num_chunks;
}

// The same number for each thread, unless that would make them too small.
int32_t StepWork::NumChunks(const Task& task, double time, double chunk_time) const {
  const bool few = time < num_threads_ * chunk_time_;
  const double wanted = few ? time / chunk_time_ : std::round(time / chunk_time / num_threads_) * num_threads_;
  const double least = few ? 1 : num_threads_;
  return static_cast<int32_t>(std::min(std::max(wanted, least), static_cast<double>(MostChunks(task))));
}

int32_t StepWork::MostChunks(const Task& task) const {
  if (task.axis == Task::Axis::kRows) return std::max(1, context_.NumRows(task.rows));
  // More chunks than attention has tiles would make it cut those, and read keys and values more often.
  if (task.axis == Task::Axis::kTiles) {
    const int64_t num_tiles = int64_t{context_.NumRows(task.rows)} * int64_t{task.width};
    return static_cast<int32_t>(std::clamp<int64_t>(num_tiles, num_threads_, kMaxChunks / kMaxTasksPerStage));
  }
  const int32_t unit = std::max(task.chunk_unit, kernels::kShareUnit);
  return (task.width + unit - 1) / unit;
}

void StepWork::RunChunk(int32_t chunk, int32_t thread) {
  if (stage_ == static_cast<int64_t>(context_.num_stages)) return RunSampling(context_, {chunk, num_chunks_}, thread);
  const std::vector<Task>& tasks = context_.schedule.stages[static_cast<size_t>(stage_)].tasks;
  if (chunk_begins_.empty()) {
    for (const Task& task : tasks) RunTask(context_, task, {0, 1}, thread);
    return;
  }
  size_t task = tasks.size() - 1;
  while (chunk_begins_[task] > chunk) task--;
  const int32_t end = task + 1 < tasks.size() ? chunk_begins_[task + 1] : num_chunks_;
  RunTask(context_, tasks[task], {chunk - chunk_begins_[task], end - chunk_begins_[task]}, thread);
}

double StepTime(const StepContext& context) {
  const double num_pairs = NumPairs(context.batch);
  double time = 0;
  for (size_t stage = 0; stage < context.num_stages; stage++) {
    for (const Task& task : context.schedule.stages[stage].tasks) time += TimeOf(context, task, num_pairs);
  }
  return time;
}

}  // namespace engine
