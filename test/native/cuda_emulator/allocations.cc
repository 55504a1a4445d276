#include "allocations.h"

#include <algorithm>
#include <cstring>

namespace engine::cuda::emulator {

void* Allocations::Add(size_t bytes, bool hidden) {
  auto allocation = std::make_unique<Allocation>(bytes, hidden);
  void* const data = allocation->memory.data();
  all_[data] = std::move(allocation);
  return data;
}

bool Allocations::Remove(void* memory) {
  const auto found = all_.find(memory);
  if (found == all_.end() || !found->second->memory.Intact()) return false;
  all_.erase(found);
  return true;
}

bool Allocations::Intact() const {
  return std::all_of(all_.begin(), all_.end(), [](const auto& entry) { return entry.second->memory.Intact(); });
}

void Allocations::Close() {
  for (auto& [data, allocation] : all_) {
    GuardedMemory& memory = allocation->memory;
    if (allocation->hidden) {
      allocation->content.assign(memory.data(), memory.data() + memory.bytes());
      memory.Poison();
    }
    memory.AllowWrites(false);
  }
  closed_ = true;
}

void Allocations::Open() {
  for (auto& [data, allocation] : all_) {
    GuardedMemory& memory = allocation->memory;
    memory.AllowWrites(true);
    if (allocation->hidden && memory.bytes() > 0) memcpy(memory.data(), allocation->content.data(), memory.bytes());
  }
  closed_ = false;
}

bool Allocations::Contain(const void* address) const {
  return std::any_of(all_.begin(), all_.end(),
                     [&](const auto& entry) { return entry.second->memory.Contains(address); });
}

}  // namespace engine::cuda::emulator
