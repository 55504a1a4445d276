// Memory and limits of what the kernels run on: the emulator, or a CUDA device.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/kernels.h"

namespace engine::cuda::test {

// Ends the program with a line that says why where there is no device.
void OpenDevice();
const DeviceLimits& Limits();
// With launches that overlap in some of the Ways.
Stream TestStream();

// Memory that begins as NaN, or ends the program. No launch writes to weights, so that they may be read before earlier
// launches have ended.
enum class Content { kAny, kWeights };
void* AllocateDevice(size_t bytes, Content content);
void FreeDevice(void* memory);
void CopyToDevice(void* to, const void* from, size_t bytes);
void CopyFromDevice(void* to, const void* from, size_t bytes);

// Ends the program if a launch returned an error, or one ran into an error since.
void Expect(int error);

// Runs `run` in several ways that must make no difference (orders of threads, kinds of copies), until there are none
// left: while (ways.Next()) …
class Ways {
 public:
  Ways();
  ~Ways();
  bool Next();

 private:
  size_t way_ = 0;
};

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size, Content content = Content::kAny)
      : size_(size), data_(static_cast<T*>(AllocateDevice(size * sizeof(T), content))) {}
  explicit DeviceArray(const std::vector<T>& values, Content content = Content::kAny)
      : DeviceArray(values.size(), content) {
    CopyToDevice(data_, values.data(), size_ * sizeof(T));
  }
  ~DeviceArray() { FreeDevice(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    CopyFromDevice(values.data(), data_, size_ * sizeof(T));
    return values;
  }

 private:
  size_t size_;
  T* data_;
};

}  // namespace engine::cuda::test
