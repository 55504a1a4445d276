// Which blocks run when: launches one after another, or begun early.
#include <algorithm>
#include <deque>
#include <numeric>
#include <vector>

#include "block.h"

namespace engine::cuda::emulator {
namespace {

uint64_t chosen_order = 0;

// Fibers of all launches that have begun early, and of one. A launch has at least one block among them.
constexpr size_t kMaxEarlyThreads = 2048;
constexpr size_t kMaxEarlyThreadsOfLaunch = 512;

struct BegunLaunch {
  LaunchSize size;
  std::function<void()> kernel;
  bool overlaps;
  uint64_t order;                // what the rest of it draws from
  std::vector<unsigned> blocks;  // that have not begun, the next one last
  std::vector<std::shared_ptr<Block>> early;

  size_t num_threads() const { return size_t{size.block.x} * size.block.y * size.block.z; }
  size_t num_early_blocks() const {
    return std::min(blocks.size(), std::max<size_t>(1, kMaxEarlyThreadsOfLaunch / num_threads()));
  }
};
std::deque<BegunLaunch> begun_launches;           // the earliest first
std::vector<std::shared_ptr<Block>> idle_blocks;  // their stacks and shared memory serve again

BegunLaunch MakeLaunch(const LaunchSize& size, std::function<void()> kernel, bool overlaps) {
  BegunLaunch launch = {size, std::move(kernel), overlaps, chosen_order, {}, {}};
  const unsigned num_blocks = size.grid.x * size.grid.y * size.grid.z;
  if (launch.num_threads() == 0 || launch.num_threads() > 1024 || launch.num_threads() % kWarpSize != 0 ||
      num_blocks == 0) {
    Fail("a launch of no block, or of blocks that are not 1 to 32 whole warps", Place());
  }
  launch.blocks.resize(num_blocks);
  std::iota(launch.blocks.begin(), launch.blocks.end(), 0u);
  for (unsigned i = 0; i < num_blocks && launch.order > 1; i++) {
    std::swap(launch.blocks[i], launch.blocks[Draw(&launch.order) % num_blocks]);
  }
  if (launch.order != 1) std::reverse(launch.blocks.begin(), launch.blocks.end());
  return launch;
}

// The next of a launch's blocks.
void BeginNextBlock(BegunLaunch* launch, bool begins_early) {
  const uint64_t order = chosen_order > 1 ? Draw(&launch->order) : chosen_order;
  const BlockStart start = {.size = &launch->size,
                            .kernel = &launch->kernel,
                            .index = launch->blocks.back(),
                            .order = order,
                            .copies_early = chosen_order % 2 == 1,
                            .products_early = chosen_order / 2 % 2 == 1,
                            .overlaps = launch->overlaps,
                            .begins_early = begins_early};
  launch->blocks.pop_back();
  BeginBlock(start);
}

void BeginEarly(BegunLaunch* launch) {
  allocations.Close();
  for (size_t left = launch->num_early_blocks(); left > 0; left--) {
    if (idle_blocks.empty()) idle_blocks.push_back(MakeBlock());
    launch->early.push_back(std::move(idle_blocks.back()));
    idle_blocks.pop_back();
    Block* const early = launch->early.back().get();
    ExchangeBlock(early);
    BeginNextBlock(launch, true);
    ExchangeBlock(early);
  }
  allocations.Open();
}

void Finish(BegunLaunch* launch) {
  for (std::shared_ptr<Block>& early : launch->early) {
    ExchangeBlock(early.get());
    GoOnAfterEarlierLaunches();
    if (!SharedMemoryIntact()) Fail("a write outside of shared memory", Place());
    ExchangeBlock(early.get());
    idle_blocks.push_back(std::move(early));
  }
  while (!launch->blocks.empty()) BeginNextBlock(launch, false);
  if (!SharedMemoryIntact()) Fail("a write outside of shared memory", Place());
  if (!allocations.Intact()) Fail("a write outside of an allocation", Place());
}

void FinishFirst() {
  Finish(&begun_launches.front());
  begun_launches.pop_front();
}

size_t NumEarlyThreads() {
  size_t num_threads = 0;
  for (const BegunLaunch& launch : begun_launches) num_threads += launch.early.size() * launch.num_threads();
  return num_threads;
}

}  // namespace

void SetOrder(uint64_t seed) {
  FinishLaunches();
  chosen_order = seed;
}

void Launch(const LaunchSize& size, std::function<void()> kernel, bool overlaps) {
  BegunLaunch launch = MakeLaunch(size, std::move(kernel), overlaps);
  if (!overlaps) {
    FinishLaunches();
    return Finish(&launch);
  }
  const size_t num_threads = launch.num_early_blocks() * launch.num_threads();
  while (NumEarlyThreads() + num_threads > kMaxEarlyThreads) FinishFirst();
  BeginEarly(&begun_launches.emplace_back(std::move(launch)));
}

void FinishLaunches() {
  while (!begun_launches.empty()) FinishFirst();
}

}  // namespace engine::cuda::emulator
