// Times a saved plan (`engine inspect --save-plan`) on a GPU without Node, with weights drawn on the device:
//
//     cuda_runner LIBRARY PLAN [DECODE CALLS]
//
// Prints one JSON object per measurement: decode of 1, 4, 16 and 64 sequences, one step a call and eight, as far as the
// plan's limits allow, and prefill of one sequence. Times are those of a step. `gb` is what a step has to read at
// least: all matrices once, keys and values of its sequences. Per cent of copies are of what copying the device's
// memory was measured to read and write.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <new>
#include <vector>

#include "native/cuda/copy_rate.h"
#include "native/cuda/cuda_executor.h"
#include "native/cuda/device_weights.h"
#include "native/executor.h"

namespace engine {
namespace {

constexpr char kMagic[] = "ENGNPLAN";
constexpr size_t kMaxPlanBytes = size_t{16} << 20;
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
  std::vector<char> bytes(kMaxPlanBytes + 1);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.size() < 8 || std::memcmp(bytes.data(), kMagic, 8) != 0) Fail(std::string(path) + " is no saved plan");
  if (bytes.size() > kMaxPlanBytes) {
    Fail(std::string(path) + " has more than the " + std::to_string(kMaxPlanBytes) + " bytes that a plan may have");
  }
  if (bytes.size() % sizeof(int32_t) != 0) Fail(std::string(path) + " ends within a word");
  std::vector<int32_t> words((bytes.size() - 8) / sizeof(int32_t));
  std::memcpy(words.data(), bytes.data() + 8, words.size() * sizeof(int32_t));
  return words;
}

// What a step costs at least.
class Cost {
 public:
  explicit Cost(const Plan& plan) : plan_(plan) {
    cuda::DeviceWeights weights;
    weights.Plan(plan);
    std::vector<bool> counted(plan.weights.size());
    for (const Op& op : plan.ops) {
      if (const auto* linear = std::get_if<LinearOp>(&op)) {
        const auto id = static_cast<size_t>(linear->weight);
        const cuda::TiledMatrix& matrix = weights.matrices()[id];
        const double products = 2.0 * matrix.rows * matrix.columns;
        const bool of_tokens = plan.buffers[linear->x].rows == Rows::kTokens;
        (of_tokens ? token_operations_ : row_operations_) += products;
        if (!counted[id]) weight_bytes_ += static_cast<double>(matrix.tile_bytes() + matrix.factor_bytes());
        counted[id] = true;
      }
    }
  }

  double Bytes(int32_t num_seqs, int32_t context_len) const {
    double kv = 0;
    for (const KvLayerInfo& layer : plan_.kv_layers) {
      const Limits& limits = plan_.limits;
      const auto block = static_cast<double>(cuda::KvBlockBytes(limits.kv_dtype, layer.head_dim, limits.block_size));
      kv += 2 * layer.num_kv_heads * block / limits.block_size;
    }
    return weight_bytes_ + kv * num_seqs * std::min(context_len, std::max(plan_.window, 1));
  }
  // Of linear layers.
  double Operations(int32_t num_tokens, int32_t num_rows) const {
    return token_operations_ * num_tokens + row_operations_ * num_rows;
  }

 private:
  const Plan& plan_;
  double weight_bytes_ = 0;
  double token_operations_ = 0, row_operations_ = 0;
};

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

// What measurements are put beside, in bytes per second.
struct Bandwidth {
  double copies;
  double datasheet;  // 0: unknown
};

struct Measured {
  const char* name;
  int32_t num_seqs;
  int32_t tokens;  // of each sequence
  int32_t context;
  int32_t num_steps;  // of a call
  int64_t launches;   // of a step
  double bytes, operations;
  std::vector<double> times;  // of a step, in nanoseconds
};

void Print(Measured measured, const Bandwidth& bandwidth) {
  std::vector<double>& times = measured.times;
  std::sort(times.begin(), times.end());
  const double seconds = times[times.size() / 2] / 1e9;
  const double rate = measured.bytes / seconds;
  std::printf(
      "{\"name\": \"%s\", \"batch\": %d, \"tokens\": %d, \"context\": %d, \"launches\": %lld, \"steps_per_call\": %d, "
      "\"calls\": %zu, \"ms\": {\"median\": %.4f, \"min\": %.4f, \"max\": %.4f}, \"tokens_per_second\": %.1f, "
      "\"gb\": %.9f, \"gb_per_second\": %.6f, \"percent_of_copies\": %.4f, ",
      measured.name, measured.num_seqs, measured.tokens, measured.context, static_cast<long long>(measured.launches),
      measured.num_steps, times.size(), seconds * 1e3, times.front() / 1e6, times.back() / 1e6,
      measured.num_seqs * measured.tokens / seconds, measured.bytes / 1e9, rate / 1e9, 100 * rate / bandwidth.copies);
  if (bandwidth.datasheet > 0) std::printf("\"percent_of_datasheet\": %.4f, ", 100 * rate / bandwidth.datasheet);
  std::printf("\"tflop_per_second\": %.6f}\n", measured.operations / seconds / 1e12);
  std::fflush(stdout);
}

Bandwidth MeasureBandwidth(const CudaRequest& request) {
  cuda::Device device;
  Bandwidth bandwidth = {};
  Expect(cuda::OpenDevice(request.library, request.device, &device));
  Expect(cuda::MeasureCopyRate(device, &bandwidth.copies));
  bandwidth.datasheet = static_cast<double>(device.info.memory_bytes_per_second);
  std::printf("{\"name\": \"device\", \"device\": \"%s\", \"copies_gb_per_second\": %.1f", device.info.name,
              bandwidth.copies / 1e9);
  if (bandwidth.datasheet > 0) std::printf(", \"datasheet_gb_per_second\": %.1f", bandwidth.datasheet / 1e9);
  std::printf("}\n");
  return bandwidth;
}

void Run(const char* library, const char* path, int32_t calls) {
  Plan plan;
  if (std::string problem = DecodePlan(ReadWords(path), std::numeric_limits<int32_t>::max(), &plan); !problem.empty()) {
    Fail(std::string(path) + ": " + problem);
  }
  LoadRequest request = {};
  request.num_threads = 1;
  request.cuda = {
      .library = library, .device = 0, .parts = 1, .graphs = true, .fused = true, .overlaps = true, .synthetic = true};
  const Bandwidth bandwidth = MeasureBandwidth(*request.cuda);
  const std::atomic<bool> cancelled = false;
  const std::unique_ptr<Executor> executor = MakeCudaExecutor(plan, cancelled);
  Expect(executor->Load(request));
  Runner runner(plan, executor.get());
  const Cost cost(plan);
  bool any = false;
  const auto measure = [&](const char* name, int32_t num_seqs, int32_t context, int32_t tokens, int32_t num_steps,
                           int32_t count) {
    if (!runner.Fits(num_seqs, tokens, context + tokens + num_steps - 1)) return;
    std::string launches;
    Expect(cuda::DescribeLaunches(plan, *request.cuda, {num_seqs * tokens, num_seqs, context + tokens}, &launches));
    Measured measured = {name,
                         num_seqs,
                         tokens,
                         context,
                         num_steps,
                         std::count(launches.begin(), launches.end(), '\n'),
                         cost.Bytes(num_seqs, context + tokens),
                         cost.Operations(num_seqs * tokens, num_seqs),
                         {}};
    // The first of a kind load kernels and are captured.
    constexpr int32_t kWarmUp = 3;
    for (int32_t i = -kWarmUp; i < count; i++) {
      const double time = runner.Step(num_seqs, context, tokens, num_steps);
      if (i >= 0) measured.times.push_back(time);
    }
    Print(std::move(measured), bandwidth);
    any = true;
  };
  const int32_t context = std::min(512, plan.limits.context_size / 2);
  for (const int32_t num_seqs : {1, 4, 16, 64}) {
    for (const int32_t num_steps : {1, kMaxSteps}) measure("decode", num_seqs, context, 1, num_steps, calls);
  }
  const int32_t prompt = std::min({2048, plan.limits.max_tokens, plan.limits.context_size});
  measure("prefill", 1, 0, prompt, 1, std::max(1, calls / 10));
  if (!any) Fail(std::string(path) + ": its limits leave no room for a sequence");
}

}  // namespace
}  // namespace engine

int main(int argc, char** argv) {
  char* end = nullptr;
  const long calls = argc > 3 ? std::strtol(argv[3], &end, 10) : 100;
  const bool whole = end == nullptr || (end != argv[3] && *end == '\0');
  if (argc < 3 || argc > 4 || !whole || calls < 1 || calls > engine::kMaxCalls) {
    engine::Fail("usage: cuda_runner LIBRARY PLAN [DECODE CALLS, 1 to 100000]");
  }
  try {
    engine::Run(argv[1], argv[2], static_cast<int32_t>(calls));
  } catch (const std::bad_alloc&) {
    engine::Fail("out of memory");
  }
  return 0;
}
