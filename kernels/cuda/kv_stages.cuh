// Keys and values of a KV head, chunk after chunk, as halves in shared memory, each chunk on its way while the one
// before it is used. Positions are found through the block table; chunks begin at multiples of kPositions.
#pragma once

#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/tile_reader.cuh"

namespace engine::cuda {
namespace {

// Keys lie as in their block, 8 dimensions of all positions side by side; values as rows of an odd number of 16 bytes.
// So 8 positions of the same 8 dimensions are in different banks.
template <int kDim, int kPositions>
struct HalfChunk {
  alignas(16) uint8_t keys[kDim / 8][kPositions][16];
  uint8_t values[kPositions][kDim / 8 + 1][16];
};

// Of 8 bits: v = code · power · factor with a power of two that halves can hold, so that code · power is exact.
template <int kPositions>
struct ChunkScales {
  float keys[kPositions];
  float value_factors[kPositions];
  uint32_t value_powers[kPositions];  // twice as a half
};

template <KvDType kDType, int kDim, int kThreads>
class KvStages {
 public:
  static constexpr int kPositions = kDim <= 128 ? 64 : 32;  // of a chunk
  static constexpr bool kCodes = kDType == KvDType::kInt8;
  using Chunk = HalfChunk<kDim, kPositions>;
  using Scales = ChunkScales<kPositions>;

  struct Place {
    uint32_t block;  // of the KV head: block · num_kv_heads + kv_head
    uint32_t offset;
  };
  // Halves arrive where they are used, in one of two chunks. Codes arrive beside the one chunk, and become halves when
  // everyone is done with those of the chunk before.
  struct Shared {
    Chunk chunks[kCodes ? 1 : 2];
    alignas(16) uint8_t codes[kCodes ? 2 * kPositions * kDim : 16];  // keys [kDim / 16][kPositions], values the reverse
    Scales scales[kCodes ? 2 : 1];
    Place places[2][kPositions];
  };

  // Positions before `begin` and from `end` on are never read: another one stands for them.
  ENGINE_DEVICE KvStages(Shared& shared, const KvCache& cache, int kv_head, const int32_t* block_table, int begin,
                         int end)
      : shared_(shared),
        cache_(cache),
        kv_head_(static_cast<uint32_t>(kv_head)),
        block_table_(block_table),
        block_bytes_(static_cast<uint32_t>(KvBlockBytes(kDType, cache.head_dim, cache.block_size))),
        row_bytes_(static_cast<uint32_t>(KvRowBytes(kDType, cache.head_dim))),
        begin_(begin),
        end_(end) {
    SetPlaces(first_chunk());
    SetPlaces(first_chunk() + 1);
    SyncThreads();
    Fetch(first_chunk());
    PutScales(first_chunk());
  }

  ENGINE_DEVICE int first_chunk() const { return begin_ / kPositions; }
  ENGINE_DEVICE int end_chunk() const { return CeilDivide(end_, kPositions); }

  // All threads, for every chunk in turn: returns when it is there, with the next one on its way.
  ENGINE_DEVICE void Enter(int chunk) {
    WaitCopies<0>();
    SyncThreads();  // everyone's copies are there, and nobody uses the chunk before any more
    SetPlaces(chunk + 2);
    if constexpr (kCodes) {
      MakeHalves(shared_.scales[chunk & 1]);
      SyncThreads();
    }
    if (chunk + 1 < end_chunk()) Fetch(chunk + 1);
  }
  // All threads, some time after Enter: what it has loaded into registers of the next chunk is there by now.
  ENGINE_DEVICE void Receive(int chunk) {
    if (chunk + 1 < end_chunk()) PutScales(chunk + 1);
  }

  ENGINE_DEVICE const Chunk& chunk(int chunk) const { return shared_.chunks[kCodes ? 0 : chunk & 1]; }
  ENGINE_DEVICE const Scales& scales(int chunk) const { return shared_.scales[chunk & 1]; }

 private:
  static constexpr uint32_t kPieces = kDim * KvValueBytes(kDType) / 16;  // of 16 bytes in a row
  static constexpr uint32_t kItems = kPieces * kPositions / kThreads;       // of them, a thread's of a chunk
  static_assert(kItems * kThreads == kPieces * kPositions);

  ENGINE_DEVICE uint32_t block_size() const { return static_cast<uint32_t>(cache_.block_size); }
  ENGINE_DEVICE static uint32_t Thread() { return static_cast<uint32_t>(ThreadIndex()); }

  // Where the positions of a chunk lie; places of two chunks are kept.
  ENGINE_DEVICE void SetPlaces(int chunk) {
    if (Thread() >= kPositions) return;
    int position = chunk * kPositions + ThreadIndex();
    position = position < begin_ ? begin_ : position >= end_ ? end_ - 1 : position;
    const uint32_t slot = static_cast<uint32_t>(position), size = block_size();
    const uint32_t block = static_cast<uint32_t>(block_table_[slot / size]);
    shared_.places[chunk & 1][ThreadIndex()] = {block * static_cast<uint32_t>(cache_.num_kv_heads) + kv_head_,
                                                slot % size};
  }

  ENGINE_DEVICE const uint8_t* InBlock(const uint8_t* base, const Place& place) const {
    return base + static_cast<uint64_t>(place.block) * block_bytes_;
  }

  // Rows shorter than kDim are filled up with copies of their last 16 bytes, which meet queries of zero, and dimensions
  // of the output that nobody wants.
  ENGINE_DEVICE void Fetch(int chunk) {
    const Place* places = shared_.places[chunk & 1];
    Chunk& halves = shared_.chunks[kCodes ? 0 : chunk & 1];
    uint8_t* keys = kCodes ? shared_.codes : halves.keys[0][0];
    uint8_t* values = kCodes ? shared_.codes + kPositions * kDim : halves.values[0][0];
    const uint32_t thread = Thread();
    const Place own = places[thread % kPositions];
    const uint8_t* key = InBlock(cache_.keys, own);
    // From piece to piece, so that offsets need no registers between fetches.
    const uint32_t step = 16 * block_size();
    const uint32_t last = 16 * own.offset + (row_bytes_ / 16 - 1) * step;
    uint32_t offset = 16 * own.offset + thread / kPositions * step;
    ENGINE_UNROLL
    for (uint32_t i = 0; i < kItems; i++, offset += kThreads / kPositions * step) {
      CopyAsync16(keys + 16 * (i * kThreads + thread), key + (offset < last ? offset : last));
    }
    ENGINE_UNROLL
    for (uint32_t i = 0; i < kItems; i++) {
      const uint32_t item = i * kThreads + thread;
      const uint32_t in_row = 16 * (item % kPieces);
      const Place place = places[item / kPieces];
      CopyAsync16(values + 16 * (kCodes ? item : item / kPieces * (kPieces + 1) + item % kPieces),
                  InBlock(cache_.values, place) +
                      (place.offset * row_bytes_ + (in_row < row_bytes_ - 16 ? in_row : row_bytes_ - 16)));
    }
    CommitCopies();
    if constexpr (kCodes) {
      if (thread >= 2 * kPositions) return;
      const uint8_t* block = InBlock(thread < kPositions ? cache_.keys : cache_.values, own);
      fetched_scale_ = reinterpret_cast<const float*>(block + row_bytes_ * block_size())[own.offset];
    }
  }

  // The scales that came with the last Fetch; apart from it, so that nobody waits for them there.
  ENGINE_DEVICE void PutScales(int chunk) {
    if constexpr (kCodes) {
      Scales& scales = shared_.scales[chunk & 1];
      const uint32_t position = Thread() % kPositions;
      if (Thread() < kPositions) {
        scales.keys[position] = fetched_scale_;
      } else if (Thread() < 2 * kPositions) {
        constexpr int kLowest = 127 - 24, kHighest = 127 + 8;  // 127 · 2^8 is a half
        const int exponent = static_cast<int>(BitsOf(fetched_scale_) >> 23);
        const int used = exponent < kLowest ? kLowest : exponent > kHighest ? kHighest : exponent;
        const float power = FloatOf(static_cast<uint32_t>(used) << 23);
        scales.value_powers[position] = HalvesOf(power, power);
        scales.value_factors[position] = Multiply(fetched_scale_, FloatOf(static_cast<uint32_t>(254 - used) << 23));
      }
    }
  }

  // 16 codes as halves.
  ENGINE_DEVICE static void ReadCodes(uint32_t (&halves)[8], const uint8_t* codes) {
    constexpr uint32_t k128 = 0x80808080;  // to unsigned
    const Words4 words = Load16(codes);
    HalvesOfBytes(words.x ^ k128, halves[0], halves[1]);
    HalvesOfBytes(words.y ^ k128, halves[2], halves[3]);
    HalvesOfBytes(words.z ^ k128, halves[4], halves[5]);
    HalvesOfBytes(words.w ^ k128, halves[6], halves[7]);
  }

  ENGINE_DEVICE void MakeHalves(const Scales& scales) {
    Chunk& chunk = shared_.chunks[0];
    ENGINE_UNROLL
    for (uint32_t i = 0; i < kItems; i++) {
      const uint32_t item = i * kThreads + Thread();
      uint32_t halves[8];
      ReadCodes(halves, shared_.codes + 16 * item);
      const uint32_t piece = item / kPositions;
      Store16(chunk.keys[2 * piece][item % kPositions], {halves[0], halves[1], halves[2], halves[3]});
      Store16(chunk.keys[2 * piece + 1][item % kPositions], {halves[4], halves[5], halves[6], halves[7]});
    }
    ENGINE_UNROLL
    for (uint32_t i = 0; i < kItems; i++) {
      const uint32_t item = i * kThreads + Thread();
      uint32_t halves[8];
      ReadCodes(halves, shared_.codes + kPositions * kDim + 16 * item);
      const uint32_t position = item / kPieces;
      const uint32_t power = scales.value_powers[position];
      ENGINE_UNROLL
      for (uint32_t& pair : halves) pair = FmaHalves(pair, power, 0);
      uint8_t* to = chunk.values[position][2 * (item % kPieces)];
      Store16(to, {halves[0], halves[1], halves[2], halves[3]});
      Store16(to + 16, {halves[4], halves[5], halves[6], halves[7]});
    }
  }

  Shared& shared_;
  const KvCache& cache_;
  uint32_t kv_head_;
  const int32_t* block_table_;
  uint32_t block_bytes_;  // of a KV head
  uint32_t row_bytes_;
  int begin_, end_;
  float fetched_scale_ = 0.0f;
};

}  // namespace
}  // namespace engine::cuda
