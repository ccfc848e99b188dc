// Disk: one data directory, its threads and its space.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "chunkserver/identity.h"
#include "chunkserver/replica.h"
#include "chunkserver/server.h"
#include "chunkserver/work_queue.h"
#include "chunkserver/write_intent.h"
#include "common/files.h"
#include "common/metrics.h"
#include "common/proto/control.pb.h"

namespace shoal {

// A data directory that is open and locked:
//   DIR/identity, DIR/lock, DIR/intent, DIR/chunks/XX/<chunk>.<instance>, DIR/tmp/ (copies that are not finished)
// Owner: the ReplicaStore. Any thread unless said. A failure of the disk is kept (failed()), logged and reported by
// heartbeats; nothing new is placed on it from then on, what it still can read is read.
class Disk {
 public:
  Disk(Files& files, DataDirectory directory, uint64_t reserved_bytes, std::unique_ptr<File> lock);
  ~Disk();

  const std::string& path() const { return directory_.path; }
  Files& files() { return files_; }

  // Makes the sub-directories that are missing, removes unfinished copies, settles the write that a killed process left,
  // looks at the space.
  Status Prepare();

  std::string ReplicaDirectory(ChunkId chunk) const;
  std::string ReplicaPath(ChunkId chunk, InstanceId instance) const;
  std::string TemporaryPath(ChunkId chunk, InstanceId instance) const;

  // The names of all replicas. May take long.
  Result<std::vector<std::pair<ChunkId, InstanceId>>> Scan();

  // Reads and writes of replicas, in order of arrival; syncs beside them, so that writes need not wait for them.
  WorkQueue& work() const { return *work_; }
  WorkQueue& syncs() { return *syncs_; }
  // Finishes what is queued and ends the threads; nothing may be queued after that.
  void StopThreads();

  // Whether `bytes` more fit: half of the reserve is for forwarded writes, which others have applied already.
  Status CheckSpace(uint64_t bytes, bool forwarded) const;
  void AddUsed(int64_t bytes) { used_.fetch_add(bytes); }
  void AddReplicas(int64_t count) { replicas_.fetch_add(count); }
  // What the write under way replaces; on the thread of work().
  WriteIntent& intent() { return *intent_; }
  // Makes all of the file system durable (blocks; on a disk thread). Errors since Prepare are seen, also those of files
  // that were closed.
  Status SyncFileSystem() { return lock_->SyncFileSystem(); }
  // Asks the file system (blocks; on a disk thread).
  void RefreshSpace();
  pb::DiskReport Report() const;
  // What could still be placed here; 0 when failed or full.
  uint64_t Available() const;

  // Looks at the error of an operation on this disk: an I/O error marks it failed.
  void Note(const Error& error);
  bool failed() const { return failed_.load(); }

  // Replicas with writes that were not synced.
  void AddDirty(std::shared_ptr<Replica> replica);
  void RemoveDirty(const Replica& replica);
  std::vector<std::shared_ptr<Replica>> DirtyReplicas() const;
  uint64_t UnsyncedBytes() const;  // of writes that this process has applied
  // Replicas that were synced (Replica::mutex is held); the ones that became so long enough ago, a few at a time.
  void AddCleanable(std::shared_ptr<Replica> replica);
  std::vector<std::shared_ptr<Replica>> TakeCleanable(Duration idle);
  // One at a time. False: it is under way.
  bool BeginTidying() { return !tidying_.exchange(true); }
  void EndTidying() { tidying_ = false; }
  // Whether what an earlier process wrote is known to be durable.
  bool swept() const { return swept_.load(); }
  void SetSwept() { swept_ = true; }

 private:
  uint64_t FreeOfCapacity() const;
  uint64_t KeptBack(bool forwarded) const;  // of that, for writes under way
  void SettleLastWrite();

  Files& files_;
  const DataDirectory directory_;
  const uint64_t reserved_bytes_;
  std::unique_ptr<File> lock_;
  std::unique_ptr<WriteIntent> intent_;

  std::atomic<int64_t> used_{0};
  std::atomic<int64_t> replicas_{0};
  std::atomic<uint64_t> fs_capacity_{0};
  std::atomic<uint64_t> fs_free_{0};
  std::atomic<uint64_t> fs_id_{0};
  std::atomic<bool> failed_{false};
  std::atomic<bool> swept_{false};
  std::atomic<bool> tidying_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::string reason_;
  std::unordered_map<const Replica*, std::shared_ptr<Replica>> dirty_;
  std::deque<std::pair<SteadyTime, std::shared_ptr<Replica>>> cleanable_;

  std::unique_ptr<WorkQueue> work_;
  std::unique_ptr<WorkQueue> syncs_;
};

// The disks of a server, checked together. A plain value.
struct OpenedDisks {
  std::vector<std::unique_ptr<Disk>> disks;
  DirectoryIdentity identity;  // the same in all
};

// Opens, checks and locks the data directories; new (empty) ones join the server that the others belong to, or make a
// new one. Errors name the directory and say what to do.
Result<OpenedDisks> OpenDisks(Files& files, const std::vector<DataDirectory>& directories, uint64_t reserved_bytes);

}  // namespace shoal
