// The tokens that may still be drawn, and the filters that thin them out: steps 6 to 10 of the sampling op, defined in
// src/backend/reference-filters.ts. A block works on one row; all its threads call everything. Sums that the definition
// takes in a given order are taken in that order, by one thread, in float64: with top-k they are short.
#pragma once

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/highest.cuh"

namespace engine::cuda {
namespace {

inline constexpr int32_t kSampleThreads = 1024;

// (key descending, index ascending) as one number that ascends.
ENGINE_DEVICE uint64_t RankOf(float key, int32_t index) {
  const uint32_t word = BitsOf(Add(key, 0.0f));  // −0 becomes +0
  const uint32_t rank = word >> 31 != 0 ? word : ~word ^ 0x80000000u;
  return static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(index);
}

// The highest value of the block, the lowest id among equals.
ENGINE_DEVICE Highest BlockBest(Highest best) {
  ENGINE_SHARED(warps, Highest[32]);
  best = BestOfLanes(best, 32);
  if (ThreadIndex() % 32 == 0) warps[ThreadIndex() / 32] = best;
  SyncThreads();
  best = warps[0];
  for (int warp = 1; warp < kSampleThreads / 32; warp++) best = Better(best, warps[warp]);
  SyncThreads();
  return best;
}

// The lowest index of the highest value; −1 if all are −∞ or NaN.
ENGINE_DEVICE int32_t HighestIndex(const float* values, int32_t count) {
  Highest best = {0.0f, -1};
  for (int32_t i = ThreadIndex(); i < count; i += kSampleThreads) best = Better(best, HighestOf(values[i], i));
  return BlockBest(best).id;
}

// Calls put(place, i) for those of 0 … count − 1 for which keep(i) holds, with ascending places from 0; returns how
// many.
template <class Keep, class Put>
ENGINE_DEVICE int32_t Compact(int32_t count, Keep keep, Put put) {
  ENGINE_SHARED(warps, int32_t[32]);
  int32_t total = 0;
  for (int32_t base = 0; base < count; base += kSampleThreads) {
    const int32_t i = base + ThreadIndex();
    const bool kept = i < count && keep(i);
    const uint32_t votes = Ballot(kept);
    if (ThreadIndex() % 32 == 0) warps[ThreadIndex() / 32] = PopulationCount(votes);
    SyncThreads();
    int32_t before = total;
    for (int warp = 0; warp < kSampleThreads / 32; warp++) {
      if (warp < ThreadIndex() / 32) before += warps[warp];
      total += warps[warp];
    }
    if (kept) put(before + PopulationCount(votes & ((1u << ThreadIndex() % 32) - 1)), i);
    SyncThreads();
  }
  return total;
}

// Sorts ascending (Batcher's bitonic network, AFIPS 1968). `capacity` is the next power of two; what pads is the
// largest.
ENGINE_DEVICE void SortRanks(uint64_t* ranks, int32_t count) {
  int32_t capacity = 1;
  while (capacity < count) capacity *= 2;
  for (int32_t i = count + ThreadIndex(); i < capacity; i += kSampleThreads) ranks[i] = ~uint64_t{0};
  SyncThreads();
  for (int32_t size = 2; size <= capacity; size *= 2) {
    for (int32_t distance = size / 2; distance > 0; distance /= 2) {
      for (int32_t pair = ThreadIndex(); pair < capacity / 2; pair += kSampleThreads) {
        const int32_t i = pair / distance * distance * 2 + pair % distance;
        const int32_t j = i + distance;
        const bool ascending = (i & size) == 0;
        const uint64_t a = ranks[i];
        const uint64_t b = ranks[j];
        if ((a > b) == ascending) {
          ranks[i] = b;
          ranks[j] = a;
        }
      }
      SyncThreads();
    }
  }
}

// Arrays in global memory, [vocab_size] each, `ranks` of the next power of two; ids ascend.
struct Survivors {
  int32_t count;
  int32_t* ids;
  float* z;        // logit / temperature
  float* weights;  // exp(z − max z), from Weigh on
  float* keys;     // typical-p's order
  uint64_t* ranks;
  float max_z;

  // Those with z ≥ lowest.
  ENGINE_DEVICE void Collect(const float* logits, int32_t vocab_size, float temperature, float lowest) {
    count = Compact(
        vocab_size, [&](int32_t i) { return Divide(logits[i], temperature) >= lowest; },
        [&](int32_t place, int32_t i) {
          ids[place] = i;
          z[place] = Divide(logits[i], temperature);
        });
    SyncThreads();
  }

  // Keeps, in order, those for which keep(index) holds. Nothing is written before all that lies behind it was read.
  template <class Keep>
  ENGINE_DEVICE void KeepIf(Keep keep) {
    int32_t total = 0;
    ENGINE_SHARED(warps, int32_t[32]);
    for (int32_t base = 0; base < count; base += kSampleThreads) {
      const int32_t i = base + ThreadIndex();
      const bool kept = i < count && keep(i);
      const int32_t id = kept ? ids[i] : 0;
      const float own_z = kept ? z[i] : 0.0f;
      const float weight = kept ? weights[i] : 0.0f;
      const uint32_t votes = Ballot(kept);
      if (ThreadIndex() % 32 == 0) warps[ThreadIndex() / 32] = PopulationCount(votes);
      SyncThreads();
      int32_t before = total;
      for (int warp = 0; warp < kSampleThreads / 32; warp++) {
        if (warp < ThreadIndex() / 32) before += warps[warp];
        total += warps[warp];
      }
      const int32_t place = before + PopulationCount(votes & ((1u << ThreadIndex() % 32) - 1));
      if (kept) {
        ids[place] = id;
        z[place] = own_z;
        weights[place] = weight;
      }
      SyncThreads();
    }
    count = total;
  }

  // Keeps `last` and what comes before it when ordered by `order`. No array but `order` may change before this is done.
  ENGINE_DEVICE void KeepUpTo(const float* order, int32_t last) {
    const float key = order[last];
    SyncThreads();
    const bool by_z = order == z;
    // z moves while it is compacted, but each thread reads its own before anyone writes there.
    KeepIf([&](int32_t i) {
      const float own = by_z ? z[i] : order[i];
      return own > key || (own == key && i <= last);
    });
  }

  // Visits indices in order (key descending, index ascending) until visit(index) is false, which thread 0 alone calls,
  // and returns the last one visited. Sorts little more than it visits: bands of keys, highest first.
  template <class Visit>
  ENGINE_DEVICE int32_t VisitInOrder(const float* order, Visit visit) {
    ENGINE_SHARED(last, int32_t);
    ENGINE_SHARED(done, int32_t);
    const float top = order[HighestIndex(order, count)];
    int32_t num_visited = 0;
    float above = Infinity();
    if (ThreadIndex() == 0) done = 0;
    for (float width = 0.5f;; width = Multiply(width, 1.5f)) {
      const float lowest = Add(top, -width);
      const int32_t size = Compact(
          count, [&](int32_t i) { return lowest <= order[i] && order[i] < above; },
          [&](int32_t place, int32_t i) { ranks[place] = RankOf(order[i], i); });
      SyncThreads();
      SortRanks(ranks, size);
      if (ThreadIndex() == 0) {
        for (int32_t i = 0; i < size && done == 0; i++) {
          last = static_cast<int32_t>(ranks[i] & 0xffffffff);
          if (!visit(last) || num_visited + i + 1 == count) done = 1;
        }
      }
      SyncThreads();
      const bool stop = done != 0 || lowest == -Infinity();
      const int32_t found = last;
      SyncThreads();
      if (stop) return found;
      num_visited += size;
      above = lowest;
    }
  }

  ENGINE_DEVICE void TopK(int32_t k) {
    if (k <= 0 || k >= count) return;
    int32_t kept = 0;
    KeepUpTo(z, VisitInOrder(z, [&](int32_t) { return ++kept < k; }));
  }

  ENGINE_DEVICE void Weigh() {
    for (int32_t i = ThreadIndex(); i < count; i += kSampleThreads) weights[i] = Exp(Add(z[i], -max_z));
    SyncThreads();
  }

  // Σ value(i) in ascending order, by one thread.
  template <class Value>
  ENGINE_DEVICE double Sum(Value value) {
    ENGINE_SHARED(result, double);
    if (ThreadIndex() == 0) {
      double sum = 0;
      for (int32_t i = 0; i < count; i++) sum = Add(sum, value(i));
      result = sum;
    }
    SyncThreads();
    const double sum = result;
    SyncThreads();
    return sum;
  }
  ENGINE_DEVICE double Total() {
    return Sum([&](int32_t i) { return static_cast<double>(weights[i]); });
  }

  // Keeps the first in an order, and those after it while the weights before them sum to less than the limit.
  ENGINE_DEVICE void KeepBelow(double limit, const float* order) {
    double sum = 0;
    KeepUpTo(order, VisitInOrder(order, [&](int32_t i) {
               sum = Add(sum, static_cast<double>(weights[i]));
               return sum < limit;
             }));
  }

  // Locally typical sampling: order by the distance of a token's surprise from the entropy.
  ENGINE_DEVICE void TypicalP(float p) {
    const double all = Total();
    const float log_total = Log(static_cast<float>(all));
    for (int32_t i = ThreadIndex(); i < count; i += kSampleThreads) keys[i] = Add(log_total, -Add(z[i], -max_z));
    SyncThreads();
    const double entropy =
        Sum([&](int32_t i) { return Multiply(static_cast<double>(weights[i]) / all, static_cast<double>(keys[i])); });
    const float center = static_cast<float>(entropy);
    for (int32_t i = ThreadIndex(); i < count; i += kSampleThreads) {
      keys[i] = Add(0.0f, -Magnitude(Add(keys[i], -center)));
    }
    SyncThreads();
    KeepBelow(Multiply(static_cast<double>(p), all), keys);
  }

  ENGINE_DEVICE void TopP(float p) { KeepBelow(Multiply(static_cast<double>(p), Total()), z); }

  ENGINE_DEVICE void MinP(float p) {
    const int32_t heaviest = HighestIndex(weights, count);
    if (weights[heaviest] >= p) {
      SyncThreads();
      KeepIf([&](int32_t i) { return weights[i] >= p; });
    } else {
      const int32_t likeliest = HighestIndex(z, count);
      KeepIf([&](int32_t i) { return i == likeliest; });
    }
  }
};

}  // namespace
}  // namespace engine::cuda
