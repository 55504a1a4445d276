// A whole file mapped into memory, read-only, until destruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "native/failure.h"

namespace engine {

// The file as it was when its header was read.
struct FileStamp {
  std::string path;  // UTF-8
  uint64_t size;     // bytes
  double mtime_ms;
};

// A file that shrinks while it is mapped makes the process receive SIGBUS: there is no way to survive that other than
// copying, which is why size and time of the last change are checked when the mapping is made.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  // FILE_NOT_FOUND, FILE_UNREADABLE, or FILE_CHANGED if the file does not match its stamp.
  Failure Open(const FileStamp& stamp);

  // Brings a part into this process's memory, read from the file with all the reading ahead that the system does, not
  // some pages at a time when they are touched. Where the system cannot, that is how they come.
  void Populate(size_t offset, size_t bytes) const;

  // Says that a part will not be read again soon: whole pages within it leave this process's memory.
  void Release(size_t offset, size_t bytes) const;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace engine
