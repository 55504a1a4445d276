#include "native/cuda/copy_rate.h"

#include <algorithm>
#include <chrono>

#include "native/cuda/memory.h"

namespace engine::cuda {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;  // of each of the two
constexpr int32_t kRounds = 5;
// So many that starting and waiting do not count.
constexpr int32_t kCopies = 8;

}  // namespace

Failure MeasureCopyRate(const Device& device, double* bytes_per_second) {
  const DeviceApi& api = *device.api;
  const uint64_t bytes = std::min(kMostBytes, device.info.free_bytes / 16);
  DeviceAllocation from, to;
  int error = bytes == 0 ? 0 : from.Allocate(api, bytes);
  if (error == 0 && bytes > 0) error = to.Allocate(api, bytes);
  if (bytes == 0 || (error != 0 && api.is_out_of_memory(error))) return OutOfMemory(2 * bytes, "measuring copies");
  Stream stream = {};
  if (error == 0) error = api.create_stream(&stream);
  if (error != 0) return device.Check(error);
  error = api.clear(stream, from.data(), bytes);
  double rates[kRounds];
  for (int32_t round = -1; error == 0 && round < kRounds; round++) {  // the first warms up
    error = api.wait(stream);
    const auto start = std::chrono::steady_clock::now();
    for (int32_t i = 0; error == 0 && i < kCopies; i++) error = api.copy(stream, to.data(), from.data(), bytes);
    if (error == 0) error = api.wait(stream);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (round >= 0) rates[round] = 2.0 * kCopies * static_cast<double>(bytes) / seconds;
  }
  api.destroy_stream(stream);
  if (error != 0) return device.Check(error);
  std::sort(rates, rates + kRounds);
  *bytes_per_second = rates[kRounds / 2];
  return {};
}

}  // namespace engine::cuda
