#include "native/kv_blocks.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "native/block_file.h"
#include "native/checksum.h"

namespace engine {
namespace {

constexpr char kMagic[] = "ENGINEKV";
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kVersion = 1;
constexpr size_t kMaxLabelBytes = size_t{16} << 20;

// Offsets in the head of a file.
constexpr size_t kByteOrderAt = 8;
constexpr size_t kVersionAt = 12;
constexpr size_t kLayoutAt = 16;
constexpr size_t kLabelBytesAt = 32;
constexpr size_t kNumBlocksAt = 36;
constexpr size_t kLayersAt = 48;

Failure Unwritable(const std::string& path, std::string reason) {
  return {"FILE_UNWRITABLE", {{"path", path}, {"reason", std::move(reason)}}};
}

Failure Invalid(const std::string& path, const char* problem) {
  return {"PROMPT_CACHE_INVALID", {{"path", path}, {"problem", std::string(problem)}}};
}

uint32_t WordAt(const std::vector<uint8_t>& bytes, size_t at) {
  uint32_t word;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  return word;
}

template <class T>
void Append(std::vector<uint8_t>* bytes, T value) {
  const auto* begin = reinterpret_cast<const uint8_t*>(&value);
  bytes->insert(bytes->end(), begin, begin + sizeof value);
}

// Why two heads of one length differ.
const char* Difference(const std::vector<uint8_t>& found, const std::vector<uint8_t>& expected) {
  const auto differs = [&](size_t begin, size_t end) {
    return std::memcmp(found.data() + begin, expected.data() + begin, end - begin) != 0;
  };
  const size_t label_at = expected.size() - sizeof(uint32_t) - WordAt(expected, kLabelBytesAt);
  if (differs(0, kByteOrderAt)) return "it is no file of saved blocks";
  if (differs(kByteOrderAt, kVersionAt)) return "it was written on a machine with another order of bytes";
  if (differs(kVersionAt, kLayoutAt)) return "it is of another version of the format";
  if (differs(kLayoutAt, kLayoutAt + 4)) return "its blocks are of another backend, which lays them out differently";
  if (differs(kNumBlocksAt, kNumBlocksAt + 4)) return "it has another number of blocks";
  if (differs(kLayoutAt, kLabelBytesAt) || differs(kNumBlocksAt, label_at)) {
    return "its blocks are of another model, type or size";
  }
  if (differs(kLabelBytesAt, kNumBlocksAt) || differs(label_at, expected.size() - sizeof(uint32_t))) {
    return "it has another label";
  }
  return "its head is damaged";
}

}  // namespace

Failure KvBlocks::Copy(std::span<const int32_t> pairs) const {
  if (pairs.size() % 2 != 0) return Internal("half a pair of blocks to copy");
  const size_t most = 2 * static_cast<size_t>(plan_.limits.num_blocks);
  if (std::string problem = Check(pairs, most, 0); !problem.empty()) return Internal(std::move(problem));
  for (size_t i = 0; i < pairs.size(); i += 2) {
    if (Failure failure = memory_.Copy(pairs[i], pairs[i + 1])) return failure;
  }
  return {};
}

Failure KvBlocks::Save(const std::string& path, std::span<const int32_t> blocks, std::span<const uint8_t> label) const {
  const auto most = static_cast<size_t>(plan_.limits.num_blocks);
  if (std::string problem = Check(blocks, most, label.size()); !problem.empty()) return Internal(std::move(problem));
  NewFile file;
  if (std::string problem = file.Create(path); !problem.empty()) return Unwritable(path, std::move(problem));

  uint32_t crc = 0;
  std::string problem;
  const auto write = [&](const uint8_t* data, size_t bytes) {
    crc = Crc32(crc, data, bytes);
    problem = file.Write(data, bytes);
    return problem.empty();
  };
  const std::vector<uint8_t> head = MakeHead(blocks.size(), label);
  bool written = write(head.data(), head.size());
  for (size_t i = 0; i < blocks.size() && written; i++) {
    if (cancelled_.load(std::memory_order_relaxed)) return Disposed();
    if (Failure failure = memory_.Open(blocks[i], true)) return failure;
    written = ForSegments(write);
  }
  if (written) problem = file.Write(&crc, sizeof crc);
  if (problem.empty()) problem = file.Commit();
  return problem.empty() ? Failure{} : Unwritable(path, std::move(problem));
}

Failure KvBlocks::Load(const std::string& path, std::span<const int32_t> blocks, std::span<const uint8_t> label) const {
  const auto most = static_cast<size_t>(plan_.limits.num_blocks);
  if (std::string problem = Check(blocks, most, label.size()); !problem.empty()) return Internal(std::move(problem));
  InputFile file;
  if (std::string problem = file.Open(path); !problem.empty()) return FileUnreadable(path, std::move(problem));

  // No size in the file is believed: what it should hold follows from the arguments, and the file has to agree.
  const std::vector<uint8_t> expected = MakeHead(blocks.size(), label);
  std::vector<uint8_t> head(expected.size());
  if (file.size() < kLayersAt) return Invalid(path, "it is no file of saved blocks");
  // Of a shorter file, zeros are compared past its end.
  if (!file.Read(head.data(), std::min<uint64_t>(head.size(), file.size()))) {
    return FileUnreadable(path, "reading failed");
  }
  if (head != expected) return Invalid(path, Difference(head, expected));
  uint32_t crc = 0;
  if (file.size() != head.size() + blocks.size() * BlockBytes() + sizeof crc) {
    return Invalid(path, "it is cut off, or longer than it should be");
  }

  crc = Crc32(crc, head.data(), head.size());
  const auto read = [&](uint8_t* data, size_t bytes) {
    if (!file.Read(data, bytes)) return false;
    crc = Crc32(crc, data, bytes);
    return true;
  };
  for (const int32_t block : blocks) {
    if (cancelled_.load(std::memory_order_relaxed)) return Disposed();
    if (Failure failure = memory_.Open(block, false)) return failure;
    if (!ForSegments(read)) return FileUnreadable(path, "reading failed");
    if (Failure failure = memory_.Store()) return failure;
  }
  uint32_t stored;
  if (!file.Read(&stored, sizeof stored)) return FileUnreadable(path, "reading failed");
  return stored == crc ? Failure{} : Invalid(path, "its checksum is wrong");
}

std::string KvBlocks::Check(std::span<const int32_t> blocks, size_t most, size_t label_bytes) const {
  if (blocks.size() > most) {
    return std::to_string(blocks.size()) + " blocks were given; at most " + std::to_string(most) + " are allowed";
  }
  for (const int32_t block : blocks) {
    if (block < 0 || block >= plan_.limits.num_blocks) return "there is no block " + std::to_string(block);
  }
  if (label_bytes <= kMaxLabelBytes) return "";
  return "a label has " + std::to_string(label_bytes) + " bytes; at most " + std::to_string(kMaxLabelBytes) +
         " are allowed";
}

std::vector<uint8_t> KvBlocks::MakeHead(size_t num_blocks, std::span<const uint8_t> label) const {
  std::vector<uint8_t> head(kMagic, kMagic + 8);
  for (const size_t word :
       {size_t{kByteOrder}, size_t{kVersion}, size_t{memory_.layout()}, static_cast<size_t>(plan_.limits.kv_dtype),
        static_cast<size_t>(plan_.limits.block_size), plan_.kv_layers.size(), label.size(), num_blocks}) {
    Append(&head, static_cast<uint32_t>(word));
  }
  Append(&head, BlockBytes());
  for (const KvLayerInfo& layer : plan_.kv_layers) {
    Append(&head, layer.num_kv_heads);
    Append(&head, layer.head_dim);
  }
  head.insert(head.end(), label.begin(), label.end());
  Append(&head, Crc32(0, head.data(), head.size()));
  return head;
}

uint64_t KvBlocks::BlockBytes() const {
  uint64_t bytes = 0;
  for (size_t layer = 0; layer < plan_.kv_layers.size(); layer++) {
    bytes += 2 * uint64_t{memory_.segment_bytes(static_cast<int32_t>(layer))};
  }
  return bytes;
}

template <class Visit>
bool KvBlocks::ForSegments(Visit visit) const {
  for (int32_t layer = 0; layer < static_cast<int32_t>(plan_.kv_layers.size()); layer++) {
    for (const bool values : {false, true}) {
      if (!visit(memory_.segment(layer, values), memory_.segment_bytes(layer))) return false;
    }
  }
  return true;
}

}  // namespace engine
