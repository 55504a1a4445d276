// What memory an instruction of a step reads and writes: what may run at the same time, and what in the same chunk.
#pragma once

#include <vector>

#include "native/plan.h"

namespace engine {

// A range within one of several spaces.
struct Region {
  enum Space { kTokens, kLogits, kKv, kCodes, kExchange };  // the first two are the values of Rows
  int32_t space;
  int64_t begin, end;
  // Whoever computes a row or column touches more of it than that row or column.
  bool whole;

  bool Overlaps(const Region& other) const { return space == other.space && begin < other.end && other.begin < end; }
  // Both touch the same part of it for the same row or column.
  bool Matches(const Region& other) const {
    return !whole && !other.whole && space == other.space && begin == other.begin && end == other.end;
  }
};

struct Access {
  std::vector<Region> reads, writes;

  void Add(const Access& other);
  // Something one of them writes is touched by the other.
  bool Conflicts(const Access& other) const;
  // There is no conflict but between the same rows, or columns, of the same buffers.
  bool ConflictsMatch(const Access& other) const;
};

Region OfBuffer(const Plan& plan, int32_t id, bool whole = false);
Region OfCodes(int32_t area);

// Weights and the batch do not change during a step, so only activations and KV count; codes are added by the
// scheduler.
Access AccessOf(const Plan& plan, const Op& op);

}  // namespace engine
