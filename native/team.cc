#include "native/team.h"

#include <algorithm>
#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace engine {
namespace {

// 30 – 90 µs, by processor: longer than most waits for the last chunks of a stage, and than JavaScript takes from one
// step to the next. Then the executor sleeps, so that there is a processor for the JavaScript thread.
constexpr int32_t kSpins = 2000;

constexpr uint32_t Ticket(int32_t num_chunks) { return static_cast<uint32_t>(num_chunks) << 16; }
constexpr uint32_t NumChunks(uint32_t ticket) { return ticket >> 16; }
constexpr uint32_t NumTaken(uint32_t ticket) { return ticket & 0xffff; }

// No open stage has these values: at least as many chunks are taken as there are, and not equally many.
constexpr uint32_t kClosed = 1;
constexpr uint32_t kLeave = 2;

// Tells the processor that this is a waiting loop.
inline void Pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ volatile("yield");
#endif
}

// Sequentially consistent, so that the value is seen before notify_all looks for sleepers.
template <class T>
void Publish(std::atomic<T>* word, T value) {
  word->store(value, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  word->notify_all();
}

}  // namespace

Team::Team(int32_t num_threads, bool oversubscribed, const std::atomic<bool>& cancelled)
    : cancelled_(cancelled), spins_(oversubscribed ? 0 : kSpins), interference_(num_threads), ticket_(kClosed) {
  helpers_.reserve(static_cast<size_t>(num_threads) - 1);
  try {
    for (int32_t thread = 1; thread < num_threads; thread++) helpers_.emplace_back(&Team::Help, this, thread);
  } catch (const std::system_error&) {
    // A limit on threads: fewer do the same work.
  }
}

Team::~Team() {
  Publish(&ticket_, kLeave);
  UseThreads(size());
  for (std::thread& helper : helpers_) helper.join();
}

bool Team::Run(Work* work, int32_t num_threads) {
  work_ = work;
  UseThreads(num_threads);
  Interference::Time work_begin = Interference::Clock::now();
  OpenNextStage(0);
  for (int32_t num_chunks = 0;;) {
    while (RunNextChunk(0)) num_chunks++;
    const uint32_t ticket = ticket_.load(std::memory_order_acquire);
    if (ticket == kClosed) return completed_;
    if (NumTaken(ticket) < NumChunks(ticket)) continue;

    const Interference::Time wait_begin = Interference::Clock::now();
    Wait(ticket);
    const Interference::Time wait_end = Interference::Clock::now();
    UseThreads(std::min(num_threads, interference_.Waited(work_begin, num_chunks, wait_begin, wait_end)));
    work_begin = wait_end;
    num_chunks = 0;
  }
}

void Team::Help(int32_t thread) {
  for (;;) {
    const int32_t num_threads = num_threads_.load(std::memory_order_acquire);
    const uint32_t ticket = ticket_.load(std::memory_order_acquire);
    if (thread >= num_threads) {
      num_threads_.wait(num_threads, std::memory_order_acquire);
    } else if (ticket == kLeave) {
      return;
    } else if (!RunNextChunk(thread)) {
      Wait(ticket);
    }
  }
}

bool Team::RunNextChunk(int32_t thread) {
  uint32_t ticket = ticket_.load(std::memory_order_relaxed);
  do {
    if (NumTaken(ticket) >= NumChunks(ticket)) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acquire, std::memory_order_relaxed));
  work_->RunChunk(static_cast<int32_t>(NumTaken(ticket)), thread);
  const uint32_t num_done = num_done_.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (num_done == NumChunks(ticket)) OpenNextStage(thread);
  return true;
}

void Team::OpenNextStage(int32_t thread) {
  for (;;) {
    const bool cancelled = cancelled_.load(std::memory_order_relaxed);
    const int32_t num_chunks = cancelled ? 0 : work_->NextStage();
    if (num_chunks == 1) {
      // Sooner done than handed over.
      work_->RunChunk(0, thread);
      continue;
    }
    num_done_.store(0, std::memory_order_relaxed);
    if (num_chunks > 0) return Publish(&ticket_, Ticket(num_chunks));
    completed_ = !cancelled;
    // If no stage was opened, nobody is waiting for the end.
    if (ticket_.load(std::memory_order_relaxed) != kClosed) Publish(&ticket_, kClosed);
    return;
  }
}

void Team::Wait(uint32_t old) const {
  for (int32_t i = 0; i < spins_; i++) {
    if (ticket_.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  ticket_.wait(old, std::memory_order_acquire);
}

void Team::UseThreads(int32_t num_threads) {
  if (num_threads_.load(std::memory_order_relaxed) != num_threads) Publish(&num_threads_, num_threads);
}

}  // namespace engine
