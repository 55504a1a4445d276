#include "native/weights.h"

#include "native/pack_weights.h"
#include "native/stored_weights.h"

namespace engine {
namespace {

// Which matrices meet 8-bit activations.
std::vector<bool> MetByCodes(const Plan& plan) {
  std::vector<bool> met(plan.weights.size());
  for (const Op& op : plan.ops) {
    if (const auto* linear = std::get_if<LinearOp>(&op); linear != nullptr && linear->activations == 1) {
      met[linear->weight] = true;
    }
  }
  return met;
}

// Which matrices are read from end to end by every step, unlike embeddings.
std::vector<bool> ReadWhole(const Plan& plan) {
  std::vector<bool> read(plan.weights.size());
  for (const Op& op : plan.ops) {
    if (const auto* linear = std::get_if<LinearOp>(&op)) read[linear->weight] = true;
  }
  return read;
}

// A matrix is packed where that is asked for or makes products faster. One of few rows would be mostly padding.
bool WorthPacking(const WeightInfo& weight, bool met_by_codes) {
  if (weight.quantize_to != weight.dtype) return true;
  return met_by_codes && weight.rows >= kernels::kPanelRows && !kernels::stored_packed(weight.dtype) &&
         kernels::packed_panel_bytes(weight.dtype, weight.columns) > 0;
}

size_t NumPanels(const WeightInfo& weight) { return static_cast<size_t>((weight.rows - 1) / kernels::kPanelRows + 1); }

}  // namespace

Failure WeightStore::Load(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
                          const kernels::Kernels& kernels, int32_t num_threads, const std::atomic<bool>& cancelled) {
  if (Failure failure = OpenWeightFiles(plan, files, names, &files_)) return failure;
  const std::vector<bool> vectors = VectorsOf(plan), met = MetByCodes(plan);
  Carver measure(nullptr);
  Carve(plan, vectors, met, &measure);
  if (!copies_.Reserve(measure.bytes())) return OutOfMemory(measure.bytes(), "packed and copied weights");
  Carver carve(copies_.data());
  Carve(plan, vectors, met, &carve);

  const std::vector<bool> read_whole = ReadWhole(plan);
  std::vector<BringJob> jobs;
  for (size_t id = 0; id < plan.weights.size(); id++) {
    if (cancelled.load(std::memory_order_relaxed)) return Disposed();
    const WeightInfo& weight = plan.weights[id];
    const MappedFile& file = files_[weight.file];
    const uint8_t* stored = file.data() + weight.offset;
    kernels::Matrix& matrix = matrices_[id];
    const size_t panel_bytes = matrix.packed ? matrix.stride : matrix.stride * kernels::kPanelRows;
    // Before the matrices are brought in: up to 2 MB around what is touched come with it, and are given back with them.
    if (vectors[id]) CopyVector(vectors_[id], weight, stored);
    if (matrix.data == nullptr) {
      matrix.data = stored;
      if (read_whole[id]) jobs.push_back({&weight, &names[id], &file, nullptr, panel_bytes});
    } else if (matrix.packed) {
      jobs.push_back({&weight, &names[id], &file, const_cast<uint8_t*>(matrix.data), panel_bytes});
    } else {
      file.Populate(weight.offset, weight.extent());
      CopyTransposed(const_cast<uint8_t*>(matrix.data), weight, stored);
      file.Release(weight.offset, weight.extent());
    }
  }
  return BringIn(kernels, jobs, num_threads, cancelled);
}

void WeightStore::Carve(const Plan& plan, const std::vector<bool>& vectors, const std::vector<bool>& met,
                        Carver* carver) {
  vectors_.assign(plan.weights.size(), nullptr);
  matrices_.clear();
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    kernels::Matrix matrix = {nullptr, weight.quantize_to, weight.rows, weight.columns, false, weight.row_bytes()};
    if (vectors[id]) vectors_[id] = carver->Take<float>(weight.columns);
    if (WorthPacking(weight, met[id]) || kernels::stored_packed(weight.dtype)) {
      matrix.packed = true;
      matrix.stride = kernels::packed_panel_bytes(weight.quantize_to, weight.columns);
    }
    if (WorthPacking(weight, met[id])) {
      matrix.data = carver->Take<uint8_t>(NumPanels(weight) * matrix.stride);
    } else if (weight.transposed_stride > 0) {
      matrix.data = carver->Take<uint8_t>(weight.rows * matrix.stride);
    }
    matrices_.push_back(matrix);
  }
}

}  // namespace engine
