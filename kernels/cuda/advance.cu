// Between the steps of one call: results are kept, and what was sampled becomes the next step's input. The host has no
// part in it, so the device never waits for one.
#include "kernels/cuda/launch.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 128;

// A warp per row.
ENGINE_KERNEL(kThreads, 8) AdvanceKernel(AdvanceArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const int r = BlockIndex() * (kThreads / 32) + ThreadIndex() / 32;
  if (r >= args.num_rows) return;
  const int lane = ThreadIndex() % 32;
  const int kept = args.steps[r] * args.num_rows + r;
  SyncWarp();  // before the number of steps is raised
  for (int i = lane; i < args.num_top; i += 32) {
    args.kept.top_ids[kept * args.num_top + i] = args.results.top_ids[r * args.num_top + i];
    args.kept.top_logprobs[kept * args.num_top + i] = args.results.top_logprobs[r * args.num_top + i];
  }
  if (lane > 0) return;

  const int token = args.results.tokens[r];
  args.kept.tokens[kept] = token;
  args.kept.logprobs[kept] = args.results.logprobs[r];
  args.steps[r]++;
  if (token < 0) {
    args.sampling[r].flags = 0;
    args.slot_mapping[r] = -1;
    return;
  }
  const int position = args.positions[r] + 1;
  const int block = position / args.block_size;
  const int32_t* table = args.block_tables + static_cast<size_t>(r) * static_cast<size_t>(args.max_blocks);
  args.ids[r] = token;
  args.positions[r] = position;
  // After the last step the context may be full.
  args.slot_mapping[r] = block < args.max_blocks ? table[block] * args.block_size + position % args.block_size : -1;
  args.tiles[r].first_position++;
  args.sampling[r].position++;
}

}  // namespace

LaunchShape ShapeOfAdvance(const AdvanceArgs& args) {
  return {CeilDivide(args.num_rows, kThreads / 32), 1, kThreads, 0};
}

int LaunchAdvance(Stream stream, const AdvanceArgs& args) {
  return Launch(stream, ShapeOfAdvance(args), &AdvanceKernel, args);
}

}  // namespace engine::cuda
