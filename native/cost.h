// How long instructions take, roughly: enough to share them out in chunks of some microseconds.
#pragma once

#include "native/schedule.h"

namespace engine {

Cost CostOf(const Plan& plan, const Instruction& instruction);

}  // namespace engine
