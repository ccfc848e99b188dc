// ChunkChecker: asks all copies of a chunk what they have, and compares them.
#pragma once

#include <map>
#include <vector>

#include "common/proto/check.pb.h"
#include "metaserver/chunks/state.h"

namespace shoal::meta {

// What one copy, or a chunk as a whole (server 0), was found to be. A plain value.
struct CheckFinding {
  uint32_t server = 0;
  InstanceId instance;
  const char* what = "";  // "bad", "missing", "stale", "different", "not_compared", "unreachable"
  std::string why;
  bool repaired = false;
};

// What came of it. A plain value.
struct CheckOutcome {
  uint64_t replicas = 0;  // that answered, and are good by themselves
  uint64_t bytes = 0;     // read and verified
  std::vector<CheckFinding> findings;
};

// A copy that is bad, missing or old goes to BadReplicas. Copies that are each good by themselves may still differ.
// That is only believed of digests that belong together: all are of one write number, or nobody could be writing before
// and after; and only when a second look shows exactly the same. Then the greater number of copies counts: the others
// are bad replicas. Where there is none, or a power cut may have set one back, a recovery levels them all with the one
// that it chooses; that waits for copies whose servers are away, whose votes may decide. Namespace thread; owner:
// ChunkService.
class ChunkChecker {
 public:
  explicit ChunkChecker(ChunkState& state);
  // `data`: the bytes are read and verified, too, not only the tables.
  Task<CheckOutcome> Check(ChunkId chunk, bool data);

 private:
  // A copy and its answer.
  struct Copy {
    pb::ReplicaRecord replica;
    Result<pb::ScrubReplicaResponse> answer;
  };
  // The record at an instant.
  struct Look {
    bool there = false;  // written, and no recovery at work
    bool gone = false;
    bool quiet = false;
    pb::ChunkRecord record;
  };
  using Digests = std::map<uint64_t, uint64_t>;  // by instance
  Task<Status> LookAt(ChunkId chunk, Look* look);
  Task<void> AskAll(ChunkId chunk, const Look* look, bool table_only, std::vector<Copy>* copies);
  Task<void> Ask(ChunkId chunk, uint32_t version, bool table_only, Copy* copy);
  // Those that did not answer with a digest. `same`: the record has not changed since they were asked. What is damaged
  // is told even then: its server reports it, too, and may have been faster.
  void Judge(ChunkId chunk, uint32_t version, const std::vector<Copy>& copies, bool same, CheckOutcome* outcome);
  static bool Settled(const std::vector<Copy>& copies, bool quiet);
  Task<void> Repair(ChunkId chunk, uint32_t version, const std::vector<Copy>* copies, CheckOutcome* outcome);

  ChunkState& state_;
  Counter& compared_;
  Counter& differing_;
};

}  // namespace shoal::meta
