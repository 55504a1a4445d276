#include "native/processor.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace engine {

#ifdef __linux__

int CurrentProcessor() { return sched_getcpu(); }

void LeaveProcessor(int processor) {
  cpu_set_t all;
  // Fails where there are more processors than a cpu_set_t has bits; then the thread stays.
  if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof all, &all) != 0) return;
  cpu_set_t others = all;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof all, &all);
}

#else

int CurrentProcessor() { return -1; }
void LeaveProcessor(int) {}

#endif

}  // namespace engine
