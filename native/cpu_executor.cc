// The executor that is this machine's processor: a team of threads goes through the plan's schedule.
#include <algorithm>
#include <cstring>
#include <optional>

#include "native/executor.h"
#include "native/schedule.h"
#include "native/step_work.h"
#include "native/team.h"
#include "native/weights.h"
#include "native/workspace.h"

namespace engine {
namespace {

// Nanoseconds of one thread. With less, waiting for other threads costs as much as they save, and far more on a busy
// machine.
constexpr double kSmallStep = 50'000;

class CpuBlocks final : public BlockMemory {
 public:
  CpuBlocks(const Plan& plan, const Workspace& workspace) : plan_(plan), workspace_(workspace) {}

  uint32_t layout() const override { return 1; }

  size_t segment_bytes(int32_t layer) const override {
    const kernels::KvCache& cache = workspace_.kv(layer);
    return static_cast<size_t>(cache.num_kv_heads) *
           kernels::kv_block_bytes(cache.dtype, cache.head_dim, cache.block_size);
  }

  Failure Open(int32_t block, bool) override {
    block_ = block;
    return {};
  }
  uint8_t* segment(int32_t layer, bool values) override { return Segment(block_, layer, values); }
  Failure Store() override { return {}; }

  Failure Copy(int32_t from, int32_t to) override {
    if (from == to) return {};
    for (int32_t layer = 0; layer < static_cast<int32_t>(plan_.kv_layers.size()); layer++) {
      for (const bool values : {false, true}) {
        std::memcpy(Segment(to, layer, values), Segment(from, layer, values), segment_bytes(layer));
      }
    }
    return {};
  }

 private:
  uint8_t* Segment(int32_t block, int32_t layer, bool values) const {
    const kernels::KvCache& cache = workspace_.kv(layer);
    return (values ? cache.values : cache.keys) + static_cast<size_t>(block) * segment_bytes(layer);
  }

  const Plan& plan_;
  const Workspace& workspace_;
  int32_t block_ = 0;
};

class CpuExecutor final : public Executor {
 public:
  CpuExecutor(const Plan& plan, const std::atomic<bool>& cancelled) : plan_(plan), cancelled_(cancelled) {}

  Failure Load(const LoadRequest& request) override {
    kernels_ = request.kernels;
    schedule_ = MakeSchedule(plan_);
    if (Failure failure =
            weights_.Load(plan_, request.files, request.names, *kernels_, request.num_threads, cancelled_))
      return failure;
    if (Failure failure = workspace_.Allocate(plan_, schedule_, request.num_threads)) return failure;
    adaptive_ = request.adaptive;
    chunk_time_ = request.chunk_time;
    team_.emplace(request.num_threads, request.oversubscribed, cancelled_);
    return {};
  }

  Failure Step(const Batch& batch, const StepOutputs& outputs) override {
    last_rows_[static_cast<int32_t>(Rows::kTokens)] = batch.num_tokens();
    last_rows_[static_cast<int32_t>(Rows::kLogits)] = batch.sampling.num_rows();
    workspace_.ExtendRope(plan_, batch.end_position());
    const size_t num_stages = outputs.needs_head(batch) ? schedule_.stages.size() : schedule_.num_hidden_stages;
    StepContext context{*kernels_, plan_, schedule_, weights_, workspace_, batch, outputs, num_stages};
    const bool alone = adaptive_ && StepTime(context) < kSmallStep;
    const int32_t num_threads = alone ? 1 : team_->NumThreads();
    StepWork work(context, num_threads, chunk_time_);
    return team_->Run(&work, num_threads) ? Failure{} : Disposed();
  }

  Failure Read(int32_t buffer, std::vector<float>* rows) override {
    const BufferInfo& info = plan_.buffers[buffer];
    const size_t count =
        static_cast<size_t>(last_rows_[static_cast<int32_t>(info.rows)]) * static_cast<size_t>(info.width);
    const float* data = workspace_.buffer(plan_, buffer);
    rows->assign(data, data + count);
    return {};
  }

  BlockMemory& blocks() override { return blocks_; }
  uint64_t bytes() const override { return workspace_.bytes() + weights_.copied_bytes(); }

 private:
  const Plan& plan_;
  const std::atomic<bool>& cancelled_;
  const kernels::Kernels* kernels_ = nullptr;
  Schedule schedule_;
  WeightStore weights_;
  Workspace workspace_;
  CpuBlocks blocks_{plan_, workspace_};
  std::optional<Team> team_;
  bool adaptive_ = false;
  double chunk_time_ = 0;
  int32_t last_rows_[2] = {};  // of the last step, by Rows
};

}  // namespace

std::unique_ptr<Executor> MakeCpuExecutor(const Plan& plan, const std::atomic<bool>& cancelled) {
  return std::make_unique<CpuExecutor>(plan, cancelled);
}

}  // namespace engine
