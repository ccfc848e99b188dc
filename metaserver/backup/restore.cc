#include "metaserver/backup/restore.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>
#include <sys/random.h>

#include <algorithm>
#include <chrono>

#include "common/files.h"
#include "common/log.h"
#include "common/proto/record.pb.h"
#include "metaserver/backup/state_db.h"
#include "metaserver/batch.h"
#include "metaserver/database.h"

namespace shoal::meta {
namespace {

constexpr size_t kBatchBytes = 4 << 20;
constexpr uint32_t kHighestIncarnation = 0xffff;
constexpr uint32_t kServerGap = 1 << 16;  // more servers than that were not added since the backup
constexpr const char* kPartial = "db.restoring";
constexpr const char* kAside = "db.before-restore-";

int64_t WallClock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status SyncTree(Files& files, const std::string& dir) {
  TRY_ASSIGN(std::vector<std::string> names, files.List(dir));
  for (const std::string& name : names) {
    TRY_ASSIGN(auto file, files.Open(dir + "/" + name, Files::Mode::kRead));
    TRY(file->SyncData());
  }
  return files.SyncDirectory(dir);
}

// What is in the way, by name.
Status CheckRoom(const RestoreOptions& options) {
  Files& files = *options.files.files;
  TRY(MakeDirectories(files, options.dir));
  TRY_ASSIGN(bool state, files.Exists(options.dir + "/db"));
  if (state && !options.move_aside) {
    return Fail(ErrorCode::kNotEmpty,
                fmt::format("{} has a metaserver's state already: it is not overwritten; with --move-aside "
                            "it is kept under another name",
                            options.dir));
  }
  TRY_ASSIGN(std::vector<std::string> names, files.List(options.dir));
  for (const std::string& name : names) {
    if (name == "db" || name.starts_with("db.") || name == "lock" || name == "lost+found" || name.starts_with(".") ||
        name.starts_with("check")) {
      continue;
    }
    return Fail(ErrorCode::kNotEmpty,
                fmt::format("{} has other things in it (\"{}\"): give a new or empty directory, or a "
                            "metaserver's",
                            options.dir, name));
  }
  return {};
}

std::string Get(leveldb::DB* db, const Key& key) {
  std::string value;
  (void)db->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value);
  return value;
}

// The state that there is, or was until a restore that was interrupted; "": none.
Result<std::string> StateThatGoes(const RestoreOptions& options) {
  if (HasState(options.dir, *options.files.files)) return options.dir + "/db";
  TRY_ASSIGN(std::vector<std::string> names, options.files.files->List(options.dir));
  std::erase_if(names, [](const std::string& name) { return !name.starts_with(kAside); });
  auto last = std::max_element(names.begin(), names.end());
  return last == names.end() ? std::string() : options.dir + "/" + *last;
}

// The incarnation of that state; 0 when it can't be read (that may be why it goes).
Result<uint32_t> IncarnationOf(const std::string& db, const std::string& cluster, const RestoreOptions& options) {
  Files& files = *options.files.files;
  const std::string scratch = options.dir + "/check-restore";
  TRY(RemoveTree(files, scratch));
  TRY(files.CreateDirectory(scratch));
  Result<BackupHeader> header = Fail(ErrorCode::kIo);
  {
    auto state = StateDb::OpenCopy(db, scratch, options.files);
    HeadRecords head;
    if (state) head.get = [&](const Key& key) { return Get((*state)->db(), key); };
    header = state ? HeaderOf(head) : Fail(state.error());
  }
  TRY(RemoveTree(files, scratch));
  if (!header) {
    LogWarning("the state in {} can't be read ({}): its incarnation is not known", db, header.error().message);
    return 0;
  }
  if (header->cluster_uuid != cluster) {
    return Fail(ErrorCode::kWrongCluster, fmt::format("{} has the state of cluster {}, the backup is of cluster {}",
                                                      options.dir, header->cluster_uuid, cluster));
  }
  return header->incarnation;
}

// Copies a backup's records into a new database, changed as a restore changes them.
class Restorer {
 public:
  Restorer(BackupReader& reader, StateDb& state, RestoreResult& result)
      : reader_(reader), state_(state), result_(result) {}

  Status Run(const RestoreOptions& options) {
    std::string key, value;
    for (;;) {
      TRY_ASSIGN(bool more, reader_.Next(&key, &value));
      if (!more) break;
      TRY(Take(Key::FromBytes(key), value));
      if (batch_.ApproximateSize() >= kBatchBytes) {
        TRY(Write(false));
        if (options.progress) options.progress(reader_.so_far().bytes, reader_.file_bytes());
      }
    }
    result_.trailer = reader_.so_far();
    TRY(PutHead());
    TRY(Write(true));
    return state_.Sync();
  }

 private:
  std::unexpected<Error> Bad(const Key& key) const {
    return Fail(ErrorCode::kCorrupt, key.ToString() + " in the backup can't be understood; use another backup");
  }

  Status Take(const Key& key, const std::string& value) {
    if (key.empty()) return Fail(ErrorCode::kCorrupt, "a key in the backup can't be understood; use another backup");
    switch (key.kind()) {
      case KeyKind::kCommit:
        return commit_.ParseFromString(value) ? Status() : Bad(key);
      case KeyKind::kLife:
        return life_.ParseFromString(value) ? Status() : Bad(key);
      case KeyKind::kIdRanges:
        return ids_.ParseFromString(value) ? Status() : Bad(key);
      case KeyKind::kSession:
        return EndSession(key, value);
      case KeyKind::kSlot:
        return {};  // nobody comes back to ask for an answer
      case KeyKind::kServer:
        return PutServer(key, value);
      default:
        batch_.Put({key.view().data(), key.view().size()}, value);
        return {};
    }
  }

  // Chunks may name it as a writer: its last writes are fenced by a recovery, as those of a client that went silent.
  Status EndSession(const Key& key, const std::string& value) {
    pb::SessionRecord session;
    if (!session.ParseFromString(value)) return Bad(key);
    result_.sessions += !session.lapsed();
    pb::SessionRecord ended;
    ended.set_lapsed(true);
    PutRecord(&batch_, key, ended);
    return {};
  }

  // Its process may be the one that the backup knows, but what it was told since is not known: as if it were another.
  Status PutServer(const Key& key, const std::string& value) {
    pb::ServerRecord server;
    if (!server.ParseFromString(value)) return Bad(key);
    server.clear_start_id();
    result_.servers += !server.removed();
    PutRecord(&batch_, key, server);
    return {};
  }

  Status PutHead() {
    const uint64_t incarnation = result_.incarnation;
    if (life_.incarnation() != reader_.header().incarnation || commit_.txn() != reader_.header().txn) {
      return Fail(ErrorCode::kCorrupt, "the backup's header is of another state than its records; use another backup");
    }
    life_.set_incarnation(result_.incarnation);
    life_.set_restored_incarnation(result_.incarnation);
    life_.set_restored_ns(WallClock());
    life_.set_restored_txn(commit_.txn());
    uint64_t id = 0;
    while (id == 0) CHECK(::getrandom(&id, sizeof id, 0) == sizeof id);
    life_.set_id(id);
    // Inodes, chunks, instances and sessions carry the incarnation. The others must lie above all that were given.
    ids_.set_order(std::max<uint64_t>(ids_.order(), incarnation << 48));
    ids_.set_lease(std::max<uint64_t>(ids_.lease(), incarnation << 48));
    if (ids_.server() + kServerGap > UINT32_MAX)
      return Fail(ErrorCode::kTooLarge, "the numbers of servers are used up");
    ids_.set_server(ids_.server() + kServerGap);
    commit_.set_txn(commit_.txn() + 1);
    commit_.clear_previous();
    commit_.clear_hand_in_above();
    commit_.set_durable(commit_.txn());
    PutRecord(&batch_, LifeKey(), life_);
    PutRecord(&batch_, IdRangesKey(), ids_);
    PutRecord(&batch_, CommitKey(), commit_);
    return {};
  }

  Status Write(bool sync) {
    leveldb::WriteOptions options;
    options.sync = sync;
    leveldb::Status written = state_.db()->Write(options, &batch_);
    batch_.Clear();
    if (!written.ok()) return Fail(ErrorCode::kIo, "writing the new state: " + written.ToString());
    return {};
  }

  BackupReader& reader_;
  StateDb& state_;
  RestoreResult& result_;
  leveldb::WriteBatch batch_;
  pb::CommitRecord commit_;
  pb::LifeRecord life_;
  pb::IdRanges ids_;
};

Result<std::string> MoveAside(Files& files, const std::string& dir) {
  TRY_ASSIGN(bool there, files.Exists(dir + "/db"));
  if (!there) return std::string();
  auto now = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  const std::string name = fmt::format("{}/{}{:%Y%m%dT%H%M%SZ}", dir, kAside, now);
  std::string to = name;
  for (int i = 2;; ++i) {
    TRY_ASSIGN(bool taken, files.Exists(to));
    if (!taken) break;
    to = fmt::format("{}-{}", name, i);
  }
  TRY(files.Rename(dir + "/db", to));
  return to;
}

Status CheckHeader(const BackupHeader& header) {
  if (header.state_format <= kFormat) return {};
  return Fail(ErrorCode::kNotSupported,
              fmt::format("the backup's metadata has format {}, this program knows formats up to {}: use a "
                          "newer version",
                          header.state_format, kFormat));
}

}  // namespace

Result<RestoreResult> Restore(const RestoreOptions& options) {
  Files& files = *options.files.files;
  RestoreResult result;
  TRY_ASSIGN(auto reader, BackupReader::Open(files, options.backup));
  result.header = reader->header();
  TRY(CheckHeader(result.header));
  TRY(CheckRoom(options));
  TRY_ASSIGN(auto lock, LockStateDirectory(options.dir, files));
  uint32_t highest = std::max(result.header.incarnation, options.incarnation_above);
  TRY_ASSIGN(std::string goes, StateThatGoes(options));
  if (!goes.empty()) {
    TRY_ASSIGN(uint32_t before, IncarnationOf(goes, result.header.cluster_uuid, options));
    highest = std::max(highest, before);
  }
  if (highest >= kHighestIncarnation) return Fail(ErrorCode::kTooLarge, "the incarnations of this cluster are used up");
  result.incarnation = highest + 1;

  const std::string partial = options.dir + "/" + kPartial;
  TRY(RemoveTree(files, partial));
  Status written;
  {
    TRY_ASSIGN(auto state, StateDb::Open(partial, StateDb::Mode::kNew, options.files));
    written = Restorer(*reader, *state, result).Run(options);
  }
  if (written) written = SyncTree(files, partial);
  if (!written) {
    (void)RemoveTree(files, partial);
    return Fail(written.error());
  }
  TRY_ASSIGN(result.moved_to, MoveAside(files, options.dir));
  TRY(files.Rename(partial, options.dir + "/db"));
  TRY(files.SyncDirectory(options.dir));
  return result;
}

}  // namespace shoal::meta
