// How many threads are worth using beside other processes. A thread that loses its processor while it holds a chunk
// makes the others wait for a slice of the scheduler, some milliseconds; one thread fewer leaves that processor to
// whoever wants it. So a run that loses much of its time this way goes on with one thread fewer, and more are tried
// again after a pause that grows while trying fails.
#pragma once

#include <chrono>
#include <cstdint>

namespace engine {

class Interference {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;

  explicit Interference(int32_t num_threads) : num_threads_(num_threads), limit_(num_threads) {}

  // Threads to use in a run that begins now.
  int32_t Begin(Time now);

  // The leading thread has done `num_chunks` chunks of a stage since `work_begin`, then waited for those of others from
  // `wait_begin` to `wait_end`. Returns how many threads to go on with.
  int32_t Waited(Time work_begin, int32_t num_chunks, Time wait_begin, Time wait_end);

 private:
  const int32_t num_threads_;
  int32_t limit_;
  Clock::duration pause_{};  // after the last loss, until one thread more is tried
  Time raised_{};            // when limit_ was last raised
  Time next_raise_{};        // while limit_ < num_threads_
  Time run_begin_{};
  Clock::duration lost_{};  // by this run
};

}  // namespace engine
