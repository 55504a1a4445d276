#include "native/cuda/device_weights.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "kernels/cuda/pack.h"
#include "native/cuda/synthetic_tiles.h"
#include "native/quantize.h"
#include "native/stored_weights.h"

namespace engine::cuda {
namespace {

static_assert(kTileRows == kernels::kPanelRows);

// A thread packs and copies about this many bytes of tiles at once.
constexpr size_t kPieceBytes = size_t{8} << 20;

// Rows of tiles that are drawn; a matrix repeats them.
constexpr int32_t kDrawnRowTiles = 8;

std::vector<bool> MatricesOf(const engine::Plan& plan) {
  std::vector<bool> matrices(plan.weights.size());
  for (const Op& op : plan.ops) {
    if (const auto* embed = std::get_if<EmbedOp>(&op)) {
      matrices[embed->table] = true;
    } else if (const auto* add = std::get_if<AddPositionsOp>(&op)) {
      matrices[add->table] = true;
    } else if (const auto* linear = std::get_if<LinearOp>(&op)) {
      matrices[linear->weight] = true;
    }
  }
  return matrices;
}

// Rows of tiles first … first + count − 1 of a matrix.
struct Piece {
  size_t weight;
  int32_t first, count;
};

class Uploader {
 public:
  Uploader(const engine::Plan& plan, const Device& device, int32_t index, const LoadRequest& request,
           const std::vector<MappedFile>& files, const std::vector<TiledMatrix>& matrices,
           const std::atomic<bool>& cancelled)
      : plan_(plan),
        device_(device),
        index_(index),
        request_(request),
        files_(files),
        matrices_(matrices),
        cancelled_(cancelled) {
    for (size_t id = 0; id < matrices.size(); id++) {
      if (matrices[id].tiles == nullptr) continue;
      const TiledMatrix& matrix = matrices[id];
      const auto step = static_cast<int32_t>(std::max<size_t>(1, kPieceBytes / matrix.row_tile_bytes()));
      for (int32_t first = 0; first < matrix.row_tiles(); first += step) {
        pieces_.push_back({id, first, std::min(step, matrix.row_tiles() - first)});
        staging_bytes_ = std::max(staging_bytes_, TileBytes(pieces_.back()) + FactorBytes(pieces_.back()));
      }
      max_columns_ = std::max(max_columns_, matrix.columns);
    }
  }

  Failure Run() {
    std::vector<std::thread> helpers;
    try {
      for (int32_t i = 1; i < request_.num_threads; i++) helpers.emplace_back(&Uploader::Work, this);
    } catch (const std::system_error&) {
      // A limit on threads: fewer do the same work.
    }
    Work();
    for (std::thread& helper : helpers) helper.join();
    return cancelled_.load(std::memory_order_relaxed) ? Disposed() : failure_;
  }

 private:
  // What one thread works with.
  struct Desk {
    PinnedMemory staging;
    Stream stream = {};
    std::vector<uint8_t> made;  // rows or panels that are not in the file as they are wanted
    std::optional<PanelQuantizer> quantizer;
  };

  void Work() {
    Desk desk;
    const DeviceApi& api = *device_.api;
    try {
      Failure failure = device_.Check(api.use(index_));
      if (!failure) failure = device_.Check(desk.staging.Allocate(api, staging_bytes_));
      if (!failure) failure = device_.Check(api.create_stream(&desk.stream));
      while (!failure && !stop_.load(std::memory_order_relaxed) && !cancelled_.load(std::memory_order_relaxed)) {
        const size_t next = next_.fetch_add(1, std::memory_order_relaxed);
        if (next >= pieces_.size()) break;
        failure = Upload(pieces_[next], &desk);
      }
      if (failure) Fail(std::move(failure));
    } catch (const std::bad_alloc&) {
      Fail(OutOfMemory(0, "packing weights"));
    }
    if (desk.stream.handle != nullptr) api.destroy_stream(desk.stream);
  }

  size_t TileBytes(const Piece& piece) const {
    return static_cast<size_t>(piece.count) * matrices_[piece.weight].row_tile_bytes();
  }
  static size_t FactorBytes(const Piece& piece) {
    return static_cast<size_t>(piece.count) * kTileRows * sizeof(RowFactors);
  }

  Failure Upload(const Piece& piece, Desk* desk) const {
    kernels::Matrix source;
    int32_t first = piece.first;
    if (Failure failure = Bring(piece, desk, &source, &first)) return failure;
    uint8_t* tiles = desk->staging.data();
    auto* factors = reinterpret_cast<RowFactors*>(tiles + TileBytes(piece));
    PackTiles(tiles, factors, source, first, piece.count);
    const TiledMatrix& matrix = matrices_[piece.weight];
    const auto from = static_cast<size_t>(piece.first);
    const DeviceApi& api = *device_.api;
    int error = api.copy(desk->stream, const_cast<uint8_t*>(matrix.tiles) + from * matrix.row_tile_bytes(), tiles,
                         TileBytes(piece));
    if (error == 0) {
      error = api.copy(desk->stream, const_cast<RowFactors*>(matrix.factors) + from * kTileRows, factors,
                       FactorBytes(piece));
    }
    if (error == 0) error = api.wait(desk->stream);
    return device_.Check(error);
  }

  // The rows of a piece as PackTiles takes them: where they lie in the file, or made of what lies there.
  Failure Bring(const Piece& piece, Desk* desk, kernels::Matrix* source, int32_t* first) const {
    WeightInfo weight = plan_.weights[piece.weight];
    const MappedFile& file = files_[weight.file];
    const uint8_t* stored = file.data() + weight.offset;
    const bool quantized = weight.quantize_to != weight.dtype,
               packed = quantized || kernels::stored_packed(weight.dtype);
    const size_t stride = packed ? kernels::packed_panel_bytes(weight.quantize_to, weight.columns) : weight.row_bytes();
    *source = {stored, weight.quantize_to, weight.rows, weight.columns, packed, stride};
    if (!quantized && weight.transposed_stride == 0) {
      const size_t step = packed ? stride : stride * kTileRows;
      const size_t begin = static_cast<size_t>(piece.first) * step;
      const auto extent = static_cast<size_t>(weight.extent());
      file.Populate(static_cast<size_t>(weight.offset) + begin,
                    std::min(static_cast<size_t>(piece.count) * step, extent - begin));
      return {};
    }
    const int32_t row = piece.first * kTileRows;
    *first = 0;
    source->rows = std::min(piece.count * kTileRows, weight.rows - row);
    desk->made.resize(quantized ? static_cast<size_t>(piece.count) * stride
                                : static_cast<size_t>(source->rows) * stride);
    source->data = desk->made.data();
    if (!quantized) {
      weight.rows = source->rows;
      const auto value_bytes = static_cast<size_t>(kernels::dtype_traits(weight.dtype).block_bytes);
      CopyTransposed(desk->made.data(), weight, stored + static_cast<size_t>(row) * value_bytes);
      return {};
    }
    if (!desk->quantizer) desk->quantizer.emplace(*request_.kernels, max_columns_);
    for (int32_t i = 0; i < piece.count; i++) {
      if (Failure failure = desk->quantizer->Quantize(weight, request_.names[piece.weight], stored, weight.quantize_to,
                                                      piece.first + i, {},
                                                      desk->made.data() + static_cast<size_t>(i) * stride, nullptr)) {
        return failure;
      }
    }
    return {};
  }

  void Fail(Failure failure) {
    const std::lock_guard lock(mutex_);
    if (!stop_.exchange(true)) failure_ = std::move(failure);
  }

  const engine::Plan& plan_;
  const Device& device_;
  const int32_t index_;
  const LoadRequest& request_;
  const std::vector<MappedFile>& files_;
  const std::vector<TiledMatrix>& matrices_;
  const std::atomic<bool>& cancelled_;
  std::vector<Piece> pieces_;
  size_t staging_bytes_ = 0;
  int32_t max_columns_ = 1;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  Failure failure_;
};

}  // namespace

void DeviceWeights::Plan(const engine::Plan& plan) {
  Carver measure(Nowhere());
  Carve(plan, &measure);
  planned_bytes_ = measure.bytes();
}

Failure DeviceWeights::Load(const engine::Plan& plan, const Device& device, int32_t index, const LoadRequest& request,
                            const std::atomic<bool>& cancelled) {
  std::vector<MappedFile> files;
  if (Failure failure = OpenWeightFiles(plan, request.files, request.names, &files)) return failure;
  Carver carver(memory_.data());
  Carve(plan, &carver);
  std::vector<float> values;
  for (size_t id = 0; id < vectors_.size(); id++) {
    if (vectors_[id] == nullptr) continue;
    const WeightInfo& weight = plan.weights[id];
    values.resize(static_cast<size_t>(weight.columns));
    CopyVector(values.data(), weight, files[weight.file].data() + weight.offset);
    const DeviceApi& api = *device.api;
    int error = api.copy({}, const_cast<float*>(vectors_[id]), values.data(), values.size() * sizeof(float));
    if (error == 0) error = api.wait({});
    if (error != 0) return device.Check(error);
  }
  return Uploader(plan, device, index, request, files, matrices_, cancelled).Run();
}

Failure DeviceWeights::Draw(const engine::Plan& plan, const Device& device) {
  const DeviceApi& api = *device.api;
  Carver carver(memory_.data());
  Carve(plan, &carver);
  uint64_t seed = 1;
  // Copies what is there behind itself until `total` bytes are.
  const auto repeat = [&](const void* memory, size_t done, size_t total) {
    auto* data = static_cast<uint8_t*>(const_cast<void*>(memory));
    int error = 0;
    for (; error == 0 && done < total; done *= 2) {
      error = api.copy({}, data + done, data, std::min(done, total - done));
    }
    return error;
  };
  for (size_t id = 0; id < matrices_.size(); id++) {
    const std::vector<float> ones(vectors_[id] == nullptr ? 0 : static_cast<size_t>(plan.weights[id].columns), 1.0f);
    int error =
        ones.empty() ? 0 : api.copy({}, const_cast<float*>(vectors_[id]), ones.data(), ones.size() * sizeof(float));
    if (const TiledMatrix& matrix = matrices_[id]; error == 0 && matrix.tiles != nullptr) {
      const int32_t count = std::min(matrix.row_tiles(), kDrawnRowTiles);
      std::vector<uint8_t> tiles(static_cast<size_t>(count) * matrix.row_tile_bytes());
      std::vector<RowFactors> factors(static_cast<size_t>(count) * kTileRows);
      DrawTiles(matrix, seed++, &tiles, &factors);
      const size_t factor_bytes = factors.size() * sizeof(RowFactors);
      error = api.copy({}, const_cast<uint8_t*>(matrix.tiles), tiles.data(), tiles.size());
      if (error == 0) error = api.copy({}, const_cast<RowFactors*>(matrix.factors), factors.data(), factor_bytes);
      if (error == 0) error = repeat(matrix.tiles, tiles.size(), matrix.tile_bytes());
      if (error == 0) error = repeat(matrix.factors, factor_bytes, matrix.factor_bytes());
    }
    if (error == 0) error = api.wait({});
    if (error != 0) return device.Check(error);
  }
  return {};
}

void DeviceWeights::Carve(const engine::Plan& plan, Carver* carver) {
  const std::vector<bool> is_vector = VectorsOf(plan), is_matrix = MatricesOf(plan);
  matrices_.assign(plan.weights.size(), TiledMatrix{});
  vectors_.assign(plan.weights.size(), nullptr);
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    if (is_vector[id]) vectors_[id] = carver->Take<float>(static_cast<uint64_t>(weight.columns));
    if (!is_matrix[id]) continue;
    TiledMatrix& matrix = matrices_[id];
    matrix = TiledFormOf({nullptr, weight.quantize_to, weight.rows, weight.columns, false, 0});
    matrix.tiles = carver->Take<uint8_t>(matrix.tile_bytes());
    matrix.factors = carver->Take<RowFactors>(static_cast<uint64_t>(matrix.row_tiles()) * kTileRows);
  }
}

}  // namespace engine::cuda
