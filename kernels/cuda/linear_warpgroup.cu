// Linear layers for more rows than Linear takes, on sm_90a: a warpgroup multiplies 64 rows of weights by up to 256 rows
// of activations at once. Weights come to shared memory in their tiles and become halves in registers, where the matrix
// unit reads them; activations are read from shared memory as they lie. Weights, products and their order are those of
// LinearBatch and LinearMany, whatever the number of rows.
//
// Some warps fetch stages of 64 columns for one or two warpgroups, which share the activations and have rows of weights
// of their own. While the matrix unit works on a stage, their warps make halves of the next one.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_reader.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kGroupTiles = 4;  // of weights, one for each warp of a warpgroup
constexpr int32_t kGroupWarps = 4;
constexpr int32_t kStageColumns = 64;
constexpr int32_t kQuads = kColumnUnit / kStageColumns;  // stages of a unit of columns
constexpr int32_t kTokenTileBytes = kTokenTile * kStageColumns * 2;

// What a block has: warpgroups, and rows of activations.
struct BlockForm {
  int32_t groups;
  int32_t tokens;

  constexpr int32_t row_tiles() const { return groups * kGroupTiles; }
  constexpr int32_t warps() const { return groups * kGroupWarps; }  // that multiply
  constexpr int32_t token_tiles() const { return tokens / kTokenTile; }
  // A warp starts its copies one after another, so that they are shared out. Those of the larger blocks are a
  // warpgroup, whose registers go to the others: evenly shared, 168 a thread would not do for 128 sums.
  constexpr int32_t fetch_warps() const { return groups > 1 ? kGroupWarps : 2; }
  constexpr bool moves_registers() const { return groups > 1; }
  constexpr int32_t multiply_registers() const { return 232; }
  constexpr int32_t fetch_registers() const { return 40; }
  constexpr int32_t threads() const { return 32 * (warps() + fetch_warps()); }
  // That a multiprocessor should hold.
  constexpr int32_t blocks() const { return groups > 1 ? 1 : 2; }
};
constexpr BlockForm kForms[] = {{1, 64}, {1, 128}, {2, 128}, {2, 256}};
constexpr int32_t kNumForms = 4;

// How a block's shared memory is divided: stages of codes and activations, then factors, which serve all stages of a
// tile.
struct StageLayout {
  int32_t code_bytes;    // of 64 columns of a tile of weights
  int32_t factor_bytes;  // of a tile
  int32_t stage_bytes;
  int32_t stages;
  int32_t factor_slots;
  int32_t shared_bytes;
};
constexpr int32_t kBarriers = 16;  // so that what lies behind them begins with a line of 128 bytes
constexpr int32_t kMaxStages = 6;
// Of a multiprocessor of compute capability 9.0, less what the system takes of a block and the barriers.
constexpr int32_t kSharedBytes = 228 << 10;
constexpr int32_t kTakenBytes = (1 << 10) + kBarriers * 8;

constexpr StageLayout StageLayoutOf(TileFormat format, BlockForm form) {
  const TileLayout tile = TileLayoutOf(format);
  StageLayout layout = {};
  layout.code_bytes = kTileRows * kStageColumns * tile.bits / 8;
  layout.factor_bytes = tile.tile_bytes() - tile.code_bytes();
  layout.stage_bytes = form.row_tiles() * layout.code_bytes + form.token_tiles() * kTokenTileBytes;
  // Factors are read with the first stage of a tile. When the slot is filled again, two tiles later, that stage has
  // been given back, since no more than two tiles are under way.
  layout.factor_slots = layout.factor_bytes == 0 ? 0 : 2;
  static_assert(kMaxStages <= 2 * kQuads);
  const int32_t factors = layout.factor_slots * form.row_tiles() * layout.factor_bytes;
  const int32_t room = (kSharedBytes / form.blocks() / 128 * 128 - kTakenBytes - factors) / layout.stage_bytes;
  layout.stages = room < kMaxStages ? room : kMaxStages;
  layout.shared_bytes = layout.stages * layout.stage_bytes + factors;
  return layout;
}

// A place in the ring of stages. Barriers of a stage end a phase each time round.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;

  ENGINE_DEVICE void Advance() {
    stage++;
    if (stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <TileFormat kFormat, int kFormIndex>
class WarpgroupProduct {
 public:
  static constexpr BlockForm kForm = kForms[kFormIndex];
  static constexpr TileLayout kTile = TileLayoutOf(kFormat);
  static constexpr StageLayout kLayout = StageLayoutOf(kFormat, kForm);
  static constexpr int kStages = kLayout.stages;
  static_assert(kStages >= 3 && 2 * kStages <= kBarriers);
  static_assert(kLayout.code_bytes % 16 == 0 && kLayout.factor_bytes % 16 == 0);

  // `full` and `empty` are of each stage.
  ENGINE_DEVICE WarpgroupProduct(const LinearArgs& args, uint8_t* shared, uint64_t* full, uint64_t* empty)
      : args_(args), shared_(shared), full_(full), empty_(empty) {
    const TiledMatrix& weight = args.weight;
    steps_per_part_ = weight.planes * (args.x.columns / kStageColumns);
    num_steps_ = steps_per_part_ * args.x.parts;
    token_blocks_ = (args.x.num_rows + kForm.tokens - 1) / kForm.tokens;
    num_blocks_ = token_blocks_ * ((weight.row_tiles() + kForm.row_tiles() - 1) / kForm.row_tiles());
  }

  // By warp `warp` of those that fetch.
  ENGINE_DEVICE void Fetch(int warp, int lane) {
    // Weights do not depend on earlier launches, activations do.
    const int early = kStages < num_steps_ ? kStages : num_steps_;
    SetBlock(BlockIndex());
    for (int step = 0; step < early; step++) FetchWeights(step, step, warp, lane);
    WaitForEarlierLaunches();
    for (int step = 0; step < early; step++) FetchActivations(step, step, warp, lane);

    RingPlace<kStages> place;
    for (int step = 0; step < early; step++) place.Advance();
    int first_step = early;
    for (int block = BlockIndex(); block < num_blocks_; block += NumBlocks()) {
      SetBlock(block);
      for (int step = first_step; step < num_steps_; step++) {
        BarrierWait(empty_ + place.stage, place.parity ^ 1);  // at once the first time round
        SyncWarp();  // nobody is left waiting when the stage is given back once more
        FetchWeights(step, place.stage, warp, lane);
        FetchActivations(step, place.stage, warp, lane);
        place.Advance();
      }
      first_step = 0;
    }
  }

  // By the warps of the warpgroups.
  ENGINE_DEVICE void Multiply(int warp, int lane) {
    WaitForEarlierLaunches();
    RingPlace<kStages> place;
    for (int block = BlockIndex(); block < num_blocks_; block += NumBlocks()) {
      SetBlock(block);
      MultiplyBlock(warp, lane, &place);
    }
  }

 private:
  static constexpr int kSums = kForm.tokens / 2;
  static constexpr int kSteps = kStageColumns / 16;
  static constexpr int kCoreBytes = kTokenTile * 8 * 2;

  ENGINE_DEVICE void SetBlock(int block) {
    first_row_tile_ = block / token_blocks_ * kForm.row_tiles();
    first_token_tile_ = block % token_blocks_ * kForm.token_tiles();
    const int row_tiles = args_.weight.row_tiles() - first_row_tile_;
    const int token_tiles = args_.x.row_tiles() - first_token_tile_;
    num_row_tiles_ = row_tiles < kForm.row_tiles() ? row_tiles : kForm.row_tiles();
    num_token_tiles_ = token_tiles < kForm.token_tiles() ? token_tiles : kForm.token_tiles();
  }

  ENGINE_DEVICE uint8_t* Codes(int stage) const { return shared_ + stage * kLayout.stage_bytes; }
  ENGINE_DEVICE uint8_t* Activations(int stage) const { return Codes(stage) + kForm.row_tiles() * kLayout.code_bytes; }
  // Of all tiles that the stages of step … belong to.
  ENGINE_DEVICE uint8_t* FactorsOf(int step) const {
    return shared_ + kStages * kLayout.stage_bytes + step / kQuads % 2 * (kForm.row_tiles() * kLayout.factor_bytes);
  }

  // Of `count` tiles those that a warp fetches: every so many.
  ENGINE_DEVICE static int ShareOf(int count, int warp) {
    return (count - warp + kForm.fetch_warps() - 1) / kForm.fetch_warps();
  }

  // Steps go through all planes of the weights for each part of the activations.
  ENGINE_DEVICE void FetchWeights(int step, int stage, int warp, int lane) {
    constexpr int kTileStages = kTile.columns / kStageColumns;
    constexpr int kLanes = kForm.row_tiles() / kForm.fetch_warps();
    const bool with_factors = kLayout.factor_bytes > 0 && step % kQuads == 0;
    if (lane == 0) {
      const int row_bytes = kLayout.code_bytes + (with_factors ? kLayout.factor_bytes : 0);
      BarrierExpect(full_ + stage, static_cast<uint32_t>(ShareOf(num_row_tiles_, warp) * row_bytes +
                                                         ShareOf(num_token_tiles_, warp) * kTokenTileBytes));
    }
    SyncWarp();
    const int tile = lane % kLanes * kForm.fetch_warps() + warp;
    if (tile >= num_row_tiles_) return;
    const int in_part = step % steps_per_part_;
    const uint8_t* const from = args_.weight.tiles +
                                static_cast<size_t>(first_row_tile_ + tile) * args_.weight.row_tile_bytes() +
                                static_cast<size_t>(in_part / kTileStages) * kTile.tile_bytes();
    if (lane < kLanes) {
      BulkCopyShared(Codes(stage) + tile * kLayout.code_bytes, from + in_part % kTileStages * kLayout.code_bytes,
                     kLayout.code_bytes, full_ + stage);
    } else if (with_factors && lane < 2 * kLanes) {
      BulkCopyShared(FactorsOf(step) + tile * kLayout.factor_bytes, from + kTile.code_bytes(), kLayout.factor_bytes,
                     full_ + stage);
    }
  }

  ENGINE_DEVICE void FetchActivations(int step, int stage, int warp, int lane) {
    const PreparedRows& x = args_.x;
    const int tile = lane * kForm.fetch_warps() + warp;
    if (tile >= num_token_tiles_) return;
    const auto rows = static_cast<size_t>(step / steps_per_part_ * x.row_tiles() + first_token_tile_ + tile);
    const auto column = static_cast<size_t>(step % (x.columns / kStageColumns) * kStageColumns);
    BulkCopyShared(Activations(stage) + tile * kTokenTileBytes,
                   x.halves + (rows * static_cast<size_t>(x.columns) + column) * kTokenTile, kTokenTileBytes,
                   full_ + stage);
  }

  ENGINE_DEVICE void GiveBack(int stage, int lane) {
    EndReadsBeforeBulkCopies();
    SyncWarp();
    if (lane == 0) BarrierArrive(empty_ + stage);
  }

  ENGINE_DEVICE void MultiplyBlock(int warp, int lane, RingPlace<kStages>* place) {
    const TiledMatrix& weight = args_.weight;
    const bool idle = warp >= num_row_tiles_;  // multiplies whatever lies there: its rows are not stored
    const int own_row = (first_row_tile_ + warp) * kTileRows + lane / 4;
    RowFactors factors[2] = {};
    float inverse[2] = {};  // of the scales of the rows
    if (kTile.factors != Factors::kNone && !idle) {
      for (int i = 0; i < 2; i++) {
        factors[i] = weight.factors[own_row + 8 * i];
        inverse[i] = 1.0f / factors[i].scale;
      }
    }

    float sums[kSums] = {};
    uint32_t a[2][kSteps][4];  // of this stage and of the one before it
    TileRowFactors<kFormat> rows[2];
    int before = -1;  // the stage whose products are under way
    for (int unit = 0; unit < num_steps_; unit += kQuads) {
      ENGINE_UNROLL
      for (int quad = 0; quad < kQuads; quad++) {
        const int stage = place->stage;
        BarrierWait(full_ + stage, place->parity);
        if (kLayout.factor_bytes > 0 && quad == 0) {
          const uint8_t* const behind = FactorsOf(unit) + warp * kLayout.factor_bytes;
          rows[0].LoadBehindCodes(behind, lane / 4, factors[0]);
          rows[1].LoadBehindCodes(behind, lane / 4 + 8, factors[1]);
        }
        uint32_t(&own)[kSteps][4] = a[quad % 2];
        ReadCodes<kFormat>(own, Codes(stage) + warp * kLayout.code_bytes, 0, lane);
        ENGINE_UNROLL
        for (int s = 0; s < kSteps; s++) HalveCodes(own[s], rows, inverse, quad * kStageColumns + 16 * s);

        const uint64_t activations = CoresAt(Activations(stage), kCoreBytes, kTokenTileBytes);
        BeginProducts(sums, own);
        ENGINE_UNROLL
        for (int s = 0; s < kSteps; s++) {
          MultiplyWarpgroup<kForm.tokens>(sums, own[s], CoresBehind(activations, 2 * kCoreBytes * s));
        }
        CommitProducts();
        WaitProducts<1>(sums);
        if (before >= 0) GiveBack(before, lane);
        before = stage;
        place->Advance();
      }
    }
    WaitProducts<0>(sums);
    GiveBack(before, lane);
    if (!idle) Store(own_row, lane, sums);
  }

  // What StoreLinear does, for several tiles of rows at a time: all that is read for them is on its way together.
  ENGINE_DEVICE void Store(int own_row, int lane, const float (&sums)[kSums]) const {
    constexpr int kTiles = 4;
    float weight_scales[2], bias[2];
    bool stored[2];
    for (int i = 0; i < 2; i++) {
      const int row = own_row + 8 * i;
      weight_scales[i] = args_.weight.factors[row].scale;
      stored[i] = row < args_.weight.rows;
      bias[i] = args_.bias != nullptr && stored[i] ? args_.bias[row] : 0.0f;
    }
    int token = first_token_tile_ * kTokenTile + lane % 4 * 2;
    const auto width = static_cast<size_t>(args_.weight.rows);
    float* out = args_.out + static_cast<size_t>(token) * width + own_row;
    ENGINE_UNROLL
    for (int first = 0; first < kForm.token_tiles(); first += kTiles) {
      float scales[kTiles][2], before[kTiles][4];
      float* to[kTiles][2];
      bool there[kTiles][2];
      ENGINE_UNROLL
      for (int t = 0; t < kTiles; t++) {
        ENGINE_UNROLL
        for (int i = 0; i < 2; i++) {
          there[t][i] = token + i < args_.x.num_rows;
          to[t][i] = i == 0 ? out : out + width;
          scales[t][i] = there[t][i] ? args_.x.scales[token + i] : 0.0f;
        }
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) {
          before[t][i] = args_.add && there[t][i % 2] && stored[i / 2] ? to[t][i % 2][i / 2 * 8] : 0.0f;
        }
        token += kTokenTile;
        out += kTokenTile * width;
      }
      ENGINE_UNROLL
      for (int t = 0; t < kTiles; t++) {
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) {
          const float sum = engine::cuda::Multiply(sums[4 * (first + t) + i], weight_scales[i / 2]);
          float value = engine::cuda::Multiply(sum, scales[t][i % 2]);
          if (args_.bias != nullptr) value = Add(value, bias[i / 2]);
          if (args_.add) value = Add(before[t][i], value);
          if (there[t][i % 2] && stored[i / 2]) to[t][i % 2][i / 2 * 8] = value;
        }
      }
    }
  }

  const LinearArgs& args_;
  uint8_t* const shared_;
  uint64_t* const full_;
  uint64_t* const empty_;
  int steps_per_part_, num_steps_, token_blocks_, num_blocks_;
  int first_row_tile_, first_token_tile_, num_row_tiles_, num_token_tiles_;
};

// Blocks take block after block of the product; those that share weights follow each other.
template <TileFormat kFormat, int kFormIndex>
ENGINE_KERNEL(kForms[kFormIndex].threads(), 1)
LinearWarpgroupKernel(LinearArgs args) {
  if constexpr (HasWarpgroupProducts()) {
    using Product = WarpgroupProduct<kFormat, kFormIndex>;
    constexpr BlockForm kForm = kForms[kFormIndex];
    LetNextLaunchBegin();
    ENGINE_SHARED(barriers, uint64_t[kBarriers]);
    uint64_t* const full = barriers;
    uint64_t* const empty = barriers + Product::kStages;
    if (ThreadIndex() == 0) {
      for (int s = 0; s < Product::kStages; s++) {
        BarrierInit(full + s, kForm.fetch_warps());
        BarrierInit(empty + s, kForm.warps());
      }
    }
    SyncThreads();
    Product product(args, SharedMemory<uint8_t>(), full, empty);
    const int warp = ThreadIndex() / 32;
    if (warp < kForm.warps()) {
      if constexpr (kForm.moves_registers()) TakeRegisters<kForm.multiply_registers()>();
      product.Multiply(warp, ThreadIndex() % 32);
    } else {
      if constexpr (kForm.moves_registers()) GiveRegisters<kForm.fetch_registers()>();
      product.Fetch(warp - kForm.warps(), ThreadIndex() % 32);
    }
  }
}

// --- Which form ------------------------------------------------------------------------------------------------------

int64_t NumBlocksOf(const LinearArgs& args, BlockForm form) {
  return int64_t{CeilDivide(args.weight.row_tiles(), form.row_tiles())} * CeilDivide(args.x.num_rows, form.tokens);
}

// Cycles of the busiest multiprocessor for 16 columns: the matrix unit does 2048 multiplications a cycle, and 32 bytes
// come from the cache.
int64_t CyclesOf(const DeviceLimits& limits, const LinearArgs& args, BlockForm form) {
  const int64_t rows = form.row_tiles() * kTileRows;
  const int64_t multiplying = rows * form.tokens * 16 / 2048;
  const int64_t bytes = rows * 16 * TileLayoutOf(args.weight.format).bits / 8 + form.tokens * 16 * 2;
  const int64_t turns = (NumBlocksOf(args, form) + limits.num_multiprocessors - 1) / limits.num_multiprocessors;
  return turns * (multiplying > bytes / 32 ? multiplying : bytes / 32);
}

// The fastest, and of equals the one with the largest blocks.
int32_t FormOf(const DeviceLimits& limits, const LinearArgs& args) {
  int32_t best = kNumForms - 1;
  for (int32_t f = kNumForms - 2; f >= 0; f--) {
    if (CyclesOf(limits, args, kForms[f]) < CyclesOf(limits, args, kForms[best])) best = f;
  }
  return best;
}

}  // namespace

LaunchShape ShapeOfLinearWarpgroup(const DeviceLimits& limits, const LinearArgs& args) {
  const BlockForm form = kForms[FormOf(limits, args)];
  const int64_t blocks = NumBlocksOf(args, form);
  const int32_t most = limits.num_multiprocessors * form.blocks();
  return {blocks < most ? static_cast<int32_t>(blocks) : most, 1, form.threads(),
          StageLayoutOf(args.weight.format, form).shared_bytes};
}

bool HasLinearWarpgroup() {
#if defined(ENGINE_CUDA_EMULATOR)
  return true;
#else
  // Compiled for anything else the kernel is empty, and has no barriers.
  cudaFuncAttributes attributes = {};
  return cudaFuncGetAttributes(&attributes, &LinearWarpgroupKernel<TileFormat::kHalf, 0>) == cudaSuccess &&
         attributes.sharedSizeBytes > 0;
#endif
}

int LaunchLinearWarpgroup(Stream stream, const DeviceLimits& limits, const LinearArgs& args) {
  const LaunchShape shape = ShapeOfLinearWarpgroup(limits, args);
  return WithTileFormat(args.weight.format, [&]<TileFormat kFormat>() {
    switch (FormOf(limits, args)) {
      case 0:
        return Launch(stream, shape, &LinearWarpgroupKernel<kFormat, 0>, args);
      case 1:
        return Launch(stream, shape, &LinearWarpgroupKernel<kFormat, 1>, args);
      case 2:
        return Launch(stream, shape, &LinearWarpgroupKernel<kFormat, 2>, args);
      default:
        return Launch(stream, shape, &LinearWarpgroupKernel<kFormat, 3>, args);
    }
  });
}

}  // namespace engine::cuda
