#include "native/team.h"

#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace engine {
namespace {

// 30 – 90 µs, by processor: longer than most waits at a barrier, and than JavaScript takes from one step to the next.
// Then the executor sleeps, so that there is a processor for the JavaScript thread.
constexpr int32_t kSpins = 2000;

// Tells the processor that this is a waiting loop.
inline void Pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ volatile("yield");
#endif
}

}  // namespace

void Signal::Advance() {
  // Sequentially consistent, so that it is seen before notify_all looks for sleepers.
  value_.fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  value_.notify_all();
}

void Signal::WaitWhile(uint32_t old) const {
  for (int32_t i = 0; i < spins_; i++) {
    if (value() != old) return;
    Pause();
  }
  value_.wait(old, std::memory_order_acquire);
}

bool Barrier::Wait() {
  const uint32_t generation = generation_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    proceed_ = !cancelled_.load(std::memory_order_relaxed);
    generation_.Advance();
  } else {
    generation_.WaitWhile(generation);
  }
  return proceed_;
}

Team::Team(int32_t num_threads, bool oversubscribed, const std::atomic<bool>& cancelled)
    : alone_(1, 0, cancelled), start_(oversubscribed ? 0 : kSpins) {
  helpers_.reserve(static_cast<size_t>(num_threads) - 1);
  try {
    for (int32_t index = 1; index < num_threads; index++) helpers_.emplace_back(&Team::Help, this, index);
  } catch (const std::system_error&) {
    // A limit on threads: fewer do the same work.
  }
  barrier_.emplace(size(), oversubscribed ? 0 : kSpins, cancelled);
}

Team::~Team() {
  task_ = nullptr;
  start_.Advance();
  for (std::thread& helper : helpers_) helper.join();
}

bool Team::RunAlone(Task task, void* context) {
  task(context, {0, 1}, alone_);
  return alone_.Wait();
}

bool Team::Run(Task task, void* context) {
  if (helpers_.empty()) return RunAlone(task, context);
  task_ = task;
  context_ = context;
  start_.Advance();
  task(context, {0, size()}, *barrier_);
  return barrier_->Wait();
}

void Team::Help(int32_t index) {
  // No helper can miss a start: the last barrier of a run needs all of them.
  for (uint32_t run = 0;; run++) {
    start_.WaitWhile(run);
    if (task_ == nullptr) return;
    task_(context_, {index, barrier_->num_threads()}, *barrier_);
    barrier_->Wait();
  }
}

}  // namespace engine
