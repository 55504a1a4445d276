// The interpreter: runs shares of a schedule's tasks with one instruction set's kernels.
#pragma once

#include "native/executor.h"
#include "native/plan.h"
#include "native/schedule.h"
#include "native/weights.h"
#include "native/workspace.h"

namespace engine {

struct StepContext {
  const kernels::Kernels& kernels;
  const Plan& plan;
  const Schedule& schedule;
  const WeightStore& weights;
  const Workspace& workspace;
  const Batch& batch;  // checked
  const StepOutputs& outputs;
  const size_t num_stages;  // of the schedule, those that the step needs

  int32_t NumRows(Rows rows) const { return rows == Rows::kTokens ? batch.num_tokens() : batch.sampling.num_rows(); }
};

// part.unit must be 0: the task has its own. `thread` says whose scratch is used.
void RunTask(const StepContext& context, const Task& task, kernels::Part part, int32_t thread);

// Samples this part's rows of logits and copies out what else is wanted of them, after all tasks.
void RunSampling(const StepContext& context, kernels::Part part, int32_t thread);

}  // namespace engine
