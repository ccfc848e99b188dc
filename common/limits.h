// Limits and sizes that more than one part relies on, with their units.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/event_loop.h"

namespace shoal {

inline constexpr uint64_t kChunkSize = 64ull << 20;      // bytes of a file in one chunk
inline constexpr uint32_t kBlockSize = 4096;             // bytes under one checksum
inline constexpr uint64_t kMaxFileSize = 1ull << 52;     // bytes (4 PiB)
inline constexpr size_t kMaxName = 255;                  // bytes of one path component
inline constexpr size_t kMaxSymlink = 4095;              // bytes of a symlink's target
inline constexpr size_t kMaxXattrName = 255;             // bytes
inline constexpr size_t kMaxXattrValue = 64 << 10;       // bytes
inline constexpr size_t kMaxXattrList = 64 << 10;        // bytes of all names of an inode
inline constexpr uint32_t kMaxLinks = 65000;             // hard links of a file
inline constexpr size_t kMaxMessage = 4 << 20;           // bytes of the protobuf part of a frame
inline constexpr size_t kMaxPayload = 4 << 20;           // bytes of the raw part of a frame
inline constexpr size_t kMaxIo = 1 << 20;                // bytes that one chunk read or write carries at most

inline constexpr Duration kHeartbeatInterval = 1s;
inline constexpr Duration kServerLease = 5s;             // a chunkserver serves this long after its last heartbeat
inline constexpr Duration kServerLeaseMargin = 500ms;    // what the metaserver waits beyond
inline constexpr Duration kSessionTimeout = 30s;
inline constexpr Duration kMountTimeout = 300s;          // how long a mount waits for an absent metaserver

inline constexpr uint16_t kMetaPort = 7600;
inline constexpr uint16_t kChunkPort = 7610;

}  // namespace shoal
