// A file of saved blocks: written under another name until it is whole, and read with its true size known. Errors are
// texts of the operating system; an empty one is success.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace engine {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

// A new file in the folder of `path`, readable by its owner only, that takes the place of `path` in one go. Removed by
// the destructor unless that has happened.
class NewFile {
 public:
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  std::string Create(const std::string& path);
  std::string Write(const void* data, size_t bytes);
  // Everything is on the disk before the name is there.
  std::string Commit();

 private:
  std::string path_;
  std::string temporary_;  // while it exists
  File file_;
};

class InputFile {
 public:
  // Fails for what is no regular file, and never waits for one.
  std::string Open(const std::string& path);
  // False at the end of the file, and if it cannot be read.
  bool Read(void* to, size_t bytes);
  uint64_t size() const { return size_; }

 private:
  File file_;
  uint64_t size_ = 0;
};

}  // namespace engine
