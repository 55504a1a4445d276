// The ragged inputs of one step, copied from JavaScript before step() returns; shapes as in src/backend/backend.ts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "native/plan.h"

namespace engine {

// Most steps of one call, on devices that can do several.
inline constexpr int32_t kMaxSteps = 8;

// Compressed rows; empty offsets mean that no row has entries.
struct Csr {
  std::vector<int32_t> offsets;  // [num_rows + 1]
  std::vector<int32_t> ids;
  std::vector<float> values;  // [ids.size()], for biases
};

struct SamplingInputs {
  std::vector<SamplingRecord> records;  // [num_rows]
  Csr history;
  Csr bias;
  std::vector<uint32_t> mask;  // [num_rows, ceil(vocab_size / 32)] or empty

  int32_t num_rows() const { return static_cast<int32_t>(records.size()); }
  bool needs_logits() const {
    return std::any_of(records.begin(), records.end(), [](const SamplingRecord& record) { return record.flags != 0; });
  }
};

struct Batch {
  std::vector<int32_t> token_ids;     // [num_tokens]
  std::vector<int32_t> positions;     // [num_tokens]
  std::vector<int32_t> slot_mapping;  // [num_tokens]
  std::vector<int32_t> query_start;   // [num_seqs + 1]
  std::vector<int32_t> context_lens;  // [num_seqs]
  std::vector<int32_t> block_tables;  // [num_seqs, max_blocks] −1 where no layer's window reaches
  SamplingInputs sampling;
  int32_t num_steps = 1;

  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
  int32_t num_seqs() const { return static_cast<int32_t>(context_lens.size()); }
  // Positions are below it, in all steps.
  int32_t end_position() const {
    return positions.empty() ? 0 : *std::max_element(positions.begin(), positions.end()) + num_steps;
  }
  // Of the last step.
  int32_t longest_context() const {
    return num_seqs() == 0 ? 0 : *std::max_element(context_lens.begin(), context_lens.end()) + num_steps - 1;
  }
  int32_t max_blocks() const { return num_seqs() == 0 ? 0 : static_cast<int32_t>(block_tables.size()) / num_seqs(); }
};

// Where results go: arrays that JavaScript made and keeps alive.
struct SamplingOutputs {
  int32_t* tokens;      // [num_steps, num_rows]
  float* logprobs;      // [num_steps, num_rows]
  int32_t* top_ids;     // [num_steps, num_rows, num_top]
  float* top_logprobs;  // [num_steps, num_rows, num_top]
  int32_t num_top;
};

// What is wrong with inputs that kernels would otherwise trust, or an empty string.
std::string CheckBatch(const Batch& batch, const Plan& plan);
// `num_positions`: how many token rows the records may name.
std::string CheckSampling(const SamplingInputs& inputs, int32_t num_positions, int32_t vocab_size);

// Row `row` of the inputs as kernels take it, with pointers into the inputs; its logits belong to the token at
// `position`.
kernels::SamplingRow SamplingRowOf(const SamplingInputs& inputs, int32_t row, const float* logits, int32_t position,
                                   int32_t vocab_size);

// Samples row `row` of the inputs from its logits, which belong to the token at `position`.
void SampleRow(const kernels::Kernels& kernels, const SamplingInputs& inputs, int32_t row, const float* logits,
               int32_t position, int32_t vocab_size, uint8_t* scratch, const SamplingOutputs& out);

}  // namespace engine
