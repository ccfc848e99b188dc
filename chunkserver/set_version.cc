// SET_VERSION: the second step of a recovery. The replica is made equal to the source and takes the new version.
#include <fmt/format.h>

#include "chunkserver/copy.h"
#include "chunkserver/service.h"
#include "common/log.h"

namespace shoal {
namespace {

// On a disk thread: header and everything before it are durable when this returns.
Status RaiseOnDisk(ReplicaStore& store, const std::shared_ptr<Replica>& replica, std::shared_ptr<ReplicaFile> file,
                   ChunkVersion version, uint64_t lease) {
  std::lock_guard sync(replica->sync);
  std::unique_lock io(replica->io);
  bool name_synced;
  {
    std::lock_guard lock(replica->mutex);
    if (replica->dropped) return Fail(ErrorCode::kNoReplica, "the replica was dropped");
    name_synced = replica->name_synced;
  }
  if (Status raised = file->SetVersion(version); !raised) {
    io.unlock();
    store.MarkBad(replica, raised.error());
    return raised;
  }
  if (!name_synced) {
    TRY(store.SyncName(replica));
  }
  {
    std::lock_guard lock(replica->mutex);
    replica->version = version;
    replica->synced_changes = replica->changes;
    replica->disk.RemoveDirty(*replica);
    replica->disk.AddCleanable(replica);
    replica->order.Start(version);
    replica->order.RaiseFence(lease);
  }
  store.Settled(*replica);
  store.NoteVersion(*replica, version);
  return {};
}

}  // namespace

// After a power cut, blocks that were being written need not match their checksums. Levelled with a source they are
// copied. The source itself takes them from whoever has them good; where nobody has, what the disk holds is the old bytes
// or the new ones.
Task<Status> Service::Settle(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                             const pb::SetVersionRequest& message) {
  OnQueue find(loop_, replica->disk.work(), [&] {
    std::unique_lock io(replica->io);
    return file->FindDoubtful();
  });
  Result<std::vector<uint32_t>> blocks = co_await find;
  if (!blocks) {
    if (!IsScarcity(blocks.error().code)) node_.store->MarkBad(replica, blocks.error());
    co_return Fail(std::move(blocks).error());
  }
  if (blocks->empty() || !message.source().empty()) co_return Status();
  size_t found = blocks->size();
  for (int i = 0; i < message.others_size() && !blocks->empty(); ++i) {
    co_await TakeBlocks(replica, file, message.others(i), &*blocks);
  }
  OnQueue accept(loop_, replica->disk.work(), [&] {
    std::unique_lock io(replica->io);
    return file->Accept(*blocks);
  });
  CO_TRY(co_await accept);
  node_.metrics.accepted_blocks.Add(blocks->size());
  LogWarning("chunk {:x}: a power cut left {} blocks without their checksums: {} were found elsewhere, {} were good nowhere "
             "and are taken as they are", replica->chunk.value, found, found - blocks->size(), blocks->size());
  co_return Status();
}

// Those that it could not give stay in `blocks`.
Task<void> Service::TakeBlocks(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file, const pb::Replica& from,
                               std::vector<uint32_t>* blocks) {
  auto connection = co_await peers_.Get(from.address(), 0, 2s);
  if (!connection) co_return;
  CopySource source{*connection, replica->chunk, ChunkVersion{}, InstanceId{from.instance()}};
  Copying copying(loop_, node_, source, replica, file, 0);
  std::vector<uint32_t> left;
  for (uint32_t block : *blocks) {
    Status copied = (*connection)->closed() ? Fail(ErrorCode::kUnavailable) : Status();
    if (copied) copied = co_await copying.CopyBlock(block);
    if (!copied) left.push_back(block);
  }
  *blocks = std::move(left);
}

Task<Status> Service::RaiseVersion(std::shared_ptr<Replica> replica, const pb::SetVersionRequest& message) {
  ChunkVersion version{message.new_version()};
  Result<std::shared_ptr<ReplicaFile>> file = co_await OpenFor(replica, ChunkVersion{});
  if (!file) co_return Fail(std::move(file).error());
  bool known;
  {
    std::lock_guard lock(replica->mutex);
    known = replica->order.known();
  }
  if ((*file)->doubted()) {
    CO_TRY(co_await Settle(replica, *file, message));
  }
  if (!message.source().empty()) {
    auto connection = co_await peers_.Get(message.source(), 0, 5s);
    if (!connection) co_return Fail(connection.error().code, message.source() + ": " + connection.error().message);
    CopySource source{*connection, replica->chunk, version, InstanceId{message.source_instance()}};
    Result<SourceTable> table = co_await FetchTable(source);
    if (!table) co_return Fail(table.error().code, "the source's table: " + table.error().message);
    Copying copying(loop_, node_, source, replica, *file, 0);
    // After a restart of this server, a block may have been on its way when it died.
    Status level = co_await copying.Level(*table, !known);
    if (!level) {
      if (level.error().code == ErrorCode::kCorrupt || level.error().code == ErrorCode::kIo) {
        LogWarning("levelling chunk {:x}: {}", replica->chunk.value, level.error().message);
      }
      co_return level;
    }
    LogInfo("levelled chunk {:x} with {}: {} bytes copied", replica->chunk.value, message.source(), copying.bytes());
  }
  OnQueue raise(loop_, replica->disk.work(), [&] {
    return RaiseOnDisk(*node_.store, replica, *file, version, message.lease());
  });
  co_return co_await raise;
}

Task<Result<pb::SetVersionResponse>> Service::SetVersion(const pb::SetVersionRequest& message) {
  pb::SetVersionResponse response;
  if (message.new_version() == 0) co_return Fail(ErrorCode::kInvalidArgument, "version 0 is none");
  auto replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
  bool exists = false;
  if (replica) {
    Status loaded = co_await EnsureLoaded(replica);
    if (!loaded) co_return Fail(std::move(loaded).error());
    std::lock_guard lock(replica->mutex);
    exists = replica->exists;
  }
  if (!exists) {
    // Nothing was written here yet: a copy of the source is what it becomes.
    if (replica || message.source().empty()) co_return Fail(ErrorCode::kNoReplica, "no replica of that chunk here");
    pb::ReplicateRequest copy;
    copy.set_chunk(message.chunk());
    copy.set_version(message.new_version());
    copy.set_instance(message.instance());
    copy.set_source(message.source());
    copy.set_source_instance(message.source_instance());
    Result<pb::ReplicateResponse> copied = co_await MakeCopy(copy);
    if (!copied) co_return Fail(std::move(copied).error());
    co_return response;
  }
  WriteJobs refused;
  {
    std::lock_guard lock(replica->mutex);
    if (replica->bad) co_return Fail(*replica->bad);
    if (replica->version.value > message.new_version()) {
      co_return Fail(ErrorCode::kVersionMismatch,
                     fmt::format("the replica has version {} already", replica->version.value));
    }
    // Done before; writes of the new version may have come since.
    if (replica->version.value == message.new_version() && replica->order.known() && !replica->order.frozen()) {
      co_return response;
    }
    if (replica->recovering) co_return Fail(ErrorCode::kNotReady, "another SET_VERSION is under way");
    replica->recovering = true;
    refused = replica->order.Freeze();
  }
  for (const auto& job : refused) {
    for (auto& waiter : job->waiters) waiter(Fail(ErrorCode::kNotReady, "a recovery of the chunk is under way"));
  }
  co_await WaitIdle(replica);
  Status raised = co_await RaiseVersion(replica, message);
  {
    std::lock_guard lock(replica->mutex);
    replica->recovering = false;
  }
  if (!raised) co_return Fail(std::move(raised).error());
  co_return response;
}

}  // namespace shoal
