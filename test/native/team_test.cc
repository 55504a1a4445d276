// The team without Node, for sanitizers and for measuring: stages of random numbers of chunks on teams of several
// sizes, while helpers are kept from running. Prints one line per check, or what went wrong and exits with 1.
//
//   team_test                    the checks
//   team_test stages THREADS     nanoseconds per stage of empty chunks
#include "native/team.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace {

using engine::Interference;
using engine::Team;
using engine::Work;
using std::chrono::microseconds;
using std::chrono::milliseconds;

void Check(bool good, const char* what) {
  if (good) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// Chunks write plain memory, and each stage reads what the one before has written: every chunk must run exactly once,
// after all of the stage before, or the sums differ (and ThreadSanitizer sees the race).
class Sums final : public Work {
 public:
  // Between chunks a thread may be made to sleep or to give its processor away.
  enum class Disturb { kNo, kYield, kSleep };

  Sums(uint32_t seed, int32_t num_stages, int32_t most_chunks, int32_t num_threads, Disturb disturb)
      : most_chunks_(most_chunks), disturb_(disturb), runs_(static_cast<size_t>(num_threads)), random_(seed) {
    for (int32_t s = 0; s < num_stages; s++) {
      sizes_.push_back(1 + static_cast<int32_t>(random_() % static_cast<uint32_t>(most_chunks)));
    }
    values_.fill(std::vector<uint64_t>(static_cast<size_t>(most_chunks)));
  }

  int32_t NextStage() override {
    stage_++;
    if (stage_ == static_cast<int32_t>(sizes_.size())) return 0;
    return sizes_[static_cast<size_t>(stage_)];
  }

  void RunChunk(int32_t chunk, int32_t thread) override {
    ThreadRuns& runs = runs_[static_cast<size_t>(thread)];
    Check(!runs.running, "two chunks run as the same thread");
    runs.running = true;
    const auto stage = static_cast<size_t>(stage_);
    if (disturb_ == Disturb::kYield && (stage + static_cast<size_t>(chunk)) % 7 == 0) std::this_thread::yield();
    if (disturb_ == Disturb::kSleep && thread > 0 && stage % 16 == 0) std::this_thread::sleep_for(microseconds(200));
    uint64_t sum = static_cast<uint64_t>(chunk) + 1;
    if (stage > 0) {
      for (int32_t i = 0; i < sizes_[stage - 1]; i++) sum += 31 * values_[(stage - 1) % 2][static_cast<size_t>(i)];
    }
    values_[stage % 2][static_cast<size_t>(chunk)] = sum;
    runs.num_chunks++;
    runs.running = false;
  }

  // What one thread computes.
  uint64_t Expected() const {
    uint64_t all = 0;
    for (size_t stage = 0; stage < sizes_.size(); stage++) {
      uint64_t next = 0;
      for (int32_t chunk = 0; chunk < sizes_[stage]; chunk++) next += static_cast<uint64_t>(chunk) + 1 + 31 * all;
      all = next;
    }
    return all;
  }

  uint64_t Result() const {
    uint64_t all = 0;
    const size_t last = sizes_.size() - 1;
    for (int32_t i = 0; i < sizes_[last]; i++) all += values_[last % 2][static_cast<size_t>(i)];
    return all;
  }

  int64_t NumChunks() const {
    int64_t count = 0;
    for (const ThreadRuns& runs : runs_) count += runs.num_chunks;
    return count;
  }

  int64_t ExpectedChunks() const {
    int64_t count = 0;
    for (const int32_t size : sizes_) count += size;
    return count;
  }

 private:
  struct alignas(64) ThreadRuns {
    int64_t num_chunks = 0;
    bool running = false;
  };

  const int32_t most_chunks_;
  const Disturb disturb_;
  int32_t stage_ = -1;
  std::vector<int32_t> sizes_;
  std::array<std::vector<uint64_t>, 2> values_;
  std::vector<ThreadRuns> runs_;
  std::mt19937 random_;
};

void CheckSums(int32_t num_threads, bool oversubscribed, int32_t num_runs, int32_t num_stages, int32_t most_chunks,
               Sums::Disturb disturb) {
  std::atomic<bool> cancelled = false;
  Team team(num_threads, oversubscribed, cancelled);
  for (int32_t run = 0; run < num_runs; run++) {
    Sums sums(static_cast<uint32_t>(run), num_stages, most_chunks, num_threads, disturb);
    // All of them, one alone, or as many as seem good.
    const int32_t count = run % 5 == 0 ? 1 : run % 5 == 1 ? team.NumThreads() : num_threads;
    Check(team.Run(&sums, count), "a run that nobody cancelled did not complete");
    Check(sums.NumChunks() == sums.ExpectedChunks(), "a chunk was lost or run twice");
    Check(sums.Result() == sums.Expected(), "sums differ from one thread's");
  }
  std::printf("sums %d threads%s, %d runs of %d stages: ok\n", num_threads, oversubscribed ? " oversubscribed" : "",
              num_runs, num_stages);
}

// A helper that holds a chunk sleeps until the leader has done all others: the stage must not end before, and the
// leader must get through all the others meanwhile.
class Held final : public Work {
 public:
  int32_t NextStage() override { return stage_++ == 0 ? kChunks : 0; }

  void RunChunk(int32_t, int32_t thread) override {
    if (thread == 0) {
      if (!held_.load()) std::this_thread::sleep_for(milliseconds(1));  // so that the helper gets one
      by_leader_.fetch_add(1);
    } else {
      held_.store(true);
      for (int32_t i = 0; i < 2000 && by_leader_.load() < kChunks - 1; i++)
        std::this_thread::sleep_for(milliseconds(1));
      by_helper_.fetch_add(1);
    }
  }

  static constexpr int32_t kChunks = 1000;
  int32_t stage_ = 0;
  std::atomic<bool> held_ = false;
  std::atomic<int32_t> by_leader_ = 0;
  std::atomic<int32_t> by_helper_ = 0;
};

void CheckHeld() {
  std::atomic<bool> cancelled = false;
  Team team(2, false, cancelled);
  Held held;
  Check(team.Run(&held, 2), "a run with a sleeping helper did not complete");
  Check(held.by_helper_ == 1 && held.by_leader_ == Held::kChunks - 1, "the leader waited for a sleeping helper");
  std::printf("a helper asleep in its chunk holds up no other: ok\n");
}

// Never ends by itself.
class Endless final : public Work {
 public:
  int32_t NextStage() override { return 3; }
  void RunChunk(int32_t, int32_t) override { num_chunks_.fetch_add(1, std::memory_order_relaxed); }
  std::atomic<int64_t> num_chunks_ = 0;
};

void CheckCancel() {
  for (int32_t round = 0; round < 20; round++) {
    std::atomic<bool> cancelled = false;
    Endless endless;
    Team team(3, false, cancelled);
    std::thread canceller([&] {
      while (endless.num_chunks_.load(std::memory_order_relaxed) < 1000) std::this_thread::yield();
      cancelled = true;
    });
    Check(!team.Run(&endless, 3), "a cancelled run completed");
    canceller.join();
  }
  std::printf("a cancelled run ends: ok\n");
}

// Times as they would be measured; all in milliseconds from an arbitrary start.
Interference::Time At(double ms) {
  return Interference::Time{} + std::chrono::hours(1) + microseconds(int64_t(ms * 1000));
}

// A run of 4 ms that begins at `now` and loses `lost` ms of it to one wait.
int32_t RunLosing(Interference* interference, double now, double lost) {
  const int32_t before = interference->Begin(At(now));
  const int32_t after = lost == 0 ? before : interference->Waited(At(now), 10, At(now + 4 - lost), At(now + 4));
  interference->End(At(now + 4));
  return after;
}

void CheckInterference() {
  Interference quiet(4);
  for (double now = 0; now < 1000; now += 4) {
    Check(quiet.Begin(At(now)) == 4, "threads were given up on a quiet machine");
    // Chunks of 1 ms, a wait of one; and of three, for a core of a third of the speed.
    Check(quiet.Waited(At(now), 1, At(now + 1), At(now + 2)) == 4, "a wait for an equal chunk counts as lost");
    Check(quiet.Waited(At(now), 1, At(now + 1), At(now + 4)) == 4, "a slow core counts as interference");
    quiet.End(At(now + 4));
  }

  // One slice of 3 ms in 40 is less than the second thread is worth, one in 4 is more; a fourth thread is worth less.
  Interference seldom(2), often(2), four(4);
  int32_t least[3] = {2, 2, 4};
  for (double now = 0; now < 40; now += 4) {
    least[0] = std::min(least[0], RunLosing(&seldom, now, now == 20 ? 3 : 0));
    least[1] = std::min(least[1], RunLosing(&often, now, 3));
    least[2] = std::min(least[2], RunLosing(&four, now, 1.3));
  }
  Check(least[0] == 2 && least[1] == 1 && least[2] == 3, "threads are given up for too little, or not at all");

  // The pause before two threads are tried again grows, and is short again after a good time.
  Interference busy(2);
  double now = 0;
  const auto pause_after_loss = [&] {
    while (RunLosing(&busy, now, 3) == 2) now += 4;
    const double begin = now;
    for (; RunLosing(&busy, now, 0) == 1; now += 4) Check(now < begin + 2000, "threads are never tried again");
    return now - begin;
  };
  std::vector<double> pauses;
  for (int32_t i = 0; i < 8; i++) pauses.push_back(pause_after_loss());
  Check(pauses.front() >= 50 && pauses.front() <= 60, "the first pause is not 50 ms");
  Check(pauses[1] >= 100 && pauses[1] <= 110, "the second pause is not twice as long");
  Check(pauses.back() >= 1000 && pauses.back() <= 1010, "the longest pause is not 1 s");
  for (int32_t i = 0; i < 100; i++, now += 4) Check(RunLosing(&busy, now, 0) == 2, "a good time is not noticed");
  Check(pause_after_loss() <= 60, "a good time does not shorten the pause");
  std::printf("threads are given up and tried again: ok\n");
}

class Empty final : public Work {
 public:
  Empty(int32_t num_stages, int32_t num_chunks) : left_(num_stages), num_chunks_(num_chunks) {}
  int32_t NextStage() override { return left_-- > 0 ? num_chunks_ : 0; }
  void RunChunk(int32_t, int32_t) override {}

 private:
  int32_t left_;
  const int32_t num_chunks_;
};

void MeasureStages(int32_t num_threads) {
  std::atomic<bool> cancelled = false;
  Team team(num_threads, false, cancelled);
  for (const int32_t num_chunks : {1, 2, 4, 8}) {
    double best = 1e30;
    for (int32_t run = 0; run < 200; run++) {
      constexpr int32_t kStages = 1000;
      Empty empty(kStages, num_chunks);
      const auto begin = std::chrono::steady_clock::now();
      team.Run(&empty, num_threads);
      const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
      best = std::min(best, time.count() / kStages);
    }
    std::printf("%d threads, %d chunks: %.0f ns per stage\n", num_threads, num_chunks, best);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "stages") == 0) {
    MeasureStages(std::atoi(argv[2]));
    return 0;
  }
  for (const int32_t num_threads : {1, 2, 3, 5}) {
    for (const bool oversubscribed : {false, true}) {
      CheckSums(num_threads, oversubscribed, 200, 50, 12, Sums::Disturb::kNo);
      CheckSums(num_threads, oversubscribed, 20, 50, 12, Sums::Disturb::kYield);
      CheckSums(num_threads, oversubscribed, 5, 100, 12, Sums::Disturb::kSleep);
    }
  }
  // Many short runs: no wake-up is lost between them.
  CheckSums(2, false, 100'000, 2, 3, Sums::Disturb::kNo);
  CheckHeld();
  CheckCancel();
  CheckInterference();
  return 0;
}
