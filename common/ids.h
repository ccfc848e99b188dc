// Strong ids: numbers of different things can't be mixed up. Zero is "none" in every one.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace shoal {

// A number with a type of its own; a value, safe on any thread.
template <typename Tag, typename Number = uint64_t>
struct Id {
  Number value = 0;

  constexpr Id() = default;
  constexpr explicit Id(Number v) : value(v) {}
  constexpr auto operator<=>(const Id&) const = default;
  constexpr explicit operator bool() const { return value != 0; }
  template <typename H>
  friend H AbslHashValue(H h, const Id& id) {
    return H::combine(std::move(h), id.value);
  }
};

template <typename Tag, typename Number>
std::string ToString(Id<Tag, Number> id) {
  return std::to_string(id.value);
}

// Inode and chunk ids carry the metaserver's incarnation in their top 16 bits, so that none is
// ever given twice, not even after a restore. The root is inode 1.
using InodeId = Id<struct InodeTag>;
using ChunkId = Id<struct ChunkTag>;
using ChunkVersion = Id<struct ChunkVersionTag, uint32_t>;  // raised whenever a replica is dropped
using InstanceId = Id<struct InstanceTag>;                   // one replica of a chunk: never used again
using ServerId = Id<struct ServerTag, uint32_t>;
using SessionId = Id<struct SessionTag>;
using TxnId = Id<struct TxnTag>;                // transaction number of the commit seam
using WriteNumber = Id<struct WriteNumberTag>;  // given by a chain's head within one chunk version
using Incarnation = Id<struct IncarnationTag, uint32_t>;  // 16 bits in use

inline constexpr InodeId kRootInode{1};

}  // namespace shoal

template <typename Tag, typename Number>
struct std::hash<shoal::Id<Tag, Number>> {
  size_t operator()(const shoal::Id<Tag, Number>& id) const noexcept { return std::hash<Number>()(id.value); }
};
