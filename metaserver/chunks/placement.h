// Where new replicas go, and what space is left for them: pure functions of what the servers reported.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "common/ids.h"

namespace shoal {

// One data directory as its chunkserver reported it. A plain value.
struct DiskState {
  std::string path;
  uint64_t capacity = 0;     // bytes that Shoal may use
  uint64_t used = 0;         // bytes that it uses
  uint64_t free = 0;         // bytes that it can still write there
  uint64_t file_system = 0;  // st_dev
  uint64_t fs_capacity = 0;  // of the file system below; 0: not told
  uint64_t fs_free = 0;
  uint64_t replicas = 0;
  bool failed = false;
  std::string reason;
};

// A server that new replicas may be put on. A plain value.
struct PlacementCandidate {
  ServerId server;
  std::string rack;
  std::string host;
  uint64_t capacity = 0;   // bytes, of the directories that work
  uint64_t free = 0;       // bytes, less what was promised since its last report
  uint64_t best_disk = 0;  // free bytes of its emptiest directory
  uint32_t load = 0;       // requests in work
};

// Below this a directory takes no new replicas: what is left belongs to the replicas that are there.
inline constexpr uint64_t kPlacementReserve = 16ull << 20;

// What new replicas can take of a directory.
inline uint64_t RoomForNew(const DiskState& disk) { return disk.free > kPlacementReserve ? disk.free - kPlacementReserve : 0; }

// Picks up to `count` servers for replicas of one chunk, none of them in `existing` (the servers that hold
// one already, whose racks and hosts count). First comes the spread: a rack that has none, then a host that
// has none. Among equals the best of a few random ones by free share and load. Servers without room
// are never picked. The answer is shorter than `count` when there are not enough. Deterministic for one state of `rng`.
std::vector<ServerId> PlaceReplicas(const std::vector<PlacementCandidate>& all, const std::vector<ServerId>& existing,
                                    size_t count, std::mt19937_64& rng);

// One directory's part in the space of the cluster. A plain value.
struct SpaceShare {
  ServerId server;
  std::string pool;         // directories with the same one share the file system below
  uint64_t bytes = 0;       // what this directory could take
  uint64_t pool_bytes = 0;  // what the file system below could take in all; 0: not known
};

// The most bytes of file data that can be stored with `copies` replicas of each byte on different servers.
// With fewer servers than copies: as many copies as there are servers.
uint64_t UsableSpace(const std::vector<SpaceShare>& shares, uint32_t copies);

}  // namespace shoal
