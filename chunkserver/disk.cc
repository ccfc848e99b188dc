#include "chunkserver/disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/log.h"

namespace shoal {
namespace {

constexpr size_t kWorkLimit = 1024;  // requests waiting for one disk before new ones are refused

constexpr size_t kCleanedAtOnce = 64;   // replicas, with each heartbeat

Status MakeDirectory(Files& files, const std::string& path) {
  Status made = files.CreateDirectory(path);
  if (!made && made.error().code != ErrorCode::kExists) return made;
  return {};
}

}  // namespace

Disk::Disk(Files& files, DataDirectory directory, uint64_t reserved_bytes, std::unique_ptr<File> lock)
    : files_(files), directory_(std::move(directory)), reserved_bytes_(reserved_bytes), lock_(std::move(lock)) {
  work_ = std::make_unique<WorkQueue>("disk", kWorkLimit, 1);
  syncs_ = std::make_unique<WorkQueue>("disk-sync", kWorkLimit, 2);
}

Disk::~Disk() { StopThreads(); }

void Disk::StopThreads() {
  // Work may queue syncs, and syncs may queue more of themselves until the store stops.
  work_->Finish();
  syncs_->Finish();
}

Status Disk::Prepare() {
  TRY(MakeDirectory(files_, path() + "/chunks"));
  TRY(MakeDirectory(files_, path() + "/tmp"));
  TRY_ASSIGN(auto present, files_.List(path() + "/chunks"));
  if (present.size() < 256) {
    for (uint64_t i = 0; i < 256; ++i) {
      TRY(MakeDirectory(files_, ReplicaDirectory(ChunkId{i})));
    }
    TRY(files_.SyncDirectory(path() + "/chunks"));
    TRY(files_.SyncDirectory(path()));
  }
  TRY_ASSIGN(auto unfinished, files_.List(path() + "/tmp"));
  for (const std::string& name : unfinished) {
    TRY(files_.Unlink(path() + "/tmp/" + name));
  }
  TRY_ASSIGN(intent_, WriteIntent::Open(files_, path() + "/intent"));
  SettleLastWrite();
  RefreshSpace();
  return {};
}

// Whatever is wrong with that replica is found again by whoever uses it.
void Disk::SettleLastWrite() {
  const WriteIntent::Content& left = intent_->left_behind();
  if (left.changes.empty()) return;
  auto file = files_.Open(ReplicaPath(left.chunk, left.instance), Files::Mode::kReadWrite);
  if (!file) return;  // dropped since
  auto replica = ReplicaFile::Load(std::move(*file), left.chunk, left.instance, "", files_.BootId());
  auto settled = replica ? (*replica)->Settle(left.changes) : Result<uint32_t>(Fail(replica.error()));
  if (!settled) {
    LogWarning("the last write to {} can't be settled: {}", ReplicaPath(left.chunk, left.instance), settled.error().message);
  } else if (*settled > 0) {
    LogInfo("{}: {} blocks of chunk {:016x} had been written without their checksums", path(), *settled, left.chunk.value);
  }
}

std::string Disk::ReplicaDirectory(ChunkId chunk) const { return path() + "/chunks/" + ReplicaDirectoryName(chunk); }

std::string Disk::ReplicaPath(ChunkId chunk, InstanceId instance) const {
  return ReplicaDirectory(chunk) + "/" + ReplicaFileName(chunk, instance);
}

std::string Disk::TemporaryPath(ChunkId chunk, InstanceId instance) const {
  return path() + "/tmp/" + ReplicaFileName(chunk, instance);
}

Result<std::vector<std::pair<ChunkId, InstanceId>>> Disk::Scan() {
  std::vector<std::pair<ChunkId, InstanceId>> found;
  for (uint64_t i = 0; i < 256; ++i) {
    TRY_ASSIGN(auto names, files_.List(ReplicaDirectory(ChunkId{i})));
    for (const std::string& name : names) {
      ChunkId chunk;
      InstanceId instance;
      if (ParseReplicaFileName(name, chunk, instance) && (chunk.value & 0xff) == i) {
        found.emplace_back(chunk, instance);
      } else {
        LogWarning("{}/{} is not the name of a replica: left alone", ReplicaDirectory(ChunkId{i}), name);
      }
    }
  }
  return found;
}

uint64_t Disk::FreeOfCapacity() const {
  uint64_t used = static_cast<uint64_t>(std::max<int64_t>(0, used_.load()));
  uint64_t free = fs_free_.load();
  if (directory_.capacity == 0) return free;
  return std::min(free, directory_.capacity > used ? directory_.capacity - used : 0);
}

uint64_t Disk::KeptBack(bool forwarded) const {
  uint64_t keep = forwarded ? reserved_bytes_ / 2 : reserved_bytes_;
  if (directory_.capacity != 0) {
    // Of a capacity, a sixteenth is the most that is kept back.
    keep = std::min(keep, directory_.capacity / (forwarded ? 32 : 16));
  }
  return keep;
}

Status Disk::CheckSpace(uint64_t bytes, bool forwarded) const {
  if (FreeOfCapacity() >= KeptBack(forwarded) + bytes) return {};
  return Fail(ErrorCode::kNoSpace, fmt::format("the data directory {} is full", path()));
}

void Disk::RefreshSpace() {
  auto space = files_.Space(path());
  if (!space) {
    Note(space.error());
    return;
  }
  fs_capacity_ = space->capacity_bytes;
  fs_free_ = space->free_bytes;
  fs_id_ = space->id;
}

pb::DiskReport Disk::Report() const {
  pb::DiskReport report;
  report.set_path(path());
  report.set_capacity_bytes(directory_.capacity ? std::min(directory_.capacity, fs_capacity_.load()) : fs_capacity_.load());
  report.set_used_bytes(static_cast<uint64_t>(std::max<int64_t>(0, used_.load())));
  report.set_free_bytes(Available());
  report.set_file_system(fs_id_);
  report.set_fs_capacity_bytes(fs_capacity_);
  report.set_fs_free_bytes(fs_free_);
  report.set_failed(failed());
  report.set_replicas(static_cast<uint64_t>(std::max<int64_t>(0, replicas_.load())));
  std::lock_guard lock(mutex_);
  report.set_reason(reason_);
  return report;
}

uint64_t Disk::Available() const {
  if (failed()) return 0;
  uint64_t free = FreeOfCapacity(), kept = KeptBack(false);
  return free > kept ? free - kept : 0;
}

void Disk::Note(const Error& error) {
  if (error.code == ErrorCode::kNoSpace) {
    fs_free_ = 0;  // until the next look
    return;
  }
  if (error.code != ErrorCode::kIo && error.code != ErrorCode::kReadOnly) return;
  if (failed_.exchange(true)) return;
  LogError("the data directory {} fails: {}. It is used for nothing new; replace the disk", path(), error.message);
  std::lock_guard lock(mutex_);
  reason_ = error.message;
}

void Disk::AddDirty(std::shared_ptr<Replica> replica) {
  std::lock_guard lock(mutex_);
  const Replica* key = replica.get();
  dirty_.emplace(key, std::move(replica));
}

void Disk::RemoveDirty(const Replica& replica) {
  std::lock_guard lock(mutex_);
  dirty_.erase(&replica);
}

void Disk::AddCleanable(std::shared_ptr<Replica> replica) {
  if (std::exchange(replica->cleaning, true)) return;
  std::lock_guard lock(mutex_);
  cleanable_.emplace_back(std::chrono::steady_clock::now(), std::move(replica));
}

std::vector<std::shared_ptr<Replica>> Disk::TakeCleanable(Duration idle) {
  const SteadyTime before = std::chrono::steady_clock::now() - idle;
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Replica>> replicas;
  while (replicas.size() < kCleanedAtOnce && !cleanable_.empty() && cleanable_.front().first <= before) {
    replicas.push_back(std::move(cleanable_.front().second));
    cleanable_.pop_front();
  }
  return replicas;
}

std::vector<std::shared_ptr<Replica>> Disk::DirtyReplicas() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Replica>> replicas;
  for (const auto& [key, replica] : dirty_) replicas.push_back(replica);
  return replicas;
}

uint64_t Disk::UnsyncedBytes() const {
  uint64_t bytes = 0;
  for (const auto& replica : DirtyReplicas()) {
    std::lock_guard lock(replica->mutex);
    bytes += replica->changed_bytes - replica->synced_bytes;
  }
  return bytes;
}

}  // namespace shoal
