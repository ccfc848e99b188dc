#include "chunkserver/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "common/checksum.h"
#include "common/log.h"

namespace shoal {
namespace {

constexpr size_t kHeadersAtOnce = 64;   // read in one go, before others get their turn

uint64_t ReplicaDigest(ChunkId chunk, ChunkVersion version, InstanceId instance) {
  uint8_t bytes[20];
  std::memcpy(bytes, &chunk.value, 8);
  std::memcpy(bytes + 8, &version.value, 4);
  std::memcpy(bytes + 12, &instance.value, 8);
  return Checksum(bytes, sizeof bytes);
}

std::string Describe(const Replica& replica) {
  return fmt::format("chunk {:016x} instance {:x} in {}", replica.chunk.value, replica.instance.value, replica.disk.path());
}

}  // namespace

ReplicaStore::ReplicaStore(std::vector<std::unique_ptr<Disk>> disks, size_t open_files, ChunkMetrics& metrics, BadSink sink)
    : disks_(std::move(disks)), open_files_(open_files), metrics_(metrics), sink_(std::move(sink)) {}

ReplicaStore::~ReplicaStore() { Stop(); }

void ReplicaStore::Start() {
  std::vector<std::thread> scans;
  headers_left_.fetch_add(static_cast<int64_t>(disks_.size()));  // the scans themselves
  for (uint32_t i = 0; i < disks_.size(); ++i) scans.emplace_back([this, i] { ScanDisk(i); });
  for (auto& scan : scans) scan.join();
}

void ReplicaStore::Stop() {
  stopping_ = true;
  for (auto& disk : disks_) disk->StopThreads();
}

void ReplicaStore::SetCluster(const std::string& uuid) {
  std::lock_guard lock(mutex_);
  cluster_ = uuid;
}

std::string ReplicaStore::cluster() const {
  std::lock_guard lock(mutex_);
  return cluster_;
}

void ReplicaStore::ScanDisk(uint32_t index) {
  Disk& disk = *disks_[index];
  auto scanned = disk.Scan();
  if (!scanned) {
    LogError("the replicas in {} can't be listed: {}", disk.path(), scanned.error().message);
    disk.Note(Error{ErrorCode::kIo, scanned.error().message});
    headers_left_.fetch_sub(1);
    return;
  }
  auto names = std::make_shared<std::vector<std::pair<ChunkId, InstanceId>>>(std::move(*scanned));
  for (auto [chunk, instance] : *names) {
    Shard& shard = ShardOf(chunk);
    std::lock_guard lock(shard.mutex);
    shard.entries.emplace(chunk.value, Entry{.instance = instance, .disk = index});
  }
  disk.AddReplicas(static_cast<int64_t>(names->size()));
  LogInfo("{}: {} replicas", disk.path(), names->size());
  disk.syncs().Push([this, index, names] { ReadHeaders(index, names, 0); });
}

void ReplicaStore::ReadHeaders(uint32_t disk, std::shared_ptr<std::vector<std::pair<ChunkId, InstanceId>>> names,
                               size_t next) {
  size_t end = std::min(names->size(), next + kHeadersAtOnce);
  for (; next < end && !stopping_; ++next) ReadOneHeader(disk, (*names)[next].first, (*names)[next].second);
  if (next == names->size() || stopping_) {
    headers_left_.fetch_sub(1);
    return;
  }
  disks_[disk]->syncs().Push([this, disk, names, next] { ReadHeaders(disk, names, next); });
}

void ReplicaStore::ReadOneHeader(uint32_t index, ChunkId chunk, InstanceId instance) {
  Disk& disk = *disks_[index];
  auto file = disk.files().Open(disk.ReplicaPath(chunk, instance), Files::Mode::kRead);
  if (!file && file.error().code == ErrorCode::kNotFound) return;  // dropped meanwhile
  Status bad, damaged;
  ChunkVersion version;
  if (file) {
    if (auto bytes = (*file)->AllocatedBytes()) disk.AddUsed(static_cast<int64_t>(*bytes));
    if (!IsItsFile(chunk, instance, **file)) bad = Fail(ErrorCode::kCorrupt, "another file has been put in its place");
    auto loaded = ReplicaFile::Load(std::move(*file), chunk, instance, cluster(), disk.files().BootId());
    if (loaded) version = (*loaded)->header().version;
    if (!loaded && bad) bad = Fail(loaded.error());
    if (loaded && (*loaded)->header_damaged()) damaged = Fail(ErrorCode::kCorrupt, "the header or the state does not match its checksum");
  } else {
    bad = Fail(file.error());
  }
  std::shared_ptr<Replica> replica = bad && damaged ? nullptr : Find(chunk, instance);
  Shard& shard = ShardOf(chunk);
  {
    std::lock_guard lock(shard.mutex);
    Entry* entry = FindEntry(shard, chunk, instance);
    if (entry && !entry->version) entry->version = version;  // a newer one, from a request, counts
    if (entry && !bad) entry->bad = true;
  }
  if (replica && !bad) MarkBad(replica, bad.error());
  if (replica && !damaged) MarkDamaged(replica, damaged.error());
}

// A file that was put in the place of another one, while this process knew of that, is another time's or another replica's.
bool ReplicaStore::IsItsFile(ChunkId chunk, InstanceId instance, File& file) {
  const uint64_t number = file.Number();
  Shard& shard = ShardOf(chunk);
  std::lock_guard lock(shard.mutex);
  Entry* entry = FindEntry(shard, chunk, instance);
  if (!entry || number == 0) return true;
  if (entry->file == 0) entry->file = number;
  return entry->file == number;
}

ReplicaStore::Entry* ReplicaStore::FindEntry(Shard& shard, ChunkId chunk, InstanceId instance) {
  auto [begin, end] = shard.entries.equal_range(chunk.value);
  Entry* best = nullptr;
  for (auto it = begin; it != end; ++it) {
    if (it->second.instance == instance) return &it->second;
    if (!instance && (!best || best->instance < it->second.instance)) best = &it->second;
  }
  return best;
}

std::shared_ptr<Replica> ReplicaStore::Find(ChunkId chunk, InstanceId instance) {
  Shard& shard = ShardOf(chunk);
  std::lock_guard lock(shard.mutex);
  Entry* entry = FindEntry(shard, chunk, instance);
  return entry ? TouchedReplica(chunk, *entry) : nullptr;
}

// What an earlier process wrote to a replica of the scan, and its name, may not be durable.
std::shared_ptr<Replica> ReplicaStore::TouchedReplica(ChunkId chunk, Entry& entry) {
  if (!entry.replica) {
    entry.replica = std::make_shared<Replica>(chunk, entry.instance, *disks_[entry.disk]);
    entry.replica->changes = 1;
    entry.replica->name_synced = false;
  }
  return entry.replica;
}

std::vector<std::shared_ptr<Replica>> ReplicaStore::ReplicasOn(const Disk& disk) {
  std::vector<std::shared_ptr<Replica>> found;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (auto& [chunk, entry] : shard.entries) {
      if (disks_[entry.disk].get() == &disk) found.push_back(TouchedReplica(ChunkId{chunk}, entry));
    }
  }
  return found;
}

Result<Disk*> ReplicaStore::ChooseDisk(uint64_t bytes, bool forwarded) {
  Disk* best = nullptr;
  Error why{ErrorCode::kNoSpace, "no data directory works"};
  for (const auto& disk : disks_) {
    if (disk->failed()) continue;
    Status room = disk->CheckSpace(ReplicaFile::kFormatBytes + bytes, forwarded);
    if (!room) why = room.error();
    if (room && (!best || disk->Available() > best->Available())) best = disk.get();
  }
  if (!best) return Fail(std::move(why));
  return best;
}

Result<std::shared_ptr<Replica>> ReplicaStore::FindOrCreate(ChunkId chunk, InstanceId instance, ChunkVersion version,
                                                            Disk& disk) {
  if (!chunk || !instance || !version) return Fail(ErrorCode::kInvalidArgument, "a new replica needs a chunk, a version and an instance");
  Shard& shard = ShardOf(chunk);
  std::lock_guard lock(shard.mutex);
  if (Entry* entry = FindEntry(shard, chunk, instance)) return TouchedReplica(ChunkId{chunk}, *entry);
  auto replica = std::make_shared<Replica>(chunk, instance, disk);
  replica->exists = false;
  replica->name_synced = false;
  replica->version = version;
  replica->order.Start(version);
  uint32_t index = 0;
  while (disks_[index].get() != &disk) ++index;
  shard.entries.emplace(chunk.value, Entry{instance, version, index, false, replica});
  disk.AddReplicas(1);
  return replica;
}

Status ReplicaStore::Add(std::shared_ptr<Replica> replica, std::unique_ptr<ReplicaFile> file) {
  {
    std::lock_guard lock(replica->mutex);
    replica->version = file->header().version;
    replica->file = std::move(file);
    replica->disk.AddCleanable(replica);
  }
  Shard& shard = ShardOf(replica->chunk);
  {
    std::lock_guard lock(shard.mutex);
    if (FindEntry(shard, replica->chunk, replica->instance)) {
      return Fail(ErrorCode::kExists, "there is a replica already: " + Describe(*replica));
    }
    uint32_t index = 0;
    while (disks_[index].get() != &replica->disk) ++index;
    shard.entries.emplace(replica->chunk.value, Entry{replica->instance, replica->version, index, false, replica,
                                                      replica->file->file().Number()});
  }
  replica->disk.AddReplicas(1);
  Opened(replica);
  return {};
}

void ReplicaStore::Erase(const Replica& replica) {
  replica.disk.RemoveDirty(replica);
  Shard& shard = ShardOf(replica.chunk);
  std::lock_guard lock(shard.mutex);
  auto [begin, end] = shard.entries.equal_range(replica.chunk.value);
  auto it = std::find_if(begin, end, [&](const auto& e) { return e.second.instance == replica.instance; });
  if (it == end) return;  // a drop that was repeated
  shard.entries.erase(it);
  replica.disk.AddReplicas(-1);
  std::lock_guard bad(bad_mutex_);
  bad_.erase(&replica);
}

void ReplicaStore::Forget(const std::shared_ptr<Replica>& replica) {
  {
    std::lock_guard lock(replica->mutex);
    CHECK(!replica->exists && !replica->applying);
    replica->dropped = true;
  }
  Erase(*replica);
}

std::optional<std::pair<ChunkId, InstanceId>> ReplicaStore::After(const Disk& disk, ChunkId chunk, InstanceId instance,
                                                                  bool first) const {
  std::optional<std::pair<ChunkId, InstanceId>> best;
  for (size_t i = first ? 0 : chunk.value & 0xff; i < shards_.size() && !best; ++i) {
    bool here = !first && i == (chunk.value & 0xff);
    std::lock_guard lock(shards_[i].mutex);
    for (const auto& [id, entry] : shards_[i].entries) {
      std::pair<ChunkId, InstanceId> place{ChunkId{id}, entry.instance};
      if (disks_[entry.disk].get() != &disk || (here && place <= std::pair(chunk, instance))) continue;
      if (!best || place < *best) best = place;
    }
  }
  return best;
}

bool ReplicaStore::Has(const Disk& disk, ChunkId chunk, InstanceId instance) const {
  const Shard& shard = shards_[chunk.value & 0xff];
  std::lock_guard lock(shard.mutex);
  auto [begin, end] = shard.entries.equal_range(chunk.value);
  return std::any_of(begin, end, [&](const auto& e) {
    return e.second.instance == instance && disks_[e.second.disk].get() == &disk;
  });
}

// Such a replica is as TouchedReplica makes it.
void ReplicaStore::LetGo(std::shared_ptr<Replica> replica) {
  std::shared_ptr<ReplicaFile> closing;  // closed when no lock is held
  std::lock_guard lock(mutex_);
  auto open = std::ranges::find(open_, replica);
  Shard& shard = ShardOf(replica->chunk);
  std::lock_guard shard_lock(shard.mutex);
  Entry* entry = FindEntry(shard, replica->chunk, replica->instance);
  if (!entry || entry->replica != replica) return;
  const long ours = 2 + (open != open_.end() ? 1 : 0);  // the index, the list of open files, the caller
  std::lock_guard replica_lock(replica->mutex);
  bool untouched = replica->exists && !replica->dropped && !replica->bad && !replica->order.known() &&
                   !replica->order.frozen() && !replica->applying && !replica->recovering && !replica->cleaning &&
                   replica->changes == 1 && replica->synced_changes == 0 && !replica->name_synced &&
                   replica->idle_waiters.empty() && (!replica->file || replica->file.use_count() == 1);
  if (replica.use_count() != ours || !untouched) return;
  closing = std::move(replica->file);
  if (open != open_.end()) open_.erase(open);
  entry->replica = nullptr;
}

void ReplicaStore::NoteVersion(const Replica& replica, ChunkVersion version) {
  Shard& shard = ShardOf(replica.chunk);
  std::lock_guard lock(shard.mutex);
  if (Entry* entry = FindEntry(shard, replica.chunk, replica.instance)) entry->version = version;
}

void ReplicaStore::MarkBad(const std::shared_ptr<Replica>& replica, const Error& why) {
  if (!Report(replica, why, false)) return;
  {
    Shard& shard = ShardOf(replica->chunk);
    std::lock_guard lock(shard.mutex);
    if (Entry* entry = FindEntry(shard, replica->chunk, replica->instance)) entry->bad = true;
  }
  replica->disk.RemoveDirty(*replica);  // whoever syncs next has the other copies
}

void ReplicaStore::MarkDamaged(const std::shared_ptr<Replica>& replica, const Error& why) { Report(replica, why, true); }

void ReplicaStore::Judge(const std::shared_ptr<Replica>& replica, const Error& why) {
  if (why.code == ErrorCode::kCorrupt) return MarkDamaged(replica, why);
  MarkBad(replica, why);
}

bool ReplicaStore::Report(const std::shared_ptr<Replica>& replica, const Error& why, bool damaged) {
  if (why.code == ErrorCode::kCorrupt) metrics_.corrupt_blocks.Add();
  replica->disk.Note(why);
  pb::ReplicaReport report;
  report.set_chunk(replica->chunk.value);
  report.set_instance(replica->instance.value);
  report.set_bad(true);
  report.set_damaged(damaged);
  {
    std::lock_guard lock(replica->mutex);
    if (replica->bad || replica->dropped || (damaged && replica->damaged)) return false;
    (damaged ? replica->damaged : replica->bad) = why;
    report.set_version(replica->version.value);
    std::lock_guard reports(bad_mutex_);
    bad_.insert_or_assign(replica.get(), std::pair(report, why));
  }
  metrics_.bad_replicas.Add();
  LogError("{} replica of {}: {} ({})", damaged ? "damaged" : "bad", Describe(*replica), why.message, ErrorName(why.code));
  if (sink_) sink_(report, why);
  return true;
}

bool ReplicaStore::Mend(const std::shared_ptr<Replica>& replica, ReplicaFile& file) {
  std::unique_lock io(replica->io);
  Result<uint32_t> mended = file.Mend(false);
  if (!mended) LogWarning("{} was not mended: {}", Describe(*replica), mended.error().message);
  if (!mended || *mended == 0) return false;
  LogWarning("{}: {} pages of header and table are again as they were", Describe(*replica), *mended);
  return true;
}

void ReplicaStore::ReportDoubt(const std::shared_ptr<Replica>& replica, const Error& why) {
  pb::ReplicaReport report;
  report.set_chunk(replica->chunk.value);
  report.set_instance(replica->instance.value);
  report.set_unsettled(true);
  {
    std::lock_guard lock(replica->mutex);
    bool doubted = replica->file && replica->file->doubted();
    if (!doubted || replica->bad || replica->damaged || replica->dropped) return;
    report.set_version(replica->version.value);
    std::lock_guard reports(bad_mutex_);
    if (!bad_.emplace(replica.get(), std::pair(report, why)).second) return;
  }
  LogWarning("{}: {}", Describe(*replica), why.message);
  if (sink_) sink_(report, why);
}

void ReplicaStore::Settled(Replica& replica) {
  std::lock_guard lock(replica.mutex);
  if (replica.bad || replica.damaged) return;
  std::lock_guard reports(bad_mutex_);
  bad_.erase(&replica);
}

ReplicaStore::BadReports ReplicaStore::bad_reports() const {
  std::lock_guard lock(bad_mutex_);
  BadReports reports;
  for (const auto& [replica, report] : bad_) reports.push_back(report);
  return reports;
}

std::vector<uint64_t> ReplicaStore::Digests() const {
  std::vector<uint64_t> digests(256, 0);
  for (size_t i = 0; i < shards_.size(); ++i) {
    std::lock_guard lock(shards_[i].mutex);
    for (const auto& [chunk, entry] : shards_[i].entries) {
      if (disks_[entry.disk]->failed()) continue;
      digests[i] += ReplicaDigest(ChunkId{chunk}, entry.version, entry.instance);
    }
  }
  return digests;
}

std::vector<pb::ReplicaReport> ReplicaStore::Bucket(uint32_t bucket) const {
  std::vector<pb::ReplicaReport> reports;
  const Shard& shard = shards_[bucket & 0xff];
  std::lock_guard lock(shard.mutex);
  for (const auto& [chunk, entry] : shard.entries) {
    if (disks_[entry.disk]->failed()) continue;
    pb::ReplicaReport& report = reports.emplace_back();
    report.set_chunk(chunk);
    report.set_version(entry.version.value);
    report.set_instance(entry.instance.value);
    report.set_bad(entry.bad);
  }
  return reports;
}

}  // namespace shoal
