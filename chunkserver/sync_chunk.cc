// SYNC_CHUNK and SYNC_REPLICAS: what was written is on the disk when they are answered.
#include <fmt/format.h>

#include "chunkserver/service.h"

namespace shoal {
namespace {

// Syncs under way together; the first error counts.
struct Gathered {
  explicit Gathered(EventLoop& loop) : done(loop) {}
  size_t left = 0;
  Status status;
  WaitList done;

  void One(const Status& result) {
    if (!result && status) status = result;
    if (--left == 0) done.WakeAll();
  }
};

Task<void> SyncInto(EventLoop& loop, ReplicaStore& store, std::shared_ptr<Replica> replica,
                    std::shared_ptr<Gathered> gathered) {
  OnQueue sync(loop, replica->disk.syncs(), [&store, &replica] { return store.Sync(replica); });
  Status status = co_await sync;
  gathered->One(status);
}

Task<void> SyncDiskInto(EventLoop& loop, ReplicaStore& store, Disk& disk, std::shared_ptr<Gathered> gathered) {
  OnQueue sync(loop, disk.syncs(), [&store, &disk] { return store.SyncAll(disk); });
  Status status = co_await sync;
  gathered->One(status);
}

}  // namespace

Task<void> Service::SyncChunk(Request request) {
  pb::SyncChunkRequest message;
  Status ok = request.Parse(message);
  std::vector<std::shared_ptr<Replica>> replicas;
  for (int i = 0; ok && i < message.chunks_size(); ++i) {
    const auto& one = message.chunks(i);
    auto replica = node_.store->Find(ChunkId{one.chunk()}, InstanceId{one.instance()});
    if (!replica) {
      ok = Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", one.chunk()));
      break;
    }
    ok = co_await EnsureLoaded(replica);
    if (!ok) break;
    std::lock_guard lock(replica->mutex);
    if (!replica->exists) {
      ok = Fail(ErrorCode::kNoReplica, fmt::format("nothing was written to chunk {:016x} here", one.chunk()));
    } else if (one.version() != 0 && replica->version.value != one.version()) {
      ok = Fail(ErrorCode::kVersionMismatch,
                fmt::format("chunk {:016x} has version {} here, not {}", one.chunk(), replica->version.value, one.version()));
    }
    replicas.push_back(std::move(replica));
  }
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  auto gathered = std::make_shared<Gathered>(loop_);
  gathered->left = replicas.size();
  for (auto& replica : replicas) {
    Task<void> one = SyncInto(loop_, *node_.store, replica, gathered);
    tasks_.Spawn(std::move(one));
  }
  while (gathered->left > 0) co_await gathered->done.Wait();
  if (gathered->status) gathered->status = node_.lease.Check(node_.metrics);
  if (gathered->status) {
    request.Answer(pb::SyncChunkResponse());
  } else {
    request.AnswerError(gathered->status.error());
  }
}

Task<void> Service::SyncReplicas(Request request) {
  auto gathered = std::make_shared<Gathered>(loop_);
  gathered->left = node_.store->disks().size();
  for (const auto& disk : node_.store->disks()) {
    Task<void> one = SyncDiskInto(loop_, *node_.store, *disk, gathered);
    tasks_.Spawn(std::move(one));
  }
  while (gathered->left > 0) co_await gathered->done.Wait();
  if (gathered->status) {
    request.Answer(pb::SyncReplicasResponse());
  } else {
    request.AnswerError(gathered->status.error());
  }
}

}  // namespace shoal
