// Asynchronous matrix products of a warpgroup (wgmma): their results appear when they are waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "emulator.h"

namespace engine::cuda::emulator {

// d[64][columns] += a[64][16] · b[16][columns], in pieces: a thread's registers.
struct ProductOperands {
  float* d;
  const uint32_t* a;
};

class Warpgroup {
 public:
  // What was done to registers before is done.
  void Begin() { begun_ = true; }
  // `operands` are those of each thread; their registers belong to the product from now on.
  void Multiply(const ProductOperands* operands, int columns, uint64_t b, Place place);
  void Commit();
  // Ends groups until at most `pending` are left, in order; the sums appear once none is.
  void Wait(size_t pending, Place place);

  bool under_way() const { return !groups_.empty() || !open_.empty(); }

 private:
  struct Product {
    std::vector<uint32_t> a;  // [kWarpgroupSize][4]
    const uint32_t* registers[kWarpgroupSize];
    uint64_t b;
    Place place;
    bool done;
  };
  void Run(Product* product);

  bool begun_ = false;
  std::vector<Product> open_;  // not committed yet
  std::deque<std::vector<Product>> groups_;
  int columns_ = 0;
  float* d_[kWarpgroupSize] = {};
  std::vector<float> sums_;  // [kWarpgroupSize][columns_ / 2], while registers hold NaN
};

// That of the thread that runs.
Warpgroup& CurrentWarpgroup();
// Whether products happen at once (SetOrder).
bool ProductsEarly();

// Of all its threads together.
void BeginProducts(Place place);
void MultiplyWarpgroup(float* d, const uint32_t* a, int columns, uint64_t b, Place place);
void CommitProducts(Place place);
void WaitProducts(int pending, Place place);

// An address in dynamic shared memory, as instructions have it.
inline constexpr uint32_t kSharedBegin = 1024;

}  // namespace engine::cuda::emulator
