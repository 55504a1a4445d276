// Generated from src/backend/op.ts and src/backend/sampling.ts by `npm run generate`; do not edit.
// clang-format off
#pragma once

#include <cstdint>
#include <variant>

namespace engine {

// Changes with the op table, the sampling record and the encoding; compared when the addon is loaded.
inline constexpr int32_t kAbiNumber = -970558905;

// One struct per op, its fields in encoding order. Buffers, weights and RoPE tables are indices; −1 is an absent weight.
struct EmbedOp {
  int32_t out;  // buffer
  int32_t table;  // weight
};

struct AddPositionsOp {
  int32_t x;  // buffer
  int32_t table;  // weight
};

struct RmsNormOp {
  int32_t out;  // buffer
  int32_t x;  // buffer
  int32_t weight;  // weight
  float eps;
};

struct LayerNormOp {
  int32_t out;  // buffer
  int32_t x;  // buffer
  int32_t weight;  // weight
  int32_t bias;  // weight?
  float eps;
};

struct LinearOp {
  int32_t out;  // buffer
  int32_t x;  // buffer
  int32_t weight;  // weight
  int32_t bias;  // weight?
  int32_t activations;  // activations
};

struct RopeOp {
  int32_t x;  // buffer
  int32_t head_dim;
  int32_t table;  // rope
  int32_t interleaved;
};

struct WriteKvOp {
  int32_t k;  // buffer
  int32_t v;  // buffer
  int32_t layer;
};

struct AttentionOp {
  int32_t out;  // buffer
  int32_t q;  // buffer
  int32_t layer;
  int32_t window;
  float scale;
};

struct SiluMulOp {
  int32_t out;  // buffer
  int32_t gate;  // buffer
  int32_t up;  // buffer
};

struct GeluOp {
  int32_t out;  // buffer
  int32_t x;  // buffer
  int32_t approximate;
};

struct AddOp {
  int32_t x;  // buffer
  int32_t y;  // buffer
};

struct SelectRowsOp {
  int32_t out;  // buffer
  int32_t x;  // buffer
};

// Alternative i has op code i.
using Op = std::variant<
    EmbedOp,
    AddPositionsOp,
    RmsNormOp,
    LayerNormOp,
    LinearOp,
    RopeOp,
    WriteKvOp,
    AttentionOp,
    SiluMulOp,
    GeluOp,
    AddOp,
    SelectRowsOp>;

inline constexpr const char* kOpNames[] = {
    "embed",
    "addPositions",
    "rmsNorm",
    "layerNorm",
    "linear",
    "rope",
    "writeKv",
    "attention",
    "siluMul",
    "gelu",
    "add",
    "selectRows",
};

// One row of a batch's sampling words.
struct SamplingRecord {
  int32_t row;
  int32_t choice;
  int32_t seed_low;
  int32_t seed_high;
  int32_t flags;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  float typical_p;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t prompt_length;
  int32_t num_top;
};

inline constexpr int32_t kSamplingFlagSample = 1;
inline constexpr int32_t kSamplingFlagLogprobs = 2;
inline constexpr int32_t kMaxTopLogprobs = 20;

}  // namespace engine
