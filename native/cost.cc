#include "native/cost.h"

namespace engine {
namespace {

// Nanoseconds on one core, measured on Zen 4 with AVX-512 and on Zen 3 with AVX2, which differ by a factor of two.
constexpr double kWeight = 0.04;         // to read and unpack a quantised weight
constexpr double kMultiplyQ8 = 0.005;    // a product of 8-bit integers, many rows at once
constexpr double kFloatWeight = 0.1;     // to read a float weight
constexpr double kMultiplyFloat = 0.03;  // a product of floats
constexpr double kAttended = 0.1;        // a value of a query, times a key and a value
constexpr double kPointwise = 0.3;       // a value of a row: norms, activations, codes, rotations

class Visitor {
 public:
  Visitor(const Plan& plan, bool with_codes) : plan_(plan), with_codes_(with_codes) {}

  Cost operator()(const EmbedOp& op) const { return PerRow(op.out); }
  Cost operator()(const AddPositionsOp& op) const { return PerRow(op.x); }
  Cost operator()(const RmsNormOp& op) const { return PerRow(op.x); }
  Cost operator()(const LayerNormOp& op) const { return PerRow(op.x); }
  Cost operator()(const RopeOp& op) const { return PerRow(op.x); }
  Cost operator()(const WriteKvOp& op) const { return PerRow(op.k); }
  Cost operator()(const SiluMulOp& op) const { return PerRow(op.out); }
  Cost operator()(const GeluOp& op) const { return PerRow(op.out); }
  Cost operator()(const AddOp& op) const { return PerRow(op.x); }
  Cost operator()(const SelectRowsOp& op) const { return PerRow(op.x); }
  Cost operator()(const AttentionOp& op) const { return {.per_pair = kAttended * plan_.buffers[op.q].width}; }

  Cost operator()(const LinearOp& op) const {
    const WeightInfo& weight = plan_.weights[op.weight];
    const double size = static_cast<double>(weight.rows) * weight.columns;
    if (with_codes_) return {.fixed = kWeight * size, .per_row = kMultiplyQ8 * size};
    return {.fixed = kFloatWeight * size, .per_row = kMultiplyFloat * size};
  }

  Cost PerRow(int32_t buffer) const { return {.per_row = kPointwise * plan_.buffers[buffer].width}; }

 private:
  const Plan& plan_;
  const bool with_codes_;
};

}  // namespace

void Cost::Add(const Cost& other) {
  fixed += other.fixed;
  per_row += other.per_row;
  per_pair += other.per_pair;
}

Cost CostOf(const Plan& plan, const Instruction& instruction) {
  const Visitor visitor(plan, instruction.codes_area >= 0);
  if (instruction.quantize_area >= 0) return visitor.PerRow(std::get<LinearOp>(instruction.op).x);
  return std::visit(visitor, instruction.op);
}

}  // namespace engine
