// What becomes of the products of LaunchLinear: which rows of tiles a block has at once, and what is done with their
// products. Where two products make one result (gate and up, the halves of a head), their rows of tiles are neighbours.
#pragma once

#include "kernels/cuda/highest.cuh"
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/linear_output.cuh"
#include "kernels/cuda/rotation.cuh"
#include "kernels/cuda/row_source.cuh"

namespace engine::cuda {
namespace {

// Whether values i and i + num_pairs of a head belong together: rows of different tiles.
constexpr bool RotatesHalves(const HeadRotation& rotation) { return rotation.num_pairs > 0 && !rotation.interleaved; }

// A row of tiles of one of the parts; part is −1 if there is none.
struct RowTile {
  int part;
  int index;
};

// How many rows of tiles all parts have.
constexpr int32_t NumRowTiles(const LinearFewArgs& args) {
  int32_t count = 0;
  for (int32_t p = 0; p < args.num_parts; p++) count += args.parts[p].weight.row_tiles();
  return count;
}

// The row of tiles at a place in the order in which blocks take them. Places 2i and 2i + 1 are a pair's.
ENGINE_DEVICE RowTile RowTileAt(const LinearFewArgs& args, int place) {
  if (args.end == LinearEnd::kSiluMul) {
    if (place / 2 >= args.parts[0].weight.row_tiles()) return {-1, 0};
    return {place % 2, place / 2};
  }
  ENGINE_NO_UNROLL
  for (int p = 0; p < args.num_parts; p++) {
    const int count = args.parts[p].weight.row_tiles();
    if (place >= count) {
      place -= count;
      continue;
    }
    if (args.end != LinearEnd::kHeads || !RotatesHalves(args.rotation)) return {p, place};
    const int of_head = args.cache.head_dim / kTileRows;
    const int in_head = place % of_head;
    return {p, place - in_head + in_head % 2 * (of_head / 2) + in_head / 2};
  }
  return {-1, 0};
}

// The products of a block's rows of tiles with all rows, once all warps have written their sums of them.
class BlockProducts {
 public:
  // partials [slots][split_k][partial_floats], as the matrix unit left them; scales [num_rows]. With args.highest,
  // `highest` is [slots][num_rows].
  ENGINE_DEVICE BlockProducts(const LinearFewArgs& args, const LinearTiling& tiling, const float* partials,
                              int partial_floats, const float* scales, Highest* highest)
      : args_(args),
        partials_(partials),
        scales_(scales),
        highest_(highest),
        partial_floats_(partial_floats),
        split_k_(tiling.split_k),
        slots_(tiling.row_tiles),
        tokens_(args.x.num_rows) {
    if (args.highest == nullptr) return;
    for (int i = ThreadIndex(); i < slots_ * tokens_; i += NumThreads()) highest_[i] = {0.0f, -1};
  }

  // Those of places first … first + slots − 1.
  ENGINE_DEVICE void Finish(int first) {
    const int step = args_.end == LinearEnd::kSiluMul ? 2 : 1;
    const int items = slots_ / step * tokens_ * kTileRows;
    ENGINE_NO_UNROLL
    for (int item = ThreadIndex(); item < items; item += NumThreads()) {
      const int in_tile = item % kTileRows;
      const int token = item / kTileRows % tokens_;
      const int slot = item / (kTileRows * tokens_) * step;
      const RowTile tile = RowTileAt(args_, first + slot);
      const int row = tile.index * kTileRows + in_tile;
      const bool exists = tile.part >= 0 && row < args_.parts[tile.part].weight.rows;
      float value = 0.0f;
      if (exists) {
        const LinearPart& part = args_.parts[tile.part];
        const Mate mate = MateOf(part, tile.part, row, slot);
        const float other = mate.part < 0 ? 0.0f : Product(args_.parts[mate.part], mate.row, mate.slot, token);
        value = Product(part, row, slot, token);
        if (args_.end == LinearEnd::kSiluMul) value = Multiply(Silu(value), other);
        if (mate.pair >= 0) value = Turned(value, other, mate, token);
        if (args_.end == LinearEnd::kHeads && part.role != HeadRole::kQ) {
          WriteKv(part.role == HeadRole::kK, row, token, value);
        } else {
          StoreProduct(part.out + static_cast<size_t>(token) * static_cast<size_t>(part.weight.rows) + row, value,
                       args_.end == LinearEnd::kAdd);
        }
      }
      if (args_.highest != nullptr) {
        // The 16 lanes of a tile and a token are the same in every turn, so theirs is the only access.
        const Highest best = BestOfLanes(exists ? HighestOf(value, row) : Highest{0.0f, -1}, kTileRows);
        if (in_tile == 0) highest_[item / kTileRows] = Better(highest_[item / kTileRows], best);
      }
    }
  }

  // After all turns.
  ENGINE_DEVICE void FinishHighest() const {
    if (args_.highest == nullptr) return;
    SyncThreads();
    for (int token = ThreadIndex(); token < tokens_; token += NumThreads()) {
      Highest best = highest_[token];
      ENGINE_NO_UNROLL
      for (int slot = 1; slot < slots_; slot++) best = Better(best, highest_[slot * tokens_ + token]);
      args_.highest[token * NumBlocks() + BlockIndex()] = best;
    }
  }

 private:
  ENGINE_DEVICE float Product(const LinearPart& part, int row, int slot, int token) const {
    const int in_tile = row % kTileRows;
    // Where the matrix unit left it.
    const int value = token / 8 * 4 + in_tile / 8 * 2 + token % 2;
    const int place = value * 32 + in_tile % 8 * 4 + token % 8 / 2;
    float sum = 0.0f;
    for (int s = 0; s < split_k_; s++) {
      sum = Add(sum, partials_[(slot * split_k_ + s) * partial_floats_ + place]);
    }
    if (TileLayoutOf(part.weight.format).factors == Factors::kNone) sum = Multiply(sum, part.weight.factors[row].scale);
    return ProductOf(sum, scales_[token], part.bias, row);
  }

  // The product that makes one result with that of a row.
  struct Mate {
    int part;  // −1: there is none
    int row, slot;
    int pair;        // of the head's pairs, −1: they are not turned
    bool is_second;  // of the two
  };
  ENGINE_DEVICE Mate MateOf(const LinearPart& part, int part_index, int row, int slot) const {
    if (args_.end == LinearEnd::kSiluMul) return {1, row, slot + 1, -1, true};
    const HeadRotation& rotation = args_.rotation;
    if (args_.end != LinearEnd::kHeads || part.role == HeadRole::kV) return {-1, 0, 0, -1, false};
    const int d = row % args_.cache.head_dim;
    if (rotation.interleaved) {
      if (d / 2 >= rotation.num_pairs) return {-1, 0, 0, -1, false};
      return {part_index, row ^ 1, slot, d / 2, d % 2 == 0};
    }
    if (rotation.num_pairs == 0) return {-1, 0, 0, -1, false};
    const bool is_second = d < rotation.num_pairs;
    return {part_index, is_second ? row + rotation.num_pairs : row - rotation.num_pairs, slot ^ 1,
            is_second ? d : d - rotation.num_pairs, is_second};
  }

  ENGINE_DEVICE float Turned(float value, float other, const Mate& mate, int token) const {
    const HeadRotation& rotation = args_.rotation;
    const int64_t angle = static_cast<int64_t>(rotation.positions[token]) * rotation.num_pairs + mate.pair;
    const float cos = rotation.cos[angle];
    const float sin = rotation.sin[angle];
    return mate.is_second ? RotatedFirst(value, other, cos, sin) : RotatedSecond(other, value, cos, sin);
  }

  // To the keys, or to the values; a position of them has no padding (CanEndWithHeads).
  ENGINE_DEVICE void WriteKv(bool to_keys, int row, int token, float value) const {
    const KvCache& cache = args_.cache;
    const int head = row / cache.head_dim;
    const int d = row % cache.head_dim;
    const int slot = args_.slot_mapping[token];
    if (slot < 0) return;
    const int bytes = KvValueBytes(cache.dtype);
    const int offset = slot % cache.block_size;
    uint8_t* const block = KvBlock(cache, to_keys ? cache.keys : cache.values, slot / cache.block_size, head);
    uint8_t* const to =
        block + (to_keys ? KeyPlace(cache, offset, d) + d * bytes % 16 : ValuePlace(cache, offset) + d * bytes);
    if (cache.dtype == KvDType::kF32) {
      *reinterpret_cast<float*>(to) = value;
    } else {
      *reinterpret_cast<uint16_t*>(to) = HalfOf(value);
    }
  }

  const LinearFewArgs& args_;
  const float* partials_;
  const float* scales_;
  Highest* highest_;
  int partial_floats_, split_k_, slots_, tokens_;
};

}  // namespace
}  // namespace engine::cuda
