#include "native/memory.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace engine {
namespace {

// Smaller reservations keep to small pages: memory that is not touched should not be taken.
constexpr uint64_t kHugePage = uint64_t{2} << 20;

}  // namespace

bool Reservation::Reserve(uint64_t bytes) {
  Release();
  if (bytes == 0) return true;
  if (bytes > SIZE_MAX / 2) return false;
#ifdef _WIN32
  void* address = VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
  if (address == nullptr) return false;
#else
  // An overcommitting kernel would promise anything and kill the process later.
  const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0 && bytes / static_cast<uint64_t>(page_bytes) >= static_cast<uint64_t>(pages)) {
    return false;
  }
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return false;
#ifdef MADV_HUGEPAGE
  // Weights and KV cache are read from end to end: fewer page faults while filling them, fewer TLB misses after.
  if (bytes >= kHugePage) madvise(address, bytes, MADV_HUGEPAGE);
#endif
#endif
  data_ = static_cast<uint8_t*>(address);
  size_ = bytes;
  return true;
}

void Reservation::Release() {
  if (data_ == nullptr) return;
#ifdef _WIN32
  VirtualFree(data_, 0, MEM_RELEASE);
#else
  munmap(data_, size_);
#endif
  data_ = nullptr;
  size_ = 0;
}

}  // namespace engine
