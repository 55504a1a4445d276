// The launch plan: which kernels do a step of a plan, with what arguments, in order. It is data, made of the plan, the
// device and where its memory lies, and the same for all steps of a bucket.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "native/cuda/memory.h"

namespace engine::cuda {

// Room for tiles of LaunchAttention and LaunchAttentionMany; 0 where no sequence of the step goes through it.
struct TileCounts {
  int32_t few, many;

  bool operator==(const TileCounts&) const = default;
};

// What distinguishes launch plans. A step with fewer tokens, rows or chunks is padded: token id 0 in no slot, no tile
// of attention, rows for which nothing is sampled.
struct Bucket {
  int32_t num_tokens;
  int32_t num_rows;    // 0: nothing after selectRows
  int32_t num_chunks;  // of the longest context
  TileCounts tiles;
  bool head;  // logits are wanted, or a token
  bool sampling;
  bool advances;  // another step may follow without the host: its inputs are made of this one's results

  bool operator==(const Bucket&) const = default;
};

// The smallest bucket that a step fits in: powers of two up to kMostPadded rows, exact numbers beyond.
inline constexpr int32_t kMostPadded = 64;
int32_t RoundToBucket(int32_t count, int32_t most);

// Inputs of a step on the device, as a bucket lays them out from the start of the input area.
struct InputPlaces {
  const int32_t* ids;                   // [num_tokens]
  const int32_t* positions;             // [num_tokens]
  const int32_t* slot_mapping;          // [num_tokens]
  const int32_t* rows;                  // [num_rows] of tokens, for selectRows
  const AttentionTile* tiles;           // [tiles.few]
  const ManyAttentionTile* many_tiles;  // [tiles.many]
  const SamplingRow* sampling;          // [num_rows]
  const int32_t* steps;                 // [num_rows] whose results each row has kept
  const int32_t* block_tables;          // [num_seqs, max_blocks]
};
// Takes everything but the block tables, which come last.
InputPlaces CarveInputs(const Bucket& bucket, Carver* carver);
// Rows of a bucket that advances: as many as it has both tokens and rows, which holds all of the batch.
int32_t AdvancedRows(const Bucket& bucket);
// Columns of block tables on the device.
int32_t MaxBlocks(const Plan& plan);

// All that launches refer to.
struct Placement {
  const Plan& plan;
  const Device& device;
  const Areas& areas;
  const std::vector<TiledMatrix>& matrices;
  const std::vector<const float*>& vectors;
  int32_t parts;  // of prepared rows
  bool fused;     // ops are done together where they can (fusion.h)
};

// Rows of activations as the linears of so many rows read them, in the area for them.
PreparedRows RowsOf(const Placement& placement, int32_t num_rows, int32_t columns);
// What the op at this place of the plan, a RopeOp or −1, does to heads.
HeadRotation RotationOf(const Placement& placement, int32_t rope, const int32_t* positions);

std::vector<Launch> MakeLaunches(const Placement& placement, const Bucket& bucket, const InputPlaces& inputs);

// One line per launch: the last of its ops, kernel and what it does besides, grid, threads, shared memory.
std::string LaunchesToText(const Plan& plan, const Device& device, const std::vector<Launch>& launches);

}  // namespace engine::cuda
