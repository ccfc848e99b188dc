// SET_VERSION: the second step of a recovery. The replica is made equal to the source and takes the new version.
#include <fmt/format.h>

#include "chunkserver/copy.h"
#include "chunkserver/service.h"
#include "common/log.h"

namespace shoal {
namespace {

// On a disk thread: header and everything before it are durable when this returns. `whole`: all blocks were verified, or
// made anew.
Status RaiseOnDisk(ReplicaStore& store, const std::shared_ptr<Replica>& replica, std::shared_ptr<ReplicaFile> file,
                   ChunkVersion version, uint64_t lease, bool whole) {
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
    if (whole) replica->damaged.reset();
    replica->synced_changes = replica->changes;
    replica->synced_bytes = replica->changed_bytes;
    replica->disk.RemoveDirty(*replica);
    replica->disk.AddCleanable(replica);
    replica->order.Start(version);
    replica->order.RaiseFence(lease);
  }
  store.Settled(*replica);
  store.NoteVersion(*replica, version);
  return {};
}

OtherReplicas OthersOf(const pb::SetVersionRequest& message) {
  return {{message.others().begin(), message.others().end()}, message.sure_others()};
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
    if (!IsScarcity(blocks.error().code)) node_.store->Judge(replica, blocks.error());
    co_return Fail(std::move(blocks).error());
  }
  if (blocks->empty() || !message.source().empty()) co_return Status();
  size_t found = blocks->size();
  Copying copying(loop_, node_, peers_, std::nullopt, OthersOf(message), replica, file, 0);
  CO_TRY(co_await copying.Heal(&*blocks, true));
  OnQueue accept(loop_, replica->disk.work(), [&] {
    std::unique_lock io(replica->io);
    return file->Accept(*blocks);
  });
  CO_TRY(co_await accept);
  node_.metrics.accepted_blocks.Add(blocks->size());
  LogWarning("chunk {:016x}: a power cut left {} blocks without their checksums: {} were found elsewhere, {} were good nowhere "
             "and are taken as they are", replica->chunk.value, found, found - blocks->size(), blocks->size());
  co_return Status();
}

// The source of a recovery is damaged itself: no replica is known to be whole. What the others have good is taken from
// them. The rest stays unreadable here, with the checksums of what was lost, until it is overwritten.
Task<Status> Service::Heal(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                           const pb::SetVersionRequest& message, pb::SetVersionResponse* response) {
  Copying copying(loop_, node_, peers_, std::nullopt, OthersOf(message), replica, file, 0);
  Result<std::vector<uint32_t>> blocks = co_await copying.FindDamaged();
  if (!blocks) co_return Fail(std::move(blocks).error());
  size_t found = blocks->size();
  CO_TRY(co_await copying.Heal(&*blocks, false));
  node_.metrics.healed_blocks.Add(found - blocks->size());
  LogWarning("chunk {:016x}: {} blocks were damaged: {} were taken from other replicas, {} are good on none of them",
             replica->chunk.value, found, found - blocks->size(), blocks->size());
  response->mutable_lost_blocks()->Add(blocks->begin(), blocks->end());
  if (blocks->empty() || message.accept_lost()) co_return Status();
  co_return Fail(ErrorCode::kCorrupt, fmt::format("{} blocks, block {} the first, are good on no replica in reach",
                                                  blocks->size(), blocks->front()));
}

Task<Status> Service::Level(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                            const pb::SetVersionRequest& message, bool verify_own, bool* whole) {
  auto connection = co_await peers_.Get(message.source(), 0, 5s);
  if (!connection) co_return Fail(connection.error().code, message.source() + ": " + connection.error().message);
  CopySource source{*connection, replica->chunk, ChunkVersion{message.new_version()}, InstanceId{message.source_instance()}};
  Result<SourceTable> table = co_await FetchTable(source);
  if (!table) co_return Fail(table.error().code, "the source's table: " + table.error().message);
  Copying copying(loop_, node_, peers_, source, OthersOf(message), replica, file, 0);
  const std::set<uint32_t> lost(message.lost_blocks().begin(), message.lost_blocks().end());
  Status level = co_await copying.Level(*table, verify_own, lost);
  if (!level) {
    if (level.error().code == ErrorCode::kCorrupt || level.error().code == ErrorCode::kIo) {
      LogWarning("levelling chunk {:016x}: {}", replica->chunk.value, level.error().message);
    }
    co_return level;
  }
  *whole = verify_own && copying.still_damaged() == 0;
  LogInfo("levelled chunk {:016x} with {}: {} bytes copied", replica->chunk.value, message.source(), copying.bytes());
  co_return Status();
}

// Everything before the new version: the blocks are as they are to be.
Task<Status> Service::Prepare(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                              const pb::SetVersionRequest& message, pb::SetVersionResponse* response, bool* whole) {
  bool known, damaged;
  {
    std::lock_guard lock(replica->mutex);
    known = replica->order.known();
    damaged = replica->damaged.has_value();
  }
  *whole = false;
  if (damaged) {
    OnQueue mend(loop_, replica->disk.work(), [&] {
      std::unique_lock io(replica->io);
      return file->Mend(true);
    });
    Result<uint32_t> mended = co_await mend;
    if (!mended) {
      // It is no source for anybody; the others may be.
      if (mended.error().code == ErrorCode::kCorrupt) node_.store->MarkBad(replica, mended.error());
      co_return Fail(std::move(mended).error());
    }
  }
  if (file->doubted()) {
    CO_TRY(co_await Settle(replica, file, message));
  }
  // After a restart of this server, a block may have been on its way when it died.
  if (!message.source().empty()) co_return co_await Level(replica, file, message, !known || damaged, whole);
  if (damaged) {
    CO_TRY(co_await Heal(replica, file, message, response));
    *whole = response->lost_blocks().empty();
  }
  co_return Status();
}

Task<Status> Service::RaiseVersion(std::shared_ptr<Replica> replica, const pb::SetVersionRequest& message,
                                   pb::SetVersionResponse* response) {
  Result<std::shared_ptr<ReplicaFile>> file = co_await OpenFor(replica, ChunkVersion{});
  if (!file) co_return Fail(std::move(file).error());
  bool damaged, whole = false;
  {
    std::lock_guard lock(replica->mutex);
    damaged = replica->damaged.has_value();
  }
  Status prepared = co_await Prepare(replica, *file, message, response, &whole);
  // Damage that was found just now: as above, knowing of it.
  bool again = !prepared && prepared.error().code == ErrorCode::kCorrupt && !damaged;
  if (again) prepared = co_await Prepare(replica, *file, message, response, &whole);
  if (!prepared) co_return prepared;
  OnQueue raise(loop_, replica->disk.work(), [&] {
    return RaiseOnDisk(*node_.store, replica, *file, ChunkVersion{message.new_version()}, message.lease(), whole);
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
    *copy.mutable_others() = message.others();
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
  Status raised = co_await RaiseVersion(replica, message, &response);
  {
    std::lock_guard lock(replica->mutex);
    replica->recovering = false;
  }
  if (!raised) co_return Fail(std::move(raised).error());
  co_return response;
}

}  // namespace shoal
