#include "guarded_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace engine::cuda::emulator {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 16;
constexpr unsigned char kCanary = 0xa5;

constexpr size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

GuardedMemory::GuardedMemory(size_t bytes) : bytes_(bytes), mapped_(RoundUp(std::max<size_t>(bytes, 1), kPage)) {
  const size_t all = mapped_ + 2 * kPage;
  void* pages = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) abort();
  pages_ = static_cast<unsigned char*>(pages);
  mprotect(pages_, kPage, PROT_NONE);
  mprotect(pages_ + kPage + mapped_, kPage, PROT_NONE);
  data_ = pages_ + kPage + mapped_ - RoundUp(bytes, kAlignment);
  memset(pages_ + kPage, kCanary, mapped_);
  Poison();
}

GuardedMemory::~GuardedMemory() { munmap(pages_, mapped_ + 2 * kPage); }

void GuardedMemory::Poison() { memset(data_, 0xff, bytes_); }

void GuardedMemory::AllowWrites(bool allow) {
  mprotect(pages_ + kPage, mapped_, allow ? PROT_READ | PROT_WRITE : PROT_READ);
}

bool GuardedMemory::Intact() const {
  const auto is_canary = [](unsigned char byte) { return byte == kCanary; };
  return std::all_of(pages_ + kPage, data_, is_canary) &&
         std::all_of(data_ + bytes_, pages_ + kPage + mapped_, is_canary);
}

}  // namespace engine::cuda::emulator
