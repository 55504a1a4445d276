#include "native/schedule.h"

#include <algorithm>

#include "native/access.h"
#include "native/cost.h"

namespace engine {
namespace {

using Axis = Task::Axis;

// So many areas hold codes of one chunk size: one is read while the next is written.
constexpr int32_t kAreasPerChunk = 2;

// What an instruction is shared out by. Pointwise ops and the making of codes also go by columns.
struct Shape {
  Axis axis;
  bool pointwise;
  int32_t buffer;  // whose rows or columns are shared out
};

Shape ShapeOf(const Instruction& instruction) {
  if (instruction.quantize_area >= 0) return {Axis::kRows, true, std::get<LinearOp>(instruction.op).x};
  struct Visitor {
    Shape operator()(const EmbedOp& op) const { return {Axis::kRows, false, op.out}; }
    Shape operator()(const AddPositionsOp& op) const { return {Axis::kRows, false, op.x}; }
    Shape operator()(const RmsNormOp& op) const { return {Axis::kRows, false, op.out}; }
    Shape operator()(const LayerNormOp& op) const { return {Axis::kRows, false, op.out}; }
    Shape operator()(const LinearOp& op) const { return {Axis::kColumns, false, op.out}; }
    Shape operator()(const RopeOp& op) const { return {Axis::kRows, false, op.x}; }
    Shape operator()(const WriteKvOp& op) const { return {Axis::kRows, false, op.k}; }
    Shape operator()(const AttentionOp& op) const { return {Axis::kTiles, false, op.out}; }
    Shape operator()(const SiluMulOp& op) const { return {Axis::kRows, true, op.out}; }
    Shape operator()(const GeluOp& op) const { return {Axis::kRows, true, op.out}; }
    Shape operator()(const AddOp& op) const { return {Axis::kRows, true, op.x}; }
    Shape operator()(const SelectRowsOp& op) const { return {Axis::kRows, false, op.out}; }
  };
  return std::visit(Visitor(), instruction.op);
}

class Scheduler {
 public:
  explicit Scheduler(const Plan& plan) : plan_(plan) {}

  Schedule Run() {
    for (const Op& op : plan_.ops) {
      const bool is_head = &op - plan_.ops.data() == plan_.head;
      Access access = AccessOf(plan_, op);
      int32_t area = -1;
      if (const auto* linear = std::get_if<LinearOp>(&op); linear != nullptr && linear->activations == 1) {
        area = AreaWithCodes(*linear);
        access.reads.push_back(OfCodes(area));
      }
      if (is_head) {  // in a stage of its own, which a step can leave out
        schedule_.num_hidden_stages = schedule_.stages.size();
        schedule_.stages.emplace_back();
        accesses_.clear();
      }
      Append({.op = op, .codes_area = area}, access);
    }
    if (plan_.head < 0) schedule_.num_hidden_stages = schedule_.stages.size();
    return std::move(schedule_);
  }

 private:
  // The area holding this linear's input as codes, made by an instruction of its own if need be.
  int32_t AreaWithCodes(const LinearOp& linear) {
    const int32_t chunk = plan_.weights[linear.weight].block_size();
    const auto& areas = schedule_.areas;
    for (size_t area = 0; area < areas.size(); area++) {
      if (areas[area].chunk == chunk && held_[area] == linear.x) return static_cast<int32_t>(area);
    }
    const int32_t area = FreeArea(chunk);
    const BufferInfo& x = plan_.buffers[linear.x];
    int64_t& max_elements = schedule_.areas[static_cast<size_t>(area)].max_elements;
    const int64_t tiles = (plan_.row_capacity(x.rows) - 1) / kernels::kActivationTile + 1;
    max_elements = std::max(max_elements, int64_t{x.width} * tiles * kernels::kActivationTile);
    Append({.op = linear, .quantize_area = area}, {{OfBuffer(plan_, linear.x)}, {OfCodes(area)}});
    held_[static_cast<size_t>(area)] = linear.x;
    return area;
  }

  // An area that the current stage does not touch, as far as that can be had.
  int32_t FreeArea(int32_t chunk) {
    int32_t last = -1, count = 0;
    for (size_t i = 0; i < schedule_.areas.size(); i++) {
      if (schedule_.areas[i].chunk != chunk) continue;
      last = static_cast<int32_t>(i);
      count++;
      const Access write{{}, {OfCodes(last)}};
      if (std::none_of(accesses_.begin(), accesses_.end(), [&](const Access& a) { return a.Conflicts(write); })) {
        return last;
      }
    }
    if (count == kAreasPerChunk) return last;
    schedule_.areas.push_back({chunk, 0});
    held_.push_back(-1);
    return static_cast<int32_t>(schedule_.areas.size()) - 1;
  }

  void Append(const Instruction& instruction, const Access& access) {
    if (!JoinColumns(instruction, access) && !JoinRows(instruction, access)) AddTask(instruction, access);
    for (int32_t& buffer : held_) {
      if (buffer != -1 && Access{{}, {OfBuffer(plan_, buffer)}}.Conflicts({{}, access.writes})) buffer = -1;
    }
  }

  // A pointwise op joins the linears that make its operands: gate, up, SiLU · up and its codes are one task.
  bool JoinColumns(const Instruction& instruction, const Access& access) {
    const Shape shape = ShapeOf(instruction);
    if (!shape.pointwise || schedule_.stages.empty()) return false;
    const BufferInfo& buffer = plan_.buffers[shape.buffer];
    std::vector<Task>& tasks = schedule_.stages.back().tasks;
    std::vector<size_t> makers;
    for (size_t i = 0; i < tasks.size(); i++) {
      if (!accesses_[i].Conflicts(access)) continue;
      if (tasks[i].axis != Axis::kColumns || tasks[i].rows != buffer.rows || tasks[i].width != buffer.width ||
          !accesses_[i].ConflictsMatch(access)) {
        return false;
      }
      makers.push_back(i);
    }
    if (makers.empty()) return false;
    const size_t first = makers.front();
    for (; makers.size() > 1; makers.pop_back()) MergeTasks(first, makers.back());
    Task& task = tasks[first];
    task.chunk_unit = std::max(task.chunk_unit, kernels::kShareUnit);
    if (instruction.quantize_area >= 0) {
      task.chunk_unit =
          std::max(task.chunk_unit, schedule_.areas[static_cast<size_t>(instruction.quantize_area)].chunk);
    }
    Join(first, instruction, access);
    return true;
  }

  // The current stage's last task goes on with its rows.
  bool JoinRows(const Instruction& instruction, const Access& access) {
    const Shape shape = ShapeOf(instruction);
    if (shape.axis != Axis::kRows || schedule_.stages.empty()) return false;
    const std::vector<Task>& tasks = schedule_.stages.back().tasks;
    const size_t last = tasks.size() - 1;
    if (tasks[last].axis != Axis::kRows || tasks[last].rows != plan_.buffers[shape.buffer].rows ||
        !accesses_[last].ConflictsMatch(access)) {
      return false;
    }
    for (size_t i = 0; i < last; i++) {
      if (accesses_[i].Conflicts(access)) return false;
    }
    Join(last, instruction, access);
    return true;
  }

  void AddTask(const Instruction& instruction, const Access& access) {
    const bool waits =
        std::any_of(accesses_.begin(), accesses_.end(), [&](const Access& a) { return a.Conflicts(access); });
    if (schedule_.stages.empty() || waits || accesses_.size() == kMaxTasksPerStage) {
      schedule_.stages.emplace_back();
      accesses_.clear();
    }
    const Shape shape = ShapeOf(instruction);
    const BufferInfo& buffer = plan_.buffers[shape.buffer];
    const auto* attention = std::get_if<AttentionOp>(&instruction.op);
    schedule_.stages.back().tasks.push_back(
        {.axis = shape.axis,
         .rows = buffer.rows,
         .width = attention ? plan_.kv_layers[attention->layer].num_kv_heads : buffer.width,
         .chunk_unit = 0,
         .cost = CostOf(plan_, instruction),
         .instructions = {instruction}});
    accesses_.push_back(access);
  }

  void Join(size_t index, const Instruction& instruction, const Access& access) {
    Task& task = schedule_.stages.back().tasks[index];
    task.cost.Add(CostOf(plan_, instruction));
    task.instructions.push_back(instruction);
    accesses_[index].Add(access);
  }

  // Tasks of one stage do not depend on each other: their order is free.
  void MergeTasks(size_t into, size_t from) {
    std::vector<Task>& tasks = schedule_.stages.back().tasks;
    Task& task = tasks[into];
    const Task& other = tasks[from];
    task.cost.Add(other.cost);
    task.chunk_unit = std::max(task.chunk_unit, other.chunk_unit);
    task.instructions.insert(task.instructions.end(), other.instructions.begin(), other.instructions.end());
    accesses_[into].Add(accesses_[from]);
    tasks.erase(tasks.begin() + static_cast<ptrdiff_t>(from));
    accesses_.erase(accesses_.begin() + static_cast<ptrdiff_t>(from));
  }

  const Plan& plan_;
  Schedule schedule_;
  std::vector<Access> accesses_;  // of the current stage's tasks
  std::vector<int32_t> held_;     // per area: the buffer whose codes it holds, or −1
};

}  // namespace

Schedule MakeSchedule(const Plan& plan) { return Scheduler(plan).Run(); }

}  // namespace engine
