// Memory of a session: one reservation, carved up once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace engine {

// Zeroed memory straight from the operating system, page-aligned; pages exist once they are touched.
class Reservation {
 public:
  Reservation() = default;
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation() { Release(); }

  // False if the operating system refuses.
  bool Reserve(uint64_t bytes);
  void Release();

  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// Hands out 64-byte-aligned arrays one after another. Without a base it only counts, so that the same code measures
// first and carves then.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}

  template <class T>
  T* Take(uint64_t count) {
    static_assert(std::is_trivial_v<T>);
    T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    // Counts are products of two 32-bit numbers at most; a total past 2^62 stays there.
    constexpr uint64_t kMost = uint64_t{1} << 62;
    const uint64_t bytes = count > kMost / sizeof(T) ? kMost : (count * sizeof(T) + 63) / 64 * 64;
    bytes_ = bytes > kMost - bytes_ ? kMost : bytes_ + bytes;
    return result;
  }

  uint64_t bytes() const { return bytes_; }

 private:
  uint8_t* base_;
  uint64_t bytes_ = 0;
};

}  // namespace engine
