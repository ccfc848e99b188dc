// The chunkservers as the metaserver sees them now: who is connected, whose lease runs, who is dead.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/ids.h"
#include "common/rpc/rpc.h"
#include "metaserver/chunks/placement.h"

namespace shoal {

// Time since the machine booted, suspension included (CLOCK_BOOTTIME): what leases count on.
using BootTime = Duration;
BootTime BootNow();

enum class ServerState {
  kLive,     // connected, its lease runs
  kSuspect,  // no connection, no heartbeat or held, but it may still serve under its lease
  kDead,     // serves nothing: its process ended, or its lease and the margin are over
};

// The space of several directories. A plain value.
struct SpaceSum {
  uint64_t capacity = 0;
  uint64_t used = 0;
  uint64_t free = 0;
};

// What the registry knows of one server. Lives in the registry, on the namespace thread.
struct ServerEntry {
  // As recorded in the store.
  ServerId id;
  std::string uuid, name, address, host, rack;
  // As it said of itself last.
  std::string version;
  std::string machine;  // where it connected from: servers on one machine may share file systems
  uint64_t start_id = 0;
  std::vector<DiskState> disks;
  uint32_t load = 0;
  uint64_t unsynced_bytes = 0;  // acknowledged and not yet on its disks
  // What follows from its connection and heartbeats.
  std::shared_ptr<Connection> connection;  // null when there is none
  bool registered_here = false;            // since this metaserver started
  BootTime last_heartbeat{0};
  BootTime lease_end{0};      // it may serve until then
  bool ended = false;         // its process is known to be gone
  bool held = false;          // it gets no lease yet: it may still have replicas that were left out while it was away
  BootTime dead_since{0};     // 0: not dead
  bool gone_handled = false;  // its chunks are being copied elsewhere
  bool want_inventory = true;
  bool inventory_open = false;  // begun and not yet ended: asked for again until it is
  uint64_t promised = 0;  // bytes placed there since its last report (an estimate)

  // Of the directories that work; a file system that some of them share counts once.
  SpaceSum space() const;
  uint64_t best_disk() const;
  uint64_t replicas() const;
};

// The set of all chunkservers, rebuilt after a restart from the store (as suspects) and their registrations. Lives on
// the namespace thread; time is handed in. Owner: ChunkMaster. Nothing here is durable.
class ServerRegistry {
 public:
  explicit ServerRegistry(Duration lease = kServerLease, Duration margin = kServerLeaseMargin)
      : lease_(lease), margin_(margin) {}
  // A server that the store knows, when the metaserver starts at `now`: it may still hold a lease from before.
  void AddKnown(ServerEntry entry, BootTime now);
  // It registered on `connection`: live from now. Another start_id than before means that the process we knew is gone
  // (returned as true: what it had not synced may be lost with its machine, what it had in work is over).
  bool Register(ServerEntry entry, std::shared_ptr<Connection> connection, BootTime now);
  // A heartbeat that arrived at `now`. False: not registered on this connection, it has to register again.
  bool Heartbeat(ServerId id, const Connection* connection, std::vector<DiskState> disks, uint32_t load, BootTime now);
  // Held: connected, but without a lease, until it is released on the connection that it has now.
  void Hold(ServerId id);
  void Release(ServerId id, const Connection* connection);
  // Its connection ended. Ignored when it has a newer one. `clean`: the end of stream was received.
  void Disconnected(ServerId id, const Connection* connection, bool clean, BootTime now);

  ServerEntry* Find(ServerId id);
  const ServerEntry* Find(ServerId id) const;
  const ServerEntry* FindByUuid(const std::string& uuid) const;
  ServerState State(const ServerEntry& entry, BootTime now) const;
  ServerState State(ServerId id, BootTime now) const;  // an unknown one is dead
  bool IsLive(ServerId id, BootTime now) const { return State(id, now) == ServerState::kLive; }
  // When a suspect will be dead at the latest.
  BootTime DeadAt(const ServerEntry& entry) const;

  // Notes deaths by lapsed leases; true if any server died since the last call.
  bool Tick(BootTime now);
  // How long ago a dead server died, 0 for others.
  Duration DeadFor(const ServerEntry& entry, BootTime now) const;

  std::vector<PlacementCandidate> Candidates(BootTime now) const;
  void Promise(ServerId id, uint64_t bytes);
  // The space of all live servers: what is free, or with `total` what there is.
  std::vector<SpaceShare> Shares(bool total, BootTime now) const;
  // The same as plain sums; a file system that servers share counts once.
  SpaceSum Space(BootTime now) const;
  size_t live_count(BootTime now) const;
  const std::map<ServerId, ServerEntry>& all() const { return servers_; }
  std::map<ServerId, ServerEntry>& all() { return servers_; }

  // Called after each change of a server's state, on the namespace thread.
  void OnChange(std::function<void(ServerId)> callback) { on_change_ = std::move(callback); }

 private:
  void Changed(ServerId id) {
    if (on_change_) on_change_(id);
  }
  const Duration lease_, margin_;
  std::map<ServerId, ServerEntry> servers_;
  std::function<void(ServerId)> on_change_;
};

}  // namespace shoal
