#include "native/run_cpu.h"

#include <cstring>

#include "kernels/cpu/part.h"

namespace engine {
namespace {

using kernels::Part;
using kernels::Range;

constexpr Part kAll = {0, 1};

// The instructions of a task for one share of its rows or columns. Row by row, kernels see only the rows of the share;
// columns are a linear's own share, and what a pointwise op does in each row.
class Interpreter {
 public:
  Interpreter(const StepContext& context, const Task& task, Part part, int32_t thread)
      : c_(context),
        k_(context.kernels),
        part_(part),
        thread_(thread),
        by_rows_(task.axis == Task::Axis::kRows),
        rows_(by_rows_ ? kernels::share(c_.NumRows(task.rows), part) : Range{0, c_.NumRows(task.rows)}),
        columns_(kernels::share(task.width, part)) {}

  void Run(const Instruction& instruction) const {
    if (instruction.quantize_area >= 0) {
      Quantize(std::get<LinearOp>(instruction.op).x, instruction.quantize_area);
    } else if (instruction.codes_area >= 0) {
      Linear(std::get<LinearOp>(instruction.op), instruction.codes_area);
    } else {
      std::visit(*this, instruction.op);
    }
  }

  void operator()(const EmbedOp& op) const {
    k_.embed(Row(op.out), c_.weights.matrix(op.table), c_.batch.token_ids.data() + rows_.begin, NumRows(), kAll);
  }

  void operator()(const AddPositionsOp& op) const {
    k_.add_rows(Row(op.x), c_.weights.matrix(op.table), c_.batch.positions.data() + rows_.begin, NumRows(), kAll);
  }

  void operator()(const RmsNormOp& op) const {
    const int32_t columns = c_.plan.weights[op.weight].columns;
    const int32_t groups = NumRows() * (Width(op.x) / columns);
    k_.rms_norm(Row(op.out), Row(op.x), c_.weights.vector(op.weight), groups, columns, op.eps, kAll);
  }

  void operator()(const LayerNormOp& op) const {
    k_.layer_norm(Row(op.out), Row(op.x), c_.weights.vector(op.weight), c_.weights.vector(op.bias), NumRows(),
                  Width(op.x), op.eps, kAll);
  }

  void operator()(const RopeOp& op) const {
    k_.rope({.x = Row(op.x),
             .positions = c_.batch.positions.data() + rows_.begin,
             .num_rows = NumRows(),
             .width = Width(op.x),
             .head_dim = op.head_dim,
             .interleaved = op.interleaved == 1,
             .table = c_.workspace.rope(op.table)},
            kAll);
  }

  void operator()(const WriteKvOp& op) const {
    k_.write_kv({.k = Row(op.k),
                 .v = Row(op.v),
                 .slot_mapping = c_.batch.slot_mapping.data() + rows_.begin,
                 .num_rows = NumRows(),
                 .cache = c_.workspace.kv(op.layer)},
                kAll);
  }

  void operator()(const SelectRowsOp& op) const {
    const auto width = static_cast<size_t>(Width(op.x));
    float* out = Row(op.out);
    for (int64_t r = rows_.begin; r < rows_.end; r++, out += width) {
      const auto from = static_cast<size_t>(c_.batch.sampling.records[static_cast<size_t>(r)].row);
      std::memcpy(out, Data(op.x) + from * width, width * sizeof(float));
    }
  }

  void operator()(const SiluMulOp& op) const {
    ForSegments(Width(op.out), [&](int64_t at, int64_t count) {
      k_.silu_mul(Data(op.out) + at, Data(op.gate) + at, Data(op.up) + at, count, kAll);
    });
  }

  void operator()(const GeluOp& op) const {
    ForSegments(Width(op.out), [&](int64_t at, int64_t count) {
      k_.gelu(Data(op.out) + at, Data(op.x) + at, count, op.approximate == 1, kAll);
    });
  }

  void operator()(const AddOp& op) const {
    ForSegments(Width(op.x), [&](int64_t at, int64_t count) { k_.add(Data(op.x) + at, Data(op.y) + at, count, kAll); });
  }

  void operator()(const LinearOp& op) const { Linear(op, -1); }

  void operator()(const AttentionOp& op) const {
    k_.attention({.out = Data(op.out),
                  .q = Data(op.q),
                  .query_start = c_.batch.query_start.data(),
                  .context_lens = c_.batch.context_lens.data(),
                  .block_tables = c_.batch.block_tables.data(),
                  .num_seqs = c_.batch.num_seqs(),
                  .max_blocks = c_.batch.max_blocks(),
                  .num_heads = Width(op.q) / c_.plan.kv_layers[op.layer].head_dim,
                  .window = op.window,
                  .scale = op.scale,
                  .cache = c_.workspace.kv(op.layer),
                  .exchange = c_.workspace.exchange(),
                  .scratch = c_.workspace.scratch(thread_)},
                 part_);
  }

 private:
  void Linear(const LinearOp& op, int32_t codes_area) const {
    kernels::QuantizedRows codes;
    if (codes_area >= 0) codes = Codes(op.x, codes_area);
    k_.linear({.out = Data(op.out),
               .x = Data(op.x),
               .q = codes_area >= 0 ? &codes : nullptr,
               .num_rows = NumRows(),
               .weight = c_.weights.matrix(op.weight),
               .bias = c_.weights.vector(op.bias),
               .scratch = c_.workspace.scratch(thread_)},
              part_);
  }

  void Quantize(int32_t buffer, int32_t area) const {
    const kernels::Block block = {static_cast<int32_t>(rows_.begin), static_cast<int32_t>(rows_.end),
                                  by_rows_ ? 0 : static_cast<int32_t>(columns_.begin),
                                  by_rows_ ? Width(buffer) : static_cast<int32_t>(columns_.end)};
    k_.quantize_rows(Codes(buffer, area), Data(buffer), c_.NumRows(c_.plan.buffers[buffer].rows), block);
  }

  // Calls run(first value, number of values) for what lies together of the share's part of a buffer.
  template <class Function>
  void ForSegments(int64_t width, Function run) const {
    if (by_rows_) return run(rows_.begin * width, (rows_.end - rows_.begin) * width);
    for (int64_t r = rows_.begin; r < rows_.end; r++) run(r * width + columns_.begin, columns_.end - columns_.begin);
  }

  float* Data(int32_t buffer) const { return c_.workspace.buffer(c_.plan, buffer); }
  // Of the share's first row.
  float* Row(int32_t buffer) const { return Data(buffer) + rows_.begin * Width(buffer); }
  int32_t Width(int32_t buffer) const { return c_.plan.buffers[buffer].width; }
  int32_t NumRows() const { return static_cast<int32_t>(rows_.end - rows_.begin); }

  kernels::QuantizedRows Codes(int32_t buffer, int32_t area) const {
    kernels::QuantizedRows codes = c_.workspace.codes(area);
    codes.columns = Width(buffer);
    return codes;
  }

  const StepContext& c_;
  const kernels::Kernels& k_;
  const Part part_;
  const int32_t thread_;
  const bool by_rows_;
  const Range rows_;
  const Range columns_;  // unless by_rows_
};

void CopyHidden(const StepContext& context, size_t row) {
  const auto width = static_cast<size_t>(context.plan.buffers[context.plan.hidden].width);
  const float* hidden = context.workspace.buffer(context.plan, context.plan.hidden);
  std::memcpy(context.outputs.hidden + row * width, hidden + row * width, width * sizeof(float));
}

}  // namespace

void RunTask(const StepContext& context, const Task& task, Part part, int32_t thread) {
  part.unit = task.chunk_unit;
  const Interpreter interpreter(context, task, part, thread);
  for (const Instruction& instruction : task.instructions) interpreter.Run(instruction);
}

void RunSampling(const StepContext& context, Part part, int32_t thread) {
  const auto vocab_size = static_cast<size_t>(context.plan.vocab_size());
  const SamplingInputs& sampling = context.batch.sampling;
  const float* all_logits = context.workspace.buffer(context.plan, context.plan.logits);
  for (int32_t r = part.index; r < sampling.num_rows(); r += part.count) {
    if (context.outputs.hidden != nullptr) CopyHidden(context, static_cast<size_t>(r));
    const size_t row = static_cast<size_t>(r) * vocab_size;
    const float* logits = all_logits + row;
    if (context.outputs.logits != nullptr) {
      std::memcpy(context.outputs.logits + row, logits, vocab_size * sizeof(float));
    }
    SampleRow(context.kernels, sampling, r, logits, context.batch.positions[sampling.records[r].row],
              context.plan.vocab_size(), context.workspace.scratch(thread), context.outputs.sampling);
  }
}

}  // namespace engine
