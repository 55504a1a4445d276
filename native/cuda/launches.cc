#include "native/cuda/launches.h"

#include <algorithm>

#include "native/access.h"

namespace engine::cuda {
namespace {

// Turns ops into launches, one after another. The rows that linears read are prepared once for as long as their buffer
// stays as it is: q, k and v of a layer share theirs.
class Recorder {
 public:
  Recorder(const Placement& placement, const Bucket& bucket, const InputPlaces& inputs)
      : p_(placement), bucket_(bucket), inputs_(inputs) {}

  void Add(int32_t index) {
    op_ = index;
    const Op& op = p_.plan.ops[static_cast<size_t>(index)];
    std::visit(*this, op);
    for (const Region& region : AccessOf(p_.plan, op).writes) {
      if (prepared_ >= 0 && region.Overlaps(OfBuffer(p_.plan, prepared_))) prepared_ = -1;
    }
  }

  void AddSampling() {
    const int32_t vocab_size = p_.plan.vocab_size(), most = p_.plan.limits.max_rows;
    auto* tokens = reinterpret_cast<int32_t*>(p_.areas.results);
    op_ = static_cast<int32_t>(p_.plan.ops.size());
    Launch& launch = New(KernelId::kSample);
    launch.sample = {.rows = inputs_.sampling,
                     .num_rows = bucket_.num_rows,
                     .vocab_size = vocab_size,
                     .num_top = kMaxTopLogprobs,
                     .scratch = p_.areas.sample_scratch,
                     .highest = nullptr,
                     .num_highest = 0,
                     .tokens = tokens,
                     .logprobs = reinterpret_cast<float*>(tokens + most),
                     .top_ids = tokens + 2 * most,
                     .top_logprobs = reinterpret_cast<float*>(tokens + (2 + kMaxTopLogprobs) * most)};
  }

  std::vector<Launch> Finish() { return std::move(launches_); }

  void operator()(const EmbedOp& op) {
    New(KernelId::kEmbed).embed = {Data(op.out), p_.matrices[op.table], inputs_.ids, bucket_.num_tokens, false};
  }

  void operator()(const AddPositionsOp& op) {
    New(KernelId::kEmbed).embed = {Data(op.x), p_.matrices[op.table], inputs_.positions, bucket_.num_tokens, true};
  }

  void operator()(const RmsNormOp& op) {
    const int32_t columns = p_.plan.weights[op.weight].columns;
    const int32_t groups = NumRows(op.x) * (Width(op.x) / columns);
    New(KernelId::kRmsNorm).norm = {Data(op.out), Data(op.x), Vector(op.weight), nullptr, groups, columns, op.eps};
  }

  void operator()(const LayerNormOp& op) {
    New(KernelId::kLayerNorm).norm = {Data(op.out), Data(op.x), Vector(op.weight), Vector(op.bias), NumRows(op.x),
                                      Width(op.x),  op.eps};
  }

  void operator()(const RopeOp& op) {
    const auto pairs = static_cast<int32_t>(p_.plan.rope_tables[op.table].inverse_frequencies.size());
    New(KernelId::kRope).rope = {.x = Data(op.x),
                                 .positions = inputs_.positions,
                                 .cos = p_.areas.cos[op.table],
                                 .sin = p_.areas.sin[op.table],
                                 .num_rows = NumRows(op.x),
                                 .width = Width(op.x),
                                 .head_dim = op.head_dim,
                                 .num_pairs = pairs,
                                 .interleaved = op.interleaved == 1};
  }

  void operator()(const WriteKvOp& op) {
    New(KernelId::kWriteKv).write_kv = {Data(op.k), Data(op.v), inputs_.slot_mapping, bucket_.num_tokens,
                                        p_.areas.kv[op.layer]};
  }

  void operator()(const AttentionOp& op) {
    const KvCache& cache = p_.areas.kv[op.layer];
    New(KernelId::kAttention).attention = {
        .out = Data(op.out),
        .q = Data(op.q),
        .tiles = inputs_.tiles,
        .block_tables = inputs_.block_tables,
        .partials = p_.areas.partials,
        .num_tokens = bucket_.num_tokens,
        .num_tiles = bucket_.num_tokens,
        .max_blocks = MaxBlocks(p_.plan),
        .num_heads = Width(op.q) / cache.head_dim,
        .num_chunks = bucket_.num_chunks,
        .window = op.window,
        .scale = op.scale,
        .cache = cache,
        .split = bucket_.num_tokens <= kSplitTokens && bucket_.num_chunks > 1 && bucket_.num_chunks <= kSplitChunks};
  }

  void operator()(const SiluMulOp& op) {
    New(KernelId::kSiluMul).pointwise = {Data(op.out), Data(op.gate), Data(op.up), Count(op.out), false};
  }

  void operator()(const GeluOp& op) {
    New(KernelId::kGelu).pointwise = {Data(op.out), Data(op.x), nullptr, Count(op.out), op.approximate == 1};
  }

  void operator()(const AddOp& op) {
    New(KernelId::kAdd).pointwise = {Data(op.x), nullptr, Data(op.y), Count(op.x), false};
  }

  void operator()(const SelectRowsOp& op) {
    New(KernelId::kSelectRows).select_rows = {Data(op.out), Data(op.x), inputs_.rows, bucket_.num_rows, Width(op.x)};
  }

  void operator()(const LinearOp& op) {
    const DeviceApi& api = *p_.device.api;
    const TiledMatrix& weight = p_.matrices[op.weight];
    const int32_t num_rows = NumRows(op.x);
    const LinearKind kind = LinearKindOf(p_.device.info.limits, num_rows);
    const PreparedRows rows = {
        .halves = p_.areas.halves,
        .sums = p_.areas.sums,
        .scales = p_.areas.scales,
        .num_rows = num_rows,
        .columns = RoundUp(weight.columns, kColumnUnit),
        .parts = p_.parts,
        .order = kind == LinearKind::kWarpgroup ? ActivationOrder::kCores : ActivationOrder::kLanes};
    if (prepared_ != op.x)
      New(KernelId::kPrepare).prepare = {rows, {Data(op.x), nullptr, nullptr, 0.0f, weight.columns}};
    prepared_ = op.x;
    const LinearArgs args = {Data(op.out), rows, weight, Vector(op.bias), false};
    if (kind == LinearKind::kFew) {
      New(KernelId::kLinear).linear_few = FewOf(args);
      return;
    }
    if (kind == LinearKind::kBatch) {
      New(KernelId::kLinearBatch).linear = args;
      return;
    }
    if (kind == LinearKind::kWarpgroup) {
      New(KernelId::kLinearWarpgroup).linear = args;
      return;
    }
    LinearArgs many = args;
    if (weight.format != TileFormat::kHalf) {
      New(KernelId::kHalve).halve = {p_.areas.halved_weights, weight};
      many.weight = api.halved_matrix(p_.areas.halved_weights, weight);
    }
    New(KernelId::kLinearMany).linear = many;
  }

 private:
  Launch& New(KernelId kernel) {
    Launch& launch = launches_.emplace_back();
    launch.kernel = kernel;
    launch.op = op_;
    return launch;
  }

  float* Data(int32_t buffer) const { return p_.areas.buffer(p_.plan, buffer); }
  int32_t Width(int32_t buffer) const { return p_.plan.buffers[buffer].width; }
  const float* Vector(int32_t weight) const { return weight < 0 ? nullptr : p_.vectors[weight]; }
  int32_t NumRows(int32_t buffer) const {
    return p_.plan.buffers[buffer].rows == Rows::kTokens ? bucket_.num_tokens : bucket_.num_rows;
  }
  int64_t Count(int32_t buffer) const { return int64_t{NumRows(buffer)} * Width(buffer); }

  const Placement& p_;
  const Bucket& bucket_;
  const InputPlaces& inputs_;
  std::vector<Launch> launches_;
  int32_t op_ = 0;
  int32_t prepared_ = -1;  // the buffer whose rows are prepared, while it has not changed since
};

// Whether an op works on rows whose logits are wanted.
bool WorksOnLogitRows(const Plan& plan, const Op& op) {
  const Access access = AccessOf(plan, op);
  return std::any_of(access.writes.begin(), access.writes.end(),
                     [](const Region& region) { return region.space == Region::kLogits; });
}

constexpr const char* kKernelNames[kNumKernels] = {
    "embed",  "rmsNorm",     "layerNorm",       "rope",  "siluMul",    "gelu",    "add",       "selectRows", "prepare",
    "linear", "linearBatch", "linearWarpgroup", "halve", "linearMany", "writeKv", "attention", "sample"};

}  // namespace

int32_t RoundToBucket(int32_t count, int32_t most) {
  if (count > kMostPadded) return count;
  int32_t bucket = count < 1 ? 0 : 1;
  while (bucket < count) bucket *= 2;
  return std::min(bucket, most);
}

int32_t MaxBlocks(const Plan& plan) { return CeilDivide(plan.limits.context_size, plan.limits.block_size); }

InputPlaces CarveInputs(const Bucket& bucket, Carver* carver) {
  const auto tokens = static_cast<uint64_t>(bucket.num_tokens), rows = static_cast<uint64_t>(bucket.num_rows);
  InputPlaces places = {};
  places.ids = carver->Take<int32_t>(tokens);
  places.positions = carver->Take<int32_t>(tokens);
  places.slot_mapping = carver->Take<int32_t>(tokens);
  places.rows = carver->Take<int32_t>(rows);
  places.tiles = carver->Take<AttentionTile>(tokens);
  places.sampling = carver->Take<SamplingRow>(rows);
  places.block_tables = carver->Take<int32_t>(0);
  return places;
}

std::vector<Launch> MakeLaunches(const Placement& placement, const Bucket& bucket, const InputPlaces& inputs) {
  const Plan& plan = placement.plan;
  Recorder recorder(placement, bucket, inputs);
  const size_t end = bucket.head || plan.head < 0 ? plan.ops.size() : static_cast<size_t>(plan.head);
  for (size_t i = 0; i < end; i++) {
    if (bucket.num_rows > 0 || !WorksOnLogitRows(plan, plan.ops[i])) recorder.Add(static_cast<int32_t>(i));
  }
  if (bucket.sampling) recorder.AddSampling();
  return recorder.Finish();
}

std::string LaunchesToText(const Plan& plan, const Device& device, const std::vector<Launch>& launches) {
  std::string text;
  for (const Launch& launch : launches) {
    const bool samples = static_cast<size_t>(launch.op) == plan.ops.size();
    const LaunchShape shape = device.api->shape(device.info.limits, launch);
    text += std::to_string(launch.op) + " " + (samples ? "sampling" : kOpNames[plan.ops[launch.op].index()]) + ": " +
            kKernelNames[static_cast<int32_t>(launch.kernel)] + " " + std::to_string(shape.grid_x) + "x" +
            std::to_string(shape.grid_y) + " blocks of " + std::to_string(shape.threads) + ", " +
            std::to_string(shape.shared_bytes) + " bytes\n";
  }
  return text;
}

}  // namespace engine::cuda
