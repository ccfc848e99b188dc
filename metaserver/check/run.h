// CheckRun: what the invariants of the metadata share while one state is checked.
#pragma once

#include <leveldb/db.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/proto/admin.pb.h"
#include "common/proto/record.pb.h"
#include "common/result.h"
#include "metaserver/keys.h"
#include "metaserver/store.h"

namespace shoal::meta {

// A change that mends a record: gets what stands there now (empty: nothing), says what shall stand there (empty:
// nothing).
using Mend = std::function<std::string(const std::string& value)>;

// How far a check has come; written by its thread, read by any.
struct CheckProgress {
  std::atomic<uint64_t> records{0};
  std::atomic<uint64_t> estimated{0};
  std::atomic<const char*> phase{"starting"};
  std::atomic<bool> stop{false};
};

// What a check found, and what it counted. A plain value.
struct CheckResult {
  struct Mending {
    Key key;
    Mend mend;
  };
  uint64_t problems = 0;
  std::vector<pb::MetaFinding> findings;  // the first ones
  std::vector<Mending> mends;
  std::string cluster_uuid;
  uint32_t incarnation = 0;
  uint64_t txn = 0;
  uint64_t inodes = 0, names = 0, chunks = 0, replicas = 0;
};

class CheckRun;

// All records of one kind (or of one kind and first number), in the order of their keys. A record that can't be parsed
// is passed over: CheckRecords tells of it. One thread; the run outlives it.
template <typename T>
class Cursor {
 public:
  Cursor(CheckRun& run, const Key& prefix);
  bool valid() const { return valid_; }
  const Key& key() const { return key_; }
  const T& record() const { return record_; }
  void Next();
  // Whether it has come to an end because of an error.
  Status status() const;

 private:
  void Load();
  CheckRun& run_;
  std::unique_ptr<leveldb::Iterator> it_;
  std::string end_;
  Key key_;
  T record_;
  bool valid_ = false;
};

// One check of one state. Reads through a snapshot; what has to be sorted in another order goes through a LevelDB in a
// scratch directory, so that memory is bounded. Owner: CheckState; one thread.
class CheckRun {
 public:
  CheckRun(leveldb::DB* db, const leveldb::Snapshot* snapshot, leveldb::DB* scratch, CheckProgress& progress)
      : db_(db), snapshot_(snapshot), scratch_(scratch), progress_(progress) {}

  // Null: there is none. One that can't be parsed counts as none.
  template <typename T>
  Result<std::optional<T>> Get(const Key& key) {
    std::string value;
    leveldb::ReadOptions options;
    options.snapshot = snapshot_;
    leveldb::Status status = db_->Get(options, {key.view().data(), key.view().size()}, &value);
    T record;
    if (status.IsNotFound() || (status.ok() && !record.ParseFromString(value))) return std::optional<T>();
    if (!status.ok()) return Fail(ErrorCode::kIo, "reading " + key.ToString() + ": " + status.ToString());
    return std::optional<T>(std::move(record));
  }

  // One more problem. `check`: the name of the invariant; `next`: what to do about it.
  void Problem(const char* check, const Key& where, std::string what, const char* next);
  // One that is mended by a change of the record there.
  void Mendable(const char* check, const Key& where, std::string what, const Key& key, Mend mend);
  // A mend that sets a field.
  template <typename T>
  static Mend Edit(std::function<void(T&)> edit) {
    return [edit = std::move(edit)](const std::string& value) {
      T record;
      if (!record.ParseFromString(value)) return value;
      edit(record);
      return record.SerializeAsString();
    };
  }

  // Counts a record that was looked at; kCancelled when the check shall end.
  Status Step() {
    progress_.records.fetch_add(1, std::memory_order_relaxed);
    if (progress_.stop.load(std::memory_order_relaxed)) return Fail(ErrorCode::kCancelled, "the check was stopped");
    return {};
  }
  void Phase(const char* name) { progress_.phase.store(name); }

  // Names sorted by the inode that they name.
  Status AddName(InodeId inode, InodeId parent, uint64_t cookie, uint32_t type);

  leveldb::DB* db() { return db_; }
  leveldb::DB* scratch() { return scratch_; }
  const leveldb::Snapshot* snapshot() { return snapshot_; }
  CheckProgress& progress() { return progress_; }

  // The head records, read before the invariants.
  pb::ClusterRecord cluster;
  pb::LifeRecord life;
  pb::IdRanges ids;
  pb::CommitRecord commit;
  uint32_t hash_bits = 55;
  // Counted on the way.
  int64_t inodes = 0, file_bytes = 0, chunks = 0;
  CheckResult result;

 private:
  pb::MetaFinding* Note(const char* check, const Key& where, std::string what);
  leveldb::DB* db_;
  const leveldb::Snapshot* snapshot_;
  leveldb::DB* scratch_;
  CheckProgress& progress_;
};

// A name in the scratch database. A plain value.
struct SortedName {
  InodeId inode, parent;
  uint64_t cookie = 0;
  uint32_t type = 0;
};

// The names in the order of the inodes that they name. One thread.
class NameCursor {
 public:
  explicit NameCursor(CheckRun& run);
  bool valid() const { return it_->Valid(); }
  const SortedName& name() const { return name_; }
  void Next();
  Status status() const;

 private:
  void Load();
  std::unique_ptr<leveldb::Iterator> it_;
  SortedName name_;
};

// ---- Cursor ----

template <typename T>
Cursor<T>::Cursor(CheckRun& run, const Key& prefix) : run_(run), end_(prefix.PrefixEnd().view()) {
  leveldb::ReadOptions options;
  options.snapshot = run.snapshot();
  options.fill_cache = false;
  it_.reset(run.db()->NewIterator(options));
  it_->Seek({prefix.view().data(), prefix.view().size()});
  Load();
}

template <typename T>
void Cursor<T>::Next() {
  it_->Next();
  Load();
}

template <typename T>
void Cursor<T>::Load() {
  for (; it_->Valid() && it_->key().compare(end_) < 0; it_->Next()) {
    key_ = Key::FromBytes({it_->key().data(), it_->key().size()});
    valid_ = !key_.empty() && record_.ParseFromArray(it_->value().data(), static_cast<int>(it_->value().size()));
    if (valid_) return;
  }
  valid_ = false;
}

template <typename T>
Status Cursor<T>::status() const {
  if (it_->status().ok()) return {};
  return Fail(ErrorCode::kCorrupt, "reading the metadata: " + it_->status().ToString());
}

// What an inode id (or another number with an incarnation in its top bits) must lie below.
bool IdWasGiven(const CheckRun& run, uint64_t id, uint64_t bound);

}  // namespace shoal::meta
