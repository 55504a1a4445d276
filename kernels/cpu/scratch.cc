#include "scratch.h"

#include "kernels.h"

namespace engine::kernels {

size_t scratch_bytes(int32_t /*max_rows*/, int32_t max_columns, int32_t /*num_heads*/, int32_t /*head_dim*/) {
  return linear_scratch_bytes(max_columns);
}

}  // namespace engine::kernels
