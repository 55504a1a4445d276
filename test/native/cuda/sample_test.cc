// Sampling: the tokens and log-probabilities of the scalar CPU kernels, bit for bit.
#include <cmath>
#include <memory>
#include <string>

#include "check.h"
#include "device.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/isa.h"

namespace engine::cuda::test {
namespace {

constexpr int32_t kNumTop = 5;

// One row's inputs on both sides.
struct Row {
  std::vector<float> logits, bias_values;
  std::vector<int32_t> history, bias_ids;
  std::vector<uint32_t> mask;
  kernels::SamplingRow record;
};

float Pick(Random* random, std::initializer_list<float> values) {
  return values.begin()[random->below(static_cast<int32_t>(values.size()))];
}

Row RandomRow(int32_t vocab_size, Random* random) {
  Row row;
  row.logits = random->values(static_cast<size_t>(vocab_size), Pick(random, {0.0f, 2.0f, 9.0f, 60.0f}));
  const auto some_id = [&] { return random->below(vocab_size); };
  if (random->below(3) == 0) {
    // Equal logits, banned and broken ones.
    for (float& logit : row.logits) logit = std::round(logit);
    row.logits[static_cast<size_t>(some_id())] = -INFINITY;
    row.logits[static_cast<size_t>(some_id())] = NAN;
    row.logits[static_cast<size_t>(some_id())] = -0.0f;
  }
  if (random->below(20) == 0) row.logits.assign(row.logits.size(), -INFINITY);
  if (random->below(20) == 0) row.logits[static_cast<size_t>(some_id())] = INFINITY;
  if (random->below(2) == 0) {
    for (int32_t i = random->below(40); i >= 0; i--) row.history.push_back(some_id());
  }
  if (random->below(3) == 0) {
    for (int32_t i = random->below(9); i >= 0; i--) {
      row.bias_ids.push_back(some_id());
      row.bias_values.push_back(i == 0 ? -INFINITY : random->value() * 3.0f);
    }
  }
  if (random->below(3) == 0) {
    for (int32_t i = 0; i < CeilDivide(vocab_size, 32); i++) row.mask.push_back(static_cast<uint32_t>(random->bits()));
  }
  row.record = {};
  row.record.position = random->below(5000);
  row.record.choice = random->below(3);
  row.record.seed_low = static_cast<uint32_t>(random->bits());
  row.record.seed_high = static_cast<uint32_t>(random->bits());
  row.record.flags = random->below(4);
  row.record.temperature = Pick(random, {0.0f, 0.7f, 1.0f, 0.05f, 5.0f});
  row.record.top_k = static_cast<int32_t>(Pick(random, {0.0f, 0.0f, 1.0f, 7.0f, 40.0f, 2000.0f}));
  row.record.top_p = Pick(random, {1.0f, 1.0f, 0.9f, 0.3f, 0.0f});
  row.record.min_p = Pick(random, {0.0f, 0.0f, 0.05f, 0.5f});
  row.record.typical_p = Pick(random, {1.0f, 1.0f, 0.8f, 0.2f});
  row.record.repetition_penalty = Pick(random, {1.0f, 1.3f});
  row.record.presence_penalty = Pick(random, {0.0f, 0.4f});
  row.record.frequency_penalty = Pick(random, {0.0f, 0.3f, -2.0f});
  row.record.history_length = static_cast<int32_t>(row.history.size());
  row.record.prompt_length = row.history.empty() ? 0 : random->below(row.record.history_length + 1);
  row.record.bias_length = static_cast<int32_t>(row.bias_ids.size());
  row.record.num_top = random->below(kNumTop + 1);
  return row;
}

struct Result {
  std::vector<int32_t> tokens, top_ids;
  std::vector<float> logprobs, top_logprobs;
};

Result Expected(const std::vector<Row>& rows, int32_t vocab_size) {
  Result result = {std::vector<int32_t>(rows.size()), std::vector<int32_t>(rows.size() * kNumTop, -1),
                   std::vector<float>(rows.size()), std::vector<float>(rows.size() * kNumTop, NAN)};
  std::vector<uint8_t> scratch(kernels::sample_scratch_bytes(vocab_size) + 64);
  auto* aligned = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  for (size_t r = 0; r < rows.size(); r++) {
    kernels::SamplingRow record = rows[r].record;
    record.logits = rows[r].logits.data();
    record.history = rows[r].history.data();
    record.bias_ids = rows[r].bias_ids.data();
    record.bias_values = rows[r].bias_values.data();
    record.mask = rows[r].mask.empty() ? nullptr : rows[r].mask.data();
    kernels::kernels_scalar.sample({record, vocab_size, aligned, &result.tokens[r], &result.logprobs[r],
                                    &result.top_ids[r * kNumTop], &result.top_logprobs[r * kNumTop]});
  }
  return result;
}

// What blocks of the head that take `at_once` ids in turn find: the highest of theirs, [rows, kNumHighest].
constexpr int32_t kNumHighest = 5;
std::vector<Highest> HighestOf(const std::vector<Row>& rows, int32_t at_once) {
  std::vector<Highest> all;
  for (const Row& row : rows) {
    std::vector<Highest> found(kNumHighest, {0.0f, -1});
    for (size_t id = 0; id < row.logits.size(); id++) {
      Highest& best = found[id / static_cast<size_t>(at_once) % kNumHighest];
      const float logit = row.logits[id];
      if (logit > -INFINITY && (best.id < 0 || logit > best.value)) best = {logit, static_cast<int32_t>(id)};
    }
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

std::vector<float> Plain(std::vector<float> values) {
  for (float& value : values) value = std::isnan(value) ? NAN : value;
  return values;
}

void Check(int32_t vocab_size, int32_t num_rows) {
  Random random(Seed() + 31 + static_cast<uint64_t>(vocab_size));
  std::vector<Row> rows;
  for (int32_t i = 0; i < num_rows; i++) rows.push_back(RandomRow(vocab_size, &random));
  const Result expected = Expected(rows, vocab_size);

  std::vector<std::unique_ptr<DeviceArray<float>>> floats;
  std::vector<std::unique_ptr<DeviceArray<int32_t>>> integers;
  std::vector<std::unique_ptr<DeviceArray<uint32_t>>> masks;
  std::vector<kernels::SamplingRow> records;
  for (const Row& row : rows) {
    kernels::SamplingRow record = row.record;
    record.logits = floats.emplace_back(std::make_unique<DeviceArray<float>>(row.logits))->data();
    record.bias_values = floats.emplace_back(std::make_unique<DeviceArray<float>>(row.bias_values))->data();
    record.history = integers.emplace_back(std::make_unique<DeviceArray<int32_t>>(row.history))->data();
    record.bias_ids = integers.emplace_back(std::make_unique<DeviceArray<int32_t>>(row.bias_ids))->data();
    if (!row.mask.empty()) record.mask = masks.emplace_back(std::make_unique<DeviceArray<uint32_t>>(row.mask))->data();
    records.push_back(record);
  }
  const DeviceArray<kernels::SamplingRow> device_records(records);
  const DeviceArray<Highest> highest(HighestOf(rows, 1 + random.below(64)));
  bool by_head = false;  // in every other way, the head has looked for the highest logits
  for (Ways ways; ways.Next(); by_head = !by_head) {
    const size_t tops = rows.size() * kNumTop;
    const DeviceArray<int32_t> tokens(rows.size()), top_ids(tops);
    const DeviceArray<float> logprobs(rows.size()), top_logprobs(tops);
    SampleArgs args = {
        device_records.data(), num_rows,       vocab_size,         kNumTop, nullptr, nullptr, 0, tokens.data(),
        logprobs.data(),       top_ids.data(), top_logprobs.data()};
    if (by_head) {
      args.highest = highest.data();
      args.num_highest = kNumHighest;
    }
    const auto blocks = static_cast<size_t>(ShapeOfSample(Limits(), args).grid_x);
    const DeviceArray<uint8_t> scratch(blocks * SampleScratchBytes(vocab_size));
    args.scratch = scratch.data();
    Expect(LaunchSample(TestStream(), Limits(), args));
    ExpectSame(tokens.Read(), expected.tokens, "tokens");
    ExpectSame(Plain(logprobs.Read()), Plain(expected.logprobs), "log-probabilities");
    ExpectSame(top_ids.Read(), expected.top_ids, "alternatives");
    ExpectSame(Plain(top_logprobs.Read()), Plain(expected.top_logprobs), "log-probabilities of alternatives");
  }
}

}  // namespace

void CheckSampling() {
  for (const auto& [vocab_size, rows] : {std::pair{1, 8}, {7, 30}, {33, 40}, {1000, 40}, {5003, 12}}) {
    Case("sampling from " + std::to_string(vocab_size) + " tokens", [&] { Check(vocab_size, rows); });
  }
}

}  // namespace engine::cuda::test
