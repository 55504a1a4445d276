// Blocks of threads between launches.cc, which begins them, and emulator.cc, which runs them.
#pragma once

#include <memory>

#include "allocations.h"
#include "emulator.h"

namespace engine::cuda::emulator {

struct BlockStart {
  const LaunchSize* size;
  const std::function<void()>* kernel;
  unsigned index;  // of the block
  uint64_t order;  // of its threads
  bool copies_early;
  bool products_early;
  bool overlaps;
  bool begins_early;  // earlier launches have not ended
};

class Block;
std::shared_ptr<Block> MakeBlock();
// Puts the block that runs aside for another, and the other way round.
void ExchangeBlock(Block* other);
// Of the block that runs: both return when all threads have ended, or none can go on before earlier launches have.
void BeginBlock(const BlockStart& start);
void GoOnAfterEarlierLaunches();
bool SharedMemoryIntact();

uint64_t Draw(uint64_t* state);

extern Allocations allocations;

}  // namespace engine::cuda::emulator
