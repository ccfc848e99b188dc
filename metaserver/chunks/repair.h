// Repairer: brings chunks that are short of copies back to the wanted number.
#pragma once

#include <deque>
#include <map>
#include <set>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// A background worker over the recorded work (WorkRecord) and the chunks of servers that were away longer than the
// grace: a new replica is copied from a live one (REPLICATE), and becomes part of the record by a compare-and-set on
// the version when nobody may be writing, else by a recovery that levels it. Bounded: a few chunks at a time, each
// copied at a bounded rate; fewest live copies first. What fails is tried again after a pause that doubles, and when
// servers change. Replicas of servers that are away within the grace count as copies.
// Namespace thread; owner: ChunkService.
class Repairer {
 public:
  explicit Repairer(ChunkState& state) : state_(state) {}
  // Reads the recorded work of before a restart, in the background.
  void Start();
  void Add(ChunkId chunk) { fresh_.insert(chunk); }
  // Called often: starts repairs, and looks for servers whose grace is over.
  void Tick();
  // A chunk that cannot be written for want of copies: at once, and waited for.
  Task<Status> RepairNow(ChunkId chunk);
  // Chunks known to be short of copies.
  std::vector<ChunkId> Backlog(size_t max) const;
  size_t backlog() const { return queued() + parked_.size() + running_.size(); }
  // The chunk was granted for writing, or is being cut: a copy under way is levelled before it counts.
  void MayChange(ChunkId chunk) {
    auto it = running_.find(chunk);
    if (it != running_.end()) it->second = true;
  }
  // Servers have changed: what could not be placed is tried again.
  void ServersChanged();

 private:
  enum class End { kDone, kNoTarget, kRetry };
  struct Job {
    ChunkId chunk;
    pb::ChunkRecord record;
    bool gone = false;
    size_t good = 0;     // replicas on live servers
    size_t counted = 0;  // those and the ones within the grace
    uint32_t source_server = 0;
    InstanceId source;
    std::vector<pb::ReplicaRecord> others;  // live ones: for blocks that the source has damaged
    uint32_t target = 0;
    InstanceId instance;
    bool behind = false;  // the copy lacks what was written meanwhile
  };
  size_t queued() const;
  void StartSome();
  // Queues a fresh one by the number of its live copies.
  Task<void> Sort(ChunkId chunk);
  Task<void> Run(ChunkId chunk);
  void Park(ChunkId chunk);
  void EndOf(ChunkId chunk);
  Task<Result<End>> Repair(ChunkId chunk, bool urgent);
  Status Plan(View& view, Job* job, bool urgent);
  Task<Status> Copy(Job* job);
  Task<Status> TakeIn(const Job* job);
  Status Add(View& view, const Job& job);
  Task<Status> Finish(ChunkId chunk);
  bool Gone(uint32_t server) const;
  Task<void> LoadWork();
  Task<void> LeaveServer(ServerId server);

  ChunkState& state_;
  std::set<ChunkId> fresh_;                       // not looked at yet
  std::map<size_t, std::set<ChunkId>> waiting_;   // by live copies; no set is empty
  std::multimap<SteadyTime, ChunkId> parked_;     // no server to put a copy on, or failed: fresh again at that time
  std::map<ChunkId, Duration> pauses_;            // the last one of those that were parked
  std::map<ChunkId, bool> running_;  // the value: it may have been written since its copy began
};

}  // namespace shoal::meta
