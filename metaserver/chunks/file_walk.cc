#include "metaserver/chunks/file_walk.h"

#include <fmt/format.h>
#include <leveldb/db.h>
#include <sys/stat.h>

#include <memory>

#include "common/limits.h"
#include "common/log.h"

namespace shoal::meta {
namespace {

constexpr size_t kMaxSeen = 1'000'000;

leveldb::Slice SliceOf(const Key& key) { return {key.view().data(), key.view().size()}; }
std::string_view ViewOf(const leveldb::Slice& slice) { return {slice.data(), slice.size()}; }

bool Within(const leveldb::Iterator& it, const Key& end) { return it.Valid() && ViewOf(it.key()) < end.view(); }

template <typename T>
Status Parse(const leveldb::Iterator& it, T* record) {
  if (record->ParseFromArray(it.value().data(), static_cast<int>(it.value().size()))) return {};
  return Fail(ErrorCode::kCorrupt, Key::FromBytes(ViewOf(it.key())).ToString() + " can't be parsed");
}

}  // namespace

FileWalk::FileWalk(leveldb::DB* db, InodeId start) : db_(db), snapshot_(db->GetSnapshot()), start_(start) {}

FileWalk::~FileWalk() { db_->ReleaseSnapshot(snapshot_); }

template <typename T>
Result<bool> FileWalk::Read(const Key& key, T* record) {
  leveldb::ReadOptions read;
  read.snapshot = snapshot_;
  std::string value;
  leveldb::Status status = db_->Get(read, SliceOf(key), &value);
  if (status.IsNotFound()) return false;
  if (!status.ok()) return Fail(ErrorCode::kIo, key.ToString() + ": " + status.ToString());
  if (!record->ParseFromString(value)) return Fail(ErrorCode::kCorrupt, key.ToString() + " can't be parsed");
  return true;
}

Status FileWalk::Step(WalkVisitor& visitor, size_t steps) {
  if (!started_) {
    started_ = true;
    TRY(Enter(start_, visitor));
  }
  leveldb::ReadOptions read;
  read.snapshot = snapshot_;
  std::unique_ptr<leveldb::Iterator> entries(db_->NewIterator(read)), extents(db_->NewIterator(read));
  for (size_t i = 0; i < steps && !done_ && !visitor.Full(); i++) {
    if (file_) {
      TRY(NextChunk(*extents, visitor));
    } else if (!frames_.empty()) {
      TRY(NextEntry(*entries, visitor));
    } else {
      done_ = true;
    }
  }
  done_ |= !file_ && frames_.empty();
  for (const auto* it : {entries.get(), extents.get()}) {
    if (!it->status().ok()) return Fail(ErrorCode::kIo, "reading metadata: " + it->status().ToString());
  }
  return {};
}

// path_ is its path.
Status FileWalk::Enter(InodeId inode, WalkVisitor& visitor) {
  pb::InodeRecord record;
  TRY_ASSIGN(bool found, Read(InodeKey(inode), &record));
  if (!found) {
    LogWarning("the entry \"{}\" names inode {:x}, which does not exist; run `shoal meta check`", path_, inode.value);
    return {};
  }
  if (S_ISDIR(record.mode())) {
    directories_++;
    frames_.push_back({inode, path_.size(), Key(KeyKind::kDentry, inode.value)});
    return {};
  }
  bool again = record.nlink() > 1 &&
               (seen_.contains(inode.value) || (seen_.size() < kMaxSeen && !seen_.insert(inode.value).second));
  if (again) return {};
  if (!S_ISREG(record.mode())) {
    others_++;
    return {};
  }
  visitor.BeginFile(path_, inode, record);
  if (record.extents() == 0) {
    visitor.EndFile();
    return {};
  }
  file_ = inode;
  file_size_ = record.size();
  next_extent_ = Key(KeyKind::kExtent, inode.value);
  return {};
}

Status FileWalk::NextEntry(leveldb::Iterator& it, WalkVisitor& visitor) {
  Frame& frame = frames_.back();
  path_.resize(frame.path);
  it.Seek(SliceOf(frame.next));
  if (!Within(it, Key(KeyKind::kDentry, frame.inode.value).PrefixEnd())) {
    frames_.pop_back();
    return {};
  }
  pb::DentryBucket bucket;
  TRY(Parse(it, &bucket));
  Key here = Key::FromBytes(ViewOf(it.key()));
  if (!(here == frame.next)) frame.in_bucket = 0;
  if (frame.in_bucket >= bucket.entries_size()) {
    frame.next = Key(KeyKind::kDentry, frame.inode.value, here.number(1) + 1);
    frame.in_bucket = 0;
    return {};
  }
  frame.next = here;
  const pb::DentryRecord& entry = bucket.entries(frame.in_bucket++);
  if (!path_.empty()) path_ += '/';
  path_ += entry.name();
  return Enter(InodeId(entry.inode()), visitor);
}

Status FileWalk::NextChunk(leveldb::Iterator& it, WalkVisitor& visitor) {
  it.Seek(SliceOf(next_extent_));
  Key end = Key(KeyKind::kExtent, file_.value).PrefixEnd();
  uint64_t index = Within(it, end) ? Key::FromBytes(ViewOf(it.key())).number(1) : 0;
  if (!Within(it, end) || index * kChunkSize >= file_size_) {
    file_ = {};
    visitor.EndFile();
    return {};
  }
  pb::ExtentRecord extent;
  TRY(Parse(it, &extent));
  pb::ChunkRecord record;
  TRY_ASSIGN(bool found, Read(ChunkKey(ChunkId(extent.chunk())), &record));
  if (!found) record.set_written(true);  // and without any copy
  visitor.Chunk(index, ChunkId(extent.chunk()), record);
  next_extent_ = ExtentKey(file_, index + 1);
  return {};
}

}  // namespace shoal::meta
