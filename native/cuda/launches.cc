#include "native/cuda/launches.h"

#include <algorithm>
#include <optional>

#include "native/access.h"
#include "native/cuda/fusion.h"

namespace engine::cuda {
namespace {

// Turns groups of ops into launches, one after another. Rows that several linears read are prepared once.
class Recorder {
 public:
  Recorder(const Placement& placement, const Bucket& bucket, const InputPlaces& inputs)
      : p_(placement), bucket_(bucket), inputs_(inputs) {}

  void Add(const Group& group) {
    op_ = group.ops.back();
    if (group.kind == Group::Kind::kOp) return std::visit(*this, p_.plan.ops[static_cast<size_t>(op_)]);
    if (group.kind == Group::Kind::kHeads) return AddHeads(group.heads);
    AddLinears(group);
  }

  void AddSampling() {
    const int32_t vocab_size = p_.plan.vocab_size();
    const StepResults to = ResultsAt(p_.areas.results, static_cast<size_t>(p_.plan.limits.max_rows));
    op_ = static_cast<int32_t>(p_.plan.ops.size());
    Launch& launch = New(KernelId::kSample);
    launch.sample = {.rows = inputs_.sampling,
                     .num_rows = bucket_.num_rows,
                     .vocab_size = vocab_size,
                     .num_top = kMaxTopLogprobs,
                     .scratch = p_.areas.sample_scratch,
                     .highest = num_highest_ > 0 ? p_.areas.highest : nullptr,
                     .num_highest = num_highest_,
                     .tokens = to.tokens,
                     .logprobs = to.logprobs,
                     .top_ids = to.top_ids,
                     .top_logprobs = to.top_logprobs};
  }

  // After sampling. What it changes are the inputs of launches that only read them.
  void AddAdvance() {
    const auto most = static_cast<size_t>(p_.plan.limits.max_rows);
    New(KernelId::kAdvance).advance = {.num_rows = AdvancedRows(bucket_),
                                       .num_top = kMaxTopLogprobs,
                                       .block_size = p_.plan.limits.block_size,
                                       .max_blocks = MaxBlocks(p_.plan),
                                       .ids = const_cast<int32_t*>(inputs_.ids),
                                       .positions = const_cast<int32_t*>(inputs_.positions),
                                       .slot_mapping = const_cast<int32_t*>(inputs_.slot_mapping),
                                       .tiles = const_cast<AttentionTile*>(inputs_.tiles),
                                       .sampling = const_cast<SamplingRow*>(inputs_.sampling),
                                       .block_tables = inputs_.block_tables,
                                       .steps = const_cast<int32_t*>(inputs_.steps),
                                       .results = ResultsAt(p_.areas.results, most),
                                       .kept = ResultsAt(p_.areas.kept_results, kMaxSteps * most)};
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
    New(KernelId::kRope).rope = {Data(op.x), RotationOf(p_, op_, inputs_.positions), NumRows(op.x), Width(op.x),
                                 op.head_dim};
  }

  void operator()(const WriteKvOp& op) {
    New(KernelId::kWriteKv).write_kv = {Data(op.k), Data(op.v), inputs_.slot_mapping, bucket_.num_tokens,
                                        p_.areas.kv[op.layer]};
  }

  void operator()(const AttentionOp& op) {
    const KvCache& cache = p_.areas.kv[op.layer];
    if (bucket_.tiles.many > 0) {
      New(KernelId::kAttentionMany).attention_many = {.out = Data(op.out),
                                                      .q = Data(op.q),
                                                      .tiles = inputs_.many_tiles,
                                                      .block_tables = inputs_.block_tables,
                                                      .num_tiles = bucket_.tiles.many,
                                                      .max_blocks = MaxBlocks(p_.plan),
                                                      .num_heads = Width(op.q) / cache.head_dim,
                                                      .window = op.window,
                                                      .scale = op.scale,
                                                      .cache = cache};
    }
    if (bucket_.tiles.few == 0) return;
    New(KernelId::kAttention).attention = {
        .out = Data(op.out),
        .q = Data(op.q),
        .tiles = inputs_.tiles,
        .block_tables = inputs_.block_tables,
        .partials = p_.areas.partials,
        .num_tokens = bucket_.num_tokens,
        .num_tiles = bucket_.tiles.few,
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

  void operator()(const LinearOp&) {}  // always in a group of linears

 private:
  Launch& New(KernelId kernel) {
    Launch& launch = launches_.emplace_back();
    launch.kernel = kernel;
    launch.op = op_;
    return launch;
  }

  void AddLinears(const Group& group) {
    const auto& first = std::get<LinearOp>(p_.plan.ops[group.linears[0]]);
    const int32_t num_rows = NumRows(first.x);
    const PreparedRows rows = RowsOf(p_, num_rows, p_.matrices[first.weight].columns);
    if (!group.in_blocks && prepared_ != group.source.value) {
      New(KernelId::kPrepare).prepare = {rows, SourceOf(group)};
      prepared_ = group.source.value;
    }
    const LinearKind kind = LinearKindOf(p_.device.info.limits, num_rows);
    if (kind == LinearKind::kFew) return AddFew(group, rows);
    const TiledMatrix& weight = p_.matrices[first.weight];
    LinearArgs args = {Data(group.outs[0]), rows, weight, Vector(first.bias), group.end == LinearEnd::kAdd};
    if (kind == LinearKind::kBatch) {
      New(KernelId::kLinearBatch).linear = args;
      return;
    }
    if (kind == LinearKind::kWarpgroup) {
      New(KernelId::kLinearWarpgroup).linear = args;
      return;
    }
    if (weight.format != TileFormat::kHalf) {
      New(KernelId::kHalve).halve = {p_.areas.halved_weights, weight};
      args.weight = p_.device.api->halved_matrix(p_.areas.halved_weights, weight);
    }
    New(KernelId::kLinearMany).linear = args;
  }

  void AddFew(const Group& group, const PreparedRows& rows) {
    LinearFewArgs& args = New(KernelId::kLinear).linear_few;
    args = {};
    if (group.in_blocks) args.source = SourceOf(group);
    args.x = rows;
    args.num_parts = static_cast<int32_t>(group.linears.size());
    args.end = group.end;
    for (size_t i = 0; i < group.linears.size(); i++) {
      const auto& linear = std::get<LinearOp>(p_.plan.ops[group.linears[i]]);
      float* const out = group.outs[i] < 0 ? nullptr : Data(group.outs[i]);
      args.parts[i] = {p_.matrices[linear.weight], Vector(linear.bias), out, static_cast<HeadRole>(i)};
    }
    if (group.end == LinearEnd::kHeads) {
      args.rotation = RotationOf(p_, group.heads.rope, inputs_.positions);
      args.slot_mapping = inputs_.slot_mapping;
      args.cache = p_.areas.kv[group.heads.layer];
    }
    if (!group.highest) return;
    args.highest = p_.areas.highest;
    num_highest_ = p_.device.api->shape(p_.device.info.limits, launches_.back()).grid_x;
  }

  void AddHeads(const HeadOps& heads) {
    const KvCache& cache = p_.areas.kv[heads.layer];
    New(KernelId::kHeads).heads = {.out = Data(heads.out),
                                   .q = Data(heads.q),
                                   .k = Data(heads.k),
                                   .v = Data(heads.v),
                                   .q_norm = Vector(heads.q_norm),
                                   .k_norm = Vector(heads.k_norm),
                                   .eps = heads.eps,
                                   .rotation = RotationOf(p_, heads.rope, inputs_.positions),
                                   .slot_mapping = inputs_.slot_mapping,
                                   .num_rows = bucket_.num_tokens,
                                   .num_heads = Width(heads.q) / cache.head_dim,
                                   .cache = cache};
  }

  RowSource SourceOf(const Group& group) const {
    const LinearSource& source = group.source;
    return {Data(source.x), Vector(source.norm), source.up < 0 ? nullptr : Data(source.up), source.eps,
            Width(source.x)};
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
  std::optional<int32_t> prepared_;  // the value whose rows are prepared
  int32_t num_highest_ = 0;          // blocks that found the highest product of each row, if they did
};

// Whether an op works on rows whose logits are wanted.
bool WorksOnLogitRows(const Plan& plan, const Op& op) {
  const Access access = AccessOf(plan, op);
  return std::any_of(access.writes.begin(), access.writes.end(),
                     [](const Region& region) { return region.space == Region::kLogits; });
}

constexpr const char* kKernelNames[kNumKernels] = {
    "embed",      "rmsNorm", "layerNorm", "rope",          "siluMul",         "gelu",   "add",
    "selectRows", "prepare", "linear",    "linearBatch",   "linearWarpgroup", "halve",  "linearMany",
    "writeKv",    "heads",   "attention", "attentionMany", "sample",          "advance"};

// What a launch does besides its kernel's own work.
std::string DetailsOf(const Launch& launch) {
  std::vector<std::string> details;
  const auto add_source = [&](const RowSource& source) {
    if (source.norm != nullptr) details.push_back("rmsNorm");
    if (source.up != nullptr) details.push_back("siluMul");
  };
  if (launch.kernel == KernelId::kPrepare) add_source(launch.prepare.source);
  if (launch.kernel == KernelId::kLinear) {
    const LinearFewArgs& args = launch.linear_few;
    if (args.source.x != nullptr) details.push_back("prepare");
    add_source(args.source);
    if (args.num_parts > 1) details.push_back(std::to_string(args.num_parts) + " linears");
    if (args.end == LinearEnd::kAdd) details.push_back("add");
    if (args.end == LinearEnd::kSiluMul) details.push_back("siluMul");
    if (args.end == LinearEnd::kHeads) details.push_back("heads");
    if (args.highest != nullptr) details.push_back("highest");
  }
  if (launch.kernel == KernelId::kLinearBatch || launch.kernel == KernelId::kLinearWarpgroup ||
      launch.kernel == KernelId::kLinearMany) {
    if (launch.linear.add) details.push_back("add");
  }
  if (launch.kernel == KernelId::kHeads && launch.heads.q_norm != nullptr) details.push_back("rmsNorm");
  std::string text;
  for (const std::string& detail : details) text += (text.empty() ? " (" : ", ") + detail;
  return text.empty() ? text : text + ")";
}

}  // namespace

int32_t RoundToBucket(int32_t count, int32_t most) {
  if (count > kMostPadded) return count;
  int32_t bucket = count < 1 ? 0 : 1;
  while (bucket < count) bucket *= 2;
  return std::min(bucket, most);
}

PreparedRows RowsOf(const Placement& placement, int32_t num_rows, int32_t columns) {
  const LinearKind kind = LinearKindOf(placement.device.info.limits, num_rows);
  return {.halves = placement.areas.halves,
          .sums = placement.areas.sums,
          .scales = placement.areas.scales,
          .num_rows = num_rows,
          .columns = RoundUp(columns, kColumnUnit),
          .parts = placement.parts,
          .order = kind == LinearKind::kWarpgroup ? ActivationOrder::kCores : ActivationOrder::kLanes};
}

HeadRotation RotationOf(const Placement& placement, int32_t rope, const int32_t* positions) {
  if (rope < 0) return {};
  const auto& op = std::get<RopeOp>(placement.plan.ops[static_cast<size_t>(rope)]);
  return {.positions = positions,
          .cos = placement.areas.cos[op.table],
          .sin = placement.areas.sin[op.table],
          .num_pairs = static_cast<int32_t>(placement.plan.rope_tables[op.table].inverse_frequencies.size()),
          .interleaved = op.interleaved == 1};
}

int32_t AdvancedRows(const Bucket& bucket) { return std::min(bucket.num_tokens, bucket.num_rows); }

int32_t MaxBlocks(const Plan& plan) { return CeilDivide(plan.limits.context_size, plan.limits.block_size); }

InputPlaces CarveInputs(const Bucket& bucket, Carver* carver) {
  const auto tokens = static_cast<uint64_t>(bucket.num_tokens), rows = static_cast<uint64_t>(bucket.num_rows);
  InputPlaces places = {};
  places.ids = carver->Take<int32_t>(tokens);
  places.positions = carver->Take<int32_t>(tokens);
  places.slot_mapping = carver->Take<int32_t>(tokens);
  places.rows = carver->Take<int32_t>(rows);
  places.tiles = carver->Take<AttentionTile>(static_cast<uint64_t>(bucket.tiles.few));
  places.many_tiles = carver->Take<ManyAttentionTile>(static_cast<uint64_t>(bucket.tiles.many));
  places.sampling = carver->Take<SamplingRow>(rows);
  places.steps = carver->Take<int32_t>(rows);
  places.block_tables = carver->Take<int32_t>(0);
  return places;
}

std::vector<Launch> MakeLaunches(const Placement& placement, const Bucket& bucket, const InputPlaces& inputs) {
  const Plan& plan = placement.plan;
  std::vector<int32_t> ops;
  const size_t end = bucket.head || plan.head < 0 ? plan.ops.size() : static_cast<size_t>(plan.head);
  for (size_t i = 0; i < end; i++) {
    if (bucket.num_rows > 0 || !WorksOnLogitRows(plan, plan.ops[i])) ops.push_back(static_cast<int32_t>(i));
  }
  Recorder recorder(placement, bucket, inputs);
  for (const Group& group : GroupOps(placement, bucket, ops)) recorder.Add(group);
  if (bucket.sampling) recorder.AddSampling();
  if (bucket.advances) recorder.AddAdvance();
  return recorder.Finish();
}

std::string LaunchesToText(const Plan& plan, const Device& device, const std::vector<Launch>& launches) {
  std::string text;
  for (const Launch& launch : launches) {
    const bool samples = static_cast<size_t>(launch.op) == plan.ops.size();
    const LaunchShape shape = device.api->shape(device.info.limits, launch);
    text += std::to_string(launch.op) + " " + (samples ? "sampling" : kOpNames[plan.ops[launch.op].index()]) + ": " +
            kKernelNames[static_cast<int32_t>(launch.kernel)] + DetailsOf(launch) + " " + std::to_string(shape.grid_x) +
            "x" + std::to_string(shape.grid_y) + " blocks of " + std::to_string(shape.threads) + ", " +
            std::to_string(shape.shared_bytes) + " bytes\n";
  }
  return text;
}

}  // namespace engine::cuda
