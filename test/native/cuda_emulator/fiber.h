// A stack of its own to run a function on, and to leave and come back to.
#pragma once

#include <cstddef>
#include <memory>

namespace engine::cuda::emulator {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(Fiber&&) noexcept;

  // Prepares to run entry(argument) from its beginning; it must not return, but leave with Leave.
  void Begin(void (*entry)(void*), void* argument);
  // Runs until it calls Leave.
  void Resume();
  void Leave();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace engine::cuda::emulator
