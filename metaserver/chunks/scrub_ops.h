// SCRUB: all copies of files under a path are read and compared, now. SCRUBBED: what chunkservers have been through.
#pragma once

#include <deque>
#include <set>

#include "metaserver/chunks/chunk_check.h"
#include "metaserver/chunks/walk_runs.h"

namespace shoal::meta {

// A run of SCRUB has a few chunks in work, between its calls, too; when nobody asks for it any more it ends. Chunks
// that a server has scrubbed by itself are compared in the background, two at a time; what is too much is left for the
// next pass. Namespace thread; owner: ChunkService.
class ScrubOps {
 public:
  ScrubOps(ChunkState& state, WalkThread& thread);
  void Register();
  void Tick();

 private:
  class Collector;
  struct Run;
  struct Item;
  Task<Result<TxnId>> Scrub(CallInfo info, const pb::ScrubRequest& request, pb::ScrubResponse& response);
  Task<Status> Page(std::shared_ptr<Run> run, pb::ScrubResponse* response);
  Task<void> CheckOne(std::shared_ptr<Run> run, Item item);
  Task<Status> Repairs(Run* run, pb::ScrubResponse* response);
  Task<Result<TxnId>> Scrubbed(CallInfo info, const pb::ScrubbedRequest& request, pb::ScrubbedResponse& response);
  void StartSome();
  Task<void> Compare(ChunkId chunk);

  ChunkState& state_;
  WalkRuns runs_;
  ChunkChecker checker_;
  std::deque<ChunkId> queue_;  // to be compared
  std::set<ChunkId> queued_;   // those, and those in work
  size_t comparing_ = 0;
};

}  // namespace shoal::meta
