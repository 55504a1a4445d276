#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "device.h"
#include "kernels/cuda/primitives.cuh"

namespace engine::cuda::test {
namespace {

// An imaginary device, small enough for kernels to need several turns.
constexpr DeviceLimits kLimits = {.compute_capability = 90,
                                  .num_multiprocessors = 2,
                                  .shared_block_bytes = 99 << 10,
                                  .shared_multiprocessor_bytes = 100 << 10,
                                  .warpgroups = true};

constexpr struct {
  uint64_t order;
  bool bulk_copies;
  bool overlaps;
} kWays[] = {{0, true, false}, {1, false, false}, {12345, true, true}, {98, false, false}};

Stream stream = {};

}  // namespace

void OpenDevice() {}
Stream TestStream() { return stream; }
const DeviceLimits& Limits() { return kLimits; }

void* AllocateDevice(size_t bytes, Content content) { return emulator::Allocate(bytes, content != Content::kWeights); }
void FreeDevice(void* memory) { emulator::Free(memory); }
void CopyToDevice(void* to, const void* from, size_t bytes) {
  emulator::FinishLaunches();
  if (bytes > 0) memcpy(to, from, bytes);
}
void CopyFromDevice(void* to, const void* from, size_t bytes) {
  emulator::FinishLaunches();
  if (bytes > 0) memcpy(to, from, bytes);
}

void Expect(int error) {
  if (error == 0) return;
  printf("error %d\n", error);
  exit(1);
}

Ways::Ways() = default;
Ways::~Ways() {
  emulator::SetOrder(0);
  emulate_bulk_copies = true;
  stream.overlaps = false;
}
bool Ways::Next() {
  if (way_ == std::size(kWays)) return false;
  emulator::SetOrder(kWays[way_].order);
  emulate_bulk_copies = kWays[way_].bulk_copies;
  stream.overlaps = kWays[way_].overlaps;
  way_++;
  return true;
}

}  // namespace engine::cuda::test
