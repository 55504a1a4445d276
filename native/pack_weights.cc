#include "native/pack_weights.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "native/quantize.h"

namespace engine {
namespace {

// A thread takes about this much of a matrix at once, bytes of panels.
constexpr size_t kPieceBytes = size_t{4} << 20;

struct Piece {
  const BringJob* job;
  int32_t first, count;  // panels
};

// Where the panels of a piece come from: bytes of its file.
struct Source {
  size_t offset, bytes;
};

Source SourceOf(const Piece& piece) {
  const WeightInfo& weight = *piece.job->weight;
  const auto start = static_cast<size_t>(weight.offset), extent = static_cast<size_t>(weight.extent());
  if (weight.transposed_stride > 0) return {start, extent};  // every panel has values everywhere
  const bool packed = kernels::stored_packed(weight.dtype);
  const size_t step = packed ? piece.job->panel_bytes : kernels::kPanelRows * weight.row_bytes();
  const size_t first = static_cast<size_t>(piece.first) * step;
  return {start + first, std::min(static_cast<size_t>(piece.count) * step, extent - first)};
}

std::vector<Piece> PiecesOf(const std::vector<BringJob>& jobs) {
  std::vector<Piece> pieces;
  for (const BringJob& job : jobs) {
    const int32_t panels = (job.weight->rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
    const auto step = static_cast<int32_t>(std::max<size_t>(1, kPieceBytes / job.panel_bytes));
    for (int32_t first = 0; first < panels; first += step) {
      pieces.push_back({&job, first, std::min(step, panels - first)});
    }
  }
  return pieces;
}

class Bringer {
 public:
  Bringer(const kernels::Kernels& kernels, const std::vector<BringJob>& jobs, const std::atomic<bool>& cancelled)
      : kernels_(kernels), first_job_(jobs.data()), pieces_(PiecesOf(jobs)), left_(jobs.size()), cancelled_(cancelled) {
    for (const BringJob& job : jobs) max_columns_ = std::max(max_columns_, job.weight->columns);
    for (const Piece& piece : pieces_) left_[static_cast<size_t>(piece.job - first_job_)]++;
  }

  Failure Run(int32_t num_threads) {
    std::vector<std::thread> helpers;
    try {
      for (int32_t i = 1; i < num_threads; i++) helpers.emplace_back(&Bringer::Work, this);
    } catch (const std::system_error&) {
      // A limit on threads: fewer do the same work.
    }
    Work();
    for (std::thread& helper : helpers) helper.join();
    return cancelled_.load(std::memory_order_relaxed) ? Disposed() : failure_;
  }

 private:
  void Work() {
    std::optional<PanelQuantizer> quantizer;
    try {
      while (!stop_.load(std::memory_order_relaxed) && !cancelled_.load(std::memory_order_relaxed)) {
        const size_t next = next_.fetch_add(1, std::memory_order_relaxed);
        if (next >= pieces_.size()) return;
        if (Failure failure = Make(pieces_[next], &quantizer)) return Fail(std::move(failure));
      }
    } catch (const std::bad_alloc&) {
      Fail(OutOfMemory(0, "quantising weights"));
    }
  }

  Failure Make(const Piece& piece, std::optional<PanelQuantizer>* quantizer) {
    const BringJob& job = *piece.job;
    const WeightInfo& weight = *job.weight;
    const Source part = SourceOf(piece);
    job.file->Populate(part.offset, part.bytes);
    if (job.out == nullptr) return {};
    const uint8_t* source = job.file->data() + weight.offset;
    uint8_t* out = job.out + static_cast<size_t>(piece.first) * job.panel_bytes;
    if (weight.quantize_to != weight.dtype) {
      if (!*quantizer) quantizer->emplace(kernels_, max_columns_);
      for (int32_t i = 0; i < piece.count; i++, out += job.panel_bytes) {
        if (Failure failure =
                (*quantizer)
                    ->Quantize(weight, *job.name, source, weight.quantize_to, piece.first + i, {}, out, nullptr)) {
          return failure;
        }
      }
    } else {
      kernels_.pack(out, {source, weight.dtype, weight.rows, weight.columns, false, weight.row_bytes()}, piece.first,
                    piece.count);
    }
    // Panels of a matrix that is stored transposed share its pages: the last one gives them back.
    const bool last = left_[static_cast<size_t>(&job - first_job_)].fetch_sub(1, std::memory_order_relaxed) == 1;
    if (last || weight.transposed_stride == 0) job.file->Release(part.offset, part.bytes);
    return {};
  }

  void Fail(Failure failure) {
    const std::lock_guard lock(mutex_);
    if (!stop_.exchange(true)) failure_ = std::move(failure);
  }

  const kernels::Kernels& kernels_;
  const BringJob* const first_job_;
  const std::vector<Piece> pieces_;
  std::vector<std::atomic<int32_t>> left_;  // pieces of each job that are not made
  const std::atomic<bool>& cancelled_;
  int32_t max_columns_ = 1;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  Failure failure_;
};

}  // namespace

Failure BringIn(const kernels::Kernels& kernels, const std::vector<BringJob>& jobs, int32_t num_threads,
                const std::atomic<bool>& cancelled) {
  return Bringer(kernels, jobs, cancelled).Run(num_threads);
}

}  // namespace engine
