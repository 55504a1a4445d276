#include "native/block_file.h"

#include <cerrno>
#include <system_error>
#include <utility>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#endif

namespace engine {
namespace {

std::string SystemError() { return std::generic_category().message(errno); }

#ifdef _WIN32

std::wstring Wide(const std::string& text) {
  const int length = MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, nullptr, 0);
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, wide.data(), length);
  return wide;
}

int CreateTemporary(std::string* path) {
  *path += ".partial-" + std::to_string(GetCurrentProcessId()) + "-" + std::to_string(GetTickCount64());
  const int flags = _O_CREAT | _O_EXCL | _O_WRONLY | _O_BINARY | _O_NOINHERIT;
  return _wopen(Wide(*path).c_str(), flags, _S_IREAD | _S_IWRITE);
}

std::FILE* OpenStream(int file, const char* mode) { return _fdopen(file, mode); }
void CloseDescriptor(int file) { _close(file); }
bool Sync(std::FILE* file) { return _commit(_fileno(file)) == 0; }
void Remove(const std::string& path) { DeleteFileW(Wide(path).c_str()); }

std::string Rename(const std::string& from, const std::string& to) {
  constexpr DWORD kFlags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
  if (MoveFileExW(Wide(from).c_str(), Wide(to).c_str(), kFlags)) return "";
  return std::system_category().message(static_cast<int>(GetLastError()));
}

int OpenForReading(const std::string& path) { return _wopen(Wide(path).c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT); }

// −1 for what is no regular file.
int64_t RegularSize(int file) {
  struct _stat64 info;
  return _fstat64(file, &info) == 0 && (info.st_mode & _S_IFMT) == _S_IFREG ? info.st_size : -1;
}

#else

int CreateTemporary(std::string* path) {
  *path += ".partial-XXXXXX";
  const int file = mkstemp(path->data());  // with the rights 0600
  if (file >= 0) fcntl(file, F_SETFD, FD_CLOEXEC);
  return file;
}

std::FILE* OpenStream(int file, const char* mode) { return fdopen(file, mode); }
void CloseDescriptor(int file) { close(file); }
bool Sync(std::FILE* file) { return fsync(fileno(file)) == 0; }
void Remove(const std::string& path) { unlink(path.c_str()); }

std::string Rename(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? "" : SystemError();
}

// Opening a pipe would otherwise wait for its other end.
int OpenForReading(const std::string& path) { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }

// −1 for what is no regular file.
int64_t RegularSize(int file) {
  struct stat info;
  return fstat(file, &info) == 0 && S_ISREG(info.st_mode) ? static_cast<int64_t>(info.st_size) : -1;
}

#endif

}  // namespace

NewFile::~NewFile() {
  file_.reset();
  if (!temporary_.empty()) Remove(temporary_);
}

std::string NewFile::Create(const std::string& path) {
  path_ = path;
  std::string temporary = path;
  const int file = CreateTemporary(&temporary);
  if (file < 0) return SystemError();
  temporary_ = std::move(temporary);
  file_.reset(OpenStream(file, "wb"));
  if (file_ != nullptr) return "";
  std::string problem = SystemError();
  CloseDescriptor(file);
  return problem;
}

std::string NewFile::Write(const void* data, size_t bytes) {
  return std::fwrite(data, 1, bytes, file_.get()) == bytes ? "" : SystemError();
}

std::string NewFile::Commit() {
  if (std::fflush(file_.get()) != 0 || !Sync(file_.get()) || std::fclose(file_.release()) != 0) return SystemError();
  std::string problem = Rename(temporary_, path_);
  if (problem.empty()) temporary_.clear();
  return problem;
}

std::string InputFile::Open(const std::string& path) {
  const int file = OpenForReading(path);
  if (file < 0) return SystemError();
  const int64_t size = RegularSize(file);
  if (size >= 0) file_.reset(OpenStream(file, "rb"));
  if (file_ == nullptr) {
    CloseDescriptor(file);
    return size < 0 ? "it is no regular file" : "it cannot be opened";
  }
  size_ = static_cast<uint64_t>(size);
  return "";
}

bool InputFile::Read(void* to, size_t bytes) { return std::fread(to, 1, bytes, file_.get()) == bytes; }

}  // namespace engine
