// BadReplicas: replicas that are known to be bad, until no record has them.
#pragma once

#include <map>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// Recovers the chunk of each. One that is only damaged in places takes part and is healed; any other is left out, and the
// repairer then makes a new one. What can't be recovered yet (no other good replica is in reach, a block is good nowhere) is
// tried again after a while, and when servers have changed. Bounded: a few at a time. In memory only: servers report again
// when they register. Namespace thread; owner: ChunkService.
class BadReplicas {
 public:
  explicit BadReplicas(ChunkState& state) : state_(state) {}
  // Found bad while the chunk's record had at most `version`. Harmless when repeated.
  void Add(ChunkId chunk, InstanceId instance, uint32_t version, bool damaged = false);
  bool Contains(InstanceId instance) const { return replicas_.contains(instance); }
  // It is bad in places only, as far as is known.
  bool IsDamaged(InstanceId instance) const {
    auto it = replicas_.find(instance);
    return it != replicas_.end() && it->second.damaged;
  }
  size_t size() const { return replicas_.size(); }
  std::vector<std::pair<ChunkId, InstanceId>> List() const;
  // Called often: starts what is due.
  void Tick();
  void ServersChanged();

 private:
  struct Replica {
    ChunkId chunk;
    uint32_t version = 0;
    bool damaged = false;  // only in places
    bool again = false;    // reported since its recovery began
    Duration pause{};  // after its last failure
  };
  Task<void> Run(InstanceId instance);

  ChunkState& state_;
  std::map<InstanceId, Replica> replicas_;
  std::multimap<SteadyTime, InstanceId> due_;  // those not being worked on
  size_t running_ = 0;
};

}  // namespace shoal::meta
