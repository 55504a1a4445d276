// How many threads are worth using beside other processes. A thread that loses its processor while it holds a chunk
// makes the others wait for a slice of the scheduler, some milliseconds. n threads that lose a part p of their time
// this way do the work of n (1 − p): one fewer is better once p exceeds 1/n. One more is tried again after a pause,
// which grows while trying fails.
#pragma once

#include <chrono>
#include <cstdint>

namespace engine {

class Interference {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;

  explicit Interference(int32_t num_threads) : num_threads_(num_threads), limit_(num_threads) {}

  // A run begins: how many threads it should use.
  int32_t Begin(Time now);

  // The leading thread has done `num_chunks` chunks since `work_begin`, then waited for those of others from
  // `wait_begin` to `wait_end`. Returns how many threads to go on with.
  int32_t Waited(Time work_begin, int32_t num_chunks, Time wait_begin, Time wait_end);

  void End(Time now);

 private:
  void Change(int32_t limit, Time now);

  const int32_t num_threads_;
  int32_t limit_;
  Time changed_{};           // limit_
  Clock::duration pause_{};  // after the last loss, until one thread more is tried
  Time run_begin_{};
  // With this limit, old runs counting less and less: time in runs, and lost in it.
  Clock::duration ran_{};
  Clock::duration lost_{};
};

}  // namespace engine
