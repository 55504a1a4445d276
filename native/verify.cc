#include <cmath>
#include <initializer_list>

#include "native/plan.h"
#include "native/quantize.h"

namespace engine {
namespace {

// Far above any model, and low enough that products of two sizes fit in 64 bits.
constexpr int32_t kMaxWidth = 1 << 24;       // floats
constexpr int32_t kMaxArenaWidth = 1 << 28;  // floats
constexpr int32_t kMaxRows = 1 << 20;

std::string VerifyLimits(const Limits& limits) {
  for (const int32_t rows : {limits.max_tokens, limits.max_rows, limits.max_sequences, limits.block_size}) {
    if (rows < 1 || rows > kMaxRows) return "a limit of the session is " + std::to_string(rows);
  }
  if (limits.context_size < 1 || limits.context_size > kMaxWidth) {
    return "the context size is " + std::to_string(limits.context_size);
  }
  // Slots are 32-bit numbers.
  if (limits.num_blocks < 0 || int64_t{limits.num_blocks} * limits.block_size > INT32_MAX) {
    return "the number of KV blocks is " + std::to_string(limits.num_blocks);
  }
  if (limits.kv_dtype != kernels::KvDType::kF32 && limits.kv_dtype != kernels::KvDType::kF16 &&
      limits.kv_dtype != kernels::KvDType::kInt8) {
    return "the KV type is unknown";
  }
  return "";
}

std::string VerifyTables(const Plan& plan, size_t num_files) {
  for (const int32_t width : plan.arena_widths) {
    if (width < 0 || width > kMaxArenaWidth) return "an arena is " + std::to_string(width) + " floats wide";
  }
  for (const BufferInfo& buffer : plan.buffers) {
    if (buffer.rows != Rows::kTokens && buffer.rows != Rows::kLogits) return "a buffer has unknown rows";
    const int32_t arena = plan.arena_widths[static_cast<int32_t>(buffer.rows)];
    if (buffer.width < 1 || buffer.width > kMaxWidth || buffer.offset < 0 || buffer.offset > arena - buffer.width) {
      return "a buffer of width " + std::to_string(buffer.width) + " lies outside its arena";
    }
    // 64 bytes: what PlanBuilder aligns to.
    if (buffer.offset % 16 != 0) return "a buffer starts at float " + std::to_string(buffer.offset);
  }
  for (const WeightInfo& weight : plan.weights) {
    if (weight.file < 0 || static_cast<size_t>(weight.file) >= num_files) return "a weight's file is not listed";
    const kernels::DTypeTraits traits = kernels::dtype_traits(weight.dtype);
    if (traits.block_size == 0) {
      return "a weight has the unknown type " + std::to_string(static_cast<int32_t>(weight.dtype));
    }
    if (kernels::dtype_traits(weight.quantize_to).block_size == 0) {
      return "a weight is to become the unknown type " + std::to_string(static_cast<int32_t>(weight.quantize_to));
    }
    if (weight.offset < 0 || weight.rows < 1 || weight.rows > kMaxWidth || weight.columns < 1 ||
        weight.columns > kMaxWidth || weight.columns % traits.block_size != 0) {
      return "a weight has the shape [" + std::to_string(weight.rows) + ", " + std::to_string(weight.columns) + "]";
    }
    if (weight.transposed_stride < 0 || (weight.transposed_stride > 0 && traits.block_size != 1)) {
      return "a weight has the transposed stride " + std::to_string(weight.transposed_stride);
    }
    if (weight.quantize_to != weight.dtype &&
        (kernels::stored_packed(weight.dtype) || !CanQuantize(weight.quantize_to, weight.columns))) {
      return "a weight cannot become the type " + std::to_string(static_cast<int32_t>(weight.quantize_to));
    }
  }
  for (const RopeInfo& table : plan.rope_tables) {
    if (!std::isfinite(table.magnitude)) return "a RoPE table's magnitude is not finite";
    if (table.inverse_frequencies.empty() || table.inverse_frequencies.size() > kMaxRows) {
      return "a RoPE table has " + std::to_string(table.inverse_frequencies.size()) + " pairs";
    }
    for (const double frequency : table.inverse_frequencies) {
      if (!std::isfinite(frequency)) return "a RoPE table's frequency is not finite";
    }
  }
  for (const KvLayerInfo& layer : plan.kv_layers) {
    if (layer.num_kv_heads < 1 || layer.head_dim < 1 ||
        int64_t{layer.num_kv_heads} * int64_t{layer.head_dim} > kMaxWidth) {
      return "a KV layer has " + std::to_string(layer.num_kv_heads) + " heads of " + std::to_string(layer.head_dim);
    }
  }
  return "";
}

// One call per op; the first problem found, or an empty string.
class OpVerifier {
 public:
  explicit OpVerifier(const Plan& plan) : plan_(plan) {}

  std::string operator()(const EmbedOp& op) const {
    if (!Buffers({op.out}) || !HasWeights({op.table})) return kBadIndex;
    if (Of(op.out).rows != Rows::kTokens) return kNotTokens;
    return Of(op.out).width == Matrix(op.table).columns ? "" : kWidths;
  }

  std::string operator()(const AddPositionsOp& op) const {
    if (!Buffers({op.x}) || !HasWeights({op.table})) return kBadIndex;
    if (Of(op.x).rows != Rows::kTokens) return kNotTokens;
    if (Packed(op.table)) return kPacked;
    return Of(op.x).width == Matrix(op.table).columns ? "" : kWidths;
  }

  std::string operator()(const RmsNormOp& op) const {
    if (!Buffers({op.out, op.x}) || !HasWeights({op.weight})) return kBadIndex;
    if (!IsVector(op.weight)) return kNotVector;
    if (!SameRows(op.out, op.x) || !Disjoint({op.out}, {op.x})) return kPlacement;
    const int32_t columns = Matrix(op.weight).columns, width = Of(op.x).width;
    if (Of(op.out).width != width || width % columns != 0) return kWidths;
    // Kernels count groups in 32 bits.
    const int64_t groups = int64_t{plan_.row_capacity(Of(op.x).rows)} * int64_t{width / columns};
    return groups <= INT32_MAX ? "" : kWidths;
  }

  std::string operator()(const LayerNormOp& op) const {
    if (!Buffers({op.out, op.x}) || !HasWeights({op.weight}) || !OptionalWeight(op.bias)) return kBadIndex;
    if (!SameRows(op.out, op.x) || !Disjoint({op.out}, {op.x})) return kPlacement;
    if (!IsVector(op.weight) || !IsBias(op.bias, Of(op.x).width)) return kNotVector;
    return Of(op.out).width == Of(op.x).width && Of(op.x).width == Matrix(op.weight).columns ? "" : kWidths;
  }

  std::string operator()(const LinearOp& op) const {
    if (!Buffers({op.out, op.x}) || !HasWeights({op.weight}) || !OptionalWeight(op.bias)) return kBadIndex;
    if (!SameRows(op.out, op.x) || !Disjoint({op.out}, {op.x})) return kPlacement;
    const WeightInfo& weight = Matrix(op.weight);
    if (!IsBias(op.bias, weight.rows)) return kNotVector;
    if (op.activations != 0 && op.activations != 1) return "has an unknown kind of activations";
    if (op.activations == 1 && weight.block_size() == 1) return "has 8-bit activations for weights without blocks";
    return Of(op.x).width == weight.columns && Of(op.out).width == weight.rows ? "" : kWidths;
  }

  std::string operator()(const RopeOp& op) const {
    if (!Buffers({op.x}) || op.table < 0 || op.table >= static_cast<int32_t>(plan_.rope_tables.size())) {
      return kBadIndex;
    }
    if (Of(op.x).rows != Rows::kTokens) return kNotTokens;
    if (op.interleaved != 0 && op.interleaved != 1) return "has an unknown order of pairs";
    const auto rotated = static_cast<int64_t>(2 * plan_.rope_tables[op.table].inverse_frequencies.size());
    return op.head_dim >= rotated && Of(op.x).width % op.head_dim == 0 ? "" : kWidths;
  }

  std::string operator()(const WriteKvOp& op) const {
    if (!Buffers({op.k, op.v}) || !IsLayer(op.layer)) return kBadIndex;
    if (Of(op.k).rows != Rows::kTokens || Of(op.v).rows != Rows::kTokens) return kNotTokens;
    const KvLayerInfo& layer = plan_.kv_layers[op.layer];
    const int32_t width = layer.num_kv_heads * layer.head_dim;
    return Of(op.k).width == width && Of(op.v).width == width ? "" : kWidths;
  }

  std::string operator()(const AttentionOp& op) const {
    if (!Buffers({op.out, op.q}) || !IsLayer(op.layer)) return kBadIndex;
    if (Of(op.q).rows != Rows::kTokens || Of(op.out).rows != Rows::kTokens) return kNotTokens;
    if (!Disjoint({op.out}, {op.q})) return kPlacement;
    if (op.window < 0 || !std::isfinite(op.scale)) return "has an invalid window or scale";
    const KvLayerInfo& layer = plan_.kv_layers[op.layer];
    const int32_t width = Of(op.q).width;
    const bool whole_groups = width % layer.head_dim == 0 && width / layer.head_dim % layer.num_kv_heads == 0;
    return whole_groups && Of(op.out).width == width ? "" : kWidths;
  }

  std::string operator()(const SiluMulOp& op) const {
    if (!Buffers({op.out, op.gate, op.up})) return kBadIndex;
    if (!SameRows(op.out, op.gate) || !SameRows(op.out, op.up) || !Disjoint({op.out}, {op.gate, op.up})) {
      return kPlacement;
    }
    return Of(op.out).width == Of(op.gate).width && Of(op.out).width == Of(op.up).width ? "" : kWidths;
  }

  std::string operator()(const GeluOp& op) const {
    if (!Buffers({op.out, op.x})) return kBadIndex;
    if (!SameRows(op.out, op.x) || !Disjoint({op.out}, {op.x})) return kPlacement;
    if (op.approximate != 0 && op.approximate != 1) return "has an unknown variant";
    return Of(op.out).width == Of(op.x).width ? "" : kWidths;
  }

  std::string operator()(const AddOp& op) const {
    if (!Buffers({op.x, op.y})) return kBadIndex;
    if (!SameRows(op.x, op.y) || !(op.x == op.y || Disjoint({op.x}, {op.y}))) return kPlacement;
    return Of(op.x).width == Of(op.y).width ? "" : kWidths;
  }

  std::string operator()(const SelectRowsOp& op) const {
    if (!Buffers({op.out, op.x})) return kBadIndex;
    if (Of(op.x).rows != Rows::kTokens) return kNotTokens;
    if (Of(op.out).rows != Rows::kLogits) return kPlacement;
    return Of(op.out).width == Of(op.x).width ? "" : kWidths;
  }

 private:
  static constexpr const char* kBadIndex = "names a buffer, weight, table or layer that does not exist";
  static constexpr const char* kWidths = "has operands whose widths do not fit";
  static constexpr const char* kNotTokens = "needs the rows of the step's tokens";
  static constexpr const char* kPacked = "adds rows of a packed table";
  static constexpr const char* kNotVector = "has a norm weight or bias of the wrong shape";
  static constexpr const char* kPlacement = "has buffers that overlap or whose rows differ";

  bool Buffers(std::initializer_list<int32_t> ids) const {
    for (const int32_t id : ids) {
      if (id < 0 || static_cast<size_t>(id) >= plan_.buffers.size()) return false;
    }
    return true;
  }

  bool HasWeights(std::initializer_list<int32_t> ids) const {
    for (const int32_t id : ids) {
      if (id < 0 || static_cast<size_t>(id) >= plan_.weights.size()) return false;
    }
    return true;
  }

  bool OptionalWeight(int32_t id) const { return id == -1 || HasWeights({id}); }

  bool IsLayer(int32_t layer) const { return layer >= 0 && static_cast<size_t>(layer) < plan_.kv_layers.size(); }

  const BufferInfo& Of(int32_t buffer) const { return plan_.buffers[buffer]; }

  const WeightInfo& Matrix(int32_t weight) const { return plan_.weights[weight]; }

  bool Packed(int32_t weight) const { return kernels::stored_packed(Matrix(weight).quantize_to); }

  bool IsVector(int32_t weight) const { return Matrix(weight).rows == 1 && !Packed(weight); }

  bool IsBias(int32_t id, int32_t width) const { return id == -1 || (IsVector(id) && Matrix(id).columns == width); }

  bool SameRows(int32_t a, int32_t b) const { return Of(a).rows == Of(b).rows; }

  // Threads write one while they read the other.
  bool Disjoint(std::initializer_list<int32_t> written, std::initializer_list<int32_t> read) const {
    for (const int32_t w : written) {
      for (const int32_t r : read) {
        const BufferInfo &a = Of(w), &b = Of(r);
        if (a.rows == b.rows && a.offset < b.offset + b.width && b.offset < a.offset + a.width) return false;
      }
    }
    return true;
  }

  const Plan& plan_;
};

}  // namespace

std::string VerifyPlan(const Plan& plan, size_t num_files) {
  if (std::string problem = VerifyLimits(plan.limits); !problem.empty()) return problem;
  if (std::string problem = VerifyTables(plan, num_files); !problem.empty()) return problem;
  if (plan.logits < 0 || static_cast<size_t>(plan.logits) >= plan.buffers.size() ||
      plan.buffers[plan.logits].rows != Rows::kLogits) {
    return "the plan names no buffer of logits";
  }
  const OpVerifier verifier(plan);
  for (size_t i = 0; i < plan.ops.size(); i++) {
    const std::string problem = std::visit(verifier, plan.ops[i]);
    if (!problem.empty()) return "op " + std::to_string(i) + " (" + kOpNames[plan.ops[i].index()] + ") " + problem;
  }
  return "";
}

}  // namespace engine
