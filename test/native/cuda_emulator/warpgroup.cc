#include "warpgroup.h"

#include <cstring>

#include "kernels/cpu/half.h"

namespace engine::cuda::emulator {
namespace {

constexpr int kRows = 64;
constexpr int kDepth = 16;

// b [16][columns] as a matrix descriptor of the PTX ISA has it: without swizzling, K-major.
std::vector<float> ReadRight(uint64_t descriptor, int columns, Place place) {
  const auto field = [&](int bit) { return static_cast<size_t>(descriptor >> bit & 0x3fff) << 4; };
  constexpr uint64_t kFields = uint64_t{0x3fff} | uint64_t{0x3fff} << 16 | uint64_t{0x3fff} << 32;
  if ((descriptor & ~kFields) != 0) Fail("a matrix descriptor with swizzling or reserved bits", place);
  const size_t start = field(0), leading = field(16), stride = field(32);
  const auto* const shared = static_cast<const uint8_t*>(DynamicShared());
  std::vector<float> b(static_cast<size_t>(kDepth * columns));
  for (size_t n = 0; n < static_cast<size_t>(columns); n++) {
    for (size_t k = 0; k < kDepth; k++) {
      // Matrices of 8 columns, 16 bytes each.
      const size_t address = start + n / 8 * stride + k / 8 * leading + n % 8 * 16 + k % 8 * 2;
      if (address < kSharedBegin || address + 2 > kSharedBegin + DynamicSharedBytes()) {
        Fail("a matrix outside of shared memory", place);
      }
      uint16_t half;
      memcpy(&half, shared + (address - kSharedBegin), sizeof half);
      b[n * kDepth + k] = kernels::float_from_f16(half);
    }
  }
  return b;
}

}  // namespace

void Warpgroup::Multiply(const ProductOperands* operands, int columns, uint64_t b, Place place) {
  if (!begun_) Fail("a product whose group was not begun", place);
  const auto num_sums = static_cast<size_t>(columns / 2);
  if (!under_way()) {
    columns_ = columns;
    sums_.resize(kWarpgroupSize * num_sums);
    for (size_t t = 0; t < kWarpgroupSize; t++) {
      d_[t] = operands[t].d;
      memcpy(&sums_[t * num_sums], d_[t], num_sums * sizeof(float));
      memset(d_[t], 0xff, num_sums * sizeof(float));
    }
  }
  Product product = {std::vector<uint32_t>(kWarpgroupSize * 4), {}, b, place, false};
  for (size_t t = 0; t < kWarpgroupSize; t++) {
    if (columns != columns_ || operands[t].d != d_[t]) Fail("products of two sums at once", place);
    product.registers[t] = operands[t].a;
    memcpy(&product.a[4 * t], operands[t].a, 4 * sizeof(uint32_t));
  }
  if (ProductsEarly()) Run(&product);
  open_.push_back(std::move(product));
}

void Warpgroup::Commit() {
  groups_.push_back(std::move(open_));
  open_.clear();
  begun_ = false;
}

void Warpgroup::Wait(size_t pending, Place place) {
  for (; groups_.size() > pending; groups_.pop_front()) {
    for (Product& product : groups_.front()) {
      if (!product.done) Run(&product);
      for (size_t t = 0; t < kWarpgroupSize; t++) {
        if (memcmp(product.registers[t], &product.a[4 * t], 4 * sizeof(uint32_t)) != 0) {
          Fail("an operand that changed before its product was waited for", product.place);
        }
      }
    }
  }
  if (under_way() || sums_.empty()) return;
  const auto num_sums = static_cast<size_t>(columns_ / 2);
  for (size_t t = 0; t < kWarpgroupSize; t++) {
    for (size_t i = 0; i < num_sums; i++) {
      if (kernels::bits_from_float(d_[t][i]) != 0xffffffff) {
        Fail("a sum that changed before its products were waited for", place);
      }
    }
    memcpy(d_[t], &sums_[t * num_sums], num_sums * sizeof(float));
  }
  sums_.clear();
}

// By the layout that the PTX ISA gives for registers of a warp, whatever kernels take it for.
void Warpgroup::Run(Product* product) {
  const std::vector<float> b = ReadRight(product->b, columns_, product->place);
  float a[kRows][kDepth];
  for (size_t t = 0; t < kWarpgroupSize; t++) {
    const size_t group = t / 32 * 16 + (t % 32 >> 2);
    for (size_t i = 0; i < 8; i++) {
      const size_t row = group + (i < 2 || (i >= 4 && i < 6) ? 0 : 8);
      const size_t column = t % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8);
      a[row][column] = kernels::float_from_f16(static_cast<uint16_t>(product->a[4 * t + i / 2] >> 16 * (i % 2)));
    }
  }
  const auto num_sums = static_cast<size_t>(columns_ / 2);
  for (size_t t = 0; t < kWarpgroupSize; t++) {
    for (size_t i = 0; i < num_sums; i++) {
      const float* const left = a[t / 32 * 16 + (t % 32 >> 2) + (i % 4 < 2 ? 0 : 8)];
      const float* const right = &b[(i / 4 * 8 + t % 4 * 2 + (i & 1)) * kDepth];
      double sum = 0;
      for (int k = 0; k < kDepth; k++) sum += static_cast<double>(left[k]) * static_cast<double>(right[k]);
      float& d = sums_[t * num_sums + i];
      d = static_cast<float>(static_cast<double>(d) + sum);
    }
  }
  product->done = true;
}

void BeginProducts(Place place) {
  Together([](void* const*) { CurrentWarpgroup().Begin(); }, nullptr, place, kWarpgroupSize);
}

void MultiplyWarpgroup(float* d, const uint32_t* a, int columns, uint64_t b, Place place) {
  struct Own {
    ProductOperands operands;
    int columns;
    uint64_t b;
    Place place;
  } own = {{d, a}, columns, b, place};
  Together(
      [](void* const* threads) {
        const Own& first = *static_cast<Own*>(threads[0]);
        ProductOperands operands[kWarpgroupSize];
        for (int t = 0; t < kWarpgroupSize; t++) {
          const Own& other = *static_cast<Own*>(threads[t]);
          if (other.b != first.b) Fail("matrix descriptors that differ", other.place);
          operands[t] = other.operands;
        }
        CurrentWarpgroup().Multiply(operands, first.columns, first.b, first.place);
      },
      &own, place, kWarpgroupSize);
}

void CommitProducts(Place place) {
  Together([](void* const*) { CurrentWarpgroup().Commit(); }, nullptr, place, kWarpgroupSize);
}

void WaitProducts(int pending, Place place) {
  struct Own {
    int pending;
    Place place;
  } own = {pending, place};
  Together(
      [](void* const* threads) {
        const Own& first = *static_cast<Own*>(threads[0]);
        CurrentWarpgroup().Wait(static_cast<size_t>(first.pending), first.place);
      },
      &own, place, kWarpgroupSize);
}

}  // namespace engine::cuda::emulator
