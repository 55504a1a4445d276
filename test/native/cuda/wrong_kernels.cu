// Kernels with one mistake each, which the emulator must find: ends with its status and message. The argument chooses
// one; without, their names are printed.
#include <cstdio>
#include <cstring>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 128;
constexpr int32_t kSharedFloats = 1024;

ENGINE_KERNEL(kThreads, 1) DivergentBarrier(float*) {
  if (ThreadIndex() < 40) SyncThreads();
}

ENGINE_KERNEL(kThreads, 1) BarriersInTwoPlaces(float*) {
  if (ThreadIndex() < 32) {
    SyncThreads();
  } else {
    SyncThreads();
  }
}

ENGINE_KERNEL(kThreads, 1) DivergentShuffle(float* out) {
  if (ThreadIndex() % 2 == 0) out[ThreadIndex()] = Shuffle(1.0f, 0);
}

ENGINE_KERNEL(kThreads, 1) ReadPastTheEnd(float* out) { out[ThreadIndex()] = out[ThreadIndex() + 4]; }

ENGINE_KERNEL(kThreads, 1) WriteBeforeTheBegin(float* out) { out[ThreadIndex() - 1] = 0.0f; }

ENGINE_KERNEL(kThreads, 1) SharedPastTheEnd(float* out) {
  float* const shared = SharedMemory<float>();
  shared[kSharedFloats - kThreads + ThreadIndex() + 1] = 0.0f;
  out[ThreadIndex()] = 0.0f;
}

// NaN, as nobody has written it.
ENGINE_KERNEL(kThreads, 1) UninitialisedShared(float* out) {
  out[ThreadIndex()] = SharedMemory<float>()[ThreadIndex()];
}

// Right in ascending order only.
ENGINE_KERNEL(kThreads, 1) MissingBarrier(float* out) {
  float* const shared = SharedMemory<float>();
  shared[ThreadIndex()] = 1.0f;
  out[ThreadIndex()] = shared[ThreadIndex() == 0 ? 0 : ThreadIndex() - 1];
}

ENGINE_KERNEL(kThreads, 1) CopyNotWaitedFor(float* out) {
  float* const shared = SharedMemory<float>();
  CopyAsync16(shared + ThreadIndex() / 4 * 4, out + ThreadIndex() / 4 * 4);
  CommitCopies();
  out[ThreadIndex()] = shared[ThreadIndex()];
  WaitCopies<0>();
}

ENGINE_KERNEL(kThreads, 1) CopyMisaligned(float* out) {
  CopyAsync16(SharedMemory<float>(), out + 1);
  CommitCopies();
  WaitCopies<0>();
}

ENGINE_KERNEL(kThreads, 1) BytesThatNeverCome(float* out) {
  ENGINE_SHARED(barrier, uint64_t);
  if (ThreadIndex() == 0) {
    BarrierInit(&barrier);
    BarrierExpect(&barrier, 64);
    BulkCopy(SharedMemory<float>(), out, 32, &barrier);
  }
  SyncThreads();
  BarrierWait(&barrier, 0);
}

// The launch before makes ones.
ENGINE_KERNEL(kThreads, 1) OnesKernel(float* out) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  out[ThreadIndex()] = 1.0f;
}

ENGINE_KERNEL(kThreads, 1) ReadBeforeWaiting(float* out) {
  LetNextLaunchBegin();
  const float value = out[ThreadIndex()];
  WaitForEarlierLaunches();
  out[ThreadIndex()] = value;
}

ENGINE_KERNEL(kThreads, 1) CopyBeforeWaiting(float* out) {
  float* const shared = SharedMemory<float>();
  LetNextLaunchBegin();
  if (ThreadIndex() % 4 == 0) CopyAsync16(shared + ThreadIndex(), out + ThreadIndex());
  CommitCopies();
  WaitForEarlierLaunches();
  WaitCopies<0>();
  SyncThreads();
  out[ThreadIndex()] = shared[ThreadIndex()];
}

ENGINE_KERNEL(kThreads, 1) WriteBeforeWaiting(float* out) {
  LetNextLaunchBegin();
  out[ThreadIndex()] = 1.0f;
  WaitForEarlierLaunches();
}

ENGINE_KERNEL(kThreads, 1) SomeNeverWait(float* out) {
  LetNextLaunchBegin();
  if (ThreadIndex() >= 40) return;
  WaitForEarlierLaunches();
  out[ThreadIndex()] = 1.0f;
}

ENGINE_KERNEL(kThreads, 1) TooManyArrivals(float*) {
  ENGINE_SHARED(barrier, uint64_t);
  if (ThreadIndex() > 0) return;
  BarrierInit(&barrier, 2);
  BarrierExpect(&barrier, 64);
  BarrierArrive(&barrier);
  BarrierArrive(&barrier);
}

// Products of zeros by zeros are added to ones.
constexpr uint32_t kAlongK = 1024, kAlongColumns = 128;
ENGINE_DEVICE uint64_t Zeros() {
  for (int i = ThreadIndex(); i < kSharedFloats; i += kThreads) SharedMemory<float>()[i] = 0.0f;
  SyncThreads();
  return CoresAt(SharedMemory<float>(), kAlongK, kAlongColumns);
}
struct Registers {
  float sums[32];
  uint32_t a[1][4] = {};

  Registers() {
    for (float& sum : sums) sum = 1.0f;
  }
};

ENGINE_KERNEL(kThreads, 1) ProductNotBegun(float*) {
  Registers r;
  MultiplyWarpgroup<64>(r.sums, r.a[0], Zeros());
}

ENGINE_KERNEL(kThreads, 1) SumReadEarly(float* out) {
  Registers r;
  const uint64_t zeros = Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], zeros);
  CommitProducts();
  out[ThreadIndex()] = r.sums[0];
  WaitProducts<0>(r.sums);
}

ENGINE_KERNEL(kThreads, 1) SumWrittenEarly(float*) {
  Registers r;
  const uint64_t zeros = Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], zeros);
  CommitProducts();
  r.sums[0] = 1.0f;
  WaitProducts<0>(r.sums);
}

ENGINE_KERNEL(kThreads, 1) OperandOverwritten(float*) {
  Registers r;
  const uint64_t zeros = Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], zeros);
  CommitProducts();
  r.a[0][0] = 1;
  WaitProducts<0>(r.sums);
}

// Right where products happen at once.
ENGINE_KERNEL(kThreads, 1) SharedOverwritten(float* out) {
  Registers r;
  r.a[0][0] = 0x3c003c00;  // ones
  const uint64_t zeros = Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], zeros);
  CommitProducts();
  for (int i = ThreadIndex(); i < kSharedFloats; i += kThreads) SharedMemory<float>()[i] = NotANumber();
  WaitProducts<0>(r.sums);
  out[ThreadIndex()] = r.sums[0];
}

ENGINE_KERNEL(kThreads, 1) WrongStride(float*) {
  Registers r;
  Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], CoresAt(SharedMemory<float>(), kAlongK, kAlongK));
  CommitProducts();
  WaitProducts<0>(r.sums);
}

ENGINE_KERNEL(kThreads, 1) ProductNotWaitedFor(float*) {
  Registers r;
  const uint64_t zeros = Zeros();
  BeginProducts(r.sums, r.a);
  MultiplyWarpgroup<64>(r.sums, r.a[0], zeros);
  CommitProducts();
}

using Kernel = void (*)(float*);
constexpr struct {
  const char* name;
  Kernel kernel;
  bool overlaps = false;
} kWrong[] = {{"divergent-barrier", &DivergentBarrier},          {"barriers-in-two-places", &BarriersInTwoPlaces},
              {"divergent-shuffle", &DivergentShuffle},          {"read-past-the-end", &ReadPastTheEnd},
              {"write-before-the-begin", &WriteBeforeTheBegin},  {"shared-past-the-end", &SharedPastTheEnd},
              {"uninitialised-shared", &UninitialisedShared},    {"missing-barrier", &MissingBarrier},
              {"copy-not-waited-for", &CopyNotWaitedFor},        {"copy-misaligned", &CopyMisaligned},
              {"bytes-that-never-come", &BytesThatNeverCome},    {"read-before-waiting", &ReadBeforeWaiting, true},
              {"copy-before-waiting", &CopyBeforeWaiting, true}, {"write-before-waiting", &WriteBeforeWaiting, true},
              {"some-never-wait", &SomeNeverWait, true},         {"too-many-arrivals", &TooManyArrivals},
              {"product-not-begun", &ProductNotBegun},           {"sum-read-early", &SumReadEarly},
              {"sum-written-early", &SumWrittenEarly},           {"operand-overwritten", &OperandOverwritten},
              {"shared-overwritten", &SharedOverwritten},        {"wrong-stride", &WrongStride},
              {"product-not-waited-for", &ProductNotWaitedFor}};

// The status of what kernels return as they must: ones. In some order of threads a race shows.
int Run(Kernel kernel, bool overlaps) {
  for (const uint64_t order : {0, 1, 99}) {
    emulator::SetOrder(order);
    auto* out = static_cast<float*>(emulator::Allocate(kThreads * sizeof(float)));
    for (int i = 0; i < kThreads; i++) out[i] = overlaps ? 0.0f : 1.0f;
    if (overlaps) Launch({nullptr, true}, {1, 1, kThreads, 0}, &OnesKernel, out);
    Launch({nullptr, overlaps}, {1, 1, kThreads, kSharedFloats * 4}, kernel, out);
    emulator::FinishLaunches();
    for (int i = 0; i < kThreads; i++) {
      if (out[i] != 1.0f) {
        fprintf(stderr, "result %d is %g\n", i, static_cast<double>(out[i]));
        return 1;
      }
    }
    emulator::Free(out);
  }
  return 0;
}

}  // namespace
}  // namespace engine::cuda

int main(int argc, char** argv) {
  for (const auto& wrong : engine::cuda::kWrong) {
    if (argc == 1) printf("%s\n", wrong.name);
    if (argc > 1 && strcmp(argv[1], wrong.name) == 0) return engine::cuda::Run(wrong.kernel, wrong.overlaps);
  }
  return 0;
}
