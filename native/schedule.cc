#include "native/schedule.h"

#include <algorithm>
#include <initializer_list>

namespace engine {
namespace {

// Something an instruction reads or writes: a range within one of several spaces.
struct Region {
  enum Space { kTokens, kLogits, kKv, kCodes };  // the first two are the values of Rows
  int32_t space;
  int64_t begin, end;

  bool Overlaps(const Region& other) const { return space == other.space && begin < other.end && other.begin < end; }
};

struct Access {
  std::vector<Region> reads, writes;
};

bool Overlap(const std::vector<Region>& a, const std::vector<Region>& b) {
  return std::any_of(a.begin(), a.end(), [&](const Region& x) {
    return std::any_of(b.begin(), b.end(), [&](const Region& y) { return x.Overlaps(y); });
  });
}

Region OfBuffer(const Plan& plan, int32_t id) {
  const BufferInfo& buffer = plan.buffers[id];
  return {static_cast<int32_t>(buffer.rows), buffer.offset, int64_t{buffer.offset} + buffer.width};
}

Region OfLayer(int32_t layer) { return {Region::kKv, layer, layer + 1}; }

Region OfArea(int32_t area) { return {Region::kCodes, area, area + 1}; }

// Weights and the batch do not change during a step, so only activations, KV and codes count.
class AccessOf {
 public:
  explicit AccessOf(const Plan& plan) : plan_(plan) {}

  Access operator()(const EmbedOp& op) const { return Make({}, {op.out}); }
  Access operator()(const AddPositionsOp& op) const { return Make({}, {op.x}); }
  Access operator()(const RmsNormOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const LayerNormOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const LinearOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const RopeOp& op) const { return Make({}, {op.x}); }
  Access operator()(const SiluMulOp& op) const { return Make({op.gate, op.up}, {op.out}); }
  Access operator()(const GeluOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const AddOp& op) const { return Make({op.y}, {op.x}); }
  Access operator()(const SelectRowsOp& op) const { return Make({op.x}, {op.out}); }

  Access operator()(const WriteKvOp& op) const {
    Access access = Make({op.k, op.v}, {});
    access.writes.push_back(OfLayer(op.layer));
    return access;
  }

  Access operator()(const AttentionOp& op) const {
    Access access = Make({op.q}, {op.out});
    access.reads.push_back(OfLayer(op.layer));
    return access;
  }

 private:
  Access Make(std::initializer_list<int32_t> reads, std::initializer_list<int32_t> writes) const {
    Access access;
    for (const int32_t id : reads) access.reads.push_back(OfBuffer(plan_, id));
    for (const int32_t id : writes) access.writes.push_back(OfBuffer(plan_, id));
    return access;
  }

  const Plan& plan_;
};

class Scheduler {
 public:
  explicit Scheduler(const Plan& plan) : plan_(plan), access_of_(plan) {}

  Schedule Run() {
    for (const Op& op : plan_.ops) {
      CountWork(op);
      Access access = std::visit(access_of_, op);
      int32_t area = -1;
      if (const auto* linear = std::get_if<LinearOp>(&op); linear != nullptr && linear->activations == 1) {
        area = AreaWithCodes(*linear);
        access.reads.push_back(OfArea(area));
      }
      Append({.op = op, .codes_area = area}, access);
    }
    return std::move(schedule_);
  }

 private:
  void CountWork(const Op& op) {
    if (const auto* linear = std::get_if<LinearOp>(&op)) {
      const WeightInfo& weight = plan_.weights[linear->weight];
      schedule_.work_per_row[static_cast<int32_t>(plan_.buffers[linear->x].rows)] +=
          static_cast<double>(weight.rows) * weight.columns;
    } else if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      schedule_.work_per_pair += 2.0 * plan_.buffers[attention->q].width;
    }
  }

  // The area holding this linear's input as codes, made by an instruction of its own if need be.
  int32_t AreaWithCodes(const LinearOp& linear) {
    const int32_t chunk = plan_.weights[linear.weight].block_size();
    const BufferInfo& x = plan_.buffers[linear.x];
    auto& areas = schedule_.areas;
    const auto found = std::find_if(areas.begin(), areas.end(), [&](const CodesArea& a) { return a.chunk == chunk; });
    const auto area = static_cast<int32_t>(found - areas.begin());
    if (found == areas.end()) {
      areas.push_back({chunk, 0});
      held_.push_back(-1);
    }
    areas[area].max_elements =
        std::max(areas[area].max_elements, int64_t{x.width} * int64_t{plan_.row_capacity(x.rows)});
    if (held_[area] != linear.x) {
      Append({.op = linear, .quantize_area = area}, {{OfBuffer(plan_, linear.x)}, {OfArea(area)}});
      held_[area] = linear.x;
    }
    return area;
  }

  void Append(Instruction instruction, const Access& access) {
    instruction.barrier = Overlap(access.writes, since_.reads) || Overlap(access.writes, since_.writes) ||
                          Overlap(access.reads, since_.writes);
    if (instruction.barrier) since_ = {};
    since_.reads.insert(since_.reads.end(), access.reads.begin(), access.reads.end());
    since_.writes.insert(since_.writes.end(), access.writes.begin(), access.writes.end());
    for (int32_t& buffer : held_) {
      if (buffer != -1 && Overlap(access.writes, {OfBuffer(plan_, buffer)})) buffer = -1;
    }
    schedule_.instructions.push_back(instruction);
  }

  const Plan& plan_;
  const AccessOf access_of_;
  Schedule schedule_;
  std::vector<int32_t> held_;  // per area: the buffer whose codes it holds, or −1
  Access since_;               // what instructions since the last barrier touch
};

}  // namespace

Schedule MakeSchedule(const Plan& plan) { return Scheduler(plan).Run(); }

}  // namespace engine
