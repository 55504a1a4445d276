// Runs CUDA kernels on the processor: every thread of a block is a fiber, one block runs at a time. It is there to find
// mistakes, not to be fast:
//   * a warp operation or a barrier that not all of its threads reach at one place in the source is an error;
//   * shared memory begins as NaN and ends at a page that cannot be touched, and so does what Allocate gives;
//   * asynchronous copies and products happen as late as they may, when somebody waits for them, or as early
//     (SetOrder);
//   * registers of an asynchronous product that are touched before it has been waited for hold NaN, or are an error;
//   * the order in which threads and blocks run is a choice (SetOrder): a kernel whose result depends on it has a race;
//   * launches that may overlap do: each begins before those it follows, up to WaitForEarlierLaunches, and goes on when
//     they have ended (Launch).
// An error is printed with its place, block and thread, and ends the process with kErrorStatus.
//
// Kernels see this only through kernels/cuda/primitives.cuh, which maps CUDA's names to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

namespace engine::cuda::emulator {

inline constexpr int kErrorStatus = 70;
inline constexpr int kWarpSize = 32;
inline constexpr int kWarpgroupSize = 128;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// Of the thread that runs.
extern Index thread_index, block_index, block_size, grid_size;

struct LaunchSize {
  Index grid, block;
  size_t shared_bytes;
};

// Runs kernel() in every thread of every block. With `overlaps` (programmatic dependent launch) blocks, as many as
// there is room for, run up to WaitForEarlierLaunches as soon as they are launched, and all the rest happens as late as
// it may: when so many launches have begun that there is no room for the next, or in FinishLaunches. Until then kernels
// read what memory held before. It is an error if a thread writes to allocated memory before it has waited, or ends
// without LetNextLaunchBegin and WaitForEarlierLaunches. Copies that begin before the wait happen at once.
void Launch(const LaunchSize& size, std::function<void()> kernel, bool overlaps = false);

// Runs to their end all launches that have begun. SetOrder, Free and launches that do not overlap do so by themselves;
// whoever reads or writes allocated memory calls it before.
void FinishLaunches();

// Threads and blocks in ascending order (0, the default), in descending order (1), or in one drawn from the seed. Odd
// seeds make asynchronous copies happen at once, even ones when they are waited for; half of the seeds, asynchronous
// products.
void SetOrder(uint64_t seed);

using Place = std::source_location;

void LetNextLaunchBegin();
void WaitForEarlierLaunches(Place place = Place::current());

// Waits for all threads of the block.
void SyncThreads(Place place = Place::current());

// Waits for the 32 threads of the warp, or for those of a group of `size` threads; the last of them calls operation(own
// of each), then all go on.
using WarpOperation = void (*)(void* const* own);
void Together(WarpOperation operation, void* own, Place place, size_t size = kWarpSize);

// The dynamic shared memory of the block, and the static one for what `key` stands for.
void* DynamicShared();
size_t DynamicSharedBytes();
void* StaticShared(const void* key, size_t bytes);
// The tag is a lambda, which is of a type of its own at every place and in every instance of a template.
template <class T, class Tag>
T& StaticShared(Tag) {
  static char key;
  return *static_cast<T*>(StaticShared(&key, sizeof(T)));
}

// Copies of one thread (cp.async): those since the last commit are a group; waits until at most `pending` are
// unfinished.
void CopyAsync(void* shared, const void* global, size_t bytes, Place place = Place::current());
void CommitCopies();
void WaitCopies(int pending);

// A barrier in shared memory (mbarrier): a phase ends when `count` threads have arrived and the bytes that some of them
// expected have been brought by bulk copies.
void BarrierInit(uint64_t* barrier, uint32_t count);
void BarrierArrive(uint64_t* barrier, Place place = Place::current());
void BarrierExpect(uint64_t* barrier, uint32_t bytes, Place place = Place::current());
void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, Place place = Place::current());
void BarrierWait(uint64_t* barrier, uint32_t parity, Place place = Place::current());

// Memory that stands for a device's: bytes at [−kCanary, 0) and up to the next multiple of 16 are checked by Free and
// after every launch, and whoever touches the page behind ends the process. Filled with 0xff, NaN as floats and halves.
// What is `hidden` reads as that, too, before a launch that overlaps has waited for earlier ones.
void* Allocate(size_t bytes, bool hidden = false);
void Free(void* memory);

[[noreturn]] void Fail(const char* what, Place place);

}  // namespace engine::cuda::emulator
