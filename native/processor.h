// Which processor a thread is on. Only Linux says, and only there a thread can be moved.
#pragma once

namespace engine {

// −1: unknown.
int CurrentProcessor();

// Moves the calling thread from this processor to another that it may use, if there is one. It may come back.
void LeaveProcessor(int processor);

}  // namespace engine
