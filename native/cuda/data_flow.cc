#include "native/cuda/data_flow.h"

#include <algorithm>

#include "native/access.h"

namespace engine::cuda {
namespace {

constexpr int32_t kNone = -1;

// Buffers that an op reads, and the one that it writes.
struct Touched {
  std::vector<int32_t> reads;
  int32_t written = kNone;
};

struct Toucher {
  Touched operator()(const EmbedOp& op) const { return {{}, op.out}; }
  Touched operator()(const AddPositionsOp& op) const { return {{op.x}, op.x}; }
  Touched operator()(const RmsNormOp& op) const { return {{op.x}, op.out}; }
  Touched operator()(const LayerNormOp& op) const { return {{op.x}, op.out}; }
  Touched operator()(const LinearOp& op) const { return {{op.x}, op.out}; }
  Touched operator()(const RopeOp& op) const { return {{op.x}, op.x}; }
  Touched operator()(const WriteKvOp& op) const { return {{op.k, op.v}, kNone}; }
  Touched operator()(const AttentionOp& op) const { return {{op.q}, op.out}; }
  Touched operator()(const SiluMulOp& op) const { return {{op.gate, op.up}, op.out}; }
  Touched operator()(const GeluOp& op) const { return {{op.x}, op.out}; }
  Touched operator()(const AddOp& op) const { return {{op.x, op.y}, op.x}; }
  Touched operator()(const SelectRowsOp& op) const { return {{op.x}, op.out}; }
};

// A value whose memory nobody has written over.
struct Living {
  int32_t op;
  int32_t buffer;
  Region region;
};

}  // namespace

DataFlow::DataFlow(const Plan& plan, const std::vector<int32_t>& ops)
    : values_(plan.ops.size()), reads_(plan.ops.size()) {
  std::vector<Living> living;
  std::vector<int32_t> last(plan.buffers.size(), kNone);  // value of each buffer, whatever became of its memory
  for (const int32_t op : ops) {
    const Touched touched = std::visit(Toucher(), plan.ops[static_cast<size_t>(op)]);
    for (const int32_t buffer : touched.reads) {
      int32_t found = kNone;
      for (const Living& value : living) {
        if (value.buffer == buffer) {
          found = value.op;
        } else if (value.region.Overlaps(OfBuffer(plan, buffer))) {
          values_[static_cast<size_t>(value.op)].kept = true;
        }
      }
      reads_[static_cast<size_t>(op)].emplace_back(buffer, found);
      if (found == kNone) {
        if (const int32_t past = last[static_cast<size_t>(buffer)]; past != kNone) {
          values_[static_cast<size_t>(past)].kept = true;
        }
        continue;
      }
      std::vector<int32_t>& readers = values_[static_cast<size_t>(found)].readers;
      if (readers.empty() || readers.back() != op) readers.push_back(op);
    }
    if (touched.written == kNone) continue;
    const Region region = OfBuffer(plan, touched.written);
    std::erase_if(living, [&](const Living& value) {
      if (!value.region.Overlaps(region)) return false;
      values_[static_cast<size_t>(value.op)].ends = op;
      return true;
    });
    last[static_cast<size_t>(touched.written)] = op;
    living.push_back({op, touched.written, region});
    values_[static_cast<size_t>(op)].kept = touched.written == plan.logits || touched.written == plan.hidden;
  }
}

int32_t DataFlow::ReadBy(int32_t op, int32_t buffer) const {
  for (const auto& [read, value] : reads_[static_cast<size_t>(op)]) {
    if (read == buffer) return value;
  }
  return kNone;
}

}  // namespace engine::cuda
