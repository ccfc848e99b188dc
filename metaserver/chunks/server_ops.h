// What chunkservers ask: REGISTER, HEARTBEAT, INVENTORY_DIGEST, INVENTORY_BUCKET, REPORT_BAD_REPLICA.
#pragma once

#include <array>
#include <set>
#include <string>
#include <unordered_map>

#include "common/proto/control.pb.h"
#include "metaserver/chunks/state.h"
#include "metaserver/chunks/unknown.h"

namespace shoal::meta {

// The digest of one replica in an inventory; a bucket's is the sum of its replicas'.
uint64_t ReplicaDigest(uint64_t chunk, uint32_t version, uint64_t instance);
inline constexpr size_t kInventoryBuckets = 256;
inline size_t InventoryBucket(uint64_t chunk) { return chunk % kInventoryBuckets; }

// Methods of chunkservers. Namespace thread; owner: ChunkService.
class ServerOps {
 public:
  explicit ServerOps(ChunkState& state) : state_(state) {}
  void Register();
  // Loads the servers that the store knows.
  Task<Status> Start();

 private:
  Task<Result<TxnId>> RegisterServer(CallInfo info, const pb::RegisterRequest& request, pb::RegisterResponse& response);
  Task<Result<TxnId>> Heartbeat(CallInfo info, const pb::HeartbeatRequest& request, pb::HeartbeatResponse& response);
  Task<Result<TxnId>> BadReplica(CallInfo info, const pb::ReportBadReplicaRequest& request,
                                 pb::ReportBadReplicaResponse& response);
  Task<void> Settle(ChunkId chunk, uint32_t version);
  Status CheckRegistration(const CallInfo& info, const pb::RegisterRequest& request) const;
  Status CheckName(const pb::RegisterRequest& request) const;
  Status CheckNewest(const pb::RegisterRequest& request) const;
  Task<Result<ServerId>> RecordServer(const pb::RegisterRequest* request, uint64_t* create_floor);

  ChunkState& state_;
  std::set<std::string> registering_;
};

// Compares what a server has with what the records say, in a few messages: digests of 256 buckets, then the list of
// each bucket that differs. Nothing is deleted because it is unknown, nor when its record names it at another server:
// it is kept aside and listed (UnknownReplicas). After a restore newer versions become the records'. A replica that a record replaced is dropped (by a durable order) if a good one is in reach;
// one that is missing, bad or old is lost if its server says so when asked again, and the chunk is recovered without
// it. An inventory that was not carried on to its end is asked for again. Namespace thread; owner: ChunkService.
class Inventory {
 public:
  explicit Inventory(ChunkState& state) : state_(state) {}
  void Register();
  // What the last inventories found (for tests and the status page).
  struct Found {
    uint64_t unknown = 0;  // and replaced ones that are kept
    uint64_t newer = 0;
    uint64_t stale = 0;
    uint64_t lost = 0;
    uint64_t adopted = 0;  // after a restore: newer ones that are their chunks' now
  };
  const Found& found() const { return found_; }

 private:
  struct Expected {
    uint64_t chunk;
    uint64_t instance;
  };
  using Buckets = std::unordered_map<uint32_t, std::vector<Expected>>;
  // An inventory that is not yet at its end. A plain value.
  struct Open {
    std::set<uint32_t> differing;  // buckets still to come
    Buckets expected;
  };
  Task<Result<TxnId>> Digest(CallInfo info, const pb::InventoryDigestRequest& request,
                             pb::InventoryDigestResponse& response);
  Task<Result<TxnId>> Bucket(CallInfo info, const pb::InventoryBucketRequest& request,
                             pb::InventoryBucketResponse& response);
  Task<Status> Collect(ServerId server, const std::set<uint32_t>* wanted, std::array<uint64_t, 256>* digests,
                       Buckets* buckets);
  enum class Verdict { kFine, kUnknown, kNewer, kSpare, kStale, kLost, kOlder, kAdopted };
  static bool Kept(Verdict verdict);
  Status Judge(View& view, ServerId server, const pb::ReplicaReport& replica, Verdict* verdict);
  Task<void> CheckMissing(ServerId server, uint32_t bucket, std::set<uint64_t> have);
  enum class Doubt { kBad, kOld, kMissing };
  // The replica seems to be lost: if its server says so (again), the chunk is recovered without it.
  Task<void> CheckLost(ServerId server, ChunkId chunk, InstanceId instance, Doubt doubt);
  Task<Status> Verify(ServerId server, ChunkId chunk, InstanceId instance, uint32_t version);
  void EndBucket(ServerId server, uint32_t bucket);
  Status Adopt(View& view, ServerId server, const pb::ReplicaReport& replica);
  Status Keep(View& view, ServerId server, const pb::ReplicaReport& replica, KeptBecause why, Verdict kept, Verdict* verdict);

  ChunkState& state_;
  std::unordered_map<ServerId, Open> open_;
  Found found_;
};

}  // namespace shoal::meta
