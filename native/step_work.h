// A step as work for a team: how each stage is cut into chunks, by what it costs.
#pragma once

#include <vector>

#include "native/run_cpu.h"
#include "native/team.h"

namespace engine {

// Its last stage samples.
class StepWork final : public Work {
 public:
  // A chunk takes at least `chunk_time` nanoseconds of a core, roughly.
  StepWork(const StepContext& context, int32_t num_threads, double chunk_time);

  int32_t NextStage() override;
  void RunChunk(int32_t chunk, int32_t thread) override;

 private:
  int32_t ShareOut(const Stage& stage);
  int32_t ShareOutSampling() const;
  int32_t NumChunks(const Task& task, double time, double chunk_time) const;
  int32_t MostChunks(const Task& task) const;

  const StepContext& context_;
  const int32_t num_threads_;
  const double chunk_time_;
  const double num_pairs_;             // of a query and a position that it sees
  int64_t stage_ = -1;                 // the open one; num_stages: sampling
  int32_t num_chunks_ = 0;             // of the open stage
  std::vector<int32_t> chunk_begins_;  // by task of the open stage; empty if one chunk does them all
};

// What a step takes on one core, roughly, in nanoseconds.
double StepTime(const StepContext& context);

}  // namespace engine
