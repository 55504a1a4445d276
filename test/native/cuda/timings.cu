// Times of the kernels at the shapes of real models, beside what the device can do: bytes over the bandwidth of a large
// copy, operations over the rate of matrix products that read no memory. A table, then one line of JSON.
//
//     cuda_timings [MILLISECONDS]   to spend on each kernel, 100 unless given
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace engine::cuda::test {
namespace {

struct Timing {
  std::string name;
  double microseconds;
  double bytes;       // that must be read and written
  double operations;  // of the matrix unit
};

std::vector<Timing> timings;
double milliseconds = 100;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The median time of run(i), i = 0, 1, …, each between two events; enough of them to fill the time there is.
double Time(const std::function<void(int)>& run) {
  cudaEvent_t begin, end;
  Expect(cudaEventCreate(&begin));
  Expect(cudaEventCreate(&end));
  std::vector<double> times;
  double spent = 0;
  for (int i = 0; (i < 20 || spent < milliseconds * 1000) && i < 5000; i++) {
    Expect(cudaEventRecord(begin, TestStream().handle));
    run(i);
    Expect(cudaEventRecord(end, TestStream().handle));
    Expect(cudaEventSynchronize(end));
    float elapsed;
    Expect(cudaEventElapsedTime(&elapsed, begin, end));
    if (i < 5) continue;  // warming up
    times.push_back(static_cast<double>(elapsed) * 1000);
    spent += times.back();
  }
  Expect(cudaEventDestroy(begin));
  Expect(cudaEventDestroy(end));
  return Median(times);
}

void Measure(const std::string& name, double bytes, double operations, const std::function<void(int)>& run) {
  timings.push_back({name, Time(run), bytes, operations});
}

// --- What the device can do ------------------------------------------------------------------------------------------

constexpr int kRateThreads = 256;
constexpr int kRateTurns = 2048;
constexpr int kRateProducts = 8;

// Independent products of tiles that stay in registers.
ENGINE_KERNEL(kRateThreads, 2) RateKernel(float* out) {
  float d[kRateProducts][4] = {};
  const uint32_t word = 0x2c002c00u + static_cast<uint32_t>(ThreadIndex());
  const uint32_t a[4] = {word, word, word, word};
  for (int i = 0; i < kRateTurns; i++) {
    ENGINE_UNROLL
    for (int p = 0; p < kRateProducts; p++) MultiplyTiles(d[p], a, word, word);
  }
  float sum = 0;
  for (int p = 0; p < kRateProducts; p++) sum += d[p][0] + d[p][1] + d[p][2] + d[p][3];
  out[BlockIndex() * kRateThreads + ThreadIndex()] = sum;
}

double CopyBandwidth() {
  constexpr size_t kBytes = size_t{1} << 30;
  const DeviceArray<uint8_t> from(kBytes), to(kBytes);
  const double time = Time([&](int) {
    Expect(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, TestStream().handle));
  });
  return 2.0 * static_cast<double>(kBytes) / time * 1e6;
}

// The same of two warpgroups, each with 64 rows and 256 columns.
constexpr int kRateColumns = 256;
constexpr int kRateBytes = kRateColumns * 16 * 2;
ENGINE_KERNEL(kRateThreads, 1) WarpgroupRateKernel(float* out) {
  float d[kRateColumns / 2] = {};
  uint32_t* const shared = SharedMemory<uint32_t>();
  ENGINE_SHARED(barrier, uint64_t);
  if (ThreadIndex() == 0) {
    BarrierInit(&barrier);
    BarrierExpect(&barrier, kRateBytes);
    BulkCopyShared(shared, out, kRateBytes, &barrier);
  }
  SyncThreads();
  BarrierWait(&barrier, 0);
  const uint32_t word = 0x2c002c00u + static_cast<uint32_t>(ThreadIndex());
  uint32_t a[1][4] = {{word, word, word, word}};
  const uint64_t b = CoresAt(shared, 128, 256);
  for (int i = 0; i < kRateTurns; i++) {
    BeginProducts(d, a);
    ENGINE_UNROLL
    for (int p = 0; p < kRateProducts; p++) MultiplyWarpgroup<kRateColumns>(d, a[0], b);
    CommitProducts();
    WaitProducts<0>(d);
  }
  float sum = 0;
  ENGINE_UNROLL
  for (int i = 0; i < kRateColumns / 2; i++) sum += d[i];
  out[kRateBytes / 4 + BlockIndex() * kRateThreads + ThreadIndex()] = sum;
}

template <class T>
void Fill(const DeviceArray<T>& array, size_t size, uint64_t mask, uint64_t base);

// By the faster kind of products.
double MatrixRate() {
  const int blocks = 2 * Limits().num_multiprocessors;
  const DeviceArray<float> out(static_cast<size_t>(kRateBytes / 4 + blocks * kRateThreads));
  const double time = Time([&](int) {
    Expect(Launch(TestStream(), {blocks, 1, kRateThreads, 0}, &RateKernel, out.data()));
  });
  const double rate = 2.0 * 16 * 8 * 16 * kRateProducts * kRateTurns * (kRateThreads / 32) * blocks / time * 1e6;
  if (!Limits().warpgroups) return rate;
  Fill(out, kRateBytes / 4, 0x0fff0fff0fff0fff, 0x2000200020002000);  // small halves
  const double warpgroup_time = Time([&](int) {
    Expect(Launch(TestStream(), {blocks / 2, 1, kRateThreads, kRateBytes}, &WarpgroupRateKernel, out.data()));
  });
  const double warpgroup_rate = 2.0 * 64 * kRateColumns * 16 * kRateProducts * kRateTurns * (kRateThreads / 128) *
                                (blocks / 2) / warpgroup_time * 1e6;
  printf("matrix products of a warp %.1f TFLOP/s, of a warpgroup %.1f\n", rate / 1e12, warpgroup_rate / 1e12);
  return std::max(rate, warpgroup_rate);
}

// --- Kernels ---------------------------------------------------------------------------------------------------------

// splitmix64 on the device: weights of zeros would be faster than real ones.
ENGINE_KERNEL(256, 4) FillKernel(uint64_t* out, size_t count, uint64_t mask, uint64_t base) {
  const size_t stride = static_cast<size_t>(NumBlocks()) * 256;
  for (size_t i = static_cast<size_t>(BlockIndex()) * 256 + static_cast<size_t>(ThreadIndex()); i < count;
       i += stride) {
    uint64_t z = i * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    out[i] = ((z ^ z >> 31) & mask) | base;
  }
}
template <class T>
void Fill(const DeviceArray<T>& array, size_t size, uint64_t mask, uint64_t base) {
  Expect(Launch(TestStream(), {1024, 1, 256, 0}, &FillKernel, reinterpret_cast<uint64_t*>(array.data()),
                size * sizeof(T) / sizeof(uint64_t), mask, base));
}
// Floats of 1 to 2 with random bits, both signs.
constexpr uint64_t kFloatMask = 0x807fffff807fffff;
constexpr uint64_t kFloatBase = 0x3f8000003f800000;

struct Matrix {
  DeviceArray<uint8_t> tiles;
  DeviceArray<RowFactors> factors;
  TiledMatrix tiled;

  explicit Matrix(TiledMatrix form)
      : tiles(form.tile_bytes()),
        factors(
            std::vector<RowFactors>(static_cast<size_t>(form.row_tiles() * kTileRows), RowFactors{0.01f, 0.01f, 1.0f})),
        tiled(form) {
    // Halves stay finite: exponents lose a bit.
    Fill(tiles, form.tile_bytes(), form.format == TileFormat::kHalf ? 0xbfffbfffbfffbfff : ~uint64_t{0}, 0);
    tiled.tiles = tiles.data();
    tiled.factors = factors.data();
  }
};

struct Rows {
  DeviceArray<float> x;
  DeviceArray<uint16_t> halves;
  DeviceArray<float> sums, scales;
  PreparedRows prepared;

  Rows(int32_t num_rows, int32_t columns, ActivationOrder order = ActivationOrder::kLanes)
      : x(static_cast<size_t>(num_rows) * static_cast<size_t>(columns)),
        halves(PreparedBytesOf(num_rows, columns, 1).halves / sizeof(uint16_t)),
        sums(PreparedBytesOf(num_rows, columns, 1).sums / sizeof(float)),
        scales(PreparedBytesOf(num_rows, columns, 1).scales / sizeof(float)),
        prepared{halves.data(), sums.data(), scales.data(), num_rows, RoundUp(columns, kColumnUnit), 1, order} {
    Fill(x, static_cast<size_t>(num_rows) * static_cast<size_t>(columns), kFloatMask, kFloatBase);
    Expect(LaunchPrepare(TestStream(), {prepared, {x.data(), nullptr, nullptr, 0.0f, columns}}));
  }
};

// Enough copies of a matrix that none is found in the cache when its turn comes.
constexpr double kCacheBytes = 256e6;

void MeasureLinear(const char* format_name, TileFormat format, int32_t rows, int32_t columns, int32_t num_rows) {
  const TiledMatrix form = {nullptr, nullptr, format, rows, columns, 1};
  std::vector<std::unique_ptr<Matrix>> copies;
  const auto bytes = static_cast<double>(form.tile_bytes());
  do {
    copies.push_back(std::make_unique<Matrix>(form));
  } while (bytes * static_cast<double>(copies.size()) < kCacheBytes);
  const LinearKind kind = LinearKindOf(Limits(), num_rows);
  const Rows x(num_rows, columns, kind == LinearKind::kWarpgroup ? ActivationOrder::kCores : ActivationOrder::kLanes);
  const bool halves = kind == LinearKind::kMany && format != TileFormat::kHalf;
  const DeviceArray<uint8_t> halved(halves ? HalfTileBytes(form) : 0);
  const DeviceArray<float> out(static_cast<size_t>(num_rows) * static_cast<size_t>(rows));
  const std::string name = std::string("linear ") + format_name + " " + std::to_string(rows) + "x" +
                           std::to_string(columns) + ", " + std::to_string(num_rows) + " rows";
  const double operations = 2.0 * rows * columns * num_rows;
  Measure(name, bytes, operations, [&](int i) {
    const TiledMatrix& weight = copies[static_cast<size_t>(i) % copies.size()]->tiled;
    LinearArgs args = {out.data(), x.prepared, weight, nullptr, false};
    switch (kind) {
      case LinearKind::kFew:
        return Expect(LaunchLinear(TestStream(), Limits(), FewOf(args)));
      case LinearKind::kBatch:
        return Expect(LaunchLinearBatch(TestStream(), args));
      case LinearKind::kMany:
        if (halves) {
          Expect(LaunchHalve(TestStream(), halved.data(), weight));
          args.weight = HalvedMatrix(halved.data(), weight);
        }
        return Expect(LaunchLinearMany(TestStream(), args));
      case LinearKind::kWarpgroup:
        return Expect(LaunchLinearWarpgroup(TestStream(), Limits(), args));
    }
  });
}

constexpr int32_t kHeads = 32, kKvHeads = 8;

// The last num_queries tokens of sequences of one length, whose blocks lie scattered.
struct Sequences {
  static constexpr int32_t kBlockSize = 16;

  int32_t max_blocks;
  size_t bytes;  // of keys, and of values
  DeviceArray<uint8_t> keys, values;
  KvCache cache;
  std::vector<int32_t> query_start, context_lens;
  DeviceArray<int32_t> block_tables;
  size_t count;  // of values in the queries
  DeviceArray<float> q, out;

  Sequences(KvDType dtype, int32_t head_dim, int32_t num_seqs, int32_t context, int32_t num_queries)
      : max_blocks(CeilDivide(context, kBlockSize)),
        bytes(KvBlockBytes(dtype, head_dim, kBlockSize) * static_cast<size_t>(num_seqs * max_blocks * kKvHeads)),
        keys(bytes),
        values(bytes),
        cache{keys.data(), values.data(), dtype, kKvHeads, head_dim, kBlockSize},
        context_lens(static_cast<size_t>(num_seqs), context),
        block_tables(Scattered(static_cast<size_t>(num_seqs * max_blocks))),
        count(static_cast<size_t>(num_seqs * num_queries * kHeads) * static_cast<size_t>(head_dim)),
        q(count),
        out(count) {
    // Halves below 2, or codes; the scales of codes are small floats then.
    Fill(keys, bytes, 0xbbffbbffbbffbbff, 0);
    Fill(values, bytes, 0xbbffbbffbbffbbff, 0);
    Fill(q, count, kFloatMask, kFloatBase);
    for (int32_t s = 0; s <= num_seqs; s++) query_start.push_back(s * num_queries);
  }

  static std::vector<int32_t> Scattered(size_t num_blocks) {
    std::vector<int32_t> blocks(num_blocks);
    for (size_t i = 0; i < num_blocks; i++) blocks[i] = static_cast<int32_t>((i * 7919) % num_blocks);
    return blocks;
  }
};

std::string QueriesOf(int32_t num_seqs, int32_t num_queries, int32_t context) {
  return std::to_string(num_seqs) + " x " + std::to_string(num_queries) + " of " + std::to_string(context);
}

void MeasureAttention(int32_t num_seqs, int32_t context, int32_t num_queries, bool split) {
  constexpr int32_t kHeadDim = 128;
  const Sequences all(KvDType::kF16, kHeadDim, num_seqs, context, num_queries);
  const int32_t num_tokens = all.query_start.back();
  std::vector<AttentionTile> tiles(static_cast<size_t>(num_tokens));
  tiles.resize(static_cast<size_t>(
      MakeAttentionTiles(tiles.data(), all.query_start.data(), all.context_lens.data(), num_seqs, kHeads / kKvHeads)));
  const int32_t num_chunks = CeilDivide(context, kAttentionChunk);
  const DeviceArray<AttentionTile> device_tiles(tiles);
  const DeviceArray<float> partials(split ? AttentionPartialFloats(num_tokens, kHeads, kHeadDim, num_chunks) : 1);
  const AttentionArgs args = {.out = all.out.data(),
                              .q = all.q.data(),
                              .tiles = device_tiles.data(),
                              .block_tables = all.block_tables.data(),
                              .partials = partials.data(),
                              .num_tokens = num_tokens,
                              .num_tiles = static_cast<int32_t>(tiles.size()),
                              .max_blocks = all.max_blocks,
                              .num_heads = kHeads,
                              .num_chunks = num_chunks,
                              .window = 0,
                              .scale = 0.088f,
                              .cache = all.cache,
                              .split = split};
  Measure("attention f16, " + QueriesOf(num_seqs, num_queries, context), 2.0 * static_cast<double>(all.bytes),
          4.0 * num_tokens * kHeads * kHeadDim * context, [&](int) { Expect(LaunchAttention(TestStream(), args)); });
}

// Operations are those of positions that tokens see.
void MeasureAttentionMany(KvDType dtype, int32_t head_dim, int32_t num_seqs, int32_t context, int32_t num_queries) {
  const Sequences all(dtype, head_dim, num_seqs, context, num_queries);
  std::vector<ManyAttentionTile> tiles(
      static_cast<size_t>(MaxManyAttentionTiles(all.query_start.back(), kHeads / kKvHeads)));
  tiles.resize(static_cast<size_t>(MakeManyAttentionTiles(tiles.data(), all.query_start.data(), all.context_lens.data(),
                                                          num_seqs, kHeads / kKvHeads)));
  const DeviceArray<ManyAttentionTile> device_tiles(tiles);
  const ManyAttentionArgs args = {.out = all.out.data(),
                                  .q = all.q.data(),
                                  .tiles = device_tiles.data(),
                                  .block_tables = all.block_tables.data(),
                                  .num_tiles = static_cast<int32_t>(tiles.size()),
                                  .max_blocks = all.max_blocks,
                                  .num_heads = kHeads,
                                  .window = 0,
                                  .scale = 0.088f,
                                  .cache = all.cache};
  const double seen = num_queries * (context - (num_queries - 1) / 2.0);  // positions, of all tokens of a sequence
  Measure(std::string("prefill attention ") + (dtype == KvDType::kF16 ? "f16 " : "int8 ") + std::to_string(head_dim) +
              ", " + QueriesOf(num_seqs, num_queries, context),
          2.0 * static_cast<double>(all.bytes) + 8.0 * static_cast<double>(all.count),
          4.0 * num_seqs * seen * kHeads * head_dim, [&](int) { Expect(LaunchAttentionMany(TestStream(), args)); });
}

void MeasureSampling(int32_t num_rows, float temperature, int32_t top_k) {
  constexpr int32_t kVocabulary = 128256;
  const DeviceArray<float> logits(static_cast<size_t>(num_rows) * kVocabulary);
  Fill(logits, static_cast<size_t>(num_rows) * kVocabulary, kFloatMask | 0x0100000001000000, kFloatBase);
  std::vector<SamplingRow> rows(static_cast<size_t>(num_rows));
  for (size_t r = 0; r < rows.size(); r++) {
    rows[r] = {};
    rows[r].logits = logits.data() + r * kVocabulary;
    rows[r].seed_low = static_cast<uint32_t>(r);
    rows[r].flags = kernels::kSample;
    rows[r].temperature = temperature;
    rows[r].top_k = top_k;
    rows[r].top_p = top_k > 0 ? 0.95f : 1.0f;
    rows[r].typical_p = 1.0f;
    rows[r].repetition_penalty = 1.0f;
  }
  const DeviceArray<SamplingRow> device_rows(rows);
  const DeviceArray<int32_t> tokens(rows.size());
  const DeviceArray<float> logprobs(rows.size());
  SampleArgs args = {device_rows.data(), num_rows,        kVocabulary, 0,      nullptr, nullptr, 0,
                     tokens.data(),      logprobs.data(), nullptr,     nullptr};
  const auto blocks = static_cast<size_t>(ShapeOfSample(Limits(), args).grid_x);
  const DeviceArray<uint8_t> scratch(blocks * SampleScratchBytes(kVocabulary));
  args.scratch = scratch.data();
  Measure("sample " + std::to_string(num_rows) + " rows" + (top_k > 0 ? ", top-k and top-p" : ""),
          4.0 * num_rows * kVocabulary, 0, [&](int) { Expect(LaunchSample(TestStream(), Limits(), args)); });
}

void MeasureOthers() {
  constexpr int32_t kWidth = 4096;
  for (const int32_t num_rows : {1, 512}) {
    const Rows x(num_rows, kWidth);
    const auto count = static_cast<size_t>(num_rows) * kWidth;
    const DeviceArray<float> out(count), weight(kWidth);
    Fill(weight, kWidth, kFloatMask, kFloatBase);
    const std::string rows = std::to_string(num_rows) + " x 4096";
    const double values = static_cast<double>(count);
    Measure("rms norm " + rows, 8 * values, 0, [&](int) {
      Expect(LaunchRmsNorm(TestStream(), {out.data(), x.x.data(), weight.data(), nullptr, num_rows, kWidth, 1e-5f}));
    });
    Measure("prepare " + rows, 6 * values, 0, [&](int) {
      Expect(LaunchPrepare(TestStream(), {x.prepared, {x.x.data(), nullptr, nullptr, 0.0f, kWidth}}));
    });
    Measure("silu " + rows, 12 * values, 0, [&](int) {
      Expect(LaunchSiluMul(TestStream(), Limits(), out.data(), x.x.data(), x.x.data(), static_cast<int64_t>(count)));
    });
  }
  const Matrix int4({nullptr, nullptr, TileFormat::kInt4, 14336, 4096, 1});
  const DeviceArray<uint8_t> halves(HalfTileBytes(int4.tiled));
  Measure("halve int4 14336x4096", static_cast<double>(int4.tiled.tile_bytes() + HalfTileBytes(int4.tiled)), 0,
          [&](int) { Expect(LaunchHalve(TestStream(), halves.data(), int4.tiled)); });
}

// --- The report ------------------------------------------------------------------------------------------------------

void Print(double bandwidth, double rate) {
  cudaDeviceProp device;
  Expect(cudaGetDeviceProperties(&device, 0));
  printf("%s: copies %.0f GB/s, matrix products %.1f TFLOP/s\n", device.name, bandwidth / 1e9, rate / 1e12);
  printf("%-44s %10s %8s %6s %9s %6s\n", "", "µs", "GB/s", "%", "TFLOP/s", "%");
  for (const Timing& t : timings) {
    const double bytes = t.bytes / t.microseconds * 1e6;
    const double operations = t.operations / t.microseconds * 1e6;
    printf("%-44s %10.1f %8.0f %6.1f %9.1f %6.1f\n", t.name.c_str(), t.microseconds, bytes / 1e9,
           100 * bytes / bandwidth, operations / 1e12, 100 * operations / rate);
  }
  printf("{\"device\":\"%s\",\"bytesPerSecond\":%.4g,\"operationsPerSecond\":%.4g,\"kernels\":[", device.name,
         bandwidth, rate);
  for (size_t i = 0; i < timings.size(); i++) {
    const Timing& t = timings[i];
    printf("%s{\"name\":\"%s\",\"microseconds\":%.3f,\"bytes\":%.0f,\"operations\":%.0f}", i == 0 ? "" : ",",
           t.name.c_str(), t.microseconds, t.bytes, t.operations);
  }
  printf("]}\n");
}

}  // namespace

void MeasureAll() {
  OpenDevice();
  const double bandwidth = CopyBandwidth();
  const double rate = MatrixRate();
  const std::pair<const char*, TileFormat> formats[] = {
      {"f16", TileFormat::kHalf},    {"int8", TileFormat::kInt8},      {"int4", TileFormat::kInt4},
      {"q8_0", TileFormat::kBlock8}, {"q4_k", TileFormat::kSuper4Min}, {"q6_k", TileFormat::kSuper8}};
  for (const auto& [name, format] : formats) {
    for (const auto& [rows, columns] : {std::pair{4096, 4096}, {14336, 4096}, {4096, 14336}}) {
      for (const int32_t num_rows : {1, 8, 16, 32, 64, 128, 256, 512, 2048}) {
        MeasureLinear(name, format, rows, columns, num_rows);
      }
    }
  }
  for (const int32_t context : {512, 8192}) {
    MeasureAttention(1, context, 1, true);
    MeasureAttention(32, context, 1, true);
    MeasureAttention(1, context, 512, false);
  }
  for (const KvDType dtype : {KvDType::kF16, KvDType::kInt8}) {
    MeasureAttentionMany(dtype, 128, 16, 512, 16);
    MeasureAttentionMany(dtype, 128, 4, 512, 512);
    MeasureAttentionMany(dtype, 128, 1, 8192, 512);
    MeasureAttentionMany(dtype, 128, 1, 8192, 8192);
  }
  MeasureAttentionMany(KvDType::kF16, 64, 1, 8192, 8192);
  MeasureAttentionMany(KvDType::kF16, 256, 1, 8192, 8192);
  MeasureSampling(1, 0.0f, 0);
  MeasureSampling(1, 0.8f, 0);
  MeasureSampling(32, 0.8f, 40);
  MeasureOthers();
  Print(bandwidth, rate);
}

}  // namespace engine::cuda::test

int main(int argc, char** argv) {
  if (argc > 1) engine::cuda::test::milliseconds = atof(argv[1]);
  engine::cuda::test::MeasureAll();
  return 0;
}
