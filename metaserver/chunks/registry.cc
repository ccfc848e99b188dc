#include "metaserver/chunks/registry.h"

#include <time.h>

#include <algorithm>

namespace shoal {

BootTime BootNow() {
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec);
}

namespace {
template <typename F>
uint64_t SumOver(const std::vector<DiskState>& disks, F field) {
  uint64_t sum = 0;
  for (const DiskState& disk : disks) {
    if (!disk.failed) sum += field(disk);
  }
  return sum;
}

// Adds up directories by the file systems that they lie on.
class Pools {
 public:
  void Add(const std::string& machine, const DiskState& disk) {
    if (disk.failed) return;
    Pool& pool = pools_[{machine, disk.file_system}];
    pool.sum.capacity += disk.capacity;
    pool.sum.used += disk.used;
    pool.sum.free += disk.free;
    if (disk.fs_capacity == 0) return;  // not told
    pool.capacity = disk.fs_capacity;
    pool.free = disk.fs_free;
  }
  SpaceSum Sum() const {
    SpaceSum all;
    for (const auto& [file_system, pool] : pools_) {
      all.capacity += std::min(pool.sum.capacity, pool.capacity);
      all.used += pool.sum.used;
      all.free += std::min(pool.sum.free, pool.free);
    }
    return all;
  }

 private:
  struct Pool {
    SpaceSum sum;                                  // of the directories
    uint64_t capacity = UINT64_MAX, free = UINT64_MAX;  // of the file system
  };
  std::map<std::pair<std::string, uint64_t>, Pool> pools_;
};
}  // namespace

SpaceSum ServerEntry::space() const {
  Pools pools;
  for (const DiskState& disk : disks) pools.Add("", disk);
  return pools.Sum();
}
uint64_t ServerEntry::replicas() const {
  return SumOver(disks, [](const DiskState& d) { return d.replicas; });
}
uint64_t ServerEntry::best_disk() const {
  uint64_t best = 0;
  for (const DiskState& disk : disks) {
    if (!disk.failed) best = std::max(best, disk.free);
  }
  return best;
}

void ServerRegistry::AddKnown(ServerEntry entry, BootTime now) {
  entry.lease_end = now + lease_;
  entry.last_heartbeat = now;
  ServerId id = entry.id;
  servers_[id] = std::move(entry);
}

bool ServerRegistry::Register(ServerEntry entry, std::shared_ptr<Connection> connection, BootTime now) {
  ServerId id = entry.id;
  auto known = servers_.find(id);
  bool restarted = known != servers_.end() && known->second.start_id != 0 && known->second.start_id != entry.start_id;
  entry.connection = std::move(connection);
  entry.registered_here = true;
  entry.last_heartbeat = now;
  entry.lease_end = now + lease_;
  entry.ended = false;
  entry.dead_since = {};
  entry.want_inventory = true;
  servers_[id] = std::move(entry);
  Changed(id);
  return restarted;
}

bool ServerRegistry::Heartbeat(ServerId id, const Connection* connection, std::vector<DiskState> disks, uint32_t load,
                               BootTime now) {
  ServerEntry* entry = Find(id);
  if (!entry || !entry->connection || entry->connection.get() != connection) return false;
  bool was_live = State(*entry, now) == ServerState::kLive;
  entry->last_heartbeat = now;
  entry->lease_end = now + lease_;
  entry->dead_since = {};
  entry->gone_handled = false;
  entry->disks = std::move(disks);
  entry->load = load;
  entry->promised = 0;
  if (!was_live) Changed(id);
  return true;
}

void ServerRegistry::Hold(ServerId id) {
  if (ServerEntry* entry = Find(id)) entry->held = true;
}

void ServerRegistry::Release(ServerId id, const Connection* connection) {
  ServerEntry* entry = Find(id);
  if (!entry || !entry->held || entry->connection.get() != connection) return;
  entry->held = false;
  Changed(id);
}

void ServerRegistry::Disconnected(ServerId id, const Connection* connection, bool clean, BootTime now) {
  ServerEntry* entry = Find(id);
  if (!entry || entry->connection.get() != connection) return;
  entry->connection.reset();
  if (clean) {
    entry->ended = true;
    entry->dead_since = now;
  }
  Changed(id);
}

ServerEntry* ServerRegistry::Find(ServerId id) {
  auto it = servers_.find(id);
  return it == servers_.end() ? nullptr : &it->second;
}

const ServerEntry* ServerRegistry::Find(ServerId id) const {
  auto it = servers_.find(id);
  return it == servers_.end() ? nullptr : &it->second;
}

const ServerEntry* ServerRegistry::FindByUuid(const std::string& uuid) const {
  for (const auto& [id, entry] : servers_) {
    if (entry.uuid == uuid) return &entry;
  }
  return nullptr;
}

BootTime ServerRegistry::DeadAt(const ServerEntry& entry) const { return entry.lease_end + margin_; }

ServerState ServerRegistry::State(const ServerEntry& entry, BootTime now) const {
  if (entry.ended || now >= DeadAt(entry)) return ServerState::kDead;
  bool serves = entry.connection && !entry.connection->closed() && now < entry.lease_end && !entry.held;
  return serves ? ServerState::kLive : ServerState::kSuspect;
}

ServerState ServerRegistry::State(ServerId id, BootTime now) const {
  const ServerEntry* entry = Find(id);
  return entry ? State(*entry, now) : ServerState::kDead;
}

bool ServerRegistry::Tick(BootTime now) {
  bool died = false;
  for (auto& [id, entry] : servers_) {
    if (entry.dead_since != BootTime{0} || State(entry, now) != ServerState::kDead) continue;
    entry.dead_since = std::max(BootTime{1}, DeadAt(entry));
    died = true;
    Changed(id);
  }
  return died;
}

Duration ServerRegistry::DeadFor(const ServerEntry& entry, BootTime now) const {
  return entry.dead_since == BootTime{0} ? Duration{0} : now - entry.dead_since;
}

std::vector<PlacementCandidate> ServerRegistry::Candidates(BootTime now) const {
  std::vector<PlacementCandidate> out;
  out.reserve(servers_.size());
  for (const auto& [id, e] : servers_) {
    if (State(e, now) != ServerState::kLive) continue;
    PlacementCandidate c;
    c.server = id;
    c.rack = e.rack;
    c.host = e.host;
    SpaceSum space = e.space();
    c.capacity = space.capacity;
    uint64_t free = space.free, best = e.best_disk();
    c.free = free > e.promised ? free - e.promised : 0;
    c.best_disk = best > e.promised ? best - e.promised : 0;
    c.load = e.load;
    out.push_back(std::move(c));
  }
  return out;
}

void ServerRegistry::Promise(ServerId id, uint64_t bytes) {
  if (ServerEntry* entry = Find(id)) entry->promised += bytes;
}

std::vector<SpaceShare> ServerRegistry::Shares(bool total, BootTime now) const {
  std::vector<SpaceShare> out;
  std::map<std::string, uint64_t> used_in_pool;
  for (const auto& [id, entry] : servers_) {
    if (State(entry, now) != ServerState::kLive) continue;
    for (const DiskState& disk : entry.disks) {
      if (disk.failed) continue;
      SpaceShare share;
      share.server = id;
      share.pool = entry.machine + "#" + std::to_string(disk.file_system);
      share.bytes = (total ? disk.used : 0) + RoomForNew(disk);
      share.pool_bytes = disk.fs_capacity ? disk.fs_free : 0;
      used_in_pool[share.pool] += disk.used;
      out.push_back(std::move(share));
    }
  }
  // What there is in all is what Shoal has stored and what it can still store: others' files do not count.
  for (SpaceShare& share : out) {
    if (total && share.pool_bytes) share.pool_bytes += used_in_pool[share.pool];
  }
  return out;
}

SpaceSum ServerRegistry::Space(BootTime now) const {
  Pools pools;
  for (const auto& [id, entry] : servers_) {
    if (State(entry, now) != ServerState::kLive) continue;
    for (const DiskState& disk : entry.disks) pools.Add(entry.machine, disk);
  }
  return pools.Sum();
}

size_t ServerRegistry::live_count(BootTime now) const {
  size_t n = 0;
  for (const auto& [id, entry] : servers_) n += State(entry, now) == ServerState::kLive;
  return n;
}

}  // namespace shoal
