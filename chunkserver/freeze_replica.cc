// FREEZE_REPLICA: the first step of a recovery. Nothing is written from here to SET_VERSION.
#include <fmt/format.h>

#include "chunkserver/service.h"

namespace shoal {

Task<Result<pb::FreezeReplicaResponse>> Service::FreezeReplica(const pb::FreezeReplicaRequest& message) {
  pb::FreezeReplicaResponse response;
  ChunkId chunk{message.chunk()};
  InstanceId instance{message.instance()};
  auto replica = node_.store->Find(chunk, instance);
  if (!replica) {
    node_.create_floor.RaiseTo(message.lease());
    replica = node_.store->Find(chunk, instance);  // a first write may have come in between
  }
  response.set_full(!(replica ? replica->disk.CheckSpace(kMaxIo, false).has_value()
                              : node_.store->ChooseDisk(kMaxIo, false).has_value()));
  if (!replica) co_return response;
  Status loaded = co_await EnsureLoaded(replica);
  if (!loaded) co_return Fail(std::move(loaded).error());
  WriteJobs refused;
  {
    std::lock_guard lock(replica->mutex);
    if (replica->bad) co_return Fail(*replica->bad);
    if (replica->version.value < message.version()) {
      co_return Fail(ErrorCode::kVersionMismatch,
                     fmt::format("the replica has version {}, not {}", replica->version.value, message.version()));
    }
    replica->order.RaiseFence(message.lease());
    refused = replica->order.Freeze();
  }
  for (const auto& job : refused) {
    for (auto& waiter : job->waiters) waiter(Fail(ErrorCode::kNotReady, "a recovery of the chunk is under way"));
  }
  co_await WaitIdle(replica);
  std::unique_lock lock(replica->mutex);
  if (replica->bad) co_return Fail(*replica->bad);
  if (!replica->exists) {
    // Its first write never came to be applied. Kept, it would stand in the way of a copy.
    lock.unlock();
    node_.create_floor.RaiseTo(message.lease());
    node_.store->Forget(replica);
    co_return response;
  }
  response.set_exists(true);
  response.set_version(replica->version.value);
  response.set_applied(replica->order.applied());
  response.set_known(replica->order.known());
  response.set_damaged(replica->damaged.has_value());
  response.set_suspect(replica->file && replica->file->doubted());
  co_return response;
}

}  // namespace shoal
