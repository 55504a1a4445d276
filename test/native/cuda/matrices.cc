#include "matrices.h"

#include <numeric>

#include "kernels/cpu/half.h"
#include "kernels/cpu/isa.h"

namespace engine::cuda::test {

using kernels::DType;

const std::vector<StorageType>& StorageTypes() {
  static const std::vector<StorageType> types = {{"f32", DType::kF32, {}},
                                                 {"f16", DType::kF16, {}},
                                                 {"bf16", DType::kBF16, {}},
                                                 {"int8", DType::kInt8, {}},
                                                 {"int4", DType::kInt4, {}},
                                                 {"int4_g64", DType::kInt4G64, {}},
                                                 {"int4_g128", DType::kInt4G128, {}},
                                                 {"int4_sym", DType::kInt4Sym, {}},
                                                 {"q4_0", DType::kQ4_0, {0}},
                                                 {"q4_1", DType::kQ4_1, {0, 2}},
                                                 {"q5_0", DType::kQ5_0, {0}},
                                                 {"q5_1", DType::kQ5_1, {0, 2}},
                                                 {"q8_0", DType::kQ8_0, {0}},
                                                 {"q2_k", DType::kQ2_K, {80, 82}},
                                                 {"q3_k", DType::kQ3_K, {108}},
                                                 {"q4_k", DType::kQ4_K, {0, 2}},
                                                 {"q5_k", DType::kQ5_K, {0, 2}},
                                                 {"q6_k", DType::kQ6_K, {208}},
                                                 {"iq4_nl", DType::kIQ4_NL, {0}},
                                                 {"iq3_s", DType::kIQ3_S, {0}},
                                                 {"iq4_xs", DType::kIQ4_XS, {0}},
                                                 {"tq2_0", DType::kTQ2_0, {64}}};
  return types;
}

namespace {

kernels::Matrix Shape(DType dtype, int32_t rows, int32_t columns) {
  const bool packed = kernels::stored_packed(dtype);
  const kernels::DTypeTraits traits = kernels::dtype_traits(dtype);
  const size_t stride =
      packed ? kernels::packed_panel_bytes(dtype, columns)
             : static_cast<size_t>(columns / traits.block_size) * static_cast<size_t>(traits.block_bytes);
  return {nullptr, dtype, rows, columns, packed, stride};
}

void Put(uint8_t* to, uint16_t value) { memcpy(to, &value, sizeof value); }

std::vector<uint8_t> RandomBytes(const StorageType& type, int32_t rows, int32_t columns, Random* random) {
  const kernels::Matrix shape = Shape(type.dtype, rows, columns);
  const auto strides = static_cast<size_t>(shape.packed ? CeilDivide(rows, kTileRows) : rows);
  std::vector<uint8_t> bytes(strides * shape.stride);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random->bits() >> 32);
  const auto bf16 = [&] { return static_cast<uint16_t>(kernels::bits_from_float(random->value() * 0.01f) >> 16); };
  for (size_t at = 0; at < bytes.size(); at += shape.stride) {
    uint8_t* row = bytes.data() + at;
    if (shape.packed) {
      for (int32_t i = 0; i < 2 * kTileRows; i++) Put(row + 2 * i, bf16());
    } else if (type.f16_places.empty()) {
      for (int32_t k = 0; k < columns; k++) {
        // Rows of different magnitude, and values of very different magnitude in a row.
        const float value =
            random->value() * (k % 7 == 0 ? 1e-4f : 1.0f) * (at / shape.stride % 3 == 0 ? 300.0f : 0.02f);
        if (type.dtype == DType::kF32) memcpy(row + 4 * k, &value, sizeof value);
        if (type.dtype == DType::kF16) Put(row + 2 * k, kernels::f16_from_float(value));
        if (type.dtype == DType::kBF16) Put(row + 2 * k, static_cast<uint16_t>(kernels::bits_from_float(value) >> 16));
      }
    } else {
      const auto block_bytes = static_cast<size_t>(kernels::dtype_traits(type.dtype).block_bytes);
      for (size_t block = 0; block < shape.stride; block += block_bytes) {
        for (const int32_t place : type.f16_places)
          Put(row + block + place, kernels::f16_from_float(random->value() * 0.01f));
      }
    }
  }
  return bytes;
}

}  // namespace

RandomMatrix::RandomMatrix(const StorageType& type, int32_t rows, int32_t columns, Random* random)
    : type_(type),
      rows_(rows),
      columns_(columns),
      bytes_(RandomBytes(type, rows, columns, random)),
      tiles_(TiledFormOf(source()).tile_bytes(), Content::kWeights),
      factors_(static_cast<size_t>(TiledFormOf(source()).row_tiles() * kTileRows), Content::kWeights) {
  const TiledMatrix form = TiledFormOf(source());
  std::vector<uint8_t> tiles(form.tile_bytes(), 0xff);
  std::vector<RowFactors> factors(static_cast<size_t>(form.row_tiles() * kTileRows));
  // In two pieces, as a loader may.
  const int32_t half = form.row_tiles() / 2;
  PackTiles(tiles.data(), factors.data(), source(), 0, half);
  PackTiles(tiles.data() + static_cast<size_t>(half) * form.row_tile_bytes(), factors.data() + half * kTileRows,
            source(), half, form.row_tiles() - half);
  CopyToDevice(tiles_.data(), tiles.data(), tiles.size());
  CopyToDevice(factors_.data(), factors.data(), form.factor_bytes());
}

kernels::Matrix RandomMatrix::source() const {
  kernels::Matrix matrix = Shape(type_.dtype, rows_, columns_);
  matrix.data = bytes_.data();
  return matrix;
}

TiledMatrix RandomMatrix::tiled() const {
  TiledMatrix matrix = TiledFormOf(source());
  matrix.tiles = tiles_.data();
  matrix.factors = factors_.data();
  return matrix;
}

std::vector<float> RandomMatrix::Weights() const {
  std::vector<float> weights(static_cast<size_t>(rows_) * static_cast<size_t>(columns_));
  std::vector<int32_t> ids(static_cast<size_t>(rows_));
  std::iota(ids.begin(), ids.end(), 0);
  kernels::kernels_scalar.embed(weights.data(), source(), ids.data(), rows_, {0, 1});
  return weights;
}

}  // namespace engine::cuda::test
