#include "native/team.h"

#include <algorithm>
#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace engine {
namespace {

// 30 – 90 µs, by processor: longer than JavaScript takes from one step to the next. Then helpers sleep, so that there
// is a processor for the JavaScript thread.
constexpr int32_t kSpins = 2000;
// So many times as long for the chunks of others: a sleeper takes 50 µs and more to wake up, and begins the next stage
// so much later.
constexpr int32_t kStageSpins = 4;

// Values of the board.
constexpr uint32_t kTaken = 1 << 16;  // subtracted by who takes a chunk
constexpr uint32_t kDone = 1;         // and when it is done
constexpr uint32_t NumUntaken(uint32_t board) { return board >> 16; }
constexpr uint32_t kClosed = 0;
constexpr uint32_t kLeave = 0xffff;
static_assert(kMaxChunks < kLeave);

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
    : cancelled_(cancelled), spins_(oversubscribed ? 0 : kSpins), interference_(num_threads), board_(kClosed) {
  helpers_.reserve(static_cast<size_t>(num_threads) - 1);
  try {
    for (int32_t thread = 1; thread < num_threads; thread++) helpers_.emplace_back(&Team::Help, this, thread);
  } catch (const std::system_error&) {
    // A limit on threads: fewer do the same work.
  }
}

Team::~Team() {
  Publish(&board_, kLeave);
  UseThreads(size());
  for (std::thread& helper : helpers_) helper.join();
}

bool Team::Run(Work* work, int32_t num_threads) {
  work_ = work;
  UseThreads(num_threads);
  Interference::Time work_begin = Interference::Clock::now();
  OpenNextStage(0);
  for (int32_t num_chunks = 0;;) {
    num_chunks += RunChunks(0);
    const uint32_t board = board_.load(std::memory_order_acquire);
    if (board == kClosed) break;
    if (NumUntaken(board) > 0) continue;

    const Interference::Time wait_begin = Interference::Clock::now();
    Wait(board);
    const Interference::Time wait_end = Interference::Clock::now();
    UseThreads(std::min(num_threads, interference_.Waited(work_begin, num_chunks, wait_begin, wait_end)));
    work_begin = wait_end;
    num_chunks = 0;
  }
  if (num_threads > 1) interference_.End(Interference::Clock::now());
  return completed_;
}

void Team::Help(int32_t thread) {
  for (;;) {
    const int32_t num_threads = num_threads_.load(std::memory_order_acquire);
    const uint32_t board = board_.load(std::memory_order_acquire);
    if (thread >= num_threads) {
      num_threads_.wait(num_threads, std::memory_order_acquire);
    } else if (board == kLeave) {
      return;
    } else if (NumUntaken(board) > 0) {
      RunChunks(thread);
    } else {
      Wait(board);
    }
  }
}

int32_t Team::RunChunks(int32_t thread) {
  uint32_t board = board_.load(std::memory_order_relaxed);
  do {
    if (NumUntaken(board) == 0) return 0;
  } while (!board_.compare_exchange_weak(board, board - kTaken, std::memory_order_acquire, std::memory_order_relaxed));
  for (int32_t count = 1;; count++) {
    work_->RunChunk(num_chunks_ - static_cast<int32_t>(NumUntaken(board)), thread);
    // One exchange for the chunk that is done and the next: the board's cache line travels between cores each time.
    board = board_.load(std::memory_order_acquire);
    uint32_t next;
    do {
      if (board == kDone) {
        OpenNextStage(thread);
        return count;
      }
      next = board - kDone - (NumUntaken(board) > 0 ? kTaken : 0);
    } while (!board_.compare_exchange_weak(board, next, std::memory_order_acq_rel, std::memory_order_acquire));
    if (NumUntaken(board) == 0) return count;
  }
}

void Team::OpenNextStage(int32_t thread) {
  for (;;) {
    const bool cancelled = cancelled_.load(std::memory_order_relaxed);
    num_chunks_ = cancelled ? 0 : work_->NextStage();
    if (num_chunks_ == 1) {
      // Sooner done than handed over.
      work_->RunChunk(0, thread);
      continue;
    }
    if (num_chunks_ > 0) return Publish(&board_, static_cast<uint32_t>(num_chunks_) * (kTaken + kDone));
    completed_ = !cancelled;
    // If no stage was opened, nobody is waiting for the end.
    if (board_.load(std::memory_order_relaxed) != kClosed) Publish(&board_, kClosed);
    return;
  }
}

void Team::Wait(uint32_t old) const {
  const int32_t spins = old == kClosed ? spins_ : kStageSpins * spins_;
  for (int32_t i = 0; i < spins; i++) {
    if (board_.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  board_.wait(old, std::memory_order_acquire);
}

void Team::UseThreads(int32_t num_threads) {
  if (num_threads_.load(std::memory_order_relaxed) != num_threads) Publish(&num_threads_, num_threads);
}

}  // namespace engine
