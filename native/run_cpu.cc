#include "native/run_cpu.h"

#include <cstring>

namespace engine {
namespace {

using kernels::Part;

// One call per op, with this thread's share of the work.
class Interpreter {
 public:
  Interpreter(const StepContext& context, Part part) : c_(context), k_(context.kernels), part_(part) {}

  void operator()(const EmbedOp& op) const {
    k_.embed(Data(op.out), c_.weights.matrix(op.table), c_.batch.token_ids.data(), c_.batch.num_tokens(), part_);
  }

  void operator()(const AddPositionsOp& op) const {
    k_.add_rows(Data(op.x), c_.weights.matrix(op.table), c_.batch.positions.data(), c_.batch.num_tokens(), part_);
  }

  void operator()(const RmsNormOp& op) const {
    const int32_t columns = c_.plan.weights[op.weight].columns;
    const int32_t groups = NumRows(op.x) * (Width(op.x) / columns);
    k_.rms_norm(Data(op.out), Data(op.x), c_.weights.vector(op.weight), groups, columns, op.eps, part_);
  }

  void operator()(const LayerNormOp& op) const {
    k_.layer_norm(Data(op.out), Data(op.x), c_.weights.vector(op.weight), c_.weights.vector(op.bias), NumRows(op.x),
                  Width(op.x), op.eps, part_);
  }

  void Linear(const LinearOp& op, int32_t codes_area) const {
    kernels::QuantizedRows codes;
    if (codes_area >= 0) codes = Codes(op.x, codes_area);
    k_.linear({.out = Data(op.out),
               .x = Data(op.x),
               .q = codes_area >= 0 ? &codes : nullptr,
               .num_rows = NumRows(op.x),
               .weight = c_.weights.matrix(op.weight),
               .bias = c_.weights.vector(op.bias),
               .scratch = c_.workspace.scratch(part_.index)},
              part_);
  }

  void Quantize(const LinearOp& op, int32_t area) const {
    k_.quantize_rows(Codes(op.x, area), Data(op.x), NumRows(op.x), part_);
  }

  void operator()(const RopeOp& op) const {
    k_.rope({.x = Data(op.x),
             .positions = c_.batch.positions.data(),
             .num_rows = c_.batch.num_tokens(),
             .width = Width(op.x),
             .head_dim = op.head_dim,
             .interleaved = op.interleaved == 1,
             .table = c_.workspace.rope(op.table)},
            part_);
  }

  void operator()(const WriteKvOp& op) const {
    k_.write_kv({.k = Data(op.k),
                 .v = Data(op.v),
                 .slot_mapping = c_.batch.slot_mapping.data(),
                 .num_rows = c_.batch.num_tokens(),
                 .cache = c_.workspace.kv(op.layer)},
                part_);
  }

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
                  .scratch = c_.workspace.scratch(part_.index)},
                 part_);
  }

  void operator()(const SiluMulOp& op) const {
    k_.silu_mul(Data(op.out), Data(op.gate), Data(op.up), Count(op.out), part_);
  }

  void operator()(const GeluOp& op) const {
    k_.gelu(Data(op.out), Data(op.x), Count(op.out), op.approximate == 1, part_);
  }

  void operator()(const AddOp& op) const { k_.add(Data(op.x), Data(op.y), Count(op.x), part_); }

  void operator()(const SelectRowsOp& op) const {
    const auto width = static_cast<size_t>(Width(op.x));
    const SamplingInputs& sampling = c_.batch.sampling;
    for (int32_t r = part_.index; r < sampling.num_rows(); r += part_.count) {
      const auto from = static_cast<size_t>(sampling.records[r].row);
      std::memcpy(Data(op.out) + static_cast<size_t>(r) * width, Data(op.x) + from * width, width * sizeof(float));
    }
  }

  // Rows of logits are sampled whole, each by one thread.
  void Sample() const {
    const auto vocab_size = static_cast<size_t>(c_.plan.vocab_size());
    const SamplingInputs& sampling = c_.batch.sampling;
    for (int32_t r = part_.index; r < sampling.num_rows(); r += part_.count) {
      const size_t row = static_cast<size_t>(r) * vocab_size;
      const float* logits = Data(c_.plan.logits) + row;
      if (c_.outputs.logits != nullptr) std::memcpy(c_.outputs.logits + row, logits, vocab_size * sizeof(float));
      SampleRow(k_, sampling, r, logits, c_.batch.positions[sampling.records[r].row], c_.plan.vocab_size(),
                c_.workspace.scratch(part_.index), c_.outputs.sampling);
    }
  }

  // A linear is run with its codes, by Linear().
  void operator()(const LinearOp& op) const { Linear(op, -1); }

 private:
  float* Data(int32_t buffer) const { return c_.workspace.buffer(c_.plan, buffer); }
  int32_t Width(int32_t buffer) const { return c_.plan.buffers[buffer].width; }

  int32_t NumRows(int32_t buffer) const {
    return c_.plan.buffers[buffer].rows == Rows::kTokens ? c_.batch.num_tokens() : c_.batch.sampling.num_rows();
  }

  int64_t Count(int32_t buffer) const { return int64_t{NumRows(buffer)} * int64_t{Width(buffer)}; }

  kernels::QuantizedRows Codes(int32_t buffer, int32_t area) const {
    kernels::QuantizedRows codes = c_.workspace.codes(area);
    codes.columns = Width(buffer);
    return codes;
  }

  const StepContext& c_;
  const kernels::Kernels& k_;
  const Part part_;
};

}  // namespace

void RunStep(const StepContext& context, Part part, Barrier& barrier) {
  const Interpreter interpreter(context, part);
  for (const Instruction& instruction : context.schedule.instructions) {
    if (instruction.barrier && !barrier.Wait()) return;
    if (instruction.quantize_area >= 0) {
      interpreter.Quantize(std::get<LinearOp>(instruction.op), instruction.quantize_area);
    } else if (instruction.codes_area >= 0) {
      interpreter.Linear(std::get<LinearOp>(instruction.op), instruction.codes_area);
    } else {
      std::visit(interpreter, instruction.op);
    }
  }
  if (barrier.Wait()) interpreter.Sample();
}

}  // namespace engine
