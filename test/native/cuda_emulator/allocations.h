// The memory that stands for a device's.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "guarded_memory.h"

namespace engine::cuda::emulator {

class Allocations {
 public:
  void* Add(size_t bytes, bool hidden);
  // Whether there was one at this address whose guards are intact.
  bool Remove(void* memory);
  bool Intact() const;

  // From now on nothing may be written, and what is hidden reads as NaN, until Open.
  void Close();
  void Open();
  bool closed() const { return closed_; }
  bool Contain(const void* address) const;

 private:
  struct Allocation {
    Allocation(size_t bytes, bool is_hidden) : memory(bytes), hidden(is_hidden) {}

    GuardedMemory memory;
    bool hidden;
    std::vector<unsigned char> content;  // while it is hidden
  };

  std::map<void*, std::unique_ptr<Allocation>> all_;
  bool closed_ = false;
};

}  // namespace engine::cuda::emulator
