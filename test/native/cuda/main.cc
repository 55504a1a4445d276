// Checks every CUDA kernel against the scalar CPU kernels or a plain reference in float64, on fresh random inputs: in
// the emulator, or on the first CUDA device if nvcc made the program.
//
//     cuda_test [SEED] [NAME]     all cases, or those of one part
#include <cstdarg>
#include <cstdlib>

#include "check.h"
#include "device.h"

namespace engine::cuda::test {
namespace {

uint64_t seed = 1;
int num_failures = 0;
int num_wrong = 0;  // of the case that runs

}  // namespace

uint64_t Seed() { return seed; }
int NumFailures() { return num_failures; }

void Case(const std::string& name, const std::function<void()>& run) {
  num_wrong = 0;
  run();
  printf("%s: %s\n", name.c_str(), num_wrong == 0 ? "ok" : "WRONG");
  fflush(stdout);
  num_failures += num_wrong > 0;
}

void Wrong(const char* format, ...) {
  if (num_wrong++ >= 3) return;
  va_list arguments;
  va_start(arguments, format);
  printf("  ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
}

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected,
                const std::vector<double>& tolerance, const char* what) {
  for (size_t i = 0; i < expected.size(); i++) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    if (!(difference <= tolerance[i] && difference >= -tolerance[i])) {
      return Wrong("%s: value %zu is %g, not %g ± %g", what, i, static_cast<double>(actual[i]), expected[i],
                   tolerance[i]);
    }
  }
}

}  // namespace engine::cuda::test

int main(int argc, char** argv) {
  using namespace engine::cuda::test;
  if (argc > 1) seed = strtoull(argv[1], nullptr, 10);
  const std::string only = argc > 2 ? argv[2] : "";
  OpenDevice();
  const std::pair<const char*, void (*)()> parts[] = {{"primitives", &CheckPrimitives},
                                                      {"elementwise", &CheckElementwise},
                                                      {"linear", &CheckLinear},
                                                      {"few", &CheckLinearFew},
                                                      {"warpgroup", &CheckLinearWarpgroup},
                                                      {"attention", &CheckAttention},
                                                      {"attention-many", &CheckAttentionMany},
                                                      {"sampling", &CheckSampling},
                                                      {"advance", &CheckAdvancing},
                                                      {"shapes", &CheckShapes}};
  for (const auto& [name, check] : parts) {
    if (only.empty() || only == name) check();
  }
  printf(NumFailures() == 0 ? "all ok\n" : "%d cases WRONG\n", NumFailures());
  return NumFailures() == 0 ? 0 : 1;
}
