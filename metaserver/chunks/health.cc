#include "metaserver/chunks/health.h"

#include <algorithm>

#include "metaserver/chunks/bad_replicas.h"

namespace shoal::meta {

ClusterHealth::ClusterHealth(const ChunkState& state) {
  BootTime now = state.now();
  for (const auto& [id, entry] : state.registry.all()) {
    bool live = state.registry.State(entry, now) == ServerState::kLive;
    servers_[id.value] = Place{entry.rack, entry.host, live};
    if (!live) continue;
    racks_.insert(entry.rack);
    hosts_.insert(entry.host);
  }
  for (const auto& [chunk, instance] : state.bad->List()) {
    (state.bad->IsDamaged(instance) ? damaged_ : bad_).insert(instance);
  }
  for (const auto& [chunk, blocks] : state.lost_blocks) lost_[chunk] = blocks.ranges;
  for (InstanceId instance : state.stale) {
    if (bad_.contains(instance)) stale_.insert(instance);
  }
}

const char* ClusterHealth::StateOf(const pb::ReplicaRecord& replica) const {
  InstanceId instance(replica.instance());
  if (stale_.contains(instance)) return "stale";
  if (bad_.contains(instance)) return "bad";
  auto server = servers_.find(replica.server());
  if (server == servers_.end() || !server->second.live) return "away";
  return damaged_.contains(instance) ? "damaged" : "live";
}

pb::Safety ClusterHealth::Judge(ChunkId chunk, const pb::ChunkRecord& record) const {
  if (!record.written()) return pb::SAFE;
  if (lost_.contains(chunk)) return pb::LOST;
  std::set<std::string> racks, hosts;
  uint32_t live = 0, away = 0, damaged = 0;
  for (const pb::ReplicaRecord& replica : record.replicas()) {
    if (bad_.contains(InstanceId(replica.instance()))) continue;
    auto server = servers_.find(replica.server());
    if (server == servers_.end() || !server->second.live) {
      ++away;
      continue;
    }
    if (damaged_.contains(InstanceId(replica.instance()))) {
      ++damaged;
      continue;
    }
    ++live;
    racks.insert(server->second.rack);
    hosts.insert(server->second.host);
  }
  uint32_t wanted = std::max<uint32_t>(1, record.copies());
  // What is damaged in places is being made whole by the others; no block is known to be good nowhere.
  if (live == 0 && damaged > 0) return pb::SHORT_SERVER;
  if (live == 0) return away ? pb::UNAVAILABLE : pb::LOST;
  bool one_rack = racks.size() == 1 && racks_.size() > 1;
  if (live < wanted) return live == 1 ? pb::SHORT_SERVER : one_rack ? pb::SHORT_RACK : pb::SHORT;
  if (racks.size() < std::min<size_t>(wanted, racks_.size()) ||
      hosts.size() < std::min<size_t>(wanted, hosts_.size())) {
    return pb::MISPLACED;
  }
  if (live == 1) return pb::ONE_SERVER;
  return racks.size() == 1 && !racks.begin()->empty() ? pb::ONE_RACK : pb::SAFE;
}

std::vector<std::pair<uint32_t, uint32_t>> ClusterHealth::LostBlocksOf(ChunkId chunk) const {
  auto it = lost_.find(chunk);
  return it == lost_.end() ? std::vector<std::pair<uint32_t, uint32_t>>() : it->second;
}

void ClusterHealth::Fill(ChunkId chunk, const pb::ChunkRecord& record, uint64_t index, pb::ChunkHealth* out) const {
  out->set_index(index);
  out->set_safety(Judge(chunk, record));
  for (const pb::ReplicaRecord& replica : record.replicas()) {
    pb::ReplicaHealth* r = out->add_replicas();
    r->set_server(replica.server());
    r->set_instance(replica.instance());
    r->set_state(StateOf(replica));
  }
}

}  // namespace shoal::meta
