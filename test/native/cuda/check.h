// What the checks of CUDA kernels share: random inputs, comparisons, and one line of output per case.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace engine::cuda::test {

// splitmix64 (Steele, Lea, Flood 2014)
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int32_t below(int32_t count) { return static_cast<int32_t>((bits() >> 32) % static_cast<uint32_t>(count)); }
  // −1 … 1
  float value() { return static_cast<float>(static_cast<int32_t>(bits() >> 40) - (1 << 23)) * 0x1p-23f; }
  std::vector<float> values(size_t count, float scale = 1.0f) {
    std::vector<float> result(count);
    for (float& x : result) x = value() * scale;
    return result;
  }

 private:
  uint64_t state_;
};

// A seed of this run: fixed, or what the program was given.
uint64_t Seed();

// Runs a case, and prints its name with ok, or with what was wrong.
void Case(const std::string& name, const std::function<void()>& run);
// Notes that the case is wrong; only the first few are printed.
void Wrong(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Of all cases.
int NumFailures();

// All bits the same.
template <class T>
void ExpectSame(const std::vector<T>& actual, const std::vector<T>& expected, const char* what) {
  if (actual.size() != expected.size()) return Wrong("%s: %zu values, not %zu", what, actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); i++) {
    if (memcmp(&actual[i], &expected[i], sizeof(T)) != 0) {
      return Wrong("%s: value %zu is %g, not %g", what, i, static_cast<double>(actual[i]),
                   static_cast<double>(expected[i]));
    }
  }
}

// |actual − expected| ≤ tolerance, value by value; NaN is never right.
void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected,
                const std::vector<double>& tolerance, const char* what);

void CheckPrimitives();
void CheckElementwise();
void CheckLinear();
void CheckLinearFew();
void CheckLinearWarpgroup();
void CheckAttention();
void CheckAttentionMany();
void CheckSampling();
void CheckAdvancing();
void CheckShapes();

}  // namespace engine::cuda::test
