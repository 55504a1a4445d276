// Whole blocks of keys and values, in all layers: copied, written to files and read from them.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/executor.h"

namespace engine {

class KvBlocks {
 public:
  KvBlocks(const Plan& plan, BlockMemory& memory, const std::atomic<bool>& cancelled)
      : plan_(plan), memory_(memory), cancelled_(cancelled) {}

  // pairs [2 · number of pairs]: from, to; one pair after another. INTERNAL.
  Failure Copy(std::span<const int32_t> pairs) const;

  // The file is described in src/backend/saved-blocks.ts. INTERNAL, FILE_UNWRITABLE, DISPOSED; like all, what the
  // device fails with.
  Failure Save(const std::string& path, std::span<const int32_t> blocks, std::span<const uint8_t> label) const;

  // INTERNAL, FILE_UNREADABLE, PROMPT_CACHE_INVALID, DISPOSED; then the blocks may hold anything.
  Failure Load(const std::string& path, std::span<const int32_t> blocks, std::span<const uint8_t> label) const;

 private:
  // What is wrong with ids of blocks, or with a label.
  std::string Check(std::span<const int32_t> blocks, size_t most, size_t label_bytes) const;
  std::vector<uint8_t> MakeHead(size_t num_blocks, std::span<const uint8_t> label) const;
  uint64_t BlockBytes() const;
  // Calls visit(data, bytes) for the open block's keys, then its values, layer by layer, while it returns true.
  template <class Visit>
  bool ForSegments(Visit visit) const;

  const Plan& plan_;
  BlockMemory& memory_;
  const std::atomic<bool>& cancelled_;
};

}  // namespace engine
