#include "metaserver/backup/restore.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "common/log.h"
#include "common/proto/record.pb.h"
#include "metaserver/backup/state_db.h"
#include "metaserver/batch.h"
#include "metaserver/database.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatchBytes = 4 << 20;
constexpr uint32_t kHighestIncarnation = 0xffff;
constexpr uint32_t kServerGap = 1 << 16;  // more servers than that were not added since the backup
constexpr const char* kPartial = "db.restoring";

int64_t WallClock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status SyncPath(const std::string& path, int flags) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (fd < 0) return Fail(ErrnoError(errno, "opening " + path));
  int synced = ::fsync(fd), error = errno;
  ::close(fd);
  if (synced != 0) return Fail(ErrnoError(error, "syncing " + path));
  return {};
}

Status SyncTree(const std::string& dir) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    TRY(SyncPath(entry.path(), 0));
  }
  if (error) return Fail(ErrnoError(error.value(), "reading " + dir));
  return SyncPath(dir, O_DIRECTORY);
}

// What is in the way, by name.
Status CheckRoom(const RestoreOptions& options) {
  std::error_code error;
  fs::create_directories(options.dir, error);
  if (error) return Fail(ErrnoError(error.value(), "creating " + options.dir));
  bool state = fs::exists(options.dir + "/db", error);
  if (state && !options.move_aside) {
    return Fail(ErrorCode::kNotEmpty,
                fmt::format("{} has a metaserver's state already: it is not overwritten; with --move-aside "
                            "it is kept under another name",
                            options.dir));
  }
  for (const auto& entry : fs::directory_iterator(options.dir, error)) {
    std::string name = entry.path().filename();
    if (name == "db" || name.starts_with("db.") || name == "lock" || name == "lost+found" || name.starts_with(".") ||
        name.starts_with("check")) {
      continue;
    }
    return Fail(ErrorCode::kNotEmpty,
                fmt::format("{} has other things in it (\"{}\"): give a new or empty directory, or a "
                            "metaserver's",
                            options.dir, name));
  }
  if (error) return Fail(ErrnoError(error.value(), "reading " + options.dir));
  return {};
}

std::string Get(leveldb::DB* db, const Key& key) {
  std::string value;
  (void)db->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value);
  return value;
}

// The incarnation of a state that is going to be moved aside; 0 when it can't be read (that may be why it goes).
Result<uint32_t> IncarnationOf(const std::string& dir, const std::string& cluster) {
  TRY_ASSIGN(auto scratch, ScratchDirectory::Make(dir, "check"));
  auto state = StateDb::OpenCopy(dir + "/db", scratch->path());
  HeadRecords head;
  if (state) head.get = [&](const Key& key) { return Get((*state)->db(), key); };
  Result<BackupHeader> header = state ? HeaderOf(head) : Fail(state.error());
  if (!header) {
    LogWarning("the state in {} can't be read ({}): its incarnation is not known", dir, header.error().message);
    return 0;
  }
  if (header->cluster_uuid != cluster) {
    return Fail(ErrorCode::kWrongCluster, fmt::format("{} has the state of cluster {}, the backup is of cluster {}",
                                                      dir, header->cluster_uuid, cluster));
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

Status MoveAside(const std::string& dir, std::string* moved_to) {
  std::error_code error;
  if (!fs::exists(dir + "/db", error)) return {};
  auto now = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  std::string to = fmt::format("{}/db.before-restore-{:%Y%m%dT%H%M%SZ}", dir, now);
  for (int i = 2; fs::exists(to, error); ++i)
    to = fmt::format("{}/db.before-restore-{:%Y%m%dT%H%M%SZ}-{}", dir, now, i);
  if (::rename((dir + "/db").c_str(), to.c_str()) != 0)
    return Fail(ErrnoError(errno, "moving " + dir + "/db to " + to));
  *moved_to = to;
  return {};
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
  RestoreResult result;
  TRY_ASSIGN(auto reader, BackupReader::Open(RealFiles(), options.backup));
  result.header = reader->header();
  TRY(CheckHeader(result.header));
  TRY(CheckRoom(options));
  TRY_ASSIGN(auto lock, LockStateDirectory(options.dir));
  uint32_t highest = std::max(result.header.incarnation, options.incarnation_above);
  if (HasState(options.dir)) {
    TRY_ASSIGN(uint32_t before, IncarnationOf(options.dir, result.header.cluster_uuid));
    highest = std::max(highest, before);
  }
  if (highest >= kHighestIncarnation) return Fail(ErrorCode::kTooLarge, "the incarnations of this cluster are used up");
  result.incarnation = highest + 1;

  const std::string partial = options.dir + "/" + kPartial;
  std::error_code error;
  fs::remove_all(partial, error);
  if (error) return Fail(ErrnoError(error.value(), "removing " + partial));
  Status written;
  {
    TRY_ASSIGN(auto state, StateDb::Open(partial, StateDb::Mode::kNew));
    written = Restorer(*reader, *state, result).Run(options);
  }
  if (written) written = SyncTree(partial);
  if (!written) {
    fs::remove_all(partial, error);
    return Fail(written.error());
  }
  TRY(MoveAside(options.dir, &result.moved_to));
  if (::rename(partial.c_str(), (options.dir + "/db").c_str()) != 0) {
    return Fail(ErrnoError(errno, "naming the new state " + options.dir + "/db"));
  }
  TRY(SyncPath(options.dir, O_DIRECTORY));
  fs::path parent = fs::absolute(options.dir, error).lexically_normal();
  if (!parent.has_filename()) parent = parent.parent_path();
  TRY(SyncPath(parent.parent_path(), O_DIRECTORY));
  return result;
}

}  // namespace shoal::meta
