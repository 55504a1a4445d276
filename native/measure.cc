#include "native/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "native/memory.h"
#include "native/processor.h"
#include "native/team.h"

namespace engine {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{4} << 30;
constexpr size_t kMaxRuns = 10000;
// As in a step (step_work.cc).
constexpr int32_t kChunksPerThread = 2;

using Clock = std::chrono::steady_clock;

// Where threads wait until all of them are on processors at the same moment: two that take turns on one arrive there
// too, but not twice within a few microseconds. One that is where another was moves on: a scheduler that has much else
// to do would leave them there for long.
class Meeting {
 public:
  explicit Meeting(int32_t threads) : threads_(threads), processors_(static_cast<size_t>(threads)) {}

  // While nobody attends.
  void Begin() {
    begin_ = Clock::now();
    last_ = {};
    over_ = false;
  }

  // Returns when all threads attend; at the latest soon after kMaxTime, or when `cancelled` is set.
  void Attend(int32_t thread, const std::atomic<bool>& cancelled) {
    while (!over_.load(std::memory_order_acquire) && !cancelled.load(std::memory_order_relaxed)) {
      const uint32_t round = round_.load(std::memory_order_acquire);
      if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
        const Clock::time_point now = Clock::now();
        over_.store(now - last_ < kTogether || now - begin_ > kMaxTime, std::memory_order_release);
        last_ = now;
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
      } else {
        while (round_.load(std::memory_order_acquire) == round && !cancelled.load(std::memory_order_relaxed)) {
        }
      }
      if (!over_.load(std::memory_order_acquire)) Spread(thread);
    }
  }

 private:
  void Spread(int32_t thread) {
    const int processor = CurrentProcessor();
    processors_[static_cast<size_t>(thread)].store(processor, std::memory_order_relaxed);
    for (int32_t other = 0; processor >= 0 && other < thread; other++) {
      if (processors_[static_cast<size_t>(other)].load(std::memory_order_relaxed) != processor) continue;
      return LeaveProcessor(processor);
    }
  }

  static constexpr std::chrono::microseconds kTogether{5};
  static constexpr std::chrono::milliseconds kMaxTime{50};

  const int32_t threads_;
  std::vector<std::atomic<int>> processors_;  // of each thread
  Clock::time_point begin_, last_;  // last_: when all had arrived the last time; only for the last one to arrive
  std::atomic<int32_t> arrived_ = 0;
  std::atomic<uint32_t> round_ = 0;
  std::atomic<bool> over_ = false;
};

// One run: a stage in which all threads meet, and one with the kernel, which alone is timed: in the middle of a step
// threads are awake and on their processors.
class Run final : public Work {
 public:
  Run(MeasuredKernel* kernel, int32_t threads, bool oversubscribed, const std::atomic<bool>& cancelled)
      : kernel_(*kernel),
        cancelled_(cancelled),
        threads_(threads),
        meets_(threads > 1 && !oversubscribed),
        num_chunks_(threads == 1 ? 1 : std::min(threads * kChunksPerThread, kernel->max_chunks())),
        meeting_(threads) {}

  void Begin(int64_t run) {
    run_ = run;
    stage_ = Stage::kBefore;
  }

  int32_t NextStage() override {
    if (stage_ == Stage::kBefore && meets_) {
      stage_ = Stage::kMeeting;
      meeting_.Begin();
      return threads_;
    }
    if (stage_ != Stage::kKernel) {
      stage_ = Stage::kKernel;
      begin_ = Clock::now();
      return num_chunks_;
    }
    end_ = Clock::now();
    return 0;
  }

  void RunChunk(int32_t chunk, int32_t thread) override {
    if (stage_ == Stage::kMeeting) return meeting_.Attend(thread, cancelled_);
    kernel_.Run(run_, {chunk, num_chunks_}, thread);
  }

  double nanoseconds() const { return std::chrono::duration<double, std::nano>(end_ - begin_).count(); }

 private:
  enum class Stage { kBefore, kMeeting, kKernel };

  MeasuredKernel& kernel_;
  const std::atomic<bool>& cancelled_;
  const int32_t threads_;
  const bool meets_;
  const int32_t num_chunks_;
  Meeting meeting_;
  int64_t run_ = 0;
  Stage stage_ = Stage::kBefore;
  Clock::time_point begin_, end_;
};

}  // namespace

Failure Measure(const MeasureRequest& request, const std::atomic<bool>& cancelled, std::span<double> nanoseconds,
                Measured* measured) {
  const std::unique_ptr<MeasuredKernel> kernel = MakeMeasuredKernel(request.kernel);
  if (kernel == nullptr || nanoseconds.empty() || nanoseconds.size() > kMaxRuns) {
    return Internal("a kernel was measured that does not exist, or with sizes that it cannot have");
  }
  Carver measure(nullptr);
  kernel->Carve(&measure);
  Reservation memory;
  if (measure.bytes() > kMaxBytes || !memory.Reserve(measure.bytes())) {
    return OutOfMemory(measure.bytes(), "the data of a kernel that is measured");
  }
  Carver carve(memory.data());
  kernel->Carve(&carve);
  kernel->Fill();

  const int32_t threads = request.kernel.threads;
  Team team(threads, request.oversubscribed, cancelled);
  if (team.size() < threads) {
    return Internal("only " + std::to_string(team.size()) + " of " + std::to_string(threads) +
                    " threads could be started");
  }
  Run run(kernel.get(), threads, request.oversubscribed, cancelled);
  const Clock::time_point begin = Clock::now();
  for (size_t i = 0; i <= nanoseconds.size(); i++) {
    run.Begin(static_cast<int64_t>(i));
    if (!team.Run(&run, threads)) return {"ABORTED", {}};
    if (i == 0) continue;
    nanoseconds[i - 1] = run.nanoseconds();
    measured->runs = i;
    if (i >= kMinRuns && std::chrono::duration<double, std::nano>(Clock::now() - begin).count() > request.budget) break;
  }
  measured->bytes = kernel->bytes();
  measured->operations = kernel->operations();
  return {};
}

}  // namespace engine
