// REPLICATE: makes a new replica as a copy of another server's.
#include <fmt/format.h>

#include "chunkserver/copy.h"
#include "chunkserver/service.h"
#include "common/log.h"

namespace shoal {
namespace {

constexpr int kRounds = 3;  // a source that is written meanwhile is compared again

// On a disk thread: an empty replica in the disk's directory for copies.
Result<std::shared_ptr<ReplicaFile>> MakeTemporary(Disk& disk, const ReplicaHeader& header) {
  std::string path = disk.TemporaryPath(header.chunk, header.instance);
  if (Status gone = disk.files().Unlink(path); !gone && gone.error().code != ErrorCode::kNotFound) return Fail(gone.error());
  TRY_ASSIGN(auto file, disk.files().Open(path, Files::Mode::kCreate));
  TRY_ASSIGN(auto formatted, ReplicaFile::Format(std::move(file), header, disk.files().BootId()));
  disk.AddUsed(ReplicaFile::kFormatBytes);
  return std::shared_ptr<ReplicaFile>(std::move(formatted));
}

// On a disk thread: synced, then under its name, then the name synced.
Status Publish(ReplicaStore& store, const std::shared_ptr<Replica>& copy) {
  Disk& disk = copy->disk;
  std::string path = disk.ReplicaPath(copy->chunk, copy->instance);
  TRY(copy->file->Sync(0));
  TRY(disk.files().Rename(disk.TemporaryPath(copy->chunk, copy->instance), path));
  TRY(disk.files().SyncDirectory(disk.ReplicaDirectory(copy->chunk)));
  // Opened again under the name, as it would be by anybody else.
  TRY_ASSIGN(auto file, disk.files().Open(path, Files::Mode::kReadWrite));
  TRY_ASSIGN(auto loaded, ReplicaFile::Load(std::move(file), copy->chunk, copy->instance, store.cluster(),
                                            disk.files().BootId()));
  {
    std::lock_guard lock(copy->mutex);
    copy->file = nullptr;
    copy->exists = true;
    copy->name_synced = true;
  }
  return store.Add(copy, std::move(loaded));
}

}  // namespace

Task<Status> Service::FillCopy(const pb::ReplicateRequest& message, std::shared_ptr<Replica> copy,
                               pb::ReplicateResponse* done) {
  ChunkVersion version{message.version()};
  std::vector<pb::Replica> from(message.others().begin(), message.others().end());
  from.emplace(from.begin());
  from[0].set_address(message.source());
  from[0].set_instance(message.source_instance());
  // The first whose table can be read is the source; damaged blocks come from the others.
  CopySource source{nullptr, copy->chunk, version, {}};
  Result<SourceTable> table = Fail(ErrorCode::kChainFailed, "no source");
  for (size_t i = 0; i < from.size() && !table; ++i) {
    std::string address = from[i].address();
    auto connection = co_await peers_.Get(address, 0, 5s);
    if (!connection) {
      table = Fail(connection.error().code, address + ": " + connection.error().message);
      continue;
    }
    source.connection = *connection;
    source.instance = InstanceId{from[i].instance()};
    table = co_await FetchTable(source);
    if (table) from.erase(from.begin() + static_cast<ptrdiff_t>(i));
  }
  OtherReplicas others{std::move(from), 0};
  Copying copying(loop_, node_, peers_, source, std::move(others), copy, copy->file, message.max_bytes_per_second());
  const std::set<uint32_t> none;
  for (int round = 0; table && round < kRounds; ++round) {
    CO_TRY(co_await copying.Level(*table, false, none));
    done->set_bytes(copying.bytes());
    Result<SourceTable> after = co_await FetchTable(source);
    bool quiet = after && after->known && after->applied == table->applied && after->numbering == table->numbering;
    if (quiet) {
      std::lock_guard lock(copy->mutex);
      copy->order.StartAt(version, after->numbering, after->applied);
      co_return Status();
    }
    if (after && !after->known && after->entries == table->entries) co_return Status();
    table = std::move(after);
  }
  if (!table) co_return Fail(table.error().code, "the source's table: " + table.error().message);
  if (!message.take_behind()) co_return Fail(ErrorCode::kNotReady, "the source is being written");
  done->set_behind(true);  // its place in the order stays unknown
  co_return Status();
}

// The file of a copy that failed, and its space.
Task<void> Service::Discard(std::shared_ptr<Replica> copy) {
  Disk& disk = copy->disk;
  OnQueue clean(loop_, disk.work(), [&]() -> Status {
    if (copy->file) {
      if (auto bytes = copy->file->file().AllocatedBytes()) disk.AddUsed(-static_cast<int64_t>(*bytes));
    }
    return disk.files().Unlink(disk.TemporaryPath(copy->chunk, copy->instance));
  });
  Status cleaned = co_await clean;
  if (!cleaned && cleaned.error().code != ErrorCode::kNotFound) LogWarning("{}", cleaned.error().message);
}

Task<Result<pb::ReplicateResponse>> Service::MakeCopy(const pb::ReplicateRequest& message) {
  ChunkId chunk{message.chunk()};
  InstanceId instance{message.instance()};
  ChunkVersion version{message.version()};
  if (!chunk || !instance || !version) co_return Fail(ErrorCode::kInvalidArgument, "a copy needs chunk, version and instance");
  Result<Disk*> disk = node_.store->ChooseDisk(0, true);
  if (!disk) co_return Fail(std::move(disk).error());
  if (!copying_.emplace(chunk, instance).second) co_return Fail(ErrorCode::kNotReady, "that copy is being made");

  auto copy = std::make_shared<Replica>(chunk, instance, **disk);
  copy->exists = false;  // until it is published
  ReplicaHeader header{chunk, instance, version, node_.store->cluster()};
  OnQueue make(loop_, (*disk)->work(), [&] { return MakeTemporary(**disk, header); });
  Result<std::shared_ptr<ReplicaFile>> file = co_await make;
  Status ok;
  pb::ReplicateResponse done;
  if (file) {
    copy->version = version;
    copy->file = *file;
    ok = co_await FillCopy(message, copy, &done);
  } else {
    ok = Fail(file.error());
    (*disk)->Note(ok.error());
  }
  if (ok) {
    ReplicaStore& store = *node_.store;
    OnQueue publish(loop_, (*disk)->work(), [&] { return Publish(store, copy); });
    ok = co_await publish;
    if (!ok) (*disk)->Note(ok.error());
  }
  copying_.erase({chunk, instance});
  if (!ok) {
    co_await Discard(copy);
    co_return Fail(std::move(ok).error());
  }
  LogInfo("copied chunk {:016x} version {} from {}: {} bytes", chunk.value, version.value, message.source(), done.bytes());
  co_return done;
}

Task<Result<pb::ReplicateResponse>> Service::Replicate(const pb::ReplicateRequest& message) {
  pb::ReplicateResponse response;
  auto replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
  if (replica) {
    // Sent again after it was done: what is there may be in use already, and is left as it is.
    Status loaded = co_await EnsureLoaded(replica);
    if (!loaded) co_return Fail(std::move(loaded).error());
    std::lock_guard lock(replica->mutex);
    if (replica->bad) co_return Fail(*replica->bad);
    response.set_behind(!replica->order.known());
    if (replica->exists && replica->version.value == message.version()) co_return response;
    co_return Fail(ErrorCode::kVersionMismatch,
                   fmt::format("there is an instance with version {} already", replica->version.value));
  }
  co_return co_await MakeCopy(message);
}

}  // namespace shoal
