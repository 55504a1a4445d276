#include "native/interference.h"

#include <algorithm>

namespace engine {
namespace {

using std::chrono::milliseconds;

constexpr Interference::Clock::duration kShortestPause = milliseconds(50);
constexpr Interference::Clock::duration kLongestPause = milliseconds(1000);

// Time in runs that says enough about a number of threads: several slices of a scheduler.
constexpr Interference::Clock::duration kWindow = milliseconds(20);

// A number of threads that is not given up so long has not failed.
constexpr Interference::Clock::duration kTrial = milliseconds(200);

// Shorter waits are not for a slice; far above what a wake-up takes.
constexpr Interference::Clock::duration kSlice = std::chrono::microseconds(500);

// Nor are waits for so few chunks. Equal cores wait for one chunk of another at most; the small cores of a mixed
// processor take two to three times as long for it, and are still worth having.
constexpr int32_t kChunks = 4;

}  // namespace

int32_t Interference::Begin(Time now) {
  run_begin_ = now;
  if (limit_ < num_threads_ && now - changed_ >= pause_) Change(limit_ + 1, now);
  return limit_;
}

int32_t Interference::Waited(Time work_begin, int32_t num_chunks, Time wait_begin, Time wait_end) {
  const Clock::duration waited = wait_end - wait_begin;
  if (waited < kSlice || waited * num_chunks < (wait_begin - work_begin) * kChunks) return limit_;
  lost_ += waited;
  const Clock::duration ran = ran_ + (wait_end - run_begin_);
  if (ran < kWindow || lost_ * limit_ < ran || limit_ == 1) return limit_;
  const bool failed = pause_ > Clock::duration::zero() && wait_end - changed_ < kTrial;
  pause_ = failed ? std::min(2 * pause_, kLongestPause) : kShortestPause;
  Change(limit_ - 1, wait_end);
  return limit_;
}

void Interference::End(Time now) {
  ran_ += now - run_begin_;
  if (ran_ < 2 * kWindow) return;
  ran_ /= 2;
  lost_ /= 2;
}

void Interference::Change(int32_t limit, Time now) {
  limit_ = limit;
  changed_ = now;
  run_begin_ = now;
  ran_ = {};
  lost_ = {};
}

}  // namespace engine
