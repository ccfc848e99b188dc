// UnknownReplicas: what servers have and no record knows is kept aside, listed, and dropped after a long time.
#pragma once

#include "common/proto/admin.pb.h"
#include "common/proto/control.pb.h"
#include "metaserver/chunks/state.h"

namespace shoal::meta {

// Why a replica is kept. On disk: never reuse a number.
enum class KeptBecause : uint32_t {
  kNoRecord = 1,  // no file has its chunk
  kNewer = 2,     // its version is above the record's
  kOlder = 3,     // below it, and from before a restore
  kSpare = 4,     // another was in its place, but no good one is in reach
  kMoved = 5,     // the record has it at another server
};

// One record (UnknownRecord) for each; the time that it is kept counts from when it was found first, over restarts.
// After keep_unknown it becomes an order to drop, unless its chunk has it by then. Registers META_UNKNOWN. Namespace
// thread; owner: ChunkService.
class UnknownReplicas {
 public:
  explicit UnknownReplicas(ChunkState& state) : state_(state) {}
  void Register();
  // Parts of operations. Keep: true when it is new.
  Result<bool> Keep(View& view, ServerId server, const pb::ReplicaReport& replica, KeptBecause why);
  Status Forget(View& view, ServerId server, ChunkId chunk, InstanceId instance);
  // Called often: looks for those whose time is over now and then.
  void Tick();
  // The same at once (for tests).
  Task<Status> DropExpired();

 private:
  Task<Result<TxnId>> List(CallInfo info, const pb::MetaUnknownRequest& request, pb::MetaUnknownResponse& response);
  Task<void> Run();
  Status Drop(View& view, const Key& key, int64_t before_ns);

  ChunkState& state_;
  SteadyTime next_{};
  bool running_ = false;
};

}  // namespace shoal::meta
