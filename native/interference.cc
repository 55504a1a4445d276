#include "native/interference.h"

#include <algorithm>

namespace engine {
namespace {

constexpr Interference::Clock::duration kShortestPause = std::chrono::milliseconds(50);
constexpr Interference::Clock::duration kLongestPause = std::chrono::seconds(1);

// A number of threads that loses nothing for so long is a good one.
constexpr Interference::Clock::duration kTrial = std::chrono::milliseconds(50);

// Far above what a wake-up takes, below a slice of any scheduler.
constexpr Interference::Clock::duration kSlice = std::chrono::microseconds(500);

// Equal cores wait for one chunk of another at most. The smaller cores of a mixed processor take two to three times as
// long, and are still worth having.
constexpr int32_t kChunks = 4;

// Part of a run that may be lost.
constexpr int32_t kTolerated = 4;  // 1 / 4

}  // namespace

int32_t Interference::Begin(Time now) {
  run_begin_ = now;
  lost_ = {};
  if (limit_ < num_threads_ && now >= next_raise_) {
    limit_++;
    raised_ = now;
    next_raise_ = now + kTrial;
  }
  return limit_;
}

int32_t Interference::Waited(Time work_begin, int32_t num_chunks, Time wait_begin, Time wait_end) {
  const Clock::duration waited = wait_end - wait_begin;
  if (waited < kSlice || waited * num_chunks < (wait_begin - work_begin) * kChunks) return limit_;
  lost_ += waited;
  if (lost_ * kTolerated < wait_end - run_begin_ || limit_ == 1) return limit_;
  const bool failed = pause_ > Clock::duration::zero() && wait_end - raised_ < kTrial;
  pause_ = failed ? std::min(2 * pause_, kLongestPause) : kShortestPause;
  limit_--;
  next_raise_ = wait_end + pause_;
  lost_ = {};
  return limit_;
}

}  // namespace engine
