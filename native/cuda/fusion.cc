#include "native/cuda/fusion.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <utility>

#include "native/access.h"
#include "native/cuda/data_flow.h"

namespace engine::cuda {
namespace {

constexpr int32_t kNone = -1;

class Fuser {
 public:
  Fuser(const Placement& placement, const Bucket& bucket, const std::vector<int32_t>& ops)
      : p_(placement), plan_(placement.plan), bucket_(bucket), ops_(ops), flow_(plan_, ops) {
    const size_t count = plan_.ops.size();
    places_.assign(count, kNone);
    sources_.resize(count);
    access_.resize(count);
    for (const int32_t op : ops) {
      places_[at(op)] = op;
      access_[at(op)] = AccessOf(plan_, plan_.ops[at(op)]);
      if (const auto* linear = Get<LinearOp>(op)) {
        const int32_t value = flow_.ReadBy(op, linear->x);
        sources_[at(op)] = {linear->x, kNone, kNone, 0.0f, value == kNone ? kNone - 1 - op : value};
      }
    }
  }

  void Fuse() {
    ForAll<RmsNormOp>([&](int32_t i, const RmsNormOp& op) { FoldNorm(i, op); });
    ForAll<SiluMulOp>([&](int32_t i, const SiluMulOp& op) {
      if (!EndWithSiluMul(i, op)) FoldSiluMul(i, op);
    });
    ForAll<WriteKvOp>([&](int32_t i, const WriteKvOp& op) { FuseHeads(i, op); });
    ForAll<AddOp>([&](int32_t i, const AddOp& op) { EndWithAdd(i, op); });
    ForAll<LinearOp>([&](int32_t i, const LinearOp&) { JoinLinears(i); });
  }

  // All groups, those of single ops included.
  std::vector<Group> Finish() {
    for (const int32_t op : ops_) {
      if (places_[at(op)] == op && !groups_.contains(op)) groups_[op] = Alone(op);
    }
    std::vector<Group> groups;
    for (auto& [place, group] : groups_) groups.push_back(std::move(group));
    return groups;
  }

  // Where the launches of linears take their rows from, and what they find for sampling.
  void ChooseSources(std::vector<Group>* groups) const {
    for (Group& group : *groups) {
      if (group.kind != Group::Kind::kLinears) continue;
      group.in_blocks = IsFew(group.linears[0]) && CanPrepareInBlocks(group);
      group.highest = bucket_.sampling && group.linears[0] == plan_.head && IsFew(plan_.head) && IsLast(plan_.head);
    }
  }

 private:
  static size_t at(int32_t op) { return static_cast<size_t>(op); }
  template <class T>
  const T* Get(int32_t op) const {
    return op < 0 ? nullptr : std::get_if<T>(&plan_.ops[at(op)]);
  }
  // Calls visit(index, op) for the ops of a kind that no group has yet.
  template <class T, class Visit>
  void ForAll(Visit visit) {
    for (const int32_t i : ops_) {
      if (const T* op = Get<T>(i); op != nullptr && IsFree(i)) visit(i, *op);
    }
  }

  // Whether it is neither done by others nor in a group.
  bool IsFree(int32_t op) const { return places_[at(op)] == op && !groups_.contains(op); }
  int32_t NumRows(int32_t buffer) const {
    return plan_.buffers[buffer].rows == Rows::kTokens ? bucket_.num_tokens : bucket_.num_rows;
  }
  bool IsFew(int32_t linear) const { return LinearKindOf(NumRows(Get<LinearOp>(linear)->x)) == LinearKind::kFew; }
  // Whether what it writes stays as it is.
  bool IsLast(int32_t op) const { return flow_.Of(op).ends > ops_.back(); }
  bool Overlap(int32_t buffer, int32_t other) const { return OfBuffer(plan_, buffer).Overlaps(OfBuffer(plan_, other)); }

  // --- What is done while rows are prepared --------------------------------------------------------------------------

  // Whether all that read what `op` writes are linears, and these values are there until the last of them, which may
  // write over them once its rows are prepared.
  bool OnlyLinearsRead(int32_t op, std::initializer_list<int32_t> values) const {
    const Value& value = flow_.Of(op);
    if (value.kept || value.readers.empty()) return false;
    return std::all_of(value.readers.begin(), value.readers.end(), [&](int32_t reader) {
      return Get<LinearOp>(reader) != nullptr && IsFree(reader) &&
             std::all_of(values.begin(), values.end(),
                         [&](int32_t read) { return read != kNone && reader <= flow_.Of(read).ends; });
    });
  }

  void FoldInto(int32_t op, const LinearSource& source) {
    std::vector<Region> reads = {OfBuffer(plan_, source.x, true)};
    if (source.up != kNone) reads.push_back(OfBuffer(plan_, source.up, true));
    for (const int32_t reader : flow_.Of(op).readers) {
      sources_[at(reader)] = source;
      access_[at(reader)].reads = reads;
    }
    places_[at(op)] = kNone;
    access_[at(op)] = {};
  }

  void FoldNorm(int32_t i, const RmsNormOp& op) {
    if (plan_.weights[op.weight].columns != plan_.buffers[op.x].width) return;  // of each head
    if (!OnlyLinearsRead(i, {flow_.ReadBy(i, op.x)})) return;
    FoldInto(i, {op.x, op.weight, kNone, op.eps, i});
  }

  void FoldSiluMul(int32_t i, const SiluMulOp& op) {
    if (!OnlyLinearsRead(i, {flow_.ReadBy(i, op.gate), flow_.ReadBy(i, op.up)})) return;
    FoldInto(i, {op.gate, kNone, op.up, 0.0f, i});
  }

  // --- How linears end -----------------------------------------------------------------------------------------------

  // Whether they can be parts of one launch.
  bool AreAlike(int32_t linear, int32_t other) const {
    const TiledMatrix &a = MatrixOf(linear), &b = MatrixOf(other);
    return linear != other && sources_[at(linear)].value == sources_[at(other)].value && a.format == b.format &&
           a.columns == b.columns && a.planes == b.planes && IsFew(linear);
  }
  const TiledMatrix& MatrixOf(int32_t linear) const { return p_.matrices[Get<LinearOp>(linear)->weight]; }

  // The free linear that makes what `op` reads in a buffer, if nothing else reads that.
  int32_t LinearFor(int32_t op, int32_t buffer) const {
    const int32_t linear = flow_.ReadBy(op, buffer);
    const bool fits = Get<LinearOp>(linear) != nullptr && IsFree(linear) && flow_.Of(linear).IsReadOnlyBy(op);
    return fits ? linear : kNone;
  }

  bool EndWithSiluMul(int32_t i, const SiluMulOp& op) {
    const int32_t gate = LinearFor(i, op.gate), up = LinearFor(i, op.up);
    if (gate == kNone || up == kNone || !AreAlike(gate, up)) return false;
    return TryGroup(Linears({gate, up}, {op.out, kNone}, LinearEnd::kSiluMul), {i});
  }

  void EndWithAdd(int32_t i, const AddOp& op) {
    const int32_t linear = LinearFor(i, op.y);
    if (linear != kNone && !Overlap(op.x, op.y)) TryGroup(Linears({linear}, {op.x}, LinearEnd::kAdd), {i});
  }

  // With the next free linears that read the same rows.
  void JoinLinears(int32_t i) {
    if (i == plan_.head) return;
    std::vector<int32_t> linears = {i}, outs = {Get<LinearOp>(i)->out};
    const int32_t value = sources_[at(i)].value;
    if (value < 0) return;
    for (const int32_t next : flow_.Of(value).readers) {
      const auto* linear = next > i ? Get<LinearOp>(next) : nullptr;
      if (linear == nullptr || next == plan_.head || !AreAlike(i, next) || !IsFree(next)) continue;
      const bool apart = std::none_of(outs.begin(), outs.end(), [&](int32_t out) { return Overlap(out, linear->out); });
      std::vector<int32_t> more = linears;
      more.push_back(next);
      if (!apart || !CanGroup(more)) continue;
      linears = std::move(more);
      outs.push_back(linear->out);
      if (linears.size() == kMaxLinearParts) break;
    }
    if (linears.size() > 1) Add(Linears(linears, outs, LinearEnd::kStore));
  }

  Group Linears(const std::vector<int32_t>& linears, const std::vector<int32_t>& outs, LinearEnd end) const {
    Group group = {};
    group.kind = Group::Kind::kLinears;
    group.ops = group.linears = linears;
    group.outs = outs;
    group.end = end;
    group.source = sources_[at(linears[0])];
    return group;
  }

  Group Alone(int32_t op) const {
    if (const auto* linear = Get<LinearOp>(op)) return Linears({op}, {linear->out}, LinearEnd::kStore);
    Group group = {};
    group.kind = Group::Kind::kOp;
    group.ops = {op};
    return group;
  }

  // --- Queries, keys and values --------------------------------------------------------------------------------------

  // What becomes of q or k before `reader`: RMSNorm of each head, then a rotation, or one of them, or nothing.
  struct HeadChain {
    int32_t in;             // buffer before
    int32_t norm = kNone;   // op
    int32_t rope = kNone;   // op
    int32_t first = kNone;  // the first op of all that reads `in`
  };
  HeadChain ChainBefore(int32_t reader, int32_t buffer, int32_t head_dim) const {
    HeadChain chain = {buffer, kNone, kNone, reader};
    int32_t value = flow_.ReadBy(reader, buffer);
    const auto* rope = Get<RopeOp>(value);
    if (rope != nullptr && rope->head_dim == head_dim && IsFree(value)) {
      chain.rope = chain.first = value;
      value = flow_.ReadBy(value, buffer);
    }
    const auto* norm = Get<RmsNormOp>(value);
    const bool alone = value != kNone && flow_.Of(value).IsReadOnlyBy(chain.first);
    if (norm != nullptr && plan_.weights[norm->weight].columns == head_dim && IsFree(value) && alone) {
      chain.norm = chain.first = value;
      chain.in = norm->x;
    }
    return chain;
  }

  // The attention that reads the keys that `write` stores.
  int32_t AttentionAfter(int32_t write, int32_t layer) const {
    for (const int32_t i : ops_) {
      const auto* attention = i > write ? Get<AttentionOp>(i) : nullptr;
      if (attention != nullptr && attention->layer == layer) return i;
    }
    return kNone;
  }

  void FuseHeads(int32_t write, const WriteKvOp& op) {
    const int32_t attention = AttentionAfter(write, op.layer);
    if (attention == kNone || op.k == op.v) return;
    const int32_t out = Get<AttentionOp>(attention)->q;
    const int32_t head_dim = plan_.kv_layers[op.layer].head_dim;
    const HeadChain k = ChainBefore(write, op.k, head_dim), q = ChainBefore(attention, out, head_dim);
    if (!TurnAlike(k.rope, q.rope)) return;
    const auto *k_norm = Get<RmsNormOp>(k.norm), *q_norm = Get<RmsNormOp>(q.norm);
    if (k_norm != nullptr && q_norm != nullptr && k_norm->eps != q_norm->eps) return;
    // k as it becomes is written to the cache alone.
    if (k.rope != kNone && !flow_.Of(k.rope).IsReadOnlyBy(write)) return;
    const HeadOps heads = {.out = out,
                           .q = q.in,
                           .k = k.in,
                           .v = op.v,
                           .q_norm = q_norm == nullptr ? kNone : q_norm->weight,
                           .k_norm = k_norm == nullptr ? kNone : k_norm->weight,
                           .eps = q_norm != nullptr   ? q_norm->eps
                                  : k_norm != nullptr ? k_norm->eps
                                                      : 0.0f,
                           .rope = k.rope,
                           .layer = op.layer};
    std::vector<int32_t> others = {write};
    for (const int32_t other : {k.rope, k.norm, q.rope, q.norm}) {
      if (other != kNone) others.push_back(other);
    }
    const bool normed = q.norm != kNone || k.norm != kNone;
    if (!normed && EndWithHeads(write, q, k, heads, others)) return;
    if (others.size() == 1) return;  // nothing but writing
    const bool apart = (heads.q == out || !Overlap(heads.q, out)) && !Overlap(heads.k, out) && !Overlap(heads.v, out);
    Group group = {};
    group.kind = Group::Kind::kHeads;
    group.heads = heads;
    if (apart) TryGroup(std::move(group), others);
  }

  bool EndWithHeads(int32_t write, const HeadChain& q, const HeadChain& k, const HeadOps& heads,
                    const std::vector<int32_t>& others) {
    const int32_t linear_k = LinearFor(k.first, heads.k), linear_v = LinearFor(write, heads.v);
    const int32_t linear_q = q.rope != kNone ? LinearFor(q.rope, heads.q) : flow_.ReadBy(q.first, heads.q);
    if (linear_k == kNone || linear_v == kNone || Get<LinearOp>(linear_q) == nullptr || !IsFree(linear_q)) return false;
    if (!AreAlike(linear_q, linear_k) || !AreAlike(linear_q, linear_v) || linear_k == linear_v) return false;
    const DeviceApi& api = *p_.device.api;
    if (!api.can_end_with_heads(RotationOf(p_, heads.rope, nullptr), p_.areas.kv[heads.layer])) return false;
    Group group = Linears({linear_q, linear_k, linear_v}, {heads.out, kNone, kNone}, LinearEnd::kHeads);
    group.heads = heads;
    return TryGroup(std::move(group), others);
  }

  bool TurnAlike(int32_t rope, int32_t other) const {
    const auto *a = Get<RopeOp>(rope), *b = Get<RopeOp>(other);
    if (a == nullptr || b == nullptr) return a == b;
    return a->table == b->table && a->interleaved == b->interleaved;
  }

  // --- Groups --------------------------------------------------------------------------------------------------------

  // Whether all of them may be done where the last stands: no op that they pass touches what they touch.
  bool CanGroup(const std::vector<int32_t>& members) const {
    const int32_t place = *std::max_element(members.begin(), members.end());
    const auto passes = [&](int32_t other) {
      return places_[at(other)] != kNone && places_[at(other)] < place &&
             std::find(members.begin(), members.end(), other) == members.end();
    };
    return std::all_of(members.begin(), members.end(), [&](int32_t member) {
      for (int32_t other = member + 1; other < place; other++) {
        if (passes(other) && access_[at(member)].Conflicts(access_[at(other)])) return false;
      }
      return true;
    });
  }

  void Add(Group group) {
    std::sort(group.ops.begin(), group.ops.end());
    const int32_t place = group.ops.back();
    for (const int32_t op : group.ops) places_[at(op)] = place;
    groups_[place] = std::move(group);
  }

  bool TryGroup(Group group, const std::vector<int32_t>& others) {
    group.ops.insert(group.ops.end(), others.begin(), others.end());
    if (!CanGroup(group.ops)) return false;
    Add(std::move(group));
    return true;
  }

  bool CanPrepareInBlocks(const Group& group) const {
    const LinearSource& source = group.source;
    // Some blocks write while others still read.
    for (const int32_t out : group.outs) {
      if (out == kNone) continue;
      if (Overlap(out, source.x) || (source.up != kNone && Overlap(out, source.up))) return false;
    }
    const PreparedRows rows = RowsOf(p_, NumRows(source.x), MatrixOf(group.linears[0]).columns);
    return p_.device.api->can_prepare_in_blocks(p_.device.info.limits, rows);
  }

  const Placement& p_;
  const Plan& plan_;
  const Bucket& bucket_;
  const std::vector<int32_t>& ops_;
  const DataFlow flow_;
  std::map<int32_t, Group> groups_;    // by place
  std::vector<int32_t> places_;        // of each op, where it is done; −1: nowhere by itself
  std::vector<LinearSource> sources_;  // of linears
  std::vector<Access> access_;         // of each op, with what was folded into it
};

}  // namespace

std::vector<Group> GroupOps(const Placement& placement, const Bucket& bucket, const std::vector<int32_t>& ops) {
  Fuser fuser(placement, bucket, ops);
  if (!placement.fused) return fuser.Finish();
  fuser.Fuse();
  std::vector<Group> groups = fuser.Finish();
  fuser.ChooseSources(&groups);
  return groups;
}

}  // namespace engine::cuda
