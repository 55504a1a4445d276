#include "emulator.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "block.h"
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
  enum class State { kReady, kAtBarrier, kInWarp, kAtTransfer, kAtLaunches, kEnded };

  Fiber fiber;
  State state = State::kEnded;
  Index index;
  Place place;                           // where it waits
  const uint64_t* barrier = nullptr;     // for which
  void* own = nullptr;                   // its part of the warp's operation
  size_t together = 0;                   // threads of that operation
  std::deque<std::vector<Copy>> groups;  // committed
  std::vector<Copy> copies;              // not yet
  bool let_next_begin = false;
  bool waited = false;  // for earlier launches
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

}  // namespace

// xorshift64* (Vigna 2016)
uint64_t Draw(uint64_t* state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

// The block that runs is `block`; others that have begun are exchanged with it to go on.
class Block {
 public:
  // Prepares all threads to begin.
  void Begin(const BlockStart& start);
  // Runs threads until all have ended, or until nobody can go on before earlier launches have ended.
  void Run();
  // Lets threads go on that wait for earlier launches.
  void EarlierLaunchesEnded();

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
  bool CopiesEarly() const { return start_.copies_early || (start_.overlaps && !threads_[current_].waited); }

  std::vector<Thread> threads_;
  unsigned num_threads_ = 0;
  size_t current_ = 0;
  BlockStart start_ = {};
  bool is_early_ = false;  // earlier launches have not ended
  std::unique_ptr<GuardedMemory> dynamic_;
  std::map<const void*, std::unique_ptr<GuardedMemory>> statics_;
  std::map<uint64_t*, Transfer> transfers_;
  std::array<Warpgroup, 1024 / kWarpgroupSize> warpgroups_;

 private:
  void MakeReady(size_t thread) {
    threads_[thread].state = Thread::State::kReady;
    ready_.push_back(thread);
  }
  size_t TakeReady();
  bool IsHeld() const;
  void ReleaseBarrier();

  std::deque<size_t> ready_;
  uint64_t order_ = 0;
  unsigned num_ended_ = 0;
};

Allocations allocations;

namespace {

Block block;

}  // namespace

void Block::Enter(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  (*block.start_.kernel)();
  if (!thread.copies.empty() || !thread.groups.empty()) Fail("a thread ends with copies under way", Place::current());
  if (block.start_.overlaps && !thread.let_next_begin) Fail("a thread ends without LetNextLaunchBegin", Place());
  if (block.start_.overlaps && !thread.waited) Fail("a thread ends without WaitForEarlierLaunches", Place());
  if (CurrentWarpgroup().under_way()) Fail("a thread ends with products under way", Place::current());
  thread.state = Thread::State::kEnded;
  thread.fiber.Leave();
}

size_t Block::TakeReady() {
  if (order_ > 1) std::swap(ready_[Draw(&order_) % ready_.size()], ready_.front());
  const size_t taken = order_ == 1 ? ready_.back() : ready_.front();
  if (order_ == 1) {
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

void Block::Begin(const BlockStart& start) {
  const LaunchSize& size = *start.size;
  start_ = start;
  is_early_ = start.begins_early;
  order_ = start.order;
  num_threads_ = size.block.x * size.block.y * size.block.z;
  num_ended_ = 0;
  while (threads_.size() < num_threads_) threads_.emplace_back();
  if (!dynamic_ || dynamic_->bytes() != size.shared_bytes)
    dynamic_ = std::make_unique<GuardedMemory>(size.shared_bytes);
  dynamic_->Poison();
  for (auto& [key, memory] : statics_) memory->Poison();
  transfers_.clear();
  warpgroups_.fill({});
  for (unsigned t = 0; t < num_threads_; t++) {
    Thread& thread = threads_[t];
    thread.index = {t % size.block.x, t / size.block.x % size.block.y, t / size.block.x / size.block.y};
    thread.let_next_begin = thread.waited = false;
    thread.fiber.Begin(&Enter, &thread);
    MakeReady(t);
  }
}

void Block::Run() {
  const Index& grid = start_.size->grid;
  grid_size = grid;
  block_size = start_.size->block;
  block_index = {start_.index % grid.x, start_.index / grid.x % grid.y, start_.index / grid.x / grid.y};
  while (num_ended_ < num_threads_) {
    if (ready_.empty()) {
      if (IsHeld()) return;
      ReleaseBarrier();
    }
    current_ = TakeReady();
    thread_index = threads_[current_].index;
    threads_[current_].fiber.Resume();
    num_ended_ += threads_[current_].state == Thread::State::kEnded;
  }
}

bool Block::IsHeld() const {
  const auto first = threads_.begin();
  return std::any_of(first, first + num_threads_,
                     [](const Thread& thread) { return thread.state == Thread::State::kAtLaunches; });
}

void Block::EarlierLaunchesEnded() {
  is_early_ = false;
  for (size_t t = 0; t < num_threads_; t++) {
    if (threads_[t].state == Thread::State::kAtLaunches) MakeReady(t);
  }
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

namespace {

// Prints what the thread that touched a guard page was.
void OnSegmentationFault(int, siginfo_t* info, void*) {
  const bool is_early = allocations.closed() && allocations.Contain(info->si_addr);
  Fail(is_early ? "a write before earlier launches were waited for" : "memory out of bounds", Place());
}

// Sanitizers give every thread a stack for signals, and take it back when the thread ends: theirs stays.
void CatchFaults() {
  static std::vector<char> stack(64 << 10);
  stack_t alternative = {};
  sigaltstack(nullptr, &alternative);
  if ((alternative.ss_flags & SS_DISABLE) != 0) {
    alternative = {};
    alternative.ss_sp = stack.data();
    alternative.ss_size = stack.size();
    sigaltstack(&alternative, nullptr);
  }
  struct sigaction action = {};
  action.sa_sigaction = &OnSegmentationFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

void Fail(const char* what, Place place) {
  fprintf(stderr, "emulator: %s\n  at %s:%u, block (%u, %u, %u), thread (%u, %u, %u)\n", what,
          place.line() == 0 ? "?" : place.file_name(), static_cast<unsigned>(place.line()), block_index.x,
          block_index.y, block_index.z, thread_index.x, thread_index.y, thread_index.z);
  fflush(stderr);
  _exit(kErrorStatus);
}

std::shared_ptr<Block> MakeBlock() { return std::make_shared<Block>(); }

void ExchangeBlock(Block* other) { std::swap(block, *other); }

void BeginBlock(const BlockStart& start) {
  static const bool caught = (CatchFaults(), true);
  static_cast<void>(caught);
  block.Begin(start);
  block.Run();
}

void GoOnAfterEarlierLaunches() {
  block.EarlierLaunchesEnded();
  block.Run();
}

bool SharedMemoryIntact() {
  return (!block.dynamic_ || block.dynamic_->Intact()) &&
         std::all_of(block.statics_.begin(), block.statics_.end(),
                     [](const auto& entry) { return entry.second->Intact(); });
}

void LetNextLaunchBegin() { block.threads_[block.current_].let_next_begin = true; }

void WaitForEarlierLaunches(Place place) {
  if (block.is_early_) block.Wait(Thread::State::kAtLaunches, place);
  block.threads_[block.current_].waited = true;
}

void SyncThreads(Place place) { block.SyncThreads(place); }

void Together(WarpOperation operation, void* own, Place place, size_t size) {
  block.Together(operation, own, place, size);
}

void* DynamicShared() { return block.dynamic_->data(); }
size_t DynamicSharedBytes() { return block.dynamic_->bytes(); }

Warpgroup& CurrentWarpgroup() { return block.warpgroups_[block.current_ / kWarpgroupSize]; }
bool ProductsEarly() { return block.start_.products_early; }

void* StaticShared(const void* key, size_t bytes) {
  std::unique_ptr<GuardedMemory>& memory = block.statics_[key];
  if (!memory) memory = std::make_unique<GuardedMemory>(bytes);
  return memory->data();
}

void CopyAsync(void* shared, const void* global, size_t bytes, Place place) {
  const auto address = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (address % bytes != 0) Fail("a copy of misaligned memory", place);
  if (block.CopiesEarly()) {
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
  if (block.CopiesEarly()) {
    memcpy(shared, global, bytes);
  } else {
    transfer.copies.push_back({shared, global, bytes});
  }
  block.WakeWaiting(barrier, transfer);
}

void BarrierWait(uint64_t* barrier, uint32_t parity, Place place) { block.BarrierWait(barrier, parity, place); }

void* Allocate(size_t bytes, bool hidden) { return allocations.Add(bytes, hidden); }

void Free(void* memory) {
  FinishLaunches();
  if (!allocations.Remove(memory)) Fail("memory that was not allocated, or was written outside of it", Place());
}

}  // namespace engine::cuda::emulator
