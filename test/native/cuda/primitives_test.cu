// The primitives that kernels are made of: a device, or the emulator, does what kernels take them to do.
#include <cmath>

#include "check.h"
#include "device.h"
#include "kernels/cpu/half.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_reader.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace engine::cuda::test {
namespace {

// d[16][8] = a[16][16] · b[16][8]
ENGINE_KERNEL(32, 1) MultiplyKernel(float* d, const uint16_t* a, const uint16_t* b) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const int g = ThreadIndex() / 4;
  const int c = ThreadIndex() % 4;
  const auto pair = [](uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; };
  const auto row = [&](int r, int k) { return pair(a[16 * r + k], a[16 * r + k + 1]); };
  const auto column = [&](int k) { return pair(b[8 * k + g], b[8 * (k + 1) + g]); };
  const uint32_t operands[4] = {row(g, 2 * c), row(g + 8, 2 * c), row(g, 2 * c + 8), row(g + 8, 2 * c + 8)};
  float sums[4] = {};
  MultiplyTiles(sums, operands, column(2 * c), column(2 * c + 8));
  for (int i = 0; i < 4; i++) d[8 * (g + i / 2 * 8) + 2 * c + i % 2] = sums[i];
}

void CheckMultiply() {
  Random random(Seed());
  std::vector<uint16_t> a(256), b(128);
  for (uint16_t& half : a) half = kernels::f16_from_float(random.value());
  for (uint16_t& half : b) half = kernels::f16_from_float(random.value());
  std::vector<double> expected, tolerance;
  for (size_t r = 0; r < 16; r++) {
    for (size_t n = 0; n < 8; n++) {
      double sum = 0;
      for (size_t k = 0; k < 16; k++) {
        sum += static_cast<double>(kernels::float_from_f16(a[16 * r + k])) *
               static_cast<double>(kernels::float_from_f16(b[8 * k + n]));
      }
      expected.push_back(sum);
      tolerance.push_back(1e-5);
    }
  }
  const DeviceArray<uint16_t> device_a(a), device_b(b);
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> d(128);
    Expect(Launch(TestStream(), {1, 1, 32, 0}, &MultiplyKernel, d.data(), device_a.data(), device_b.data()));
    ExpectNear(d.Read(), expected, tolerance, "product");
  }
}

// Four matrices of 8 by 8 halves, as they are and transposed: out[matrix][lane] of 2 · 4.
ENGINE_KERNEL(32, 1) MatricesKernel(uint32_t* out, const uint16_t* in) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  uint16_t* const rows = SharedMemory<uint16_t>();
  for (int i = ThreadIndex(); i < 256; i += 32) rows[i] = in[i];
  SyncWarp();
  uint32_t matrices[4], transposed[4];
  LoadMatrices(matrices, rows + 8 * ThreadIndex());
  LoadTransposedMatrices(transposed, rows + 8 * ThreadIndex());
  for (int i = 0; i < 4; i++) {
    out[32 * i + ThreadIndex()] = matrices[i];
    out[32 * (i + 4) + ThreadIndex()] = transposed[i];
  }
}

void CheckMatrices() {
  std::vector<uint16_t> halves(256);
  for (size_t i = 0; i < 256; i++) halves[i] = static_cast<uint16_t>(i * 257);
  std::vector<uint32_t> expected;
  for (const bool transposed : {false, true}) {
    for (size_t i = 0; i < 4; i++) {
      for (size_t lane = 0; lane < 32; lane++) {
        const auto element = [&](size_t r, size_t c) -> uint32_t {
          return halves[64 * i + (transposed ? 8 * c + r : 8 * r + c)];
        };
        expected.push_back(element(lane / 4, lane % 4 * 2) | element(lane / 4, lane % 4 * 2 + 1) << 16);
      }
    }
  }
  const DeviceArray<uint16_t> in(halves);
  for (Ways ways; ways.Next();) {
    const DeviceArray<uint32_t> out(256);
    Expect(Launch(TestStream(), {1, 1, 32, 512}, &MatricesKernel, out.data(), in.data()));
    ExpectSame(out.Read(), expected, "matrices");
  }
}

ENGINE_KERNEL(32, 1) PowersKernel(float* out) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  if (ThreadIndex() > 0) return;
  for (int i = 0; i < 32; i++) out[i] = FastPowerOfTwo(static_cast<float>(i) * 0.75f - 12.0f);
  out[32] = FastPowerOfTwo(0.0f);
  out[33] = FastPowerOfTwo(-FloatOf(0x7f800000));
  out[34] = FastPowerOfTwo(-127.0f);
  out[35] = Maximum(2.0f, FloatOf(0x7fc00000));
  out[36] = Maximum(FloatOf(0x7fc00000), -3.0f);
}

void CheckPowers() {
  std::vector<double> expected, tolerance;
  for (int i = 0; i < 32; i++) {
    expected.push_back(std::exp2(i * 0.75 - 12));
    tolerance.push_back(expected.back() * 0x1p-21);
  }
  for (const double exact : {1.0, 0.0, 0.0, 2.0, -3.0}) {
    expected.push_back(exact);
    tolerance.push_back(0);
  }
  const DeviceArray<float> out(expected.size());
  Expect(Launch(TestStream(), {1, 1, 32, 0}, &PowersKernel, out.data()));
  ExpectNear(out.Read(), expected, tolerance, "powers and maxima");
}

// Of 96 threads: their shuffles, votes and sums.
ENGINE_KERNEL(96, 1) CommunicateKernel(int32_t* out) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const int thread = ThreadIndex();
  out[thread] = Shuffle(thread, (thread + 5) % 32);
  out[96 + thread] = ShuffleXor(thread, 7);
  out[192 + thread] = static_cast<int32_t>(Ballot(thread % 3 == 0));
  out[288 + thread] = static_cast<int32_t>(BlockSum(static_cast<float>(thread)));
  out[384 + thread] = static_cast<int32_t>(BlockMax(static_cast<uint32_t>(thread * 37 % 96)));
  AtomicAdd(out + 480, 1);
}

void CheckCommunicate() {
  std::vector<int32_t> expected(481);
  for (int32_t t = 0; t < 96; t++) {
    const auto at = static_cast<size_t>(t);
    uint32_t votes = 0;
    for (int32_t lane = 0; lane < 32; lane++) votes |= static_cast<uint32_t>((t / 32 * 32 + lane) % 3 == 0) << lane;
    expected[at] = t / 32 * 32 + (t + 5) % 32;
    expected[96 + at] = t ^ 7;
    expected[192 + at] = static_cast<int32_t>(votes);
    expected[288 + at] = 95 * 48;
    expected[384 + at] = 95;
  }
  expected[480] = 96;
  for (Ways ways; ways.Next();) {
    const DeviceArray<int32_t> out(std::vector<int32_t>(481, 0));
    Expect(Launch(TestStream(), {1, 1, 96, 0}, &CommunicateKernel, out.data()));
    ExpectSame(out.Read(), expected, "communication");
  }
}

// All codes of 4 and 8 bits as halves.
ENGINE_KERNEL(32, 1) CodesKernel(uint16_t* out) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const auto put = [&](int at, uint32_t halves) {
    out[at] = static_cast<uint16_t>(halves);
    out[at + 1] = static_cast<uint16_t>(halves >> 16);
  };
  if (ThreadIndex() > 0) return;
  for (uint32_t code = 0; code < 256; code += 4) {
    uint32_t first, second;
    HalvesOfBytes(code | (code + 1) << 8 | (code + 2) << 16 | (code + 3) << 24, first, second);
    put(static_cast<int>(code), first);
    put(static_cast<int>(code) + 2, second);
  }
  for (int biased = 0; biased < 2; biased++) {
    for (uint32_t code = 0; code < 16; code++) {
      uint32_t halves[4];
      // Nibble i is code + i.
      uint32_t word = 0;
      for (uint32_t i = 0; i < 8; i++) word |= ((code + i) & 15) << 4 * i;
      if (biased == 1) {
        HalvesOfNibbles<8>(word, halves);
      } else {
        HalvesOfNibbles<0>(word, halves);
      }
      for (int i = 0; i < 4; i++) put(256 + biased * 128 + static_cast<int>(code) * 8 + 2 * i, halves[i]);
    }
  }
}

void CheckCodes() {
  std::vector<uint16_t> expected;
  for (int32_t code = 0; code < 256; code++)
    expected.push_back(kernels::f16_from_float(static_cast<float>(code - 128)));
  for (const int32_t bias : {0, 8}) {
    for (int32_t code = 0; code < 16; code++) {
      for (int32_t i = 0; i < 4; i++) {
        for (const int32_t nibble : {i, i + 4}) {
          expected.push_back(kernels::f16_from_float(static_cast<float>(((code + nibble) & 15) - bias)));
        }
      }
    }
  }
  const DeviceArray<uint16_t> out(expected.size());
  Expect(Launch(TestStream(), {1, 1, 32, 0}, &CodesKernel, out.data()));
  ExpectSame(out.Read(), expected, "halves of codes");
}

// 512 bytes, by each kind of copy.
ENGINE_KERNEL(32, 1) CopyKernel(uint8_t* out, const uint8_t* in) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  uint8_t* const buffer = SharedMemory<uint8_t>();
  ENGINE_SHARED(barrier, uint64_t);
  if (HasBulkCopies()) {
    if (ThreadIndex() == 0) BarrierInit(&barrier);
    SyncWarp();
    if (ThreadIndex() == 0) {
      BarrierExpect(&barrier, 512);
      BulkCopy(buffer, in, 256, &barrier);
      BulkCopy(buffer + 256, in + 256, 256, &barrier);
    }
    BarrierWait(&barrier, 0);
  } else {
    CopyAsync16(buffer + 16 * ThreadIndex(), in + 16 * ThreadIndex());
    CommitCopies();
    WaitCopies<0>();
    SyncWarp();
  }
  const Words4 words = Load16(buffer + 16 * (31 - ThreadIndex()));
  Store16(out + 16 * (31 - ThreadIndex()), words);
}

void CheckCopies() {
  Random random(Seed());
  std::vector<uint8_t> bytes(512);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
  const DeviceArray<uint8_t> in(bytes);
  for (Ways ways; ways.Next();) {
    const DeviceArray<uint8_t> out(512);
    Expect(Launch(TestStream(), {1, 1, 32, 512}, &CopyKernel, out.data(), in.data()));
    ExpectSame(out.Read(), bytes, "copies");
  }
}

// Three phases of a barrier that the first lanes of three warps complete; before each they write a number of theirs.
ENGINE_KERNEL(96, 1) ArriveKernel(int32_t* out) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  ENGINE_SHARED(barrier, uint64_t);
  ENGINE_SHARED(numbers, int32_t[3][3]);
  const int warp = ThreadIndex() / 32;
  if (ThreadIndex() == 0) BarrierInit(&barrier, 3);
  SyncThreads();
  for (int phase = 0; phase < 3; phase++) {
    if (ThreadIndex() % 32 == 0) {
      numbers[phase][warp] = 10 * phase + warp;
      BarrierArrive(&barrier);
    }
    BarrierWait(&barrier, static_cast<uint32_t>(phase % 2));
    SyncWarp();  // nobody is left waiting when the phase after the next one begins
    out[96 * phase + ThreadIndex()] = numbers[phase][0] + numbers[phase][1] + numbers[phase][2];
  }
}

void CheckArrive() {
  std::vector<int32_t> expected;
  for (int32_t i = 0; i < 3 * 96; i++) expected.push_back(30 * (i / 96) + 3);
  for (Ways ways; ways.Next();) {
    const DeviceArray<int32_t> out(expected.size());
    Expect(Launch(TestStream(), {1, 1, 96, 0}, &ArriveKernel, out.data()));
    ExpectSame(out.Read(), expected, "numbers");
  }
}

// d[64][64] = a[64][32] · b[32][64], in two groups. In shared memory 8 by 8 values of b lie one behind the other along
// the columns, then along k. Earlier launches are waited for while products are under way.
constexpr uint32_t kAlongK = 1024, kAlongColumns = 128;
ENGINE_KERNEL(128, 1) MultiplyWarpgroupKernel(float* d, const uint16_t* a, const uint16_t* b) {
  LetNextLaunchBegin();
  ENGINE_SHARED(barrier, uint64_t);
  uint8_t* const shared = SharedMemory<uint8_t>();
  if (ThreadIndex() == 0) {
    BarrierInit(&barrier);
    BarrierExpect(&barrier, 4 * kAlongK);
    BulkCopyShared(shared, b, 4 * kAlongK, &barrier);
  }
  const int row = ThreadIndex() / 32 * 16 + ThreadIndex() % 32 / 4;
  const int c = ThreadIndex() % 4;
  const auto pair = [&](int r, int k) { return a[32 * r + k] | static_cast<uint32_t>(a[32 * r + k + 1]) << 16; };
  uint32_t operands[2][4];
  ENGINE_UNROLL
  for (int s = 0; s < 2; s++) {
    ENGINE_UNROLL
    for (int i = 0; i < 4; i++) operands[s][i] = pair(row + i % 2 * 8, 16 * s + 2 * c + i / 2 * 8);
  }
  float sums[32] = {};
  SyncThreads();
  BarrierWait(&barrier, 0);
  const uint64_t first = CoresAt(shared, kAlongK, kAlongColumns);
  ENGINE_UNROLL
  for (int s = 0; s < 2; s++) {
    BeginProducts(sums, operands);
    MultiplyWarpgroup<64>(sums, operands[s], CoresBehind(first, 2 * kAlongK * s));
    CommitProducts();
  }
  WaitForEarlierLaunches();
  WaitProducts<1>(sums);
  WaitProducts<0>(sums);
  ENGINE_UNROLL
  for (int i = 0; i < 32; i++) d[64 * (row + i % 4 / 2 * 8) + i / 4 * 8 + 2 * c + i % 2] = sums[i];
}

void CheckMultiplyWarpgroup() {
  Random random(Seed() + 1);
  std::vector<uint16_t> a(64 * 32), b(32 * 64);
  for (uint16_t& half : a) half = kernels::f16_from_float(random.value());
  for (uint16_t& half : b) half = kernels::f16_from_float(random.value());
  const auto place = [](size_t k, size_t n) { return k / 8 * 512 + n / 8 * 64 + n % 8 * 8 + k % 8; };
  std::vector<double> expected, tolerance;
  for (size_t r = 0; r < 64; r++) {
    for (size_t n = 0; n < 64; n++) {
      double sum = 0;
      for (size_t k = 0; k < 32; k++) {
        sum += static_cast<double>(kernels::float_from_f16(a[32 * r + k])) *
               static_cast<double>(kernels::float_from_f16(b[place(k, n)]));
      }
      expected.push_back(sum);
      tolerance.push_back(1e-5);
    }
  }
  const DeviceArray<uint16_t> device_a(a, Content::kWeights), device_b(b, Content::kWeights);
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> first(64 * 64), second(64 * 64);
    for (float* const d : {first.data(), second.data()}) {
      Expect(Launch(TestStream(), {1, 1, 128, 4 * kAlongK}, &MultiplyWarpgroupKernel, d, device_a.data(),
                    device_b.data()));
    }
    ExpectNear(first.Read(), expected, tolerance, "product");
    ExpectNear(second.Read(), expected, tolerance, "product of the launch behind");
  }
}

}  // namespace

void CheckPrimitives() {
  Case("matrix product", &CheckMultiply);
  Case("matrices from shared memory", &CheckMatrices);
  Case("powers of two and maxima", &CheckPowers);
  Case("shuffles, votes and sums", &CheckCommunicate);
  Case("halves of codes", &CheckCodes);
  Case("asynchronous copies", &CheckCopies);
  if (Limits().compute_capability >= 90) Case("barriers of several threads", &CheckArrive);
  if (Limits().warpgroups) Case("matrix product of a warpgroup", &CheckMultiplyWarpgroup);
}

}  // namespace engine::cuda::test
