#include "native/batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace engine {
namespace {

static_assert(kSamplingFlagSample == kernels::kSample && kSamplingFlagLogprobs == kernels::kLogprobs);

std::string OutOfRange(const char* what, size_t index, int64_t value) {
  return std::string(what) + "[" + std::to_string(index) + "] is " + std::to_string(value);
}

// Index of the first value outside [low, high), or −1.
int64_t FirstOutside(const std::vector<int32_t>& values, int32_t low, int32_t high) {
  const auto found = std::find_if(values.begin(), values.end(), [&](int32_t v) { return v < low || v >= high; });
  return found == values.end() ? -1 : found - values.begin();
}

// Offsets run from 0 to `end` and never down.
bool AreOffsets(const std::vector<int32_t>& offsets, size_t count, size_t end) {
  return offsets.size() == count + 1 && offsets.front() == 0 && offsets.back() >= 0 &&
         static_cast<size_t>(offsets.back()) == end && std::is_sorted(offsets.begin(), offsets.end());
}

std::string CheckCsr(const char* what, const Csr& csr, size_t num_rows, int32_t vocab_size) {
  if (csr.offsets.empty() && csr.ids.empty()) return "";
  if (!AreOffsets(csr.offsets, num_rows, csr.ids.size())) return std::string(what) + " has wrong offsets";
  const int64_t outside = FirstOutside(csr.ids, 0, vocab_size);
  return outside < 0 ? "" : OutOfRange(what, static_cast<size_t>(outside), csr.ids[outside]);
}

std::string CheckSequences(const Batch& batch, const Plan& plan) {
  const Limits& limits = plan.limits;
  const int32_t more = batch.num_steps - 1;
  for (int32_t s = 0; s < batch.num_seqs(); s++) {
    const int32_t context = batch.context_lens[s];
    const int32_t queries = batch.query_start[s + 1] - batch.query_start[s];
    if (queries < 1 || context < queries || context > limits.context_size - more) {
      return OutOfRange("contextLens", s, context);
    }
    if (plan.kv_layers.empty()) continue;
    const int32_t last = context + more;  // of the last step
    const int32_t blocks = last / limits.block_size + (last % limits.block_size != 0);
    if (blocks > batch.max_blocks()) return OutOfRange("contextLens", s, context);
    // Blocks before the first position that any layer's window reaches may be absent.
    const int32_t first_visible = std::max(0, context - queries - plan.window + 1);
    const int32_t unseen = first_visible / limits.block_size;
    const size_t row = static_cast<size_t>(s) * static_cast<size_t>(batch.max_blocks());
    for (int32_t b = 0; b < blocks; b++) {
      const size_t i = row + static_cast<size_t>(b);
      const int32_t block = batch.block_tables[i];
      if (block < (b < unseen ? -1 : 0) || block >= limits.num_blocks) return OutOfRange("blockTables", i, block);
    }
  }
  return "";
}

// What the second and later steps of a call take for granted: see Batch in src/backend/backend.ts.
std::string CheckFollowingSteps(const Batch& batch, const Plan& plan) {
  const SamplingInputs& sampling = batch.sampling;
  const auto refuse = [&](const char* what) {
    return "a call of " + std::to_string(batch.num_steps) + " steps " + what;
  };
  if (batch.num_tokens() != batch.num_seqs() || sampling.num_rows() != batch.num_seqs()) {
    return refuse("needs one token and one row of each sequence");
  }
  if (!sampling.history.ids.empty() || !sampling.mask.empty()) return refuse("can have neither history nor mask");
  if (plan.vocab_size() > plan.num_token_ids()) return refuse("may sample a token that has no embedding");
  for (int32_t s = 0; s < batch.num_seqs(); s++) {
    const SamplingRecord& record = sampling.records[s];
    if (record.row != s || (record.flags & kSamplingFlagSample) == 0) return refuse("has a row that samples nothing");
    const int32_t position = batch.positions[s];
    if (position != batch.context_lens[s] - 1 || position > plan.num_positions() - batch.num_steps) {
      return OutOfRange("positions", static_cast<size_t>(s), position);
    }
  }
  return "";
}

std::pair<int32_t, int32_t> RowOf(const Csr& csr, int32_t row) {
  if (csr.offsets.empty()) return {0, 0};
  return {csr.offsets[row], csr.offsets[row + 1] - csr.offsets[row]};
}

}  // namespace

std::string CheckBatch(const Batch& batch, const Plan& plan) {
  const Limits& limits = plan.limits;
  const size_t tokens = batch.token_ids.size();
  if (batch.num_steps < 1 || batch.num_steps > kMaxSteps) {
    return "a call of " + std::to_string(batch.num_steps) + " steps; the limit is " + std::to_string(kMaxSteps);
  }
  if (tokens > static_cast<size_t>(limits.max_tokens)) {
    return "the batch has " + std::to_string(tokens) + " tokens; the session's limit is " +
           std::to_string(limits.max_tokens);
  }
  const size_t seqs = batch.context_lens.size();
  if (seqs > static_cast<size_t>(limits.max_sequences)) {
    return "the batch has " + std::to_string(seqs) + " sequences; the session's limit is " +
           std::to_string(limits.max_sequences);
  }
  if (batch.sampling.records.size() > static_cast<size_t>(limits.max_rows)) {
    return "the batch has " + std::to_string(batch.sampling.records.size()) + " rows; the session's limit is " +
           std::to_string(limits.max_rows);
  }
  if (batch.positions.size() != tokens || batch.slot_mapping.size() != tokens ||
      !AreOffsets(batch.query_start, seqs, tokens) || batch.block_tables.size() > INT32_MAX ||
      (seqs == 0 ? !batch.block_tables.empty() : batch.block_tables.size() % seqs != 0)) {
    return "the batch's arrays do not fit each other";
  }
  if (const int64_t i = FirstOutside(batch.token_ids, 0, plan.num_token_ids()); i >= 0) {
    return OutOfRange("tokenIds", static_cast<size_t>(i), batch.token_ids[i]);
  }
  if (const int64_t i = FirstOutside(batch.positions, 0, plan.num_positions()); i >= 0) {
    return OutOfRange("positions", static_cast<size_t>(i), batch.positions[i]);
  }
  if (const int64_t i = FirstOutside(batch.slot_mapping, -1, limits.num_blocks * limits.block_size); i >= 0) {
    return OutOfRange("slotMapping", static_cast<size_t>(i), batch.slot_mapping[i]);
  }
  if (std::string problem = CheckSequences(batch, plan); !problem.empty()) return problem;
  if (std::string problem = CheckSampling(batch.sampling, batch.num_tokens(), plan.vocab_size()); !problem.empty()) {
    return problem;
  }
  return batch.num_steps > 1 ? CheckFollowingSteps(batch, plan) : "";
}

std::string CheckSampling(const SamplingInputs& inputs, int32_t num_positions, int32_t vocab_size) {
  const size_t rows = inputs.records.size();
  for (size_t r = 0; r < rows; r++) {
    const SamplingRecord& record = inputs.records[r];
    if (record.row < 0 || record.row >= num_positions) return OutOfRange("sampling row", r, record.row);
    if (record.top_k < 0) return OutOfRange("topK", r, record.top_k);
    if (record.prompt_length < 0) return OutOfRange("promptLength", r, record.prompt_length);
    if (record.num_top < 0 || record.num_top > kMaxTopLogprobs) return OutOfRange("numTop", r, record.num_top);
    for (const float value : {record.temperature, record.top_p, record.min_p, record.typical_p,
                              record.repetition_penalty, record.presence_penalty, record.frequency_penalty}) {
      if (!std::isfinite(value)) return "sampling row [" + std::to_string(r) + "] has a parameter that is not finite";
    }
  }
  if (std::string problem = CheckCsr("history", inputs.history, rows, vocab_size); !problem.empty()) return problem;
  if (std::string problem = CheckCsr("bias", inputs.bias, rows, vocab_size); !problem.empty()) return problem;
  if (inputs.bias.values.size() != inputs.bias.ids.size()) return "bias has ids without values";
  const size_t mask_words = (static_cast<size_t>(vocab_size) + 31) / 32;
  if (!inputs.mask.empty() && inputs.mask.size() != rows * mask_words) return "mask has a wrong length";
  return "";
}

kernels::SamplingRow SamplingRowOf(const SamplingInputs& inputs, int32_t row, const float* logits, int32_t position,
                                   int32_t vocab_size) {
  const SamplingRecord& record = inputs.records[row];
  const auto [history_start, history_length] = RowOf(inputs.history, row);
  const auto [bias_start, bias_length] = RowOf(inputs.bias, row);
  const size_t mask_words = (static_cast<size_t>(vocab_size) + 31) / 32;
  return {
      .logits = logits,
      .position = position + 1,
      .choice = record.choice,
      .seed_low = static_cast<uint32_t>(record.seed_low),
      .seed_high = static_cast<uint32_t>(record.seed_high),
      .flags = record.flags,
      .temperature = record.temperature,
      .top_k = record.top_k,
      .top_p = record.top_p,
      .min_p = record.min_p,
      .typical_p = record.typical_p,
      .repetition_penalty = record.repetition_penalty,
      .presence_penalty = record.presence_penalty,
      .frequency_penalty = record.frequency_penalty,
      .history = inputs.history.ids.data() + history_start,
      .history_length = history_length,
      .prompt_length = std::min(record.prompt_length, history_length),
      .bias_ids = inputs.bias.ids.data() + bias_start,
      .bias_values = inputs.bias.values.data() + bias_start,
      .bias_length = bias_length,
      .mask = inputs.mask.empty() ? nullptr : inputs.mask.data() + static_cast<size_t>(row) * mask_words,
      // Without the flag no room for alternatives was made.
      .num_top = (record.flags & kernels::kLogprobs) != 0 ? std::min(record.num_top, vocab_size) : 0,
  };
}

void SampleRow(const kernels::Kernels& kernels, const SamplingInputs& inputs, int32_t row, const float* logits,
               int32_t position, int32_t vocab_size, uint8_t* scratch, const SamplingOutputs& out) {
  int32_t* top_ids = out.top_ids + static_cast<size_t>(row) * static_cast<size_t>(out.num_top);
  float* top_logprobs = out.top_logprobs + static_cast<size_t>(row) * static_cast<size_t>(out.num_top);
  std::fill_n(top_ids, out.num_top, -1);
  std::fill_n(top_logprobs, out.num_top, std::numeric_limits<float>::quiet_NaN());
  kernels.sample({
      .row = SamplingRowOf(inputs, row, logits, position, vocab_size),
      .vocab_size = vocab_size,
      .scratch = scratch,
      .token = out.tokens + row,
      .logprob = out.logprobs + row,
      .top_ids = top_ids,
      .top_logprobs = top_logprobs,
  });
}

}  // namespace engine
