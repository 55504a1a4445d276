// Which ops of a step are done together: a pass over the plan that makes groups of ops, each for one launch of linears
// or of heads. It goes by data flow alone, so it holds for any plan, and results are those of the ops one by one, bit
// for bit.
//
//   rmsNorm, siluMul   whose rows only linears read are done where these are prepared
//   linears            of the same rows, with weights of one format, are parts of one launch
//   linear, add        end with the addition
//   gate, up, siluMul  end with the product
//   q, k, v            end turned and in the cache, or are followed by one launch that does that
//
// What is in between is never written: reading such a buffer after a step gives what was there before.
#pragma once

#include <cstdint>
#include <vector>

#include "native/cuda/launches.h"

namespace engine::cuda {

// What a linear's rows are made of: x, rmsNorm(x) · norm, or silu(x) · up.
struct LinearSource {
  int32_t x;     // buffer
  int32_t norm;  // weight, or −1
  int32_t up;    // buffer, or −1
  float eps;
  int32_t value;  // the same number for linears that read the same rows
};

// From the linears' q, k and v to attention.
struct HeadOps {
  int32_t out;             // buffer that attention reads
  int32_t q, k, v;         // buffers
  int32_t q_norm, k_norm;  // weights, or −1
  float eps;
  int32_t rope;  // an op that turns q or k, or −1
  int32_t layer;
};

struct Group {
  enum class Kind { kOp, kLinears, kHeads };
  Kind kind;
  std::vector<int32_t> ops;  // ascending; they are done where the last of them stands
  // kLinears
  std::vector<int32_t> linears;  // ops, one per part
  std::vector<int32_t> outs;     // buffer of each part; −1 for k and v of LinearEnd::kHeads
  LinearEnd end;
  LinearSource source;
  bool in_blocks;  // every block prepares the rows for itself
  bool highest;    // finds the highest product of each block, for sampling
  // kHeads, and LinearEnd::kHeads
  HeadOps heads;
};

// In the order in which they are done. `ops`: those of the plan that a step of the bucket does, ascending. Unless
// placement.fused, each is a group by itself.
std::vector<Group> GroupOps(const Placement& placement, const Bucket& bucket, const std::vector<int32_t>& ops);

}  // namespace engine::cuda
