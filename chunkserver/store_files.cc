// The part of ReplicaStore that touches the disks: opening, making, syncing and deleting replica files.
#include <fmt/format.h>

#include "chunkserver/store.h"
#include "common/log.h"

namespace shoal {
namespace {

constexpr size_t kSyncFilesOneByOne = 64;  // more dirty files than that: one syncfs
constexpr size_t kUnsyncedMore = 512;      // files with unsynced writes, open beyond the bound
constexpr int kCloseAttempts = 16;         // files looked at, at most, to find one that can be closed

class StopWatch {
 public:
  Duration elapsed() const { return std::chrono::steady_clock::now() - start_; }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// On a file system that became read-only: to be read, at least. The disk counts as failed from then on.
Result<std::unique_ptr<File>> OpenReplica(Disk& disk, const std::string& path) {
  auto file = disk.files().Open(path, Files::Mode::kReadWrite);
  if (file || file.error().code != ErrorCode::kReadOnly) return file;
  disk.Note(file.error());
  return disk.files().Open(path, Files::Mode::kRead);
}

}  // namespace

Status ReplicaStore::Load(const std::shared_ptr<Replica>& replica) {
  replica->touched.store(true, std::memory_order_relaxed);
  std::unique_lock io(replica->io);
  {
    std::lock_guard lock(replica->mutex);
    if (replica->file) return {};
    if (replica->dropped || !replica->exists) return Fail(ErrorCode::kNoReplica, "no replica of that chunk here");
  }
  auto file = OpenReplica(replica->disk, replica->disk.ReplicaPath(replica->chunk, replica->instance));
  Result<std::unique_ptr<ReplicaFile>> loaded;
  if (!file) {
    loaded = Fail(file.error());
  } else if (!IsItsFile(replica->chunk, replica->instance, **file)) {
    loaded = Fail(ErrorCode::kCorrupt, "another file has been put in its place");
  } else {
    loaded = ReplicaFile::Load(std::move(*file), replica->chunk, replica->instance, cluster(), replica->disk.files().BootId());
  }
  if (!loaded) {
    io.unlock();
    Error why = loaded.error();
    if (why.code == ErrorCode::kNotFound) why = {ErrorCode::kNoReplica, "the replica's file is gone: " + why.message};
    // Too many open files, no memory, ...: says nothing about the replica.
    bool lasting = why.code == ErrorCode::kNoReplica || why.code == ErrorCode::kCorrupt || why.code == ErrorCode::kIo ||
                   why.code == ErrorCode::kWrongCluster || why.code == ErrorCode::kNotSupported;
    if (lasting) MarkBad(replica, why);
    return Fail(std::move(why));
  }
  ChunkVersion version = (*loaded)->header().version;
  const bool damaged = (*loaded)->header_damaged();
  std::shared_ptr<ReplicaFile> opened = std::move(*loaded);
  {
    std::lock_guard lock(replica->mutex);
    replica->version = version;
    replica->file = opened;
  }
  io.unlock();
  if (damaged) {
    MarkDamaged(replica, {ErrorCode::kCorrupt, "the header or the state does not match its checksum"});
    Mend(replica, *opened);
  }
  NoteVersion(*replica, version);
  Opened(replica);
  return {};
}

// Keeps the number of open files within bounds: the ones that nobody has used lately are closed. While something written
// is not synced, the file that is going to hear of an error stays open; too many of those are synced.
void ReplicaStore::Opened(const std::shared_ptr<Replica>& replica) {
  std::vector<std::shared_ptr<ReplicaFile>> closing;  // closed when no lock is held
  std::lock_guard lock(mutex_);
  open_.push_back(replica);
  const bool far_too_many = open_.size() > open_files_ + kUnsyncedMore;
  for (int i = 0; open_.size() > open_files_ && i < kCloseAttempts; ++i) {
    std::shared_ptr<Replica> candidate = open_.front();
    open_.pop_front();
    std::lock_guard candidate_lock(candidate->mutex);
    if (!candidate->file) continue;
    bool used = candidate->touched.exchange(false) || candidate->file.use_count() > 1 || candidate->applying;
    bool unsynced = candidate->file->unsynced() && candidate->changes != candidate->synced_changes;
    if (unsynced) Tidy(candidate->disk);
    if (used || (unsynced && !far_too_many)) {
      open_.push_back(candidate);
    } else {
      closing.push_back(std::move(candidate->file));
      candidate->file = nullptr;
    }
  }
}

void ReplicaStore::Tidy(Disk& disk) {
  if (!disk.BeginTidying()) return;
  disk.syncs().Push([this, &disk] {
    if (Status synced = SyncAll(disk); !synced) LogWarning("{}: {}", disk.path(), synced.error().message);
    disk.EndTidying();
  });
}

Status ReplicaStore::CreateFile(const std::shared_ptr<Replica>& replica) {
  Disk& disk = replica->disk;
  ReplicaHeader header{replica->chunk, replica->instance, replica->version, cluster()};
  std::string path = disk.ReplicaPath(replica->chunk, replica->instance);
  auto file = disk.files().Open(path, Files::Mode::kCreate);
  if (!file) {
    disk.Note(file.error());
    return Fail(std::move(file).error());
  }
  auto formatted = ReplicaFile::Format(std::move(*file), header, disk.files().BootId());
  if (!formatted) {
    disk.Note(formatted.error());
    if (Status gone = disk.files().Unlink(path); !gone) LogWarning("{}", gone.error().message);
    return Fail(std::move(formatted).error());
  }
  disk.AddUsed(ReplicaFile::kFormatBytes);
  {
    std::lock_guard lock(replica->mutex);
    replica->exists = true;
    replica->file = std::move(*formatted);
    IsItsFile(replica->chunk, replica->instance, replica->file->file());
  }
  Opened(replica);
  return {};
}

Status ReplicaStore::Sync(const std::shared_ptr<Replica>& replica) {
  TRY(Load(replica));
  std::lock_guard sync(replica->sync);
  std::shared_ptr<ReplicaFile> file;
  uint64_t changes, bytes, through;
  bool name_synced;
  {
    std::lock_guard lock(replica->mutex);
    if (replica->bad) return Fail(*replica->bad);
    if (replica->changes == replica->synced_changes && replica->name_synced) return {};
    if (!replica->file) return Fail(ErrorCode::kNotReady, "the replica's file was just closed: try again");
    file = replica->file;
    changes = replica->changes;
    bytes = replica->changed_bytes;
    through = replica->order.applied();
    name_synced = replica->name_synced;
  }
  StopWatch watch;
  Status status = file->Sync(through);
  metrics_.syncs.Add();
  metrics_.sync_latency.Record(watch.elapsed());
  if (!status) {
    // The kernel may have thrown the pages away: what the file holds now is not what was written.
    MarkBad(replica, status.error());
    return status;
  }
  if (!name_synced) {
    TRY(SyncName(replica));
  }
  std::lock_guard lock(replica->mutex);
  replica->synced_changes = std::max(replica->synced_changes, changes);
  replica->synced_bytes = std::max(replica->synced_bytes, bytes);
  if (replica->synced_changes == replica->changes) replica->disk.RemoveDirty(*replica);
  replica->disk.AddCleanable(replica);
  return {};
}

void ReplicaStore::CleanIdle(Disk& disk, Duration idle) {
  for (const auto& replica : disk.TakeCleanable(idle)) CleanOne(replica);
}

void ReplicaStore::CleanOne(const std::shared_ptr<Replica>& replica) {
  if (!Load(replica)) return;
  std::lock_guard sync(replica->sync);
  std::shared_ptr<ReplicaFile> file;
  uint64_t through;
  {
    std::lock_guard lock(replica->mutex);
    replica->cleaning = false;
    if (replica->bad || !replica->file || replica->changes != replica->synced_changes) return;
    file = replica->file;
    through = replica->order.applied();
  }
  // The file may have been opened again since its sync, or synced with all others: then it does not know.
  Status cleaned = file->written_regions().any() ? file->Sync(through) : Status();
  if (cleaned) {
    std::shared_lock io(replica->io);
    cleaned = file->Clean();
  }
  if (!cleaned && !IsScarcity(cleaned.error().code)) MarkBad(replica, cleaned.error());
}

Status ReplicaStore::SyncName(const std::shared_ptr<Replica>& replica) {
  Status status = replica->disk.files().SyncDirectory(replica->disk.ReplicaDirectory(replica->chunk));
  if (!status && !IsScarcity(status.error().code)) MarkBad(replica, status.error());
  if (!status) return status;
  std::lock_guard lock(replica->mutex);
  replica->name_synced = true;
  return {};
}

Status ReplicaStore::SyncAll(Disk& disk) {
  std::vector<std::shared_ptr<Replica>> dirty = disk.DirtyReplicas();
  if (!disk.swept() || dirty.size() > kSyncFilesOneByOne) return Sweep(disk, dirty);
  Status result;
  for (const auto& replica : dirty) {
    Status status = Sync(replica);
    bool gone = !status && status.error().code == ErrorCode::kNoReplica;
    if (!status && !gone) result = status;
  }
  return result;
}

Status ReplicaStore::Sweep(Disk& disk, const std::vector<std::shared_ptr<Replica>>& dirty) {
  struct Before {
    std::shared_ptr<Replica> replica;
    uint64_t changes, bytes;
  };
  std::vector<Before> before;
  for (const auto& replica : dirty) {
    std::lock_guard lock(replica->mutex);
    before.push_back({replica, replica->changes, replica->changed_bytes});
  }
  Status status = disk.SyncFileSystem();
  if (!status) {
    disk.Note(status.error());
    // Before the first success that is every one that was not synced by itself since the start.
    for (const auto& replica : disk.swept() ? dirty : ReplicasOn(disk)) {
      bool synced;
      {
        std::lock_guard lock(replica->mutex);
        synced = replica->changes == replica->synced_changes;
      }
      if (!synced) MarkBad(replica, status.error());
    }
    return status;
  }
  disk.SetSwept();
  for (auto& [replica, changes, bytes] : before) {
    std::lock_guard lock(replica->mutex);
    if (replica->exists) replica->name_synced = true;
    replica->synced_changes = std::max(replica->synced_changes, changes);
    replica->synced_bytes = std::max(replica->synced_bytes, bytes);
    if (replica->synced_changes == replica->changes) disk.RemoveDirty(*replica);
    disk.AddCleanable(replica);
  }
  return {};
}

Status ReplicaStore::Drop(const std::shared_ptr<Replica>& replica) {
  Disk& disk = replica->disk;
  std::lock_guard sync(replica->sync);
  std::unique_lock io(replica->io);
  std::shared_ptr<ReplicaFile> file;
  bool exists;
  {
    std::lock_guard lock(replica->mutex);
    replica->dropped = true;
    exists = replica->exists;
    file = std::move(replica->file);
    replica->file = nullptr;
  }
  if (exists) {
    auto opened = file ? Result<std::unique_ptr<File>>(nullptr)
                       : disk.files().Open(disk.ReplicaPath(replica->chunk, replica->instance), Files::Mode::kRead);
    File* raw = file ? &file->file() : opened ? opened->get() : nullptr;
    auto bytes = raw ? raw->AllocatedBytes() : Result<uint64_t>(0);
    Status gone = disk.files().Unlink(disk.ReplicaPath(replica->chunk, replica->instance));
    if (!gone && gone.error().code != ErrorCode::kNotFound) {
      disk.Note(gone.error());
      return gone;
    }
    if (gone && bytes) disk.AddUsed(-static_cast<int64_t>(*bytes));
    io.unlock();
    if (Status synced = disk.files().SyncDirectory(disk.ReplicaDirectory(replica->chunk)); !synced) {
      disk.Note(synced.error());
      return synced;
    }
  }
  Erase(*replica);
  return {};
}

}  // namespace shoal
