// The interpreter: runs a schedule with one instruction set's kernels.
#pragma once

#include "native/batch.h"
#include "native/plan.h"
#include "native/schedule.h"
#include "native/team.h"
#include "native/weights.h"
#include "native/workspace.h"

namespace engine {

struct StepOutputs {
  SamplingOutputs sampling;
  float* logits;  // [num_rows, vocab_size], or null if not wanted
};

struct StepContext {
  const kernels::Kernels& kernels;
  const Plan& plan;
  const Schedule& schedule;
  const WeightStore& weights;
  const Workspace& workspace;
  const Batch& batch;  // checked
  const StepOutputs& outputs;
};

// One thread's share of a step. Leaves between two instructions, on all threads alike, when the barrier says so.
void RunStep(const StepContext& context, kernels::Part part, Barrier& barrier);

}  // namespace engine
