// How a kernel finds its share of the work.
#pragma once

#include "kernels.h"

namespace engine::kernels {
namespace {

struct Range {
  int64_t begin;
  int64_t end;
};

// This part's items of 0 … count − 1: contiguous, equal up to one unit, boundaries at multiples of `unit` or of the
// part's own.
inline Range share(int64_t count, Part part, int64_t unit = 1) {
  if (part.unit > 0) unit = part.unit;
  const int64_t units = (count + unit - 1) / unit;
  const int64_t begin = units * part.index / part.count * unit;
  const int64_t end = units * (part.index + 1) / part.count * unit;
  return {begin, end < count ? end : count};
}

}  // namespace
}  // namespace engine::kernels
