// The executor that is a CUDA device: weights, keys and values and activations lie there, a step is a list of launches
// on one stream, and only token ids come back.
#include "native/cuda/cuda_executor.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "native/cuda/device_weights.h"
#include "native/cuda/launches.h"
#include "native/cuda/step_inputs.h"
#include "native/executor.h"

namespace engine::cuda {
namespace {

// Buckets whose launches are kept.
constexpr size_t kMaxKeptBuckets = 256;
// Angles of rotations are made for this many positions at once.
constexpr int32_t kAngleStep = 1024;

Failure CheckSupport(const Plan& plan, const Device& device) {
  const auto unsupported = [&](std::string what, std::string supported) -> Failure {
    return {
        "DEVICE_UNSUPPORTED",
        {{"device", std::string(device.info.name)}, {"what", std::move(what)}, {"supported", std::move(supported)}}};
  };
  const int32_t capability = device.info.limits.compute_capability;
  if (capability < kMinComputeCapability) {
    return unsupported("compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10),
                       "8.0 and later");
  }
  for (const KvLayerInfo& layer : plan.kv_layers) {
    if (layer.head_dim > kMaxHeadDim) {
      return unsupported("heads of " + std::to_string(layer.head_dim) + " values",
                         "up to " + std::to_string(kMaxHeadDim));
    }
  }
  return {};
}

Bucket BucketOf(const Plan& plan, const StepSize& step, int32_t parts, const std::vector<int32_t>& query_start,
                bool head, bool sampling, bool advances) {
  const Limits& limits = plan.limits;
  int32_t chunks = 1;
  while (chunks * kAttentionChunk < step.context_len) chunks *= 2;
  const int32_t num_tokens = RoundToBucket(step.num_tokens, limits.max_tokens);
  return {.num_tokens = num_tokens,
          .num_rows = RoundToBucket(step.num_rows, limits.max_rows),
          .num_chunks = std::min(chunks, CeilDivide(limits.context_size, kAttentionChunk)),
          .tiles = TileCountsOf(plan, parts, query_start, num_tokens),
          .head = head,
          .sampling = sampling,
          .advances = advances};
}

class DeviceBlocks final : public BlockMemory {
 public:
  DeviceBlocks(const Plan& plan, const Device& device, const Areas& areas, const Stream& stream)
      : plan_(plan), device_(device), areas_(areas), stream_(stream) {}

  Failure Allocate() {
    size_t bytes = 0;
    for (int32_t layer = 0; layer < num_layers(); layer++) {
      offsets_.push_back(bytes);
      bytes += 2 * segment_bytes(layer);
    }
    return device_.Check(staging_.Allocate(*device_.api, bytes));
  }

  uint64_t bytes() const { return staging_.size(); }
  uint32_t layout() const override { return 2; }

  size_t segment_bytes(int32_t layer) const override {
    const auto [num_kv_heads, head_dim] = plan_.kv_layers[layer];
    return static_cast<size_t>(num_kv_heads) * KvBlockBytes(plan_.limits.kv_dtype, head_dim, plan_.limits.block_size);
  }

  Failure Open(int32_t block, bool read) override {
    block_ = block;
    if (!read) return {};
    return ForSegments([&](int32_t layer, bool values) {
      return device_.api->copy(stream_, segment(layer, values), OnDevice(block_, layer, values), segment_bytes(layer));
    });
  }

  uint8_t* segment(int32_t layer, bool values) override {
    return staging_.data() + offsets_[layer] + (values ? segment_bytes(layer) : 0);
  }

  Failure Store() override {
    return ForSegments([&](int32_t layer, bool values) {
      return device_.api->copy(stream_, OnDevice(block_, layer, values), segment(layer, values), segment_bytes(layer));
    });
  }

  Failure Copy(int32_t from, int32_t to) override {
    if (from == to) return {};
    return ForSegments([&](int32_t layer, bool values) {
      return device_.api->copy(stream_, OnDevice(to, layer, values), OnDevice(from, layer, values),
                               segment_bytes(layer));
    });
  }

 private:
  int32_t num_layers() const { return static_cast<int32_t>(plan_.kv_layers.size()); }

  uint8_t* OnDevice(int32_t block, int32_t layer, bool values) const {
    const KvCache& cache = areas_.kv[layer];
    return (values ? cache.values : cache.keys) + static_cast<size_t>(block) * segment_bytes(layer);
  }

  // copy(layer, values) for all of them, then waits.
  template <class CopyOne>
  Failure ForSegments(CopyOne copy) const {
    int error = 0;
    for (int32_t layer = 0; layer < num_layers(); layer++) {
      for (const bool values : {false, true}) {
        if (error == 0) error = copy(layer, values);
      }
    }
    if (error == 0) error = device_.api->wait(stream_);
    return device_.Check(error);
  }

  const Plan& plan_;
  const Device& device_;
  const Areas& areas_;
  const Stream& stream_;
  PinnedMemory staging_;         // of one block
  std::vector<size_t> offsets_;  // of each layer's keys in it
  int32_t block_ = 0;
};

class CudaExecutor final : public Executor {
 public:
  CudaExecutor(const Plan& plan, const std::atomic<bool>& cancelled) : plan_(plan), cancelled_(cancelled) {}

  ~CudaExecutor() override {
    if (stream_.handle != nullptr) device_.api->wait(stream_);
    DropLaunches();
    if (stream_.handle != nullptr) device_.api->destroy_stream(stream_);
  }

  Failure Load(const LoadRequest& request) override {
    cuda_ = *request.cuda;
    if (Failure failure = OpenDevice(cuda_.library, cuda_.device, &device_)) return failure;
    if (Failure failure = CheckSupport(plan_, device_)) return failure;
    if (Failure failure = Allocate()) return failure;
    if (cuda_.synthetic) return weights_.Draw(plan_, device_);
    return weights_.Load(plan_, device_, cuda_.device, request, cancelled_);
  }

  int32_t max_steps() const override { return kMaxSteps; }

  // Several steps are launched one after another, and nothing is awaited before the last of them.
  Failure Step(const Batch& batch, const StepOutputs& outputs) override {
    if (lost_) return lost_;
    last_rows_[static_cast<int32_t>(Rows::kTokens)] = batch.num_tokens();
    last_rows_[static_cast<int32_t>(Rows::kLogits)] = batch.sampling.num_rows();
    if (batch.num_tokens() == 0) return {};
    const StepSize size = {batch.num_tokens(), batch.sampling.num_rows(), batch.longest_context()};
    const Bucket bucket = BucketOf(plan_, size, cuda_.parts, batch.query_start, outputs.needs_head(batch),
                                   batch.sampling.needs_logits(), batch.num_steps > 1);
    bool moved = false;
    if (Failure failure = inputs_.Reserve(batch, bucket, &moved)) return failure;
    if (moved) DropLaunches();
    int error = ExtendRope(batch.end_position());
    if (error == 0) error = inputs_.Send(stream_, batch, bucket, areas_.buffer(plan_, plan_.logits));
    for (int32_t step = 0; step < batch.num_steps && error == 0; step++) {
      error = Launch(bucket);
      if (error == 0 && cancelled_.load(std::memory_order_relaxed)) return Disposed();
    }
    if (error == 0) error = Fetch(batch, bucket, outputs);
    return Judge(error);
  }

  Failure Read(int32_t buffer, std::vector<float>* rows) override {
    if (lost_) return lost_;
    const BufferInfo& info = plan_.buffers[buffer];
    rows->resize(static_cast<size_t>(last_rows_[static_cast<int32_t>(info.rows)]) * static_cast<size_t>(info.width));
    int error = rows->empty() ? 0
                              : device_.api->copy(stream_, rows->data(), areas_.buffer(plan_, buffer),
                                                  rows->size() * sizeof(float));
    if (error == 0) error = device_.api->wait(stream_);
    return Judge(error);
  }

  BlockMemory& blocks() override { return blocks_; }
  uint64_t bytes() const override { return inputs_.bytes() + results_.size() + blocks_.bytes(); }

 private:
  // What is done for steps of a bucket: launched one by one at first, then as a graph.
  struct Kept {
    Bucket bucket;
    std::vector<cuda::Launch> launches;
    Graph graph = nullptr;
    bool seen = false;
  };

  Failure Allocate() {
    const DeviceApi& api = *device_.api;
    weights_.Plan(plan_);
    Carver activations(nullptr), kv(nullptr);
    CarveAreas(plan_, device_, weights_.matrices(), cuda_.parts, &activations, &kv, &areas_);
    const MemoryPlan memory = {weights_.planned_bytes(), kv.bytes(), activations.bytes()};
    int error = weights_.Allocate(api);
    if (error == 0) error = kv_.Allocate(api, kv.bytes());
    if (error == 0) error = activations_.Allocate(api, activations.bytes());
    if (error == 0) error = results_.Allocate(api, kMaxSteps * ResultBytes(plan_.limits.max_rows, true));
    if (error != 0) return api.is_out_of_memory(error) ? DeviceOutOfMemory(device_, memory) : device_.Check(error);
    Carver carve_activations(activations_.data()), carve_kv(kv_.data());
    CarveAreas(plan_, device_, weights_.matrices(), cuda_.parts, &carve_activations, &carve_kv, &areas_);
    error = api.create_stream(&stream_);
    stream_.overlaps = stream_.overlaps && cuda_.overlaps;
    // Blocks are saved whole, also what nobody has written.
    if (error == 0 && kv.bytes() > 0) error = api.clear(stream_, kv_.data(), kv.bytes());
    if (error == 0) error = api.clear(stream_, activations_.data(), activations.bytes());
    if (error == 0) error = api.wait(stream_);
    if (error != 0) return device_.Check(error);
    return blocks_.Allocate();
  }

  // Angles of positions up to `end` that are not there yet.
  int ExtendRope(int32_t end) {
    if (end <= rope_end_) return 0;
    end = std::min((end + kAngleStep - 1) / kAngleStep * kAngleStep, plan_.limits.context_size);
    std::vector<float> cos, sin;
    for (size_t i = 0; i < plan_.rope_tables.size(); i++) {
      const size_t pairs = plan_.rope_tables[i].inverse_frequencies.size();
      const size_t start = static_cast<size_t>(rope_end_) * pairs;
      cos.resize(static_cast<size_t>(end - rope_end_) * pairs);
      sin.resize(cos.size());
      MakeAngles(plan_.rope_tables[i], rope_end_, end, cos.data(), sin.data());
      const DeviceApi& api = *device_.api;
      int error = api.copy(stream_, areas_.cos[i] + start, cos.data(), cos.size() * sizeof(float));
      if (error == 0) error = api.copy(stream_, areas_.sin[i] + start, sin.data(), sin.size() * sizeof(float));
      if (error == 0) error = api.wait(stream_);
      if (error != 0) return error;
    }
    rope_end_ = end;
    return 0;
  }

  int Launch(const Bucket& bucket) {
    const DeviceApi& api = *device_.api;
    Kept* kept = nullptr;
    for (Kept& candidate : kept_) {
      if (candidate.bucket == bucket) kept = &candidate;
    }
    if (kept == nullptr) {
      const Placement placement = {plan_,       device_,    areas_, weights_.matrices(), weights_.vectors(),
                                   cuda_.parts, cuda_.fused};
      Kept made = {bucket, MakeLaunches(placement, bucket, inputs_.places(bucket))};
      if (kept_.size() == kMaxKeptBuckets) DropLaunches();
      kept = &kept_.emplace_back(std::move(made));
    }
    if (kept->graph != nullptr) return api.run_graph(stream_, kept->graph);
    // The first time each kernel is loaded, which a capture does not allow.
    const bool padded = bucket.num_tokens <= kMostPadded && bucket.num_rows <= kMostPadded;
    if (!cuda_.graphs || !padded || !std::exchange(kept->seen, true)) return LaunchAll(*kept);
    int error = api.begin_graph(stream_);
    if (error != 0) return error;
    error = LaunchAll(*kept);
    const int end_error = api.end_graph(stream_, &kept->graph);
    if (error == 0) error = end_error;
    return error == 0 ? api.run_graph(stream_, kept->graph) : error;
  }

  int LaunchAll(const Kept& kept) const {
    for (const cuda::Launch& launch : kept.launches) {
      const int error = device_.api->launch(stream_, device_.info.limits, launch);
      if (error != 0) return error;
    }
    return 0;
  }

  void DropLaunches() {
    for (const Kept& kept : kept_) {
      if (kept.graph != nullptr) device_.api->destroy_graph(kept.graph);
    }
    kept_.clear();
  }

  // What the step was asked for, when the device is done.
  int Fetch(const Batch& batch, const Bucket& bucket, const StepOutputs& outputs) {
    const DeviceApi& api = *device_.api;
    const auto rows = static_cast<size_t>(batch.sampling.num_rows());
    const auto copy_rows = [&](float* to, int32_t buffer) {
      const auto width = static_cast<size_t>(plan_.buffers[buffer].width);
      if (to == nullptr || rows == 0) return 0;
      return api.copy(stream_, to, areas_.buffer(plan_, buffer), rows * width * sizeof(float));
    };
    int error = copy_rows(outputs.logits, plan_.logits);
    if (error == 0 && outputs.hidden != nullptr) error = copy_rows(outputs.hidden, plan_.hidden);
    const bool with_top = outputs.sampling.num_top > 0;
    const size_t copies = bucket.advances ? kMaxSteps : 1;
    if (error == 0 && bucket.sampling) {
      error = api.copy(stream_, results_.data(), bucket.advances ? areas_.kept_results : areas_.results,
                       copies * ResultBytes(plan_.limits.max_rows, with_top));
    }
    if (error == 0) error = api.wait(stream_);
    if (error != 0) return error;
    const StepResults from = ResultsAt(results_.data(), copies * static_cast<size_t>(plan_.limits.max_rows));
    const auto stride = bucket.advances ? static_cast<size_t>(AdvancedRows(bucket)) : rows;
    for (size_t step = 0; step < static_cast<size_t>(batch.num_steps); step++) {
      for (size_t r = 0; r < rows; r++) {
        HandOut(from, step * stride + r, bucket.sampling, outputs.sampling, step * rows + r);
      }
    }
    return 0;
  }

  static void HandOut(const StepResults& from, size_t row, bool sampled, const SamplingOutputs& to, size_t place) {
    const auto num_top = static_cast<size_t>(to.num_top);
    to.tokens[place] = sampled ? from.tokens[row] : -1;
    to.logprobs[place] = sampled ? from.logprobs[row] : std::numeric_limits<float>::quiet_NaN();
    std::copy_n(from.top_ids + row * kMaxTopLogprobs, num_top, to.top_ids + place * num_top);
    std::copy_n(from.top_logprobs + row * kMaxTopLogprobs, num_top, to.top_logprobs + place * num_top);
  }

  // An error on a device that has worked so far means that it is lost to this session.
  Failure Judge(int error) {
    Failure failure = device_.Check(error);
    if (failure) lost_ = failure;
    return failure;
  }

  const Plan& plan_;
  const std::atomic<bool>& cancelled_;
  CudaRequest cuda_;
  Device device_;
  DeviceWeights weights_;
  DeviceAllocation kv_, activations_;
  Areas areas_ = {};
  Stream stream_ = {};
  StepInputs inputs_{plan_, device_};
  PinnedMemory results_;
  DeviceBlocks blocks_{plan_, device_, areas_, stream_};
  std::vector<Kept> kept_;
  int32_t rope_end_ = 0;
  int32_t last_rows_[2] = {};  // of the last step, by Rows
  Failure lost_;
};

}  // namespace

Failure DescribeLaunches(const Plan& plan, const CudaRequest& request, const StepSize& step, std::string* text) {
  Device device;
  if (Failure failure = OpenDevice(request.library, request.device, &device)) return failure;
  if (Failure failure = CheckSupport(plan, device)) return failure;
  if (step.num_tokens < 1 || step.num_tokens > plan.limits.max_tokens || step.num_rows < 0 ||
      step.num_rows > plan.limits.max_rows || step.context_len < 1 || step.context_len > plan.limits.context_size) {
    return Internal("a step that the session's limits do not allow");
  }
  // Nothing is read from these addresses.
  DeviceWeights weights;
  weights.Plan(plan);
  Areas areas = {};
  Carver activations(Nowhere()), kv(Nowhere()), inputs(Nowhere());
  CarveAreas(plan, device, weights.matrices(), request.parts, &activations, &kv, &areas);
  const Placement placement = {plan,          device,       areas, weights.matrices(), weights.vectors(),
                               request.parts, request.fused};
  const int32_t num_seqs = std::max(step.num_rows, 1);
  std::vector<int32_t> query_start;
  for (int32_t s = 0; s <= num_seqs; s++) {
    query_start.push_back(static_cast<int32_t>(int64_t{step.num_tokens} * s / num_seqs));
  }
  const Bucket bucket = BucketOf(plan, step, request.parts, query_start, true, step.num_rows > 0, false);
  *text = LaunchesToText(plan, device, MakeLaunches(placement, bucket, CarveInputs(bucket, &inputs)));
  return {};
}

}  // namespace engine::cuda

namespace engine {

std::unique_ptr<Executor> MakeCudaExecutor(const Plan& plan, const std::atomic<bool>& cancelled) {
  return std::make_unique<cuda::CudaExecutor>(plan, cancelled);
}

}  // namespace engine
