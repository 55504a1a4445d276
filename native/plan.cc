#include "native/plan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace engine {
namespace {

// Reads past the end give zeros and set `overrun`, so that callers check once.
class WordReader {
 public:
  explicit WordReader(std::span<const int32_t> words) : words_(words) {}

  int32_t Integer() {
    if (at_ == words_.size()) {
      overrun_ = true;
      return 0;
    }
    return words_[at_++];
  }

  uint64_t Long() {
    const uint64_t low = static_cast<uint32_t>(Integer());
    return low | static_cast<uint64_t>(static_cast<uint32_t>(Integer())) << 32;
  }

  double Double() { return std::bit_cast<double>(Long()); }

  // A count of entries of at least `words_each` words: negative ones, and more than there are words for, overrun.
  size_t Count(size_t words_each) {
    const int32_t count = Integer();
    if (count < 0 || static_cast<size_t>(count) > words_.size() / words_each) {
      overrun_ = true;
      return 0;
    }
    return static_cast<size_t>(count);
  }

  bool overrun() const { return overrun_; }
  bool at_end() const { return at_ == words_.size(); }

 private:
  std::span<const int32_t> words_;
  size_t at_ = 0;
  bool overrun_ = false;
};

// Structs of the generated header are their words: 32-bit members in encoding order.
template <size_t kCode = 0>
bool ReadOp(int32_t code, WordReader* reader, Op* op) {
  if constexpr (kCode == std::variant_size_v<Op>) {
    return false;
  } else {
    if (code != static_cast<int32_t>(kCode)) return ReadOp<kCode + 1>(code, reader, op);
    using Fields = std::variant_alternative_t<kCode, Op>;
    int32_t words[sizeof(Fields) / sizeof(int32_t)];
    for (int32_t& word : words) word = reader->Integer();
    Fields fields;
    static_assert(sizeof(fields) == sizeof(words));
    std::memcpy(&fields, words, sizeof(words));
    *op = fields;
    return true;
  }
}

// What follows from the ops of a plan as a whole.
void Survey(Plan* plan) {
  for (size_t i = 0; i < plan->ops.size(); i++) {
    if (const auto* linear = std::get_if<LinearOp>(&plan->ops[i]); linear && linear->out == plan->logits) {
      plan->head = static_cast<int32_t>(i);
      plan->hidden = linear->x;
    } else if (const auto* attention = std::get_if<AttentionOp>(&plan->ops[i])) {
      const int32_t context_size = plan->limits.context_size;
      const int32_t window = attention->window == 0 ? context_size : std::min(attention->window, context_size);
      plan->window = std::max(plan->window, window);
    }
  }
}

}  // namespace

int32_t Plan::num_token_ids() const {
  int32_t rows = INT32_MAX;
  for (const Op& op : ops) {
    if (const auto* embed = std::get_if<EmbedOp>(&op)) rows = std::min(rows, weights[embed->table].rows);
  }
  return rows;
}

int32_t Plan::num_positions() const {
  int32_t rows = limits.context_size;
  for (const Op& op : ops) {
    if (const auto* add = std::get_if<AddPositionsOp>(&op)) rows = std::min(rows, weights[add->table].rows);
  }
  return rows;
}

size_t WeightInfo::row_bytes() const {
  const kernels::DTypeTraits traits = kernels::dtype_traits(dtype);
  return static_cast<size_t>(columns / traits.block_size) * static_cast<size_t>(traits.block_bytes);
}

uint64_t WeightInfo::extent() const {
  if (kernels::stored_packed(dtype)) {
    const auto panels = static_cast<uint64_t>((rows - 1) / kernels::kPanelRows + 1);
    return panels * kernels::packed_panel_bytes(dtype, columns);
  }
  if (transposed_stride == 0) return static_cast<uint64_t>(rows) * row_bytes();
  const uint64_t values =
      static_cast<uint64_t>(columns - 1) * static_cast<uint64_t>(transposed_stride) + static_cast<uint64_t>(rows);
  return values * static_cast<uint64_t>(kernels::dtype_traits(dtype).block_bytes);
}

void MakeAngles(const RopeInfo& table, int32_t begin, int32_t end, float* cos, float* sin) {
  for (int32_t position = begin; position < end; position++) {
    for (const double frequency : table.inverse_frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      *cos++ = static_cast<float>(std::cos(angle) * table.magnitude);
      *sin++ = static_cast<float>(std::sin(angle) * table.magnitude);
    }
  }
}

std::string DecodePlan(std::span<const int32_t> words, size_t num_files, Plan* plan) {
  WordReader reader(words);
  if (reader.Integer() != kAbiNumber) return "the plan was encoded for another version of the addon";
  const size_t num_buffers = reader.Count(3);
  const size_t num_weights = reader.Count(8);
  const size_t num_rope_tables = reader.Count(3);
  const size_t num_kv_layers = reader.Count(2);
  const size_t num_ops = reader.Count(2);
  plan->logits = reader.Integer();
  for (int32_t& width : plan->arena_widths) width = reader.Integer();

  Limits& limits = plan->limits;
  for (int32_t* limit : {&limits.max_tokens, &limits.max_rows, &limits.max_sequences, &limits.context_size,
                         &limits.block_size, &limits.num_blocks}) {
    *limit = reader.Integer();
  }
  limits.kv_dtype = static_cast<kernels::KvDType>(reader.Integer());

  plan->buffers.resize(num_buffers);
  for (BufferInfo& buffer : plan->buffers) {
    buffer.width = reader.Integer();
    buffer.rows = static_cast<Rows>(reader.Integer());
    buffer.offset = reader.Integer();
  }
  plan->weights.resize(num_weights);
  for (WeightInfo& weight : plan->weights) {
    weight.file = reader.Integer();
    weight.offset = static_cast<int64_t>(reader.Long());
    weight.dtype = static_cast<kernels::DType>(reader.Integer());
    weight.rows = reader.Integer();
    weight.columns = reader.Integer();
    weight.transposed_stride = reader.Integer();
    weight.quantize_to = static_cast<kernels::DType>(reader.Integer());
  }
  plan->rope_tables.resize(num_rope_tables);
  for (RopeInfo& table : plan->rope_tables) {
    table.inverse_frequencies.resize(reader.Count(2));
    table.magnitude = reader.Double();
    for (double& frequency : table.inverse_frequencies) frequency = reader.Double();
  }
  plan->kv_layers.resize(num_kv_layers);
  for (KvLayerInfo& layer : plan->kv_layers) {
    layer.num_kv_heads = reader.Integer();
    layer.head_dim = reader.Integer();
  }
  plan->ops.resize(num_ops);
  for (Op& op : plan->ops) {
    const int32_t code = reader.Integer();
    if (!ReadOp(code, &reader, &op)) return "the plan has an op with the unknown code " + std::to_string(code);
  }
  if (reader.overrun()) return "the plan's words end early";
  if (!reader.at_end()) return "the plan's words go on after its last op";
  if (std::string problem = VerifyPlan(*plan, num_files); !problem.empty()) return problem;
  Survey(plan);
  return "";
}

}  // namespace engine
