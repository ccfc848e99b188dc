// Recovery: makes the replicas of one chunk equal again under a higher version.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "common/proto/control.pb.h"
#include "metaserver/chunks/state.h"

namespace shoal::meta {

// What is asked of a recovery. A plain value.
struct RecoveryRequest {
  ChunkId chunk;
  uint32_t version = 0;       // what the asker saw: when the record has a higher one by now, all is done
  InstanceId bad;             // a replica to be left out (found bad while the record had at most `version`), or none
  bool damaged = false;       // `bad` is so in places only: it stays, and is healed
  uint32_t extra_server = 0;  // a fresh copy to be taken in
  InstanceId extra;
  bool for_write = true;  // needs min-copies servers
  bool no_space = false;  // members whose disks are full make room for others
};

// Raises versions: a durable intent in the chunk record, freeze of all members, the one with the highest applied write
// becomes the source (one that a power cut may have set back only where there is no other), all are levelled and raised, the record is committed and durable when Recover returns. Members
// are left out only when their server is dead, they themselves are missing or bad or have no room to be levelled, or
// `bad` names them, or they are full when that is asked about; never the last good one. A member whose server is only suspect is waited for. When nobody can be
// raised, nothing has changed.
//
// Members that are damaged in places stay: they are levelled, with blocks of the source or of each other. One of them is the
// source only where no member is whole; it is healed by the others first. If a block is good on none of them, the recovery goes
// on when no server is away that may have it (the block stays unreadable, ChunkState::lost_blocks), else it fails and all
// replicas stay as they are.
//
// One recovery per chunk at a time; who comes second waits for the first. Namespace thread; owner: ChunkService.
// Errors: kNotFound (no such chunk), kNotEnoughServers, kUnavailable (no live replica), kNotReady (a member could not
// be asked in time), kNoSpace (asked for room, and no other server has any).
class Recovery {
 public:
  explicit Recovery(ChunkState& state) : state_(state) {}
  Task<Status> Recover(RecoveryRequest request);
  // Replicas are being raised just now: wait before reading them.
  bool Raising(ChunkId chunk) const;
  bool Running(ChunkId chunk) const { return running_.contains(chunk); }
  // The last one failed moments ago: who only wants to read need not try again.
  bool FailedLately(ChunkId chunk) const;
  Task<Status> WaitFor(ChunkId chunk);

 private:
  struct Run {
    explicit Run(EventLoop& loop) : done(loop) {}
    WaitList done;
    bool raising = false;
    Status status;
  };
  enum class Outcome { kNone, kFrozen, kDead, kBad, kStuck };
  struct Member {
    pb::ReplicaRecord replica;
    Outcome outcome = Outcome::kNone;
    pb::FreezeReplicaResponse frozen;
    bool raised = false;
    bool left_out = false;
    Error error;
  };
  struct Plan {
    bool done = false;
    pb::ChunkRecord record;  // as the intent left it
    uint32_t new_version = 0;
    uint64_t lease = 0;
    uint64_t order = 0;
    std::vector<Member> members;
    bool untouched = false;  // no replica can have a version above the record's
    bool accept_lost = false;    // no server is away
    std::vector<uint32_t> lost;  // blocks that are good on no member
    SteadyTime deadline;
    Run* run = nullptr;
  };

  Task<Status> RunAll(RecoveryRequest request, std::shared_ptr<Run> run);
  Task<Status> Attempt(const RecoveryRequest* request, Run* run);
  Task<Status> Carry(Plan* plan, const RecoveryRequest* request);
  Status Intent(View& view, const RecoveryRequest& request, Plan* plan);
  Status Withdraw(View& view, ChunkId chunk, const Plan& plan);
  void NoteEnd(ChunkId chunk, bool failed);
  Task<void> FreezeAll(Plan* plan, const RecoveryRequest* request);
  Task<void> FreezeOne(const Plan* plan, ChunkId chunk, Member* member);
  Task<Status> RaiseAll(Plan* plan, const RecoveryRequest* request);
  Status JudgeUnraised(const RecoveryRequest& request, const Member& source, Plan* plan) const;
  Task<void> RaiseOne(Plan* plan, ChunkId chunk, Member* member, const Member* source);
  Task<void> CopyTo(const Plan* plan, ChunkId chunk, Member* member, const Member* source);
  // Who else may have good blocks where this member or its source has none.
  void FillOthers(const Plan& plan, const Member& member, const Member* source, pb::SetVersionRequest* request) const;
  void LeaveOutFull(const RecoveryRequest& request, Plan* plan) const;
  void NoteLost(ChunkId chunk, const Plan& plan);
  Status Commit(View& view, const RecoveryRequest& request, const Plan& plan);
  void ForgetLapsed(pb::ChunkRecord* record);
  Status PlaceAnew(View& view, uint32_t copies, std::vector<pb::ReplicaRecord>* replicas);

  ChunkState& state_;
  std::unordered_map<ChunkId, std::shared_ptr<Run>> running_;
  std::unordered_map<ChunkId, SteadyTime> failed_;  // when, of those that failed lately
};

}  // namespace shoal::meta
