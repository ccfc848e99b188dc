// DROP_REPLICA: deletes exactly the instance that the metaserver names.
#include "chunkserver/service.h"
#include "common/log.h"

namespace shoal {

Task<Result<pb::DropReplicaResponse>> Service::DropReplica(const pb::DropReplicaRequest& message) {
  pb::DropReplicaResponse response;
  if (message.instance() == 0) co_return Fail(ErrorCode::kInvalidArgument, "a drop names its instance");
  auto replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
  if (!replica) co_return response;
  WriteJobs refused;
  {
    std::lock_guard lock(replica->mutex);
    refused = replica->order.Freeze();
  }
  for (const auto& job : refused) {
    for (auto& waiter : job->waiters) waiter(Fail(ErrorCode::kNoReplica, "the replica is being dropped"));
  }
  ReplicaStore& store = *node_.store;
  // Beside the writes, which do not wait for the directory.
  OnQueue drop(loop_, replica->disk.syncs(), [&store, &replica] { return store.Drop(replica); });
  Status dropped = co_await drop;
  if (!dropped) co_return Fail(std::move(dropped).error());
  LogInfo("dropped chunk {:016x} version {} instance {:x}", message.chunk(), message.version(), message.instance());
  co_return response;
}

}  // namespace shoal
