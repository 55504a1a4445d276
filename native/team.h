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

inline constexpr int32_t kMaxChunks = 0x7fff;

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
  // Takes chunks of the open stage until there are none; returns how many it took.
  int32_t RunChunks(int32_t thread);
  void OpenNextStage(int32_t thread);
  // Returns when the board is no longer `old`.
  void Wait(uint32_t old) const;
  void UseThreads(int32_t num_threads);

  const std::atomic<bool>& cancelled_;
  const int32_t spins_;

  // Written by who ends a stage, and before a run: nobody holds a chunk then. Read by those who hold one.
  Work* work_ = nullptr;
  int32_t num_chunks_ = 0;  // of the open stage
  bool completed_ = false;

  Interference interference_;  // only for the leading thread

  // The open stage: how many of its chunks are not yet taken (high half) and how many are not yet done (low half).
  // Whoever takes one off the high half by compare-and-swap owns a chunk of whatever stage is open then, so it does not
  // matter how long ago the value that it compared with was read, or by whose run. A thread touches nothing else of a
  // stage before it owns a chunk, and no stage ends before that chunk is done. The last one to be done is not taken
  // off: its owner alone goes on, and writes the next stage over it.
  alignas(64) std::atomic<uint32_t> board_;
  // Threads in use; helpers beyond sleep here, and are not woken for a stage.
  alignas(64) std::atomic<int32_t> num_threads_{1};

  std::vector<std::thread> helpers_;
};

}  // namespace engine
