#include "fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>

namespace engine::cuda::emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kGuardBytes = 4096;

}  // namespace

#if defined(__x86_64__)

// Saves the registers that calls preserve, and takes up another stack where it was left.
extern "C" void engine_emulator_switch(void** left, void* taken);
extern "C" void engine_emulator_start();
asm(R"(
.text
.globl engine_emulator_switch
.type engine_emulator_switch, @function
engine_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl engine_emulator_start
.type engine_emulator_start, @function
engine_emulator_start:
  movq %r12, %rdi
  call *%r13
  ud2
)");

struct Fiber::State {
  char* memory;
  void* own = nullptr;
  void* caller = nullptr;

  void Begin(void (*entry)(void*), void* argument) {
    auto* top = reinterpret_cast<uintptr_t*>(memory + kGuardBytes + kStackBytes);
    // As engine_emulator_switch leaves it: r15, r14, r13, r12, rbx, rbp, return address.
    top -= 2;  // the stack is aligned to 16 bytes where engine_emulator_start calls
    *--top = reinterpret_cast<uintptr_t>(&engine_emulator_start);
    *--top = 0;
    *--top = 0;
    *--top = reinterpret_cast<uintptr_t>(argument);
    *--top = reinterpret_cast<uintptr_t>(entry);
    *--top = 0;
    *--top = 0;
    own = top;
  }
  void Resume() { engine_emulator_switch(&caller, own); }
  void Leave() { engine_emulator_switch(&own, caller); }
};

#else

struct Fiber::State {
  char* memory;
  ucontext_t own;
  ucontext_t caller;

  // makecontext passes integers only.
  static void Start(unsigned entry_high, unsigned entry_low, unsigned high, unsigned low) {
    const auto join = [](unsigned h, unsigned l) { return static_cast<uintptr_t>(uint64_t{h} << 32 | l); };
    reinterpret_cast<void (*)(void*)>(join(entry_high, entry_low))(reinterpret_cast<void*>(join(high, low)));
  }
  void Begin(void (*entry)(void*), void* argument) {
    getcontext(&own);
    own.uc_stack.ss_sp = memory + kGuardBytes;
    own.uc_stack.ss_size = kStackBytes;
    own.uc_link = nullptr;
    const auto e = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(entry));
    const auto a = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(argument));
    makecontext(&own, reinterpret_cast<void (*)()>(&Start), 4, static_cast<unsigned>(e >> 32), static_cast<unsigned>(e),
                static_cast<unsigned>(a >> 32), static_cast<unsigned>(a));
  }
  void Resume() { swapcontext(&caller, &own); }
  void Leave() { swapcontext(&own, &caller); }
};

#endif

Fiber::Fiber() : state_(std::make_unique<State>()) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  mprotect(memory, kGuardBytes, PROT_NONE);
  state_->memory = static_cast<char*>(memory);
}

Fiber::~Fiber() {
  if (state_) munmap(state_->memory, kGuardBytes + kStackBytes);
}

Fiber::Fiber(Fiber&&) noexcept = default;

void Fiber::Begin(void (*entry)(void*), void* argument) { state_->Begin(entry, argument); }
void Fiber::Resume() { state_->Resume(); }
void Fiber::Leave() { state_->Leave(); }

}  // namespace engine::cuda::emulator
