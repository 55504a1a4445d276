#include "native/access.h"

#include <initializer_list>

namespace engine {
namespace {

// Whether test(x, y) holds for all x and y that overlap.
template <class Test>
bool AllOverlaps(const std::vector<Region>& a, const std::vector<Region>& b, Test test) {
  for (const Region& x : a) {
    for (const Region& y : b) {
      if (x.Overlaps(y) && !test(x, y)) return false;
    }
  }
  return true;
}

template <class Test>
bool AllConflicts(const Access& a, const Access& b, Test test) {
  return AllOverlaps(a.writes, b.writes, test) && AllOverlaps(a.writes, b.reads, test) &&
         AllOverlaps(a.reads, b.writes, test);
}

Region OfLayer(int32_t layer) { return {Region::kKv, layer, layer + 1, true}; }

class Visitor {
 public:
  explicit Visitor(const Plan& plan) : plan_(plan) {}

  Access operator()(const EmbedOp& op) const { return Make({}, {op.out}); }
  Access operator()(const AddPositionsOp& op) const { return Make({}, {op.x}); }
  Access operator()(const RmsNormOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const LayerNormOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const RopeOp& op) const { return Make({}, {op.x}); }
  Access operator()(const SiluMulOp& op) const { return Make({op.gate, op.up}, {op.out}); }
  Access operator()(const GeluOp& op) const { return Make({op.x}, {op.out}); }
  Access operator()(const AddOp& op) const { return Make({op.y}, {op.x}); }

  // A column needs the whole row.
  Access operator()(const LinearOp& op) const { return {{OfBuffer(plan_, op.x, true)}, {OfBuffer(plan_, op.out)}}; }
  // A row is another one of x.
  Access operator()(const SelectRowsOp& op) const { return {{OfBuffer(plan_, op.x, true)}, {OfBuffer(plan_, op.out)}}; }

  Access operator()(const WriteKvOp& op) const {
    Access access = Make({op.k, op.v}, {});
    access.writes.push_back(OfLayer(op.layer));
    return access;
  }

  Access operator()(const AttentionOp& op) const {
    Access access = Make({op.q}, {op.out});
    access.reads.push_back(OfLayer(op.layer));
    access.writes.push_back({Region::kExchange, 0, 1, true});  // of the session there is one
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

}  // namespace

void Access::Add(const Access& other) {
  reads.insert(reads.end(), other.reads.begin(), other.reads.end());
  writes.insert(writes.end(), other.writes.begin(), other.writes.end());
}

bool Access::Conflicts(const Access& other) const {
  return !AllConflicts(*this, other, [](const Region&, const Region&) { return false; });
}

bool Access::ConflictsMatch(const Access& other) const {
  return AllConflicts(*this, other, [](const Region& x, const Region& y) { return x.Matches(y); });
}

Region OfBuffer(const Plan& plan, int32_t id, bool whole) {
  const BufferInfo& buffer = plan.buffers[id];
  return {static_cast<int32_t>(buffer.rows), buffer.offset, int64_t{buffer.offset} + buffer.width, whole};
}

Region OfCodes(int32_t area) { return {Region::kCodes, area, area + 1, true}; }

Access AccessOf(const Plan& plan, const Op& op) { return std::visit(Visitor(plan), op); }

}  // namespace engine
