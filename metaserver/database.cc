#include "metaserver/database.h"

#include <fmt/format.h>
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

#include "common/log.h"
#include "metaserver/batch.h"
#include "metaserver/keys.h"
#include "metaserver/log_check.h"

namespace shoal::meta {
namespace {

constexpr size_t kBlockCache = 64 << 20;
constexpr int kBloomBits = 10;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string RandomUuid() {
  uint8_t b[16];
  CHECK(::getrandom(b, sizeof b, 0) == sizeof b);
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  std::string text;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", b[i]);
  }
  return text;
}

Status Translate(const leveldb::Status& status, const std::string& dir) {
  if (status.ok()) return {};
  std::string text = status.ToString();
  if (text.find("LOCK") != std::string::npos || text.find("lock") != std::string::npos) {
    return Fail(ErrorCode::kBusy, fmt::format("{} is in use by another metaserver ({}); stop that one first", dir, text));
  }
  if (status.IsCorruption()) {
    return Fail(ErrorCode::kCorrupt,
                fmt::format("the metadata in {} is damaged: {}; run `shoal meta check` or restore a backup", dir, text));
  }
  return Fail(ErrorCode::kIo, fmt::format("opening the metadata in {}: {}", dir, text));
}

// A directory that holds something else is not for us. New ones are durable before anything in them can be.
Status PrepareDirectory(Files& files, const std::string& dir) {
  TRY(MakeDirectories(files, dir));
  TRY_ASSIGN(bool used, files.Exists(dir + "/db/CURRENT"));
  if (!used) {
    TRY_ASSIGN(std::vector<std::string> names, files.List(dir));
    for (const std::string& name : names) {
      if (name == "db" || name == "lock" || name == "lost+found" || name.starts_with(".")) continue;
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} has no metadata but other things in it (\"{}\"): give an empty or new directory", dir, name));
    }
  }
  return {};
}

Result<std::unique_ptr<File>> LockDirectory(Files& files, const std::string& dir) {
  Result<std::unique_ptr<File>> lock = files.Lock(dir + "/lock");
  if (lock) return lock;
  if (lock.error().code == ErrorCode::kBusy) {
    return Fail(ErrorCode::kBusy, dir + " is in use by another metaserver; stop that one first");
  }
  return Fail(lock.error().code, fmt::format("the data directory {} can't be used (check its owner and mode): {}", dir,
                                             lock.error().message));
}

Status ReadRecord(leveldb::DB* db, const Key& key, Message* into, bool* found) {
  std::string value;
  leveldb::Status status = db->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value);
  *found = status.ok();
  if (status.IsNotFound()) return {};
  if (!status.ok()) return Fail(ErrorCode::kIo, key.ToString() + ": " + status.ToString());
  if (!into->ParseFromString(value)) return Fail(ErrorCode::kCorrupt, key.ToString() + " can't be parsed");
  return {};
}

}  // namespace

Database::Database(const MetaServerOptions& options) : dir_(options.data_dir + "/db"), log_(dir_, options.files) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::Open(const MetaServerOptions& options) {
  if (options.data_dir.empty()) return Fail(ErrorCode::kInvalidArgument, "no data directory is given");
  Files& files = *options.files.files;
  TRY(PrepareDirectory(files, options.data_dir));
  std::unique_ptr<Database> database(new Database(options));
  TRY_ASSIGN(database->lock_, LockDirectory(files, options.data_dir));
  const std::string& dir = database->dir_;
  TRY(MakeDirectories(files, dir));
  TRY(CheckLogs(dir, options.files));
  TRY(database->OpenLevelDb(options.write_buffer_bytes));
  TRY(database->ReadHead());
  if (database->cluster_.format() == 0) {
    if (!database->Empty()) {
      return Fail(ErrorCode::kCorrupt, dir + " is a LevelDB without a Shoal cluster record: it is not a metaserver's");
    }
    TRY(database->CreateFileSystem(options));
  }
  if (database->cluster_.format() > kFormat) {
    return Fail(ErrorCode::kNotSupported,
                fmt::format("the metadata in {} has format {}, this program knows formats up to {}: use a newer version",
                            dir, database->cluster_.format(), kFormat));
  }
  if (!options.cluster_uuid.empty() && options.cluster_uuid != database->cluster_.uuid()) {
    return Fail(ErrorCode::kWrongCluster, fmt::format("{} belongs to cluster {}, not to {}", dir,
                                                      database->cluster_.uuid(), options.cluster_uuid));
  }
  return database;
}

Status Database::OpenLevelDb(size_t write_buffer_bytes) {
  filter_.reset(leveldb::NewBloomFilterPolicy(kBloomBits));
  cache_.reset(leveldb::NewLRUCache(kBlockCache));
  leveldb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.env = log_.env();
  options.write_buffer_size = write_buffer_bytes;
  options.max_file_size = 8 << 20;
  options.max_open_files = 1000;
  options.block_cache = cache_.get();
  options.filter_policy = filter_.get();
  options.compression = leveldb::kNoCompression;
  leveldb::DB* db = nullptr;
  leveldb::Status status = leveldb::DB::Open(options, dir_, &db);
  db_.reset(db);
  return Translate(status, dir_);
}

Status Database::ReadHead() {
  bool found;
  TRY(ReadRecord(db_.get(), ClusterKeyOf(), &cluster_, &found));
  if (!found) return {};
  if (cluster_.format() > kFormat) return {};  // refused by name by the caller
  TRY(ReadRecord(db_.get(), LifeKey(), &life_, &found));
  if (!found) return Fail(ErrorCode::kCorrupt, dir_ + " has no life record; restore a backup");
  TRY(ReadRecord(db_.get(), IdRangesKey(), &ids_, &found));
  if (!found) return Fail(ErrorCode::kCorrupt, dir_ + " has no id ranges; restore a backup");
  TRY(ReadRecord(db_.get(), CommitKey(), &last_, &found));
  if (!found) return Fail(ErrorCode::kCorrupt, dir_ + " has no commit record; restore a backup");
  return {};
}

bool Database::Empty() {
  std::unique_ptr<leveldb::Iterator> it(db_->NewIterator(leveldb::ReadOptions()));
  it->SeekToFirst();
  return !it->Valid();
}

Status Database::CreateFileSystem(const MetaServerOptions& options) {
  int64_t now = NowNs();
  uint64_t seed;
  CHECK(::getrandom(&seed, sizeof seed, 0) == sizeof seed);
  cluster_.set_format(kFormat);
  cluster_.set_uuid(options.cluster_uuid.empty() ? RandomUuid() : options.cluster_uuid);
  cluster_.set_hash_seed(seed);
  cluster_.set_created_ns(now);
  cluster_.set_default_copies(options.replicas);
  life_.set_incarnation(1);
  ids_.set_inode(2);
  last_.set_txn(1);
  last_.set_inodes(1);
  pb::InodeRecord root;
  root.set_mode(S_IFDIR | 0755);
  root.set_nlink(2);
  root.set_uid(options.root_uid.value_or(::geteuid()));
  root.set_gid(options.root_gid.value_or(::getegid()));
  root.set_size(kBlockSize);
  root.set_atime_ns(now);
  root.set_mtime_ns(now);
  root.set_ctime_ns(now);
  root.set_btime_ns(now);
  root.set_change(1);
  root.set_copies(options.replicas);
  root.set_parent(kRootInode.value);
  leveldb::WriteBatch batch;
  PutRecord(&batch, ClusterKeyOf(), cluster_);
  PutRecord(&batch, LifeKey(), life_);
  PutRecord(&batch, IdRangesKey(), ids_);
  PutRecord(&batch, CommitKey(), last_);
  PutRecord(&batch, InodeKey(kRootInode), root);
  leveldb::WriteOptions write;
  write.sync = true;
  TRY(Translate(db_->Write(write, &batch), dir_));
  LogInfo("made a new file system in {}: cluster {}, {} copies", dir_, cluster_.uuid(), options.replicas);
  return {};
}

}  // namespace shoal::meta
