#include "native/mapped_file.h"

#include <cmath>

#ifdef _WIN32
#include <windows.h>

#include <system_error>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace engine {
namespace {

// JavaScript's mtimeMs is a float64 of milliseconds; some file systems and archives keep whole ones.
bool SameTime(double a, double b) { return std::fabs(a - b) < 1.0; }

}  // namespace

#ifdef _WIN32

namespace {

struct Handle {
  HANDLE value;
  ~Handle() {
    if (value != nullptr && value != INVALID_HANDLE_VALUE) CloseHandle(value);
  }
};

std::string LastError() { return std::system_category().message(static_cast<int>(GetLastError())); }

// Milliseconds since 1970 of a count of 100 ns since 1601.
double UnixMilliseconds(const FILETIME& time) {
  const uint64_t ticks = uint64_t{time.dwHighDateTime} << 32 | time.dwLowDateTime;
  return static_cast<double>(ticks) / 1e4 - 11644473600000.0;
}

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) UnmapViewOfFile(data_);
}

Failure MappedFile::Open(const FileStamp& stamp) {
  const int length = MultiByteToWideChar(CP_UTF8, 0, stamp.path.c_str(), -1, nullptr, 0);
  std::wstring path(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, stamp.path.c_str(), -1, path.data(), length);
  const Handle file{CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, 0, nullptr)};
  if (file.value == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    const bool absent = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND;
    return absent ? FileNotFound(stamp.path) : FileUnreadable(stamp.path, LastError());
  }
  LARGE_INTEGER size;
  FILETIME changed;
  if (!GetFileSizeEx(file.value, &size) || !GetFileTime(file.value, nullptr, nullptr, &changed)) {
    return FileUnreadable(stamp.path, LastError());
  }
  if (static_cast<uint64_t>(size.QuadPart) != stamp.size || !SameTime(UnixMilliseconds(changed), stamp.mtime_ms)) {
    return FileChanged(stamp.path);
  }
  const Handle mapping{CreateFileMappingW(file.value, nullptr, PAGE_READONLY, 0, 0, nullptr)};
  if (mapping.value == nullptr) return FileUnreadable(stamp.path, LastError());
  data_ = static_cast<const uint8_t*>(MapViewOfFile(mapping.value, FILE_MAP_READ, 0, 0, 0));
  if (data_ == nullptr) return FileUnreadable(stamp.path, LastError());
  size_ = static_cast<size_t>(size.QuadPart);
  return {};
}

void MappedFile::Populate(size_t offset, size_t bytes) const {
  WIN32_MEMORY_RANGE_ENTRY range = {const_cast<uint8_t*>(data_ + offset), bytes};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

void MappedFile::Release(size_t offset, size_t bytes) const {
  // Pages that are not locked leave the working set.
  VirtualUnlock(const_cast<uint8_t*>(data_ + offset), bytes);
}

#else

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

Failure MappedFile::Open(const FileStamp& stamp) {
  const int file = open(stamp.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT ? FileNotFound(stamp.path) : FileUnreadable(stamp.path, std::strerror(errno));
  struct stat info;
  if (fstat(file, &info) != 0) {
    const int error = errno;
    close(file);
    return FileUnreadable(stamp.path, std::strerror(error));
  }
#ifdef __APPLE__
  const timespec& changed = info.st_mtimespec;
#else
  const timespec& changed = info.st_mtim;
#endif
  const double mtime_ms = static_cast<double>(changed.tv_sec) * 1e3 + static_cast<double>(changed.tv_nsec) / 1e6;
  if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) != stamp.size ||
      !SameTime(mtime_ms, stamp.mtime_ms)) {
    close(file);
    return FileChanged(stamp.path);
  }
  if (stamp.size == 0) {  // nothing to map, and no weight fits
    close(file);
    return {};
  }
  void* address = mmap(nullptr, stamp.size, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (address == MAP_FAILED) return FileUnreadable(stamp.path, std::strerror(error));
  data_ = static_cast<const uint8_t*>(address);
  size_ = stamp.size;
  return {};
}

namespace {

size_t PageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

void MappedFile::Populate(size_t offset, size_t bytes) const {
#ifdef __linux__
  // MADV_POPULATE_READ of Linux 5.14, which not every libc's headers have. MADV_WILLNEED would take two to three times
  // as long for a file that is not in memory: it fills the page cache with single pages.
  constexpr int kAdvice = 22;
#else
  constexpr int kAdvice = MADV_WILLNEED;
#endif
  const size_t begin = offset - offset % PageBytes();
  madvise(const_cast<uint8_t*>(data_ + begin), offset + bytes - begin, kAdvice);
}

void MappedFile::Release(size_t offset, size_t bytes) const {
  const size_t page = PageBytes();
  const size_t begin = (offset + page - 1) / page * page, end = (offset + bytes) / page * page;
  if (begin < end) madvise(const_cast<uint8_t*>(data_ + begin), end - begin, MADV_DONTNEED);
}

#endif

}  // namespace engine
