// ReplicaStore: all replicas of a chunkserver, over all its disks.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "chunkserver/disk.h"
#include "chunkserver/metrics.h"
#include "chunkserver/replica.h"
#include "common/proto/control.pb.h"

namespace shoal {

// The index of what is on the disks (names from a scan at the start, versions as they are learnt), the open files (a
// bounded number), and what is wrong with them. Owner: the server. Any thread; what may touch a disk says so.
class ReplicaStore {
 public:
  // Called when a replica turned out bad, on any thread.
  using BadSink = std::function<void(const pb::ReplicaReport&, const Error&)>;
  using BadReports = std::vector<std::pair<pb::ReplicaReport, Error>>;

  ReplicaStore(std::vector<std::unique_ptr<Disk>> disks, size_t open_files, ChunkMetrics& metrics, BadSink sink);
  ~ReplicaStore();

  // Reads the names of all replicas, the disks side by side (blocks), and goes on to read their headers on the disks'
  // threads. A disk that can't be listed is marked failed.
  void Start();
  // Ends the reading of headers and waits for the disks' threads.
  void Stop();

  // Until it is known, replicas of any cluster are taken.
  void SetCluster(const std::string& uuid);
  std::string cluster() const;

  // Instance zero: whichever is there. Null: none.
  std::shared_ptr<Replica> Find(ChunkId chunk, InstanceId instance);
  // The replica, or a new one on that disk, whose file its first write will make.
  Result<std::shared_ptr<Replica>> FindOrCreate(ChunkId chunk, InstanceId instance, ChunkVersion version, Disk& disk);
  // Where a new replica with that many bytes would go. kNoSpace when no disk has room.
  Result<Disk*> ChooseDisk(uint64_t bytes, bool forwarded);
  // A finished copy, its file in place. kExists if there is one of that instance.
  Status Add(std::shared_ptr<Replica> replica, std::unique_ptr<ReplicaFile> file);

  // On a disk thread. Opens the file and reads its header, if that was not done. kNoReplica, kCorrupt, kIo, ...
  Status Load(const std::shared_ptr<Replica>& replica);
  // On a disk thread, with Replica::io held: makes the file of a replica that does not exist yet.
  Status CreateFile(const std::shared_ptr<Replica>& replica);
  // On a disk thread: makes everything written to it durable, also by earlier processes. An error makes it a bad replica.
  Status Sync(const std::shared_ptr<Replica>& replica);
  // On a disk thread: everything written and not synced on that disk, also by earlier processes. After an error every
  // replica of which that can't be said is bad.
  Status SyncAll(Disk& disk);
  // On a disk thread: makes its name durable. Only an error that is no scarcity makes it a bad replica.
  Status SyncName(const std::shared_ptr<Replica>& replica);
  // Forgets a replica whose file was not made; nothing of it is written or may be waiting. A later write to it gives
  // kNoReplica.
  void Forget(const std::shared_ptr<Replica>& replica);
  // On a disk thread: deletes the file, durably, and forgets the replica. After an error it is still there, dropped for
  // everybody, for a repetition.
  Status Drop(const std::shared_ptr<Replica>& replica);

  // The first replica of that disk behind this place, by the low byte of the chunk, then chunk, then instance; `first`:
  // the first of all.
  std::optional<std::pair<ChunkId, InstanceId>> After(const Disk& disk, ChunkId chunk, InstanceId instance, bool first) const;
  bool Has(const Disk& disk, ChunkId chunk, InstanceId instance) const;
  // Whoever goes through all replicas gives each back: one that nobody has used but to read it is forgotten as far as it
  // takes memory and a descriptor.
  void LetGo(std::shared_ptr<Replica> replica);

  void NoteVersion(const Replica& replica, ChunkVersion version);
  // The replica is not to be trusted any more: logged, counted and told to the sink (once).
  void MarkBad(const std::shared_ptr<Replica>& replica, const Error& why);

  // Something of it does not match its checksum; all that does is right. Else like MarkBad.
  void MarkDamaged(const std::shared_ptr<Replica>& replica, const Error& why);
  // What an error of reading or changing it means: kCorrupt is damage, any other makes it bad.
  void Judge(const std::shared_ptr<Replica>& replica, const Error& why);
  // On a disk thread, without Replica::io: tries to mend header and table after a kCorrupt (ReplicaFile::Mend). False:
  // nothing is better than before.
  bool Mend(const std::shared_ptr<Replica>& replica, ReplicaFile& file);

  // A block of it can be read only after a recovery: told to the sink (once).
  void ReportDoubt(const std::shared_ptr<Replica>& replica, const Error& why);
  // A recovery has looked at it.
  void Settled(Replica& replica);
  // On a disk thread: replicas of that disk that were synced and then left alone for a while are cleaned (ReplicaFile).
  void CleanIdle(Disk& disk, Duration idle);
  // All replicas that are bad or need a recovery, and are not dropped yet.
  BadReports bad_reports() const;

  // The inventory (design.md): whether all headers have been read; a digest for each bucket; what is in a bucket.
  // What lies on a failed disk is left out.
  bool inventory_ready() const { return headers_left_.load() == 0; }
  std::vector<uint64_t> Digests() const;
  std::vector<pb::ReplicaReport> Bucket(uint32_t bucket) const;

  const std::vector<std::unique_ptr<Disk>>& disks() const { return disks_; }
  ChunkMetrics& metrics() { return metrics_; }

 private:
  // What the index knows of a replica before anybody asks for it.
  struct Entry {
    InstanceId instance;
    ChunkVersion version;  // zero: header not read, or unreadable (bad)
    uint32_t disk = 0;
    bool bad = false;
    std::shared_ptr<Replica> replica;  // once touched
    uint64_t file = 0;                 // File::Number, once it was opened
  };
  // The chunks of one inventory bucket.
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_multimap<uint64_t, Entry> entries;
  };

  Shard& ShardOf(ChunkId chunk) { return shards_[chunk.value & 0xff]; }
  void Erase(const Replica& replica);
  bool IsItsFile(ChunkId chunk, InstanceId instance, File& file);
  Entry* FindEntry(Shard& shard, ChunkId chunk, InstanceId instance);
  std::shared_ptr<Replica> TouchedReplica(ChunkId chunk, Entry& entry);
  std::vector<std::shared_ptr<Replica>> ReplicasOn(const Disk& disk);
  void CleanOne(const std::shared_ptr<Replica>& replica);
  Status Sweep(Disk& disk, const std::vector<std::shared_ptr<Replica>>& dirty);
  void ScanDisk(uint32_t index);
  bool Report(const std::shared_ptr<Replica>& replica, const Error& why, bool damaged);
  void ReadHeaders(uint32_t disk, std::shared_ptr<std::vector<std::pair<ChunkId, InstanceId>>> names, size_t next);
  void ReadOneHeader(uint32_t disk, ChunkId chunk, InstanceId instance);
  void Opened(const std::shared_ptr<Replica>& replica);
  void Tidy(Disk& disk);

  std::vector<std::unique_ptr<Disk>> disks_;
  const size_t open_files_;
  ChunkMetrics& metrics_;
  BadSink sink_;
  std::array<Shard, 256> shards_;
  std::atomic<int64_t> headers_left_{0};
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;  // guards open_, cluster_; taken before a replica's
  std::list<std::shared_ptr<Replica>> open_;
  std::string cluster_;
  mutable std::mutex bad_mutex_;  // guards bad_; taken after any other
  std::map<const Replica*, std::pair<pb::ReplicaReport, Error>> bad_;
};

}  // namespace shoal
