// The key space of the metaserver's LevelDB.
//
// Every key is: format byte, volume id (u32), kind (1 byte), then big-endian numbers. docs/formats.md has the table.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "common/ids.h"

namespace shoal::meta {

inline constexpr uint8_t kKeyFormat = 1;
inline constexpr uint32_t kVolume = 1;

// Numbers are on disk: never reuse one. The comment names the numbers that follow, and the record.
enum class KeyKind : uint8_t {
  kCommit = 0x01,    // -> CommitRecord
  kCluster = 0x02,   // -> ClusterRecord
  kLife = 0x03,      // -> LifeRecord
  kIdRanges = 0x04,  // -> IdRanges
  kInode = 0x10,     // inode -> InodeRecord
  kDentry = 0x11,    // parent, hash << 8 -> DentryBucket
  kXattrs = 0x12,    // inode -> XattrsRecord
  kExtent = 0x13,    // inode, index -> ExtentRecord
  kOrphan = 0x14,    // inode -> OrphanRecord
  kReap = 0x15,      // inode -> ReapRecord
  kTruncate = 0x16,  // inode -> TruncateIntent
  kChunk = 0x20,     // chunk -> ChunkRecord
  kBackref = 0x21,   // chunk, inode, index -> BackrefRecord
  kByServer = 0x22,  // server, chunk -> ByServerRecord
  kServer = 0x23,    // server -> ServerRecord
  kDrop = 0x24,      // server, chunk, instance -> DropRecord
  kWork = 0x25,      // chunk -> WorkRecord
  kUnknown = 0x26,   // server, chunk, instance -> UnknownRecord
  kSession = 0x30,   // session -> SessionRecord
  kSlot = 0x31,      // session, slot -> SlotRecord
};

// A key with room for the longest one inside: no allocation. A plain value.
class Key {
 public:
  static constexpr size_t kHead = 6;
  static constexpr size_t kMax = kHead + 3 * 8;

  Key() = default;
  explicit Key(KeyKind kind) {
    bytes_[0] = kKeyFormat;
    for (int i = 0; i < 4; ++i) bytes_[1 + i] = static_cast<uint8_t>(kVolume >> (24 - 8 * i));
    bytes_[5] = static_cast<uint8_t>(kind);
    size_ = kHead;
  }
  Key(KeyKind kind, uint64_t a) : Key(kind) { Append(a); }
  Key(KeyKind kind, uint64_t a, uint64_t b) : Key(kind, a) { Append(b); }
  Key(KeyKind kind, uint64_t a, uint64_t b, uint64_t c) : Key(kind, a, b) { Append(c); }

  // An empty key when the bytes are not of this form.
  static Key FromBytes(std::string_view bytes) {
    Key key;
    if (bytes.size() < kHead || bytes.size() > kMax || (bytes.size() - kHead) % 8 != 0) return key;
    std::memcpy(key.bytes_.data(), bytes.data(), bytes.size());
    key.size_ = static_cast<uint8_t>(bytes.size());
    return key;
  }

  KeyKind kind() const { return static_cast<KeyKind>(bytes_[5]); }
  size_t numbers() const { return size_ < kHead ? 0 : (size_ - kHead) / 8; }
  uint64_t number(size_t i) const {
    uint64_t n;
    std::memcpy(&n, bytes_.data() + kHead + 8 * i, 8);
    return __builtin_bswap64(n);
  }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes_.data()), size_}; }
  // The first key behind all that begin with this one (which must not be all 0xff).
  Key PrefixEnd() const {
    Key end = *this;
    for (size_t i = end.size_; i-- > 0;) {
      if (++end.bytes_[i] != 0) break;
    }
    return end;
  }
  bool operator==(const Key& other) const {
    return size_ == other.size_ && std::memcmp(bytes_.data(), other.bytes_.data(), size_) == 0;
  }
  bool operator<(const Key& other) const { return view() < other.view(); }
  size_t Hash() const {
    uint64_t h = bytes_[5] * 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < numbers(); ++i) {
      uint64_t n;
      std::memcpy(&n, bytes_.data() + kHead + 8 * i, 8);
      h = (h ^ n) * 0xff51afd7ed558ccdull;
      h ^= h >> 32;
    }
    return h;
  }
  std::string ToString() const;  // for messages: "inode 7"

 private:
  void Append(uint64_t n) {
    n = __builtin_bswap64(n);
    std::memcpy(bytes_.data() + size_, &n, 8);
    size_ += 8;
  }
  std::array<uint8_t, kMax> bytes_{};
  uint8_t size_ = 0;
};

// Hash of a Key for unordered containers. A plain value.
struct KeyHash {
  size_t operator()(const Key& key) const noexcept { return key.Hash(); }
};

inline Key CommitKey() { return Key(KeyKind::kCommit); }
inline Key ClusterKeyOf() { return Key(KeyKind::kCluster); }
inline Key LifeKey() { return Key(KeyKind::kLife); }
inline Key IdRangesKey() { return Key(KeyKind::kIdRanges); }
inline Key InodeKey(InodeId inode) { return Key(KeyKind::kInode, inode.value); }
// `bucket` = hash << 8 (see dentry.h).
inline Key DentryKey(InodeId parent, uint64_t bucket) { return Key(KeyKind::kDentry, parent.value, bucket); }
inline Key XattrsKey(InodeId inode) { return Key(KeyKind::kXattrs, inode.value); }
inline Key ExtentKey(InodeId inode, uint64_t index) { return Key(KeyKind::kExtent, inode.value, index); }
inline Key OrphanKey(InodeId inode) { return Key(KeyKind::kOrphan, inode.value); }
inline Key ReapKey(InodeId inode) { return Key(KeyKind::kReap, inode.value); }
inline Key TruncateKey(InodeId inode) { return Key(KeyKind::kTruncate, inode.value); }
inline Key ChunkKey(ChunkId chunk) { return Key(KeyKind::kChunk, chunk.value); }
inline Key BackrefKey(ChunkId chunk, InodeId inode, uint64_t index) {
  return Key(KeyKind::kBackref, chunk.value, inode.value, index);
}
inline Key ByServerKey(ServerId server, ChunkId chunk) { return Key(KeyKind::kByServer, server.value, chunk.value); }
inline Key ServerKey(ServerId server) { return Key(KeyKind::kServer, server.value); }
inline Key DropKey(ServerId server, ChunkId chunk, InstanceId instance) {
  return Key(KeyKind::kDrop, server.value, chunk.value, instance.value);
}
inline Key WorkKey(ChunkId chunk) { return Key(KeyKind::kWork, chunk.value); }
inline Key UnknownKey(ServerId server, ChunkId chunk, InstanceId instance) {
  return Key(KeyKind::kUnknown, server.value, chunk.value, instance.value);
}
inline Key SessionKey(SessionId session) { return Key(KeyKind::kSession, session.value); }
inline Key SlotKey(SessionId session, uint32_t slot) { return Key(KeyKind::kSlot, session.value, slot); }

}  // namespace shoal::meta
