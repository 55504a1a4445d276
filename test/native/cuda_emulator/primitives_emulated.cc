#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

uint32_t Join(float low, float high) { return HalfOf(low) | static_cast<uint32_t>(HalfOf(high)) << 16; }
float Low(uint32_t halves) { return FloatOfHalf(static_cast<uint16_t>(halves)); }
float High(uint32_t halves) { return FloatOfHalf(static_cast<uint16_t>(halves >> 16)); }

struct TileOperands {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};

// By the layout that the PTX ISA gives, whatever kernels take it for: fragment register i of a lane.
void MultiplyWarp(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < emulator::kWarpSize; lane++) {
    const auto& own = *static_cast<const TileOperands*>(lanes[lane]);
    const int group = lane >> 2;
    const int in_group = lane % 4;
    for (int i = 0; i < 8; i++) {
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const int column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
      a[row][column] = i % 2 == 0 ? Low(own.a[i / 2]) : High(own.a[i / 2]);
    }
    for (int i = 0; i < 4; i++) {
      const int row = in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
      b[row][group] = i % 2 == 0 ? Low(own.b[i / 2]) : High(own.b[i / 2]);
    }
  }
  for (int lane = 0; lane < emulator::kWarpSize; lane++) {
    float* d = static_cast<const TileOperands*>(lanes[lane])->d;
    for (int i = 0; i < 4; i++) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8);
      const int column = lane % 4 * 2 + (i & 1);
      double sum = 0;
      for (int k = 0; k < 16; k++) sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
      d[i] = static_cast<float>(static_cast<double>(d[i]) + sum);
    }
  }
}

void CheckAligned(const void* address, Place place) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) emulator::Fail("a misaligned access of 16 bytes", place);
}

}  // namespace

struct Vote {
  bool predicate;
  uint32_t result;
};
uint32_t Ballot(bool predicate, Place place) {
  Vote own = {predicate, 0};
  emulator::Together(
      [](void* const* lanes) {
        uint32_t votes = 0;
        for (int i = 0; i < emulator::kWarpSize; i++) {
          votes |= static_cast<uint32_t>(static_cast<Vote*>(lanes[i])->predicate) << i;
        }
        for (int i = 0; i < emulator::kWarpSize; i++) static_cast<Vote*>(lanes[i])->result = votes;
      },
      &own, place);
  return own.result;
}

uint32_t SubtractHalves(uint32_t a, uint32_t b) { return Join(Low(a) - Low(b), High(a) - High(b)); }

// A product of halves is exact in float32, but its sum is not: rounded once, from float64.
uint32_t FmaHalves(uint32_t a, uint32_t b, uint32_t c) {
  const auto fma = [](float x, float y, float z) {
    const double sum = static_cast<double>(x) * static_cast<double>(y) + static_cast<double>(z);
    const float rounded = static_cast<float>(sum);
    // Round to odd, so that the second rounding is as if it were the only one.
    if (static_cast<double>(rounded) == sum || (BitsOf(rounded) & 1) != 0 || rounded != rounded) return rounded;
    return std::nextafter(rounded, sum > static_cast<double>(rounded) ? INFINITY : -INFINITY);
  };
  return Join(fma(Low(a), Low(b), Low(c)), fma(High(a), High(b), High(c)));
}

uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t chosen = selector >> 4 * i & 7;
    result |= static_cast<uint32_t>(bytes >> 8 * chosen & 0xff) << 8 * i;
  }
  return result;
}

Words4 Load16(const void* address, Place place) {
  CheckAligned(address, place);
  Words4 words;
  memcpy(&words, address, sizeof words);
  return words;
}

void Store16(void* address, Words4 words, Place place) {
  CheckAligned(address, place);
  memcpy(address, &words, sizeof words);
}

struct MatrixRow {
  const void* row;
  bool transposed;
  uint32_t* matrices;
};

// By the PTX ISA's description of ldmatrix: thread t gets elements 2 (t % 4) and 2 (t % 4) + 1 of row t / 4, and with
// .trans as if each matrix had been transposed.
void LoadWarpMatrices(void* const* lanes) {
  for (int i = 0; i < 4; i++) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; r++) {
      const auto& own = *static_cast<const MatrixRow*>(lanes[8 * i + r]);
      memcpy(matrix[r], own.row, sizeof matrix[r]);
    }
    for (int lane = 0; lane < emulator::kWarpSize; lane++) {
      const auto& own = *static_cast<const MatrixRow*>(lanes[lane]);
      uint32_t halves = 0;
      for (int e = 0; e < 2; e++) {
        const int row = lane >> 2, column = (lane & 3) * 2 + e;
        halves |= static_cast<uint32_t>(own.transposed ? matrix[column][row] : matrix[row][column]) << 16 * e;
      }
      own.matrices[i] = halves;
    }
  }
}

void LoadMatrices(uint32_t (&matrices)[4], const void* row, Place place) {
  CheckAligned(row, place);
  MatrixRow own = {row, false, matrices};
  emulator::Together(&LoadWarpMatrices, &own, place);
}

void LoadTransposedMatrices(uint32_t (&matrices)[4], const void* row, Place place) {
  CheckAligned(row, place);
  MatrixRow own = {row, true, matrices};
  emulator::Together(&LoadWarpMatrices, &own, place);
}

uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(shared) -
                               static_cast<const uint8_t*>(emulator::DynamicShared())) +
         emulator::kSharedBegin;
}

void MultiplyTiles(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Place place) {
  TileOperands own = {d, a, {b0, b1}};
  emulator::Together(&MultiplyWarp, &own, place);
}

}  // namespace engine::cuda
