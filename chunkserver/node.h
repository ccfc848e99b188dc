// Node: what the parts of one chunkserver share.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "chunkserver/metrics.h"
#include "chunkserver/store.h"
#include "common/ids.h"
#include "common/raise.h"
#include "common/rpc/rpc.h"

namespace shoal {

// The heartbeat lease of a server. It counts on CLOCK_BOOTTIME, which goes on while the machine sleeps, from when the
// renewal was sent. Any thread.
class ServerLease {
 public:
  static int64_t NowNs();
  void RenewedAt(int64_t sent_ns, uint64_t lease_ms) { end_ns_.store(sent_ns + static_cast<int64_t>(lease_ms) * 1'000'000); }
  void End() { end_ns_.store(0); }
  bool valid() const { return NowNs() < end_ns_.load(std::memory_order_relaxed); }
  // kLeaseLapsed, counted.
  Status Check(ChunkMetrics& metrics) const;

 private:
  std::atomic<int64_t> end_ns_{0};
};

// Which write grants may still make a replica: those with a number above the floor. A recovery that finds no replica of a
// chunk raises the floor to its own number, and so does a registration of a new process, which does not know of recoveries
// before it: bytes granted earlier must not turn up where the record says that there are none. Any thread.
class CreateFloor {
 public:
  void RaiseTo(uint64_t lease) { shoal::RaiseTo(floor_, lease); }
  bool Allows(uint64_t lease) const { return lease > floor_.load(); }

 private:
  std::atomic<uint64_t> floor_{0};
};

// Shared by the loops of a server; outlives them. Any thread.
struct Node {
  Node(Metrics& m, const ClusterKey& key, std::string name);

  ChunkMetrics metrics;
  RpcContext network;  // of what connects to this server and of its connections to other chunkservers
  RpcContext control;  // of its connection to the metaserver
  ServerLease lease;
  CreateFloor create_floor;
  std::unique_ptr<ReplicaStore> store;
  std::atomic<int64_t> requests{0};    // in work
  std::atomic<int64_t> head_bytes{0};  // of writes in work that this server heads
  std::atomic<uint64_t> last_order{0};
  Duration clean_after{};  // see ChunkServerOptions
};

// Bytes of writes that a server heads at one time, at most: what it forwards fills the memory of others.
inline constexpr int64_t kMaxHeadBytes = 256 << 20;

}  // namespace shoal
