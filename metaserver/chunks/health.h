// How safe a chunk is: a pure function of its record and of what is known of servers and copies at one instant.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/proto/check.pb.h"
#include "metaserver/chunks/state.h"

namespace shoal::meta {

// What counts for the safety of chunks, copied out of the registry and the list of bad replicas, so that any thread can
// judge with it. A plain value; made on the namespace thread.
class ClusterHealth {
 public:
  explicit ClusterHealth(const ChunkState& state);

  // "live", "away" (its server is), "bad", "stale" (of an older version), "damaged" (in places; it is being healed).
  const char* StateOf(const pb::ReplicaRecord& replica) const;
  // SAFE for a chunk that was never written: its zeros stand in the record. LOST also where one block is good nowhere.
  pb::Safety Judge(ChunkId chunk, const pb::ChunkRecord& record) const;
  // Of a chunk that is LOST: which blocks of it ([first, last]); none: all, or not known.
  std::vector<std::pair<uint32_t, uint32_t>> LostBlocksOf(ChunkId chunk) const;
  void Fill(ChunkId chunk, const pb::ChunkRecord& record, uint64_t index, pb::ChunkHealth* out) const;

 private:
  struct Place {
    std::string rack, host;
    bool live = false;
  };
  std::unordered_map<uint32_t, Place> servers_;
  std::set<std::string> racks_, hosts_;  // of live servers
  std::set<InstanceId> bad_, damaged_, stale_;
  std::map<ChunkId, std::vector<std::pair<uint32_t, uint32_t>>> lost_;
};

// Whether somebody has to do something about it.
inline bool IsTrouble(pb::Safety safety) { return safety >= pb::MISPLACED; }
inline bool IsShort(pb::Safety safety) { return safety >= pb::SHORT && safety < pb::UNAVAILABLE; }

}  // namespace shoal::meta
