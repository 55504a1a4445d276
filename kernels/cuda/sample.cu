// The sampling op: a block per row of logits. src/backend/reference-sampling.ts defines every step, and this gives the
// same tokens and log-probabilities, bit for bit.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/survivors.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = kSampleThreads;

// --- Steps 1 to 3: bias, penalties, mask -----------------------------------------------------------------------------

// Entries may name an id several times, in order: a thread takes all entries of its ids.
ENGINE_DEVICE void AddBias(float* logits, const SamplingRow& row) {
  for (int32_t i = 0; i < row.bias_length; i++) {
    const int32_t id = row.bias_ids[i];
    if (id % kThreads == ThreadIndex()) logits[id] = Add(logits[id], row.bias_values[i]);
  }
  SyncThreads();
}

// Penalties, each once per distinct token: whoever finds a token's mark takes it away. `marks` [vocab_size].
ENGINE_DEVICE void Penalise(float* logits, const SamplingRow& row, int32_t* marks) {
  const auto mark = [&](int32_t begin) {
    for (int32_t i = begin + ThreadIndex(); i < row.history_length; i += kThreads) marks[row.history[i]] = 0;
    SyncThreads();
    for (int32_t i = begin + ThreadIndex(); i < row.history_length; i += kThreads) AtomicAdd(&marks[row.history[i]], 1);
    SyncThreads();
  };
  if (row.repetition_penalty != 1.0f) {
    mark(0);
    for (int32_t i = ThreadIndex(); i < row.history_length; i += kThreads) {
      const int32_t id = row.history[i];
      if (AtomicExchange(&marks[id], 0) == 0) continue;
      const float l = logits[id];
      logits[id] = l > 0.0f ? Divide(l, row.repetition_penalty) : Multiply(l, row.repetition_penalty);
    }
    SyncThreads();
  }
  if (row.frequency_penalty != 0.0f || row.presence_penalty != 0.0f) {
    mark(row.prompt_length);
    for (int32_t i = row.prompt_length + ThreadIndex(); i < row.history_length; i += kThreads) {
      const int32_t id = row.history[i];
      const int32_t times = AtomicExchange(&marks[id], 0);
      if (times == 0) continue;
      const float penalty = Add(Multiply(row.frequency_penalty, static_cast<float>(times)), row.presence_penalty);
      logits[id] = Add(logits[id], -penalty);
    }
    SyncThreads();
  }
}

ENGINE_DEVICE bool AsksForChanges(const SamplingRow& row) {
  return row.bias_length > 0 || row.history_length > 0 || row.mask != nullptr;
}

// The logits with all of these, or the row's own if it asks for none.
ENGINE_DEVICE const float* AdjustedLogits(const SamplingRow& row, int32_t vocab_size, float* buffer, int32_t* marks) {
  if (!AsksForChanges(row)) return row.logits;
  for (int32_t i = ThreadIndex(); i < vocab_size; i += kThreads) buffer[i] = row.logits[i];
  SyncThreads();
  AddBias(buffer, row);
  Penalise(buffer, row, marks);
  if (row.mask != nullptr) {
    for (int32_t i = ThreadIndex(); i < vocab_size; i += kThreads) {
      if ((row.mask[i / 32] >> i % 32 & 1) == 0) buffer[i] = -Infinity();
    }
    SyncThreads();
  }
  return buffer;
}

// --- Steps 4, 5 and 11: the choice -----------------------------------------------------------------------------------

// log(−log(u)), the negative of Gumbel noise; u from Philox4x32-10 (Salmon et al., SC11).
ENGINE_DEVICE float NegativeGumbel(int32_t id, const SamplingRow& row) {
  uint32_t c[4] = {static_cast<uint32_t>(id) >> 2, static_cast<uint32_t>(row.position),
                   static_cast<uint32_t>(row.choice), 0};
  uint32_t k0 = row.seed_low;
  uint32_t k1 = row.seed_high;
  for (int round = 0; round < 10; round++) {
    const uint32_t high_0 = MultiplyHigh(0xd2511f53, c[0]);
    const uint32_t high_1 = MultiplyHigh(0xcd9e8d57, c[2]);
    const uint32_t low_0 = 0xd2511f53 * c[0];
    const uint32_t low_1 = 0xcd9e8d57 * c[2];
    c[0] = high_1 ^ c[1] ^ k0;
    c[1] = low_1;
    c[2] = high_0 ^ c[3] ^ k1;
    c[3] = low_0;
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
  const uint32_t word = (id & 2) != 0 ? ((id & 1) != 0 ? c[3] : c[2]) : ((id & 1) != 0 ? c[1] : c[0]);
  const float u = Multiply(Add(static_cast<float>(word >> 9), 0.5f), 0x1p-23f);
  return Log(Add(0.0f, -Log(u)));
}

// HighestIndex of the row's own logits: from what the head's blocks found, if they looked for it.
ENGINE_DEVICE int32_t HighestLogit(const SampleArgs& args, int r, const float* logits) {
  if (args.highest == nullptr) return HighestIndex(logits, args.vocab_size);
  const Highest* const found = args.highest + static_cast<size_t>(r) * static_cast<size_t>(args.num_highest);
  Highest best = {0.0f, -1};
  for (int32_t i = ThreadIndex(); i < args.num_highest; i += kThreads) best = Better(best, found[i]);
  return BlockBest(best).id;
}

ENGINE_DEVICE int32_t ChooseToken(const SampleArgs& args, int r, const SamplingRow& row, float* adjusted,
                                  Survivors& survivors) {
  const int32_t vocab_size = args.vocab_size;
  const float* logits = AdjustedLogits(row, vocab_size, adjusted, survivors.ids);
  const int32_t greedy = AsksForChanges(row) ? HighestIndex(logits, vocab_size) : HighestLogit(args, r, logits);
  if (greedy < 0 || row.temperature == 0.0f) return greedy;
  survivors.max_z = Divide(logits[greedy], row.temperature);
  if (!IsFinite(survivors.max_z)) return greedy;
  const float lowest = Add(survivors.max_z, -25.0f);
  const bool mass_filter = row.typical_p < 1.0f || row.top_p < 1.0f || row.min_p > 0.0f;
  Highest best = {0.0f, -1};
  if (!mass_filter && row.top_k <= 0) {
    for (int32_t id = ThreadIndex(); id < vocab_size; id += kThreads) {
      const float z = Divide(logits[id], row.temperature);
      if (z >= lowest) best = Better(best, {Add(z, -NegativeGumbel(id, row)), id});
    }
    return BlockBest(best).id;
  }
  survivors.Collect(logits, vocab_size, row.temperature, lowest);
  if (mass_filter) survivors.Weigh();
  survivors.TopK(row.top_k);
  if (row.typical_p < 1.0f) survivors.TypicalP(row.typical_p);
  if (row.top_p < 1.0f) survivors.TopP(row.top_p);
  if (row.min_p > 0.0f) survivors.MinP(row.min_p);
  for (int32_t i = ThreadIndex(); i < survivors.count; i += kThreads) {
    best = Better(best, {Add(survivors.z[i], -NegativeGumbel(survivors.ids[i], row)), survivors.ids[i]});
  }
  return BlockBest(best).id;
}

// --- Log-probabilities under the unmodified logits -------------------------------------------------------------------

ENGINE_DEVICE float OrBanned(float logit) { return logit == logit ? logit : -Infinity(); }

struct LogSum {
  float max;
  float log_sum;  // NaN if the maximum is infinite

  ENGINE_DEVICE float Probability(float logit) const { return Add(Add(OrBanned(logit), -max), -log_sum); }
};

// Σ exp(l − max) in sixteen float64 lanes, id mod 16, added as a fixed tree. The maximum is at `likeliest`, −1: none.
ENGINE_DEVICE LogSum SumLogits(const float* logits, int32_t vocab_size, int32_t likeliest) {
  constexpr int kLanes = 16;
  ENGINE_SHARED(lanes, double[kLanes]);
  ENGINE_SHARED(weights, float[kThreads]);  // all threads make them, and the lanes add them up
  const float max = likeliest < 0 ? -Infinity() : logits[likeliest];
  if (!IsFinite(max)) return {max, NotANumber()};
  if (ThreadIndex() < kLanes) lanes[ThreadIndex()] = 0;
  for (int32_t base = 0; base < vocab_size; base += kThreads) {
    const int32_t id = base + ThreadIndex();
    if (id < vocab_size) weights[ThreadIndex()] = Exp(Add(OrBanned(logits[id]), -max));
    SyncThreads();
    if (ThreadIndex() < kLanes) {
      const int32_t count = vocab_size - base < kThreads ? vocab_size - base : kThreads;
      double sum = lanes[ThreadIndex()];
      for (int32_t i = ThreadIndex(); i < count; i += kLanes) sum = Add(sum, static_cast<double>(weights[i]));
      lanes[ThreadIndex()] = sum;
    }
    SyncThreads();
  }
  for (int half = 8; half > 0; half /= 2) {
    if (ThreadIndex() < half) lanes[ThreadIndex()] = Add(lanes[ThreadIndex()], lanes[ThreadIndex() + half]);
    SyncThreads();
  }
  const LogSum sum = {max, Log(static_cast<float>(lanes[0]))};
  SyncThreads();
  return sum;
}

// What comes next in order (logit descending, id ascending) after `previous`.
ENGINE_DEVICE Highest NextLikely(const float* logits, int32_t vocab_size, Highest previous) {
  Highest best = {0.0f, -1};
  for (int32_t id = ThreadIndex(); id < vocab_size; id += kThreads) {
    const float logit = OrBanned(logits[id]);
    const bool after = previous.id < 0 || logit < previous.value || (logit == previous.value && id > previous.id);
    if (after) best = Better(best, {logit, id});
  }
  return BlockBest(best);
}

// --- The kernel ------------------------------------------------------------------------------------------------------

constexpr int32_t SortCapacity(int32_t count) {
  int32_t capacity = 1;
  while (capacity < count) capacity *= 2;
  return capacity;
}

// ranks; adjusted logits and keys, z, weights; ids
constexpr size_t ScratchBytes(int32_t vocab_size) {
  const auto capacity = static_cast<size_t>(RoundUp(vocab_size, 4));
  return static_cast<size_t>(RoundUp(SortCapacity(vocab_size), 2)) * sizeof(uint64_t) +
         capacity * (3 * sizeof(float) + sizeof(int32_t));
}

ENGINE_KERNEL(kThreads, 1) SampleKernel(SampleArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const auto capacity = static_cast<size_t>(RoundUp(args.vocab_size, 4));
  uint8_t* const scratch = args.scratch + static_cast<size_t>(BlockIndex()) * ScratchBytes(args.vocab_size);
  Survivors survivors;
  survivors.ranks = reinterpret_cast<uint64_t*>(scratch);
  float* const adjusted = reinterpret_cast<float*>(survivors.ranks + RoundUp(SortCapacity(args.vocab_size), 2));
  survivors.keys = adjusted;  // free by then
  survivors.z = adjusted + capacity;
  survivors.weights = survivors.z + capacity;
  survivors.ids = reinterpret_cast<int32_t*>(survivors.weights + capacity);

  for (int r = BlockIndex(); r < args.num_rows; r += NumBlocks()) {
    const SamplingRow row = args.rows[r];
    int32_t token = -1;
    if ((row.flags & kernels::kSample) != 0) token = ChooseToken(args, r, row, adjusted, survivors);
    float logprob = NotANumber();
    LogSum sum = {0.0f, 0.0f};
    const bool wanted = (row.flags & kernels::kLogprobs) != 0;
    if (wanted) {
      sum = SumLogits(row.logits, args.vocab_size, HighestLogit(args, r, row.logits));
      if (token >= 0) logprob = sum.Probability(row.logits[token]);
    }
    Highest next = {0.0f, -1};
    for (int i = 0; i < args.num_top; i++) {
      const bool some = wanted && i < row.num_top && i < args.vocab_size;
      if (some) next = NextLikely(row.logits, args.vocab_size, next);
      if (ThreadIndex() == 0) {
        args.top_ids[r * args.num_top + i] = some ? next.id : -1;
        args.top_logprobs[r * args.num_top + i] = some ? sum.Probability(row.logits[next.id]) : NotANumber();
      }
    }
    if (ThreadIndex() == 0) {
      args.tokens[r] = token;
      args.logprobs[r] = logprob;
    }
    SyncThreads();  // before the next row's scratch
  }
}

}  // namespace

size_t SampleScratchBytes(int32_t vocab_size) { return ScratchBytes(vocab_size); }

LaunchShape ShapeOfSample(const DeviceLimits& limits, const SampleArgs& args) {
  return {args.num_rows < limits.num_multiprocessors ? args.num_rows : limits.num_multiprocessors, 1, kThreads, 0};
}

int LaunchSample(Stream stream, const DeviceLimits& limits, const SampleArgs& args) {
  return Launch(stream, ShapeOfSample(limits, args), &SampleKernel, args);
}

}  // namespace engine::cuda
