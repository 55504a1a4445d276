// Times a saved plan (`engine inspect --save-plan`) on a GPU without Node, with weights drawn on the device:
//
//     cuda_runner LIBRARY PLAN [DECODE CALLS]
//
// Prints one JSON object per measurement: decode of 1, 4, 16 and 64 sequences, one step a call and eight, as far as the
// plan's limits allow, and prefill of one sequence. Times are those of a step.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

#include "native/executor.h"

namespace engine {
namespace {

constexpr char kMagic[] = "ENGNPLAN";
constexpr int32_t kMaxCalls = 100'000;

[[noreturn]] void Fail(const std::string& problem) {
  std::fprintf(stderr, "cuda_runner: %s\n", problem.c_str());
  std::exit(2);
}

void Expect(const Failure& failure) {
  if (!failure) return;
  std::string text = failure.code;
  for (const auto& [name, value] : failure.parameters) {
    const auto* words = std::get_if<std::string>(&value);
    text += std::string(", ") + name + ": " + (words != nullptr ? *words : std::to_string(std::get<double>(value)));
  }
  Fail(text);
}

std::vector<int32_t> ReadWords(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < 8 || std::memcmp(bytes.data(), kMagic, 8) != 0) Fail(std::string(path) + " is no saved plan");
  std::vector<int32_t> words((bytes.size() - 8) / sizeof(int32_t));
  std::memcpy(words.data(), bytes.data() + 8, words.size() * sizeof(int32_t));
  return words;
}

// Bytes of the matrices that a step reads whole, as they are stored.
double WeightBytes(const Plan& plan) {
  double bytes = 0;
  for (const Op& op : plan.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (linear == nullptr) continue;
    WeightInfo weight = plan.weights[linear->weight];
    weight.dtype = weight.quantize_to;
    weight.transposed_stride = 0;
    bytes += static_cast<double>(weight.extent());
  }
  return bytes;
}

class Runner {
 public:
  Runner(const Plan& plan, Executor* executor) : plan_(plan), executor_(*executor) {}

  // One step of `num_seqs` sequences that have `before` tokens and get `count` more, each sampled at its end; or, with
  // a token each, several in one call. Nanoseconds per step.
  double Step(int32_t num_seqs, int32_t before, int32_t count, int32_t num_steps) {
    const int32_t block_size = plan_.limits.block_size, after = before + count;
    const int32_t blocks = (after + num_steps - 1 + block_size - 1) / block_size;
    Batch batch;
    batch.num_steps = num_steps;
    batch.query_start.push_back(0);
    for (int32_t s = 0; s < num_seqs; s++) {
      for (int32_t position = before; position < after; position++) {
        batch.token_ids.push_back((s * 7919 + position * 31) % plan_.num_token_ids());
        batch.positions.push_back(position);
        batch.slot_mapping.push_back((s * blocks + position / block_size) * block_size + position % block_size);
      }
      for (int32_t b = 0; b < blocks; b++) batch.block_tables.push_back(s * blocks + b);
      batch.query_start.push_back(batch.num_tokens());
      batch.context_lens.push_back(after);
      SamplingRecord& record = batch.sampling.records.emplace_back();
      record.row = batch.num_tokens() - 1;
      record.flags = kSamplingFlagSample;  // of the most likely token
      record.top_p = record.repetition_penalty = 1;
    }
    if (std::string problem = CheckBatch(batch, plan_); !problem.empty()) Fail(problem);
    std::vector<int32_t> tokens(static_cast<size_t>(num_seqs) * static_cast<size_t>(num_steps));
    std::vector<float> logprobs(tokens.size());
    const StepOutputs outputs = {{tokens.data(), logprobs.data(), nullptr, nullptr, 0}, nullptr, nullptr};
    const auto start = std::chrono::steady_clock::now();
    Expect(executor_.Step(batch, outputs));
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / num_steps;
  }

  // Whether so many sequences of that length fit.
  bool Fits(int32_t num_seqs, int32_t tokens, int32_t length) const {
    const Limits& limits = plan_.limits;
    return num_seqs <= limits.max_sequences && num_seqs <= limits.max_rows && num_seqs * tokens <= limits.max_tokens &&
           length <= limits.context_size &&
           num_seqs * ((length + limits.block_size - 1) / limits.block_size) <= limits.num_blocks;
  }

 private:
  const Plan& plan_;
  Executor& executor_;
};

void Print(const char* name, int32_t num_seqs, int32_t tokens, int32_t context, int32_t num_steps,
           std::vector<double> times, double weight_bytes) {
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::printf(
      "{\"name\": \"%s\", \"batch\": %d, \"tokens\": %d, \"context\": %d, \"steps_per_call\": %d, \"calls\": %zu, "
      "\"ms\": {\"median\": %.4f, \"min\": %.4f, \"max\": %.4f}, \"tokens_per_second\": %.1f, \"gb_per_second\": "
      "%.1f}\n",
      name, num_seqs, tokens, context, num_steps, times.size(), median / 1e6, times.front() / 1e6, times.back() / 1e6,
      1e9 * num_seqs * tokens / median, weight_bytes / median);
  std::fflush(stdout);
}

void Run(const char* library, const char* path, int32_t steps) {
  Plan plan;
  if (std::string problem = DecodePlan(ReadWords(path), std::numeric_limits<int32_t>::max(), &plan); !problem.empty()) {
    Fail(problem);
  }
  const std::atomic<bool> cancelled = false;
  const std::unique_ptr<Executor> executor = MakeCudaExecutor(plan, cancelled);
  LoadRequest request = {};
  request.num_threads = 1;
  request.cuda = {.library = library, .device = 0, .parts = 1, .graphs = true, .synthetic = true};
  Expect(executor->Load(request));
  Runner runner(plan, executor.get());
  const double weight_bytes = WeightBytes(plan);
  // The first of a kind load kernels and are captured.
  constexpr int32_t kWarmUp = 3;
  const int32_t context = std::min(512, plan.limits.context_size / 2);
  for (const int32_t num_seqs : {1, 4, 16, 64}) {
    for (const int32_t num_steps : {1, kMaxSteps}) {
      if (!runner.Fits(num_seqs, 1, context + num_steps)) continue;
      std::vector<double> times;
      for (int32_t i = -kWarmUp; i < steps; i++) {
        const double time = runner.Step(num_seqs, context, 1, num_steps);
        if (i >= 0) times.push_back(time);
      }
      Print("decode", num_seqs, 1, context, num_steps, times, weight_bytes);
    }
  }
  const int32_t prompt = std::min({2048, plan.limits.max_tokens, plan.limits.context_size});
  if (runner.Fits(1, prompt, prompt)) {
    std::vector<double> times;
    for (int32_t i = -kWarmUp; i < std::max(1, steps / 10); i++) {
      const double time = runner.Step(1, 0, prompt, 1);
      if (i >= 0) times.push_back(time);
    }
    Print("prefill", 1, prompt, 0, 1, times, weight_bytes);
  }
}

}  // namespace
}  // namespace engine

int main(int argc, char** argv) {
  const long steps = argc > 3 ? std::strtol(argv[3], nullptr, 10) : 100;
  if (argc < 3 || argc > 4 || steps < 1 || steps > engine::kMaxCalls) {
    engine::Fail("usage: cuda_runner LIBRARY PLAN [DECODE CALLS, 1 to 100000]");
  }
  engine::Run(argv[1], argv[2], static_cast<int32_t>(steps));
  return 0;
}
