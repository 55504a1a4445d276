// CRC-32 of IEEE 802.3, as in zlib and RFC 1952, because Node computes it too (zlib.crc32): both languages check the
// same files without code of their own for it in TypeScript.
#pragma once

#include <cstddef>
#include <cstdint>

namespace engine {

// Of everything so far; begins with 0.
uint32_t Crc32(uint32_t crc, const uint8_t* data, size_t bytes);

}  // namespace engine
