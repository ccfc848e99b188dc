// FSCK: is every file under a path safe?
#pragma once

#include "metaserver/chunks/walk_runs.h"

namespace shoal::meta {

// Judges each chunk by its record in the snapshot and by the servers as they are at that moment. Nothing is read from
// chunkservers (that is what SCRUB does). Bounded: an answer names so many files, and so many ranges of each. Namespace
// thread; owner: ChunkService.
class FsckOps {
 public:
  FsckOps(ChunkState& state, WalkThread& thread);
  void Register();
  void Tick() { runs_.Tick(); }

 private:
  class Judge;
  struct Run;
  Task<Result<TxnId>> Fsck(CallInfo info, const pb::FsckRequest& request, pb::FsckResponse& response);
  Task<Status> Page(Run* run, pb::FsckResponse* response);

  ChunkState& state_;
  WalkRuns runs_;
};

}  // namespace shoal::meta
