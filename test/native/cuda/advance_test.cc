// What lies between two steps of one call: results that are kept, and the next step's inputs.
#include <string>

#include "check.h"
#include "device.h"

namespace engine::cuda::test {
namespace {

// Of the rows of a batch.
struct Inputs {
  std::vector<int32_t> ids, positions, slot_mapping;
  std::vector<AttentionTile> tiles;
  std::vector<SamplingRow> sampling;
};

struct Results {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
};

// In device memory.
struct DeviceResults {
  DeviceArray<int32_t> tokens;
  DeviceArray<float> logprobs;
  DeviceArray<int32_t> top_ids;
  DeviceArray<float> top_logprobs;

  explicit DeviceResults(const Results& from)
      : tokens(from.tokens), logprobs(from.logprobs), top_ids(from.top_ids), top_logprobs(from.top_logprobs) {}
  void Set(const Results& to) const {
    CopyToDevice(tokens.data(), to.tokens.data(), to.tokens.size() * sizeof(int32_t));
    CopyToDevice(logprobs.data(), to.logprobs.data(), to.logprobs.size() * sizeof(float));
    CopyToDevice(top_ids.data(), to.top_ids.data(), to.top_ids.size() * sizeof(int32_t));
    CopyToDevice(top_logprobs.data(), to.top_logprobs.data(), to.top_logprobs.size() * sizeof(float));
  }
  StepResults pointers() const { return {tokens.data(), logprobs.data(), top_ids.data(), top_logprobs.data()}; }
};

// A step of `results`, as a host would do it.
void Follow(Inputs* inputs, const Results& results, const std::vector<int32_t>& tables, int32_t max_blocks,
            int32_t block_size) {
  for (size_t r = 0; r < inputs->ids.size(); r++) {
    if (results.tokens[r] < 0) {
      inputs->sampling[r].flags = 0;
      inputs->slot_mapping[r] = -1;
      continue;
    }
    const int32_t position = ++inputs->positions[r];
    const int32_t block = position / block_size;
    inputs->ids[r] = results.tokens[r];
    inputs->slot_mapping[r] =
        block == max_blocks ? -1
                            : tables[r * static_cast<size_t>(max_blocks) + static_cast<size_t>(block)] * block_size +
                                  position % block_size;
    inputs->tiles[r].first_position++;
    inputs->sampling[r].position++;
  }
}

// The last of the rows has a full context after the last step, row 1 can sample nothing from the second step on.
void CheckAdvance(int32_t num_rows, int32_t block_size, int32_t num_top) {
  constexpr int32_t kSteps = 5, kMaxBlocks = 3;
  Random random(Seed() + static_cast<uint64_t>(31 * num_rows));
  const auto rows = static_cast<size_t>(num_rows), tops = rows * static_cast<size_t>(num_top);
  std::vector<int32_t> tables(rows * kMaxBlocks);
  for (int32_t& block : tables) block = random.below(1000);
  Inputs start;
  for (int32_t r = 0; r < num_rows; r++) {
    const int32_t last = kMaxBlocks * block_size - kSteps;
    const int32_t position = r + 1 == num_rows ? last : random.below(last + 1);
    SamplingRow row = {};
    row.position = position + 1;
    row.flags = kernels::kSample;
    row.seed_low = static_cast<uint32_t>(random.bits());
    start.ids.push_back(random.below(500));
    start.positions.push_back(position);
    start.slot_mapping.push_back(random.below(99));
    start.tiles.push_back({r, r, 1, position});
    start.sampling.push_back(row);
  }
  std::vector<Results> steps;
  for (int32_t step = 0; step < kSteps; step++) {
    Results& results = steps.emplace_back();
    for (int32_t r = 0; r < num_rows; r++) results.tokens.push_back(r == 1 && step > 0 ? -1 : random.below(500));
    results.logprobs = random.values(rows);
    for (size_t i = 0; i < tops; i++) results.top_ids.push_back(random.below(500));
    results.top_logprobs = random.values(tops);
  }
  const DeviceArray<int32_t> device_tables(tables);
  for (Ways ways; ways.Next();) {
    Inputs expected = start;
    Results kept;
    const DeviceArray<int32_t> ids(start.ids), positions(start.positions), slots(start.slot_mapping);
    const DeviceArray<AttentionTile> tiles(start.tiles);
    const DeviceArray<SamplingRow> sampling(start.sampling);
    const DeviceArray<int32_t> counts(std::vector<int32_t>(rows, 0));
    const DeviceResults results(steps[0]);
    const DeviceResults all({std::vector<int32_t>(kSteps * rows), std::vector<float>(kSteps * rows),
                             std::vector<int32_t>(kSteps * tops), std::vector<float>(kSteps * tops)});
    for (const Results& step : steps) {
      results.Set(step);
      Expect(LaunchAdvance(TestStream(), {.num_rows = num_rows,
                                          .num_top = num_top,
                                          .block_size = block_size,
                                          .max_blocks = kMaxBlocks,
                                          .ids = ids.data(),
                                          .positions = positions.data(),
                                          .slot_mapping = slots.data(),
                                          .tiles = tiles.data(),
                                          .sampling = sampling.data(),
                                          .block_tables = device_tables.data(),
                                          .steps = counts.data(),
                                          .results = results.pointers(),
                                          .kept = all.pointers()}));
      Follow(&expected, step, tables, kMaxBlocks, block_size);
      ExpectSame(ids.Read(), expected.ids, "ids");
      ExpectSame(positions.Read(), expected.positions, "positions");
      ExpectSame(slots.Read(), expected.slot_mapping, "slots");
      const std::vector<AttentionTile> moved = tiles.Read();
      const std::vector<SamplingRow> rows_read = sampling.Read();
      for (size_t r = 0; r < rows; r++) {
        if (memcmp(&moved[r], &expected.tiles[r], sizeof(AttentionTile)) != 0) Wrong("tile %zu", r);
        if (memcmp(&rows_read[r], &expected.sampling[r], sizeof(SamplingRow)) != 0) Wrong("sampling row %zu", r);
      }
      kept.tokens.insert(kept.tokens.end(), step.tokens.begin(), step.tokens.end());
      kept.logprobs.insert(kept.logprobs.end(), step.logprobs.begin(), step.logprobs.end());
      kept.top_ids.insert(kept.top_ids.end(), step.top_ids.begin(), step.top_ids.end());
      kept.top_logprobs.insert(kept.top_logprobs.end(), step.top_logprobs.begin(), step.top_logprobs.end());
    }
    ExpectSame(all.tokens.Read(), kept.tokens, "tokens");
    ExpectSame(all.logprobs.Read(), kept.logprobs, "logprobs");
    ExpectSame(all.top_ids.Read(), kept.top_ids, "top ids");
    ExpectSame(all.top_logprobs.Read(), kept.top_logprobs, "top logprobs");
  }
}

}  // namespace

void CheckAdvancing() {
  Case("the next step of 1 row", [] { CheckAdvance(1, 4, 3); });
  Case("the next step of 5 rows", [] { CheckAdvance(5, 2, 20); });
  Case("the next step of 70 rows", [] { CheckAdvance(70, 16, 40); });
}

}  // namespace engine::cuda::test
