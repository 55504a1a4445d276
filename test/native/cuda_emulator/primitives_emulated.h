// kernels/cuda/primitives.cuh for the emulator; what everything means is said there.
#pragma once

#include <cmath>
#include <cstring>

#include "emulator.h"
#include "kernels/cpu/half.h"
#include "warpgroup.h"

#define ENGINE_DEVICE inline
#define ENGINE_KERNEL(threads, blocks) void
#define ENGINE_SHARED(name, ...) auto& name = engine::cuda::emulator::StaticShared<__VA_ARGS__>([] {})
#define ENGINE_UNROLL
#define ENGINE_NO_UNROLL

namespace engine::cuda {

using emulator::Place;

inline int ThreadIndex() { return static_cast<int>(emulator::thread_index.x); }
inline int NumThreads() { return static_cast<int>(emulator::block_size.x); }
inline int BlockIndex() { return static_cast<int>(emulator::block_index.x); }
inline int BlockIndexY() { return static_cast<int>(emulator::block_index.y); }
inline int NumBlocks() { return static_cast<int>(emulator::grid_size.x); }
inline int NumBlocksY() { return static_cast<int>(emulator::grid_size.y); }

inline void LetNextLaunchBegin() { emulator::LetNextLaunchBegin(); }
inline void WaitForEarlierLaunches(Place place = Place::current()) { emulator::WaitForEarlierLaunches(place); }

template <class T>
T* SharedMemory() {
  return static_cast<T*>(emulator::DynamicShared());
}

inline void SyncThreads(Place place = Place::current()) { emulator::SyncThreads(place); }
inline void SyncWarp(Place place = Place::current()) {
  emulator::Together([](void* const*) {}, nullptr, place);
}

template <class T>
struct ShuffledValue {
  T value;
  T result;
  int from;
};
template <class T>
T Shuffle(T value, int lane, Place place = Place::current()) {
  ShuffledValue<T> own = {value, value, lane};
  emulator::Together(
      [](void* const* lanes) {
        for (int i = 0; i < emulator::kWarpSize; i++) {
          auto* to = static_cast<ShuffledValue<T>*>(lanes[i]);
          to->result = static_cast<ShuffledValue<T>*>(lanes[to->from % emulator::kWarpSize])->value;
        }
      },
      &own, place);
  return own.result;
}
template <class T>
T ShuffleXor(T value, int mask, Place place = Place::current()) {
  return Shuffle(value, (ThreadIndex() ^ mask) % emulator::kWarpSize, place);
}
uint32_t Ballot(bool predicate, Place place = Place::current());

inline int32_t AtomicAdd(int32_t* address, int32_t value) {
  const int32_t before = *address;
  *address += value;
  return before;
}
inline int32_t AtomicExchange(int32_t* address, int32_t value) {
  const int32_t before = *address;
  *address = value;
  return before;
}

inline uint32_t BitsOf(float value) { return kernels::bits_from_float(value); }
inline float FloatOf(uint32_t bits) { return kernels::float_from_bits(bits); }
inline float Multiply(float a, float b) { return a * b; }
inline float Add(float a, float b) { return a + b; }
inline double Multiply(double a, double b) { return a * b; }
inline double Add(double a, double b) { return a + b; }
inline float Divide(float a, float b) { return a / b; }
inline float SquareRoot(float a) { return std::sqrt(a); }
inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float Maximum(float a, float b) { return std::fmax(a, b); }
inline float RoundEven(float a) { return std::nearbyint(a); }
inline uint32_t MultiplyHigh(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline int PopulationCount(uint32_t word) { return __builtin_popcount(word); }
inline float PowerOfTwo(float x) { return std::exp2(x); }
inline float FastPowerOfTwo(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }

inline uint16_t HalfOf(float value) { return kernels::f16_from_float(value); }
inline uint32_t HalvesOf(float first, float second) {
  return HalfOf(first) | static_cast<uint32_t>(HalfOf(second)) << 16;
}
inline float FloatOfHalf(uint16_t half) { return kernels::float_from_f16(half); }
uint32_t SubtractHalves(uint32_t a, uint32_t b);
uint32_t FmaHalves(uint32_t a, uint32_t b, uint32_t c);
uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector);

struct Words4 {
  uint32_t x, y, z, w;
};
Words4 Load16(const void* address, Place place = Place::current());
void Store16(void* address, Words4 words, Place place = Place::current());

inline void CopyAsync16(void* shared, const void* global, Place place = Place::current()) {
  emulator::CopyAsync(shared, global, 16, place);
}
inline void CommitCopies() { emulator::CommitCopies(); }
template <int kPending>
void WaitCopies() {
  emulator::WaitCopies(kPending);
}

// Tests run kernels both ways.
inline bool emulate_bulk_copies = true;
inline bool HasBulkCopies() { return emulate_bulk_copies; }
inline void BarrierInit(uint64_t* barrier, uint32_t count = 1) { emulator::BarrierInit(barrier, count); }
inline void BarrierArrive(uint64_t* barrier, Place place = Place::current()) {
  emulator::BarrierArrive(barrier, place);
}
inline void BarrierExpect(uint64_t* barrier, uint32_t bytes, Place place = Place::current()) {
  emulator::BarrierExpect(barrier, bytes, place);
}
inline void BarrierWait(uint64_t* barrier, uint32_t parity, Place place = Place::current()) {
  emulator::BarrierWait(barrier, parity, place);
}
inline void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier,
                     Place place = Place::current()) {
  emulator::BulkCopy(shared, global, bytes, barrier, place);
}
// Reads are done when they return.
inline void EndReadsBeforeBulkCopies() {}

inline void BulkCopyShared(void* shared, const void* global, uint32_t bytes, uint64_t* barrier,
                           Place place = Place::current()) {
  emulator::BulkCopy(shared, global, bytes, barrier, place);
}

void LoadMatrices(uint32_t (&matrices)[4], const void* row, Place place = Place::current());
void LoadTransposedMatrices(uint32_t (&matrices)[4], const void* row, Place place = Place::current());
void MultiplyTiles(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Place place = Place::current());

uint32_t SharedAddress(const void* shared);
constexpr bool HasWarpgroupProducts() { return true; }
template <int kRegisters>
void TakeRegisters() {}
template <int kRegisters>
void GiveRegisters() {}
template <int kSums, int kSteps>
void BeginProducts(float (&)[kSums], uint32_t (&)[kSteps][4], Place place = Place::current()) {
  emulator::BeginProducts(place);
}
template <int kColumns>
void MultiplyWarpgroup(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, Place place = Place::current()) {
  emulator::MultiplyWarpgroup(d, a, kColumns, b, place);
}
inline void CommitProducts(Place place = Place::current()) { emulator::CommitProducts(place); }
template <int kPending, int kSums>
void WaitProducts(float (&)[kSums], Place place = Place::current()) {
  emulator::WaitProducts(kPending, place);
}

}  // namespace engine::cuda
