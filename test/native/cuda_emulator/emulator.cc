#include "emulator.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "fiber.h"
#include "guarded_memory.h"
#include "warpgroup.h"

namespace engine::cuda::emulator {

Index thread_index, block_index, block_size, grid_size;

namespace {

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  enum class State { kReady, kAtBarrier, kInWarp, kAtTransfer, kEnded };

  Fiber fiber;
  State state = State::kEnded;
  Index index;
  Place place;                           // where it waits
  const uint64_t* barrier = nullptr;     // for which
  void* own = nullptr;                   // its part of the warp's operation
  size_t together = 0;                   // threads of that operation
  std::deque<std::vector<Copy>> groups;  // committed
  std::vector<Copy> copies;              // not yet
};

// A barrier that threads and bulk copies complete.
struct Transfer {
  uint32_t count = 1;
  uint32_t phase = 0;    // parity of the one that has not ended
  uint32_t arrived = 0;  // threads
  int64_t missing = 0;   // bytes
  std::vector<Copy> copies = {};

  bool complete() const { return arrived == count && missing == 0; }
  // Copies happen as late as they may: when somebody has waited, or the next phase has begun.
  void EndPhase() {
    for (const Copy& copy : copies) memcpy(copy.to, copy.from, copy.bytes);
    *this = {.count = count, .phase = phase ^ 1};
  }
};

// xorshift64* (Vigna 2016)
uint64_t Draw(uint64_t* state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

class Block {
 public:
  void Run(unsigned num_threads, uint64_t order);

  void SyncThreads(Place place) { Wait(Thread::State::kAtBarrier, place); }
  void Together(WarpOperation operation, void* own, Place place, size_t size);
  void BarrierWait(uint64_t* barrier, uint32_t parity, Place place);
  void BarrierArrive(uint64_t* barrier, uint32_t bytes, Place place);
  // Those who wait for a barrier, if what it lacked has come.
  void WakeWaiting(const uint64_t* barrier, const Transfer& transfer);
  Transfer& TransferAt(uint64_t* barrier, Place place) {
    const auto found = transfers_.find(barrier);
    if (found == transfers_.end()) Fail("a barrier that was not initialised", place);
    return found->second;
  }
  void Wait(Thread::State state, Place place) {
    Thread& thread = threads_[current_];
    thread.state = state;
    thread.place = place;
    thread.fiber.Leave();
  }
  static void Enter(void* argument);

  std::vector<Thread> threads_;
  unsigned num_threads_ = 0;
  size_t current_ = 0;
  const std::function<void()>* kernel_ = nullptr;
  std::unique_ptr<GuardedMemory> dynamic_;
  std::map<const void*, std::unique_ptr<GuardedMemory>> statics_;
  std::map<uint64_t*, Transfer> transfers_;
  std::array<Warpgroup, 1024 / kWarpgroupSize> warpgroups_;
  bool running_ = false;

 private:
  void MakeReady(size_t thread) {
    threads_[thread].state = Thread::State::kReady;
    ready_.push_back(thread);
  }
  size_t TakeReady(uint64_t* order);
  void ReleaseBarrier();

  std::deque<size_t> ready_;
};

Block block;
uint64_t chosen_order = 0;
std::map<void*, std::unique_ptr<GuardedMemory>> allocations;

void Block::Enter(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  (*block.kernel_)();
  if (!thread.copies.empty() || !thread.groups.empty()) Fail("a thread ends with copies under way", Place::current());
  if (CurrentWarpgroup().under_way()) Fail("a thread ends with products under way", Place::current());
  thread.state = Thread::State::kEnded;
  thread.fiber.Leave();
}

size_t Block::TakeReady(uint64_t* order) {
  if (*order > 1) std::swap(ready_[Draw(order) % ready_.size()], ready_.front());
  const size_t taken = *order == 1 ? ready_.back() : ready_.front();
  if (*order == 1) {
    ready_.pop_back();
  } else {
    ready_.pop_front();
  }
  return taken;
}

// When nobody can go on: all threads are at one barrier, or something is wrong.
void Block::ReleaseBarrier() {
  const Thread* first = nullptr;
  for (size_t t = 0; t < num_threads_; t++) {
    if (threads_[t].state != Thread::State::kEnded) first = first ? first : &threads_[t];
  }
  for (size_t t = 0; t < num_threads_; t++) {
    const Thread& thread = threads_[t];
    if (first->state == Thread::State::kInWarp) Fail("a warp operation that some lanes never reach", first->place);
    if (first->state == Thread::State::kAtTransfer) Fail("bytes that never come", first->place);
    if (thread.state == Thread::State::kInWarp) Fail("a warp operation that some lanes never reach", thread.place);
    if (thread.state != Thread::State::kAtBarrier || thread.place.line() != first->place.line() ||
        strcmp(thread.place.file_name(), first->place.file_name()) != 0) {
      Fail("a barrier that some threads never reach", first->place);
    }
  }
  for (size_t t = 0; t < num_threads_; t++) MakeReady(t);
}

void Block::Run(unsigned num_threads, uint64_t order) {
  num_threads_ = num_threads;
  while (threads_.size() < num_threads) threads_.emplace_back();
  for (auto& [key, memory] : statics_) memory->Poison();
  transfers_.clear();
  warpgroups_.fill({});
  for (unsigned t = 0; t < num_threads; t++) {
    threads_[t].index = {t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y};
    threads_[t].fiber.Begin(&Enter, &threads_[t]);
    MakeReady(t);
  }
  unsigned num_ended = 0;
  running_ = true;
  while (num_ended < num_threads) {
    if (ready_.empty()) ReleaseBarrier();
    current_ = TakeReady(&order);
    thread_index = threads_[current_].index;
    threads_[current_].fiber.Resume();
    num_ended += threads_[current_].state == Thread::State::kEnded;
  }
  running_ = false;
}

void Block::Together(WarpOperation operation, void* own, Place place, size_t size) {
  const size_t first = current_ / size * size;
  if (first + size > num_threads_) Fail("an operation of more threads than there are", place);
  Thread& thread = threads_[current_];
  thread.own = own;
  thread.together = size;
  thread.state = Thread::State::kInWarp;
  thread.place = place;
  void* lanes[kWarpgroupSize];
  for (size_t lane = 0; lane < size; lane++) {
    const Thread& other = threads_[first + lane];
    if (other.state == Thread::State::kEnded) Fail("a warp operation after some lanes have ended", place);
    const bool elsewhere = other.together != size && (first + lane) / kWarpSize != current_ / kWarpSize;
    if (other.state != Thread::State::kInWarp || elsewhere) return thread.fiber.Leave();
    if (other.place.line() != place.line() || other.place.column() != place.column() ||
        strcmp(other.place.file_name(), place.file_name()) != 0) {
      Fail("lanes of a warp in different operations", place);
    }
    lanes[lane] = other.own;
  }
  operation(lanes);
  for (size_t lane = 0; lane < size; lane++) {
    if (first + lane != current_) MakeReady(first + lane);
  }
  thread.state = Thread::State::kReady;
}

void Block::BarrierWait(uint64_t* barrier, uint32_t parity, Place place) {
  Transfer& transfer = TransferAt(barrier, place);
  threads_[current_].barrier = barrier;
  while (transfer.phase == parity && !transfer.complete()) Wait(Thread::State::kAtTransfer, place);
  if (transfer.phase == parity) transfer.EndPhase();
}

void Block::BarrierArrive(uint64_t* barrier, uint32_t bytes, Place place) {
  Transfer& transfer = TransferAt(barrier, place);
  if (transfer.complete()) transfer.EndPhase();
  if (transfer.arrived == transfer.count) Fail("more threads at a barrier than it counts", place);
  transfer.arrived++;
  transfer.missing += bytes;
  WakeWaiting(barrier, transfer);
}

void Block::WakeWaiting(const uint64_t* barrier, const Transfer& transfer) {
  if (!transfer.complete()) return;
  for (size_t t = 0; t < num_threads_; t++) {
    if (threads_[t].state == Thread::State::kAtTransfer && threads_[t].barrier == barrier) MakeReady(t);
  }
}

// Prints what the thread that touched a guard page was.
void OnSegmentationFault(int, siginfo_t*, void*) { Fail("memory out of bounds", Place()); }

void CatchFaults() {
  static std::vector<char> stack(64 << 10);
  stack_t alternative = {};
  alternative.ss_sp = stack.data();
  alternative.ss_size = stack.size();
  sigaltstack(&alternative, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = &OnSegmentationFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

void CheckGuards() {
  bool intact = !block.dynamic_ || block.dynamic_->Intact();
  for (const auto& [key, memory] : block.statics_) intact = intact && memory->Intact();
  if (!intact) Fail("a write outside of shared memory", Place());
  for (const auto& [data, memory] : allocations) {
    if (!memory->Intact()) Fail("a write outside of an allocation", Place());
  }
}

}  // namespace

void Fail(const char* what, Place place) {
  fprintf(stderr, "emulator: %s\n  at %s:%u, block (%u, %u, %u), thread (%u, %u, %u)\n", what,
          place.line() == 0 ? "?" : place.file_name(), static_cast<unsigned>(place.line()), block_index.x,
          block_index.y, block_index.z, thread_index.x, thread_index.y, thread_index.z);
  fflush(stderr);
  _exit(kErrorStatus);
}

void SetOrder(uint64_t seed) { chosen_order = seed; }
bool CopiesAtOnce() { return chosen_order % 2 == 1; }
bool ProductsAtOnce() { return chosen_order / 2 % 2 == 1; }

void Launch(const LaunchSize& size, const std::function<void()>& kernel) {
  static const bool caught = (CatchFaults(), true);
  static_cast<void>(caught);
  grid_size = size.grid;
  block_size = size.block;
  const unsigned num_threads = size.block.x * size.block.y * size.block.z;
  const unsigned num_blocks = size.grid.x * size.grid.y * size.grid.z;
  if (num_threads == 0 || num_threads > 1024 || num_threads % kWarpSize != 0 || num_blocks == 0) {
    Fail("a launch of no block, or of blocks that are not 1 to 32 whole warps", Place());
  }
  block.kernel_ = &kernel;
  block.dynamic_ = std::make_unique<GuardedMemory>(size.shared_bytes);
  std::vector<unsigned> blocks(num_blocks);
  std::iota(blocks.begin(), blocks.end(), 0u);
  uint64_t order = chosen_order;
  for (unsigned i = 0; i < num_blocks && order > 0; i++) {
    const unsigned other = order == 1 ? num_blocks - 1 - i : static_cast<unsigned>(Draw(&order) % num_blocks);
    if (order > 1 || i < other) std::swap(blocks[i], blocks[other]);
  }
  for (const unsigned b : blocks) {
    block_index = {b % size.grid.x, b / size.grid.x % size.grid.y, b / size.grid.x / size.grid.y};
    block.dynamic_->Poison();
    block.Run(num_threads, chosen_order > 1 ? Draw(&order) : chosen_order);
  }
  CheckGuards();
}

void SyncThreads(Place place) { block.SyncThreads(place); }

void Together(WarpOperation operation, void* own, Place place, size_t size) {
  block.Together(operation, own, place, size);
}

void* DynamicShared() { return block.dynamic_->data(); }
size_t DynamicSharedBytes() { return block.dynamic_->bytes(); }

Warpgroup& CurrentWarpgroup() { return block.warpgroups_[block.current_ / kWarpgroupSize]; }

void* StaticShared(const void* key, size_t bytes) {
  std::unique_ptr<GuardedMemory>& memory = block.statics_[key];
  if (!memory) memory = std::make_unique<GuardedMemory>(bytes);
  return memory->data();
}

void CopyAsync(void* shared, const void* global, size_t bytes, Place place) {
  const auto address = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (address % bytes != 0) Fail("a copy of misaligned memory", place);
  if (CopiesAtOnce()) {
    memcpy(shared, global, bytes);
  } else {
    block.threads_[block.current_].copies.push_back({shared, global, bytes});
  }
}

void CommitCopies() {
  Thread& thread = block.threads_[block.current_];
  thread.groups.push_back(std::move(thread.copies));
  thread.copies.clear();
}

void WaitCopies(int pending) {
  Thread& thread = block.threads_[block.current_];
  while (thread.groups.size() > static_cast<size_t>(pending)) {
    for (const Copy& copy : thread.groups.front()) memcpy(copy.to, copy.from, copy.bytes);
    thread.groups.pop_front();
  }
}

void BarrierInit(uint64_t* barrier, uint32_t count) { block.transfers_[barrier] = {.count = count}; }

void BarrierArrive(uint64_t* barrier, Place place) { block.BarrierArrive(barrier, 0, place); }

void BarrierExpect(uint64_t* barrier, uint32_t bytes, Place place) { block.BarrierArrive(barrier, bytes, place); }

void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, Place place) {
  const auto address = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global) | bytes;
  if (address % 16 != 0) Fail("a bulk copy of misaligned memory", place);
  Transfer& transfer = block.TransferAt(barrier, place);
  if (transfer.complete()) transfer.EndPhase();
  transfer.missing -= bytes;
  if (CopiesAtOnce()) {
    memcpy(shared, global, bytes);
  } else {
    transfer.copies.push_back({shared, global, bytes});
  }
  block.WakeWaiting(barrier, transfer);
}

void BarrierWait(uint64_t* barrier, uint32_t parity, Place place) { block.BarrierWait(barrier, parity, place); }

void* Allocate(size_t bytes) {
  auto memory = std::make_unique<GuardedMemory>(bytes);
  void* const data = memory->data();
  allocations[data] = std::move(memory);
  return data;
}

void Free(void* memory) {
  const auto found = allocations.find(memory);
  if (found == allocations.end()) Fail("memory that was not allocated", Place::current());
  if (!found->second->Intact()) Fail("a write outside of an allocation", Place::current());
  allocations.erase(found);
}

}  // namespace engine::cuda::emulator
