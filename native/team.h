// The threads of one session: the one that leads it and its helpers. Work comes as stages of chunks, and whoever is
// there takes the next chunk: a thread that the operating system has put aside delays others only by a chunk it holds.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "native/interference.h"

namespace engine {

// Stages one after another, each some chunks that may run at the same time and in any order.
class Work {
 public:
  // Number of chunks of the next stage, at most kMaxChunks; 0 if there is none. Called by one thread at a time, when
  // all chunks before are done.
  virtual int32_t NextStage() = 0;
  // `thread` is below Team::size(); no two chunks run with the same one at the same time.
  virtual void RunChunk(int32_t chunk, int32_t thread) = 0;

 protected:
  ~Work() = default;
};

inline constexpr int32_t kMaxChunks = 0xffff;

class Team {
 public:
  // Starts num_threads − 1 helpers, or as many as the system allows. Spinning costs a processor, so with more threads
  // than processors (`oversubscribed`) nobody spins: the thread waited for may need that very processor.
  Team(int32_t num_threads, bool oversubscribed, const std::atomic<bool>& cancelled);
  ~Team();

  int32_t size() const { return static_cast<int32_t>(helpers_.size()) + 1; }

  // How many threads are worth using now, beside what else the processors do.
  int32_t NumThreads() { return interference_.Begin(Interference::Clock::now()); }

  // Runs the work on `num_threads` threads at most; the caller is thread 0. False if `cancelled` was set before the
  // last stage began.
  bool Run(Work* work, int32_t num_threads);

 private:
  void Help(int32_t thread);
  // False if all chunks of the open stage are taken.
  bool RunNextChunk(int32_t thread);
  void OpenNextStage(int32_t thread);
  // Returns when the ticket is no longer `old`.
  void Wait(uint32_t old) const;
  void UseThreads(int32_t num_threads);

  const std::atomic<bool>& cancelled_;
  const int32_t spins_;

  // Written while no chunk is taken that is not done.
  Work* work_ = nullptr;
  bool completed_ = false;

  Interference interference_;  // only for the leading thread

  // Of the open stage: number of chunks in the high half, how many are taken in the low half. Whoever raises the low
  // half by compare-and-swap owns that chunk of whatever stage is open then; it does not matter how long ago the value
  // was read. Nothing of a stage is touched before, and the stage does not end before that chunk is done.
  alignas(64) std::atomic<uint32_t> ticket_;
  alignas(64) std::atomic<uint32_t> num_done_{0};
  // Threads in use; helpers beyond sleep here.
  alignas(64) std::atomic<int32_t> num_threads_{1};

  std::vector<std::thread> helpers_;
};

}  // namespace engine
