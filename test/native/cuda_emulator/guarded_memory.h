// Memory whose end no access can pass unnoticed.
#pragma once

#include <cstddef>

namespace engine::cuda::emulator {

class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // Makes all of it NaN.
  void Poison();
  // Whether nothing was written before its begin or, up to the next multiple of 16 bytes, behind its end.
  bool Intact() const;

 private:
  size_t bytes_;
  size_t mapped_;
  unsigned char* pages_;  // one that cannot be touched, those with the data, another one
  unsigned char* data_;
};

}  // namespace engine::cuda::emulator
