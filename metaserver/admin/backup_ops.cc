#include "metaserver/admin/backup_ops.h"

#include <fmt/format.h>
#include <leveldb/db.h>

#include <random>

#include "common/log.h"

namespace shoal::meta {
namespace {

constexpr size_t kMaxHeld = 8;
constexpr size_t kPieceBytes = 1 << 20, kPieceRecords = 20000;
constexpr Duration kIdle = 60s, kTick = 5s;

// On the pool's thread.
Status ReadPiece(leveldb::DB* db, const leveldb::Snapshot* snapshot, const std::string& after,
                 pb::MetaBackupReadResponse* out) {
  leveldb::ReadOptions options;
  options.snapshot = snapshot;
  options.fill_cache = false;
  options.verify_checksums = true;
  std::unique_ptr<leveldb::Iterator> it(db->NewIterator(options));
  if (after.empty()) {
    it->SeekToFirst();
  } else {
    it->Seek(after);
    if (it->Valid() && it->key() == leveldb::Slice(after)) it->Next();
  }
  size_t bytes = 0;
  for (size_t records = 0; it->Valid() && bytes < kPieceBytes && records < kPieceRecords; it->Next(), ++records) {
    pb::MetaRecord* record = out->add_records();
    record->set_key(it->key().data(), it->key().size());
    record->set_value(it->value().data(), it->value().size());
    bytes += it->key().size() + it->value().size() + 16;
  }
  out->set_end(!it->Valid());
  if (it->status().ok()) return {};
  return Fail(ErrorCode::kCorrupt, "the metadata can't be read: " + it->status().ToString());
}

}  // namespace

BackupOps::BackupOps(MetaContext& context, leveldb::DB* db, ReaderPool& pool)
    : context_(context), db_(db), pool_(pool) {}

BackupOps::~BackupOps() {
  for (auto& [id, held] : held_) db_->ReleaseSnapshot(held.snapshot);
}

void BackupOps::Register() {
  using namespace std::placeholders;
  Driver& driver = *context_.driver;
  driver.OnTask<pb::MetaBackupOpenRequest, pb::MetaBackupOpenResponse>(pb::META_BACKUP_OPEN,
                                                                       std::bind(&BackupOps::Open, this, _1, _2, _3));
  driver.OnTask<pb::MetaBackupReadRequest, pb::MetaBackupReadResponse>(pb::META_BACKUP_READ,
                                                                       std::bind(&BackupOps::Read, this, _1, _2, _3));
  driver.OnTask<pb::MetaBackupCloseRequest, pb::MetaBackupCloseResponse>(
      pb::META_BACKUP_CLOSE, std::bind(&BackupOps::Close, this, _1, _2, _3));
  Arm();
}

void BackupOps::Arm() {
  timer_ = context_.loop.RunAfter(kTick, [this] {
    GiveUpIdle(kIdle);
    Arm();
  });
}

void BackupOps::Stop() {
  timer_.reset();
  GiveUpIdle(Duration{});
}

void BackupOps::GiveUpIdle(Duration idle) {
  auto now = std::chrono::steady_clock::now();
  std::erase_if(held_, [&](auto& entry) {
    if (entry.second.reading > 0 || now - entry.second.used < idle) return false;
    db_->ReleaseSnapshot(entry.second.snapshot);
    return true;
  });
}

Task<Result<TxnId>> BackupOps::Open(CallInfo, const pb::MetaBackupOpenRequest&, pb::MetaBackupOpenResponse& response) {
  if (held_.size() >= kMaxHeld) {
    co_return Fail(ErrorCode::kBusy, fmt::format("{} backups are being made already: try again later", held_.size()));
  }
  static thread_local std::mt19937_64 random{std::random_device{}()};
  uint64_t id = random() | 1;
  held_[id] = {db_->GetSnapshot(), std::chrono::steady_clock::now(), 0};
  const std::string begin(1, '\0'), end(1, '\xff');
  leveldb::Range all(begin, end);
  uint64_t bytes = 0;
  db_->GetApproximateSizes(&all, 1, &bytes);
  response.set_id(id);
  response.set_estimated_bytes(bytes);
  LogInfo("a copy of the metadata is being read, as of transaction {}", context_.commit->logged().value);
  co_return TxnId();
}

Task<Result<TxnId>> BackupOps::Read(CallInfo, const pb::MetaBackupReadRequest& request,
                                    pb::MetaBackupReadResponse& response) {
  auto it = held_.find(request.id());
  if (it == held_.end()) {
    co_return Fail(ErrorCode::kNotFound,
                   "this copy was given up (the metaserver was started again, or nobody read for a minute): "
                   "begin anew");
  }
  Held& held = it->second;  // stays while it is being read
  ++held.reading;
  OneShot<Status> done(context_.loop);
  pool_.Run([this, snapshot = held.snapshot, &request, &response, &done] {
    auto status = std::make_shared<Status>(ReadPiece(db_, snapshot, request.after(), &response));
    context_.loop.Post([&done, status] { done.Set(std::move(*status)); });
  });
  Status read = co_await done;
  --held.reading;
  held.used = std::chrono::steady_clock::now();
  if (!read) co_return Fail(read.error());
  co_return TxnId();
}

Task<Result<TxnId>> BackupOps::Close(CallInfo, const pb::MetaBackupCloseRequest& request,
                                     pb::MetaBackupCloseResponse&) {
  auto it = held_.find(request.id());
  if (it != held_.end() && it->second.reading == 0) {
    db_->ReleaseSnapshot(it->second.snapshot);
    held_.erase(it);
  }
  co_return TxnId();
}

}  // namespace shoal::meta
