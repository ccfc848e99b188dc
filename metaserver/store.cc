#include "metaserver/store.h"

#include <google/protobuf/message_lite.h>
#include <leveldb/db.h>

#include <algorithm>

#include "metaserver/reader_pool.h"

namespace shoal::meta {
namespace {

constexpr size_t kMinRecords = 1024;   // never evicted below this: what an attempt has just fetched stays
constexpr size_t kMaxFresh = 200000;
constexpr uint32_t kEntryCost = 200;   // bytes of an entry beside its record

leveldb::Slice SliceOf(const Key& key) { return {key.view().data(), key.view().size()}; }
std::string_view ViewOf(const leveldb::Slice& slice) { return {slice.data(), slice.size()}; }

KeyKind FreshKindOf(KeyKind kind) {
  switch (kind) {
    case KeyKind::kDentry:
    case KeyKind::kXattrs:
    case KeyKind::kExtent:
    case KeyKind::kOrphan:
    case KeyKind::kReap:
    case KeyKind::kTruncate:
      return KeyKind::kInode;
    case KeyKind::kSlot:
      return KeyKind::kSession;
    case KeyKind::kBackref:
    case KeyKind::kWork:
      return KeyKind::kChunk;
    default:
      return KeyKind::kCommit;  // none
  }
}

}  // namespace

// A Fetch that waits.
struct Store::FetchState {
  explicit FetchState(EventLoop& loop) : done(loop) {}
  size_t pending = 0;
  Status status;
  OneShot<int> done;
};

// Keys on their way through the pool.
struct Store::Load {
  std::vector<ColdKey> keys;
  std::vector<std::unique_ptr<Message>> records;
  Status status;
};

Store::Store(EventLoop& loop, leveldb::DB* db, const Options& options, Metrics& metrics)
    : loop_(loop),
      db_(db),
      options_(options),
      pool_(std::make_unique<ReaderPool>(options.reader_threads)),
      hits_(metrics.counter("shoal_metaserver_cache_hits_total", "Records found in memory")),
      misses_(metrics.counter("shoal_metaserver_cache_misses_total", "Records read from LevelDB")) {
  entries_.reserve(1 << 16);
}

Store::~Store() { Stop(); }

void Store::Stop() {
  if (stopped_) return;
  stopped_ = true;
  pool_->Stop();
}

bool Store::Covers(KeyKind fresh, KeyKind kind) { return FreshKindOf(kind) == fresh; }

bool Store::KnownAbsent(const Key& key) const {
  KeyKind kind = FreshKindOf(key.kind());
  return kind != KeyKind::kCommit && fresh_.contains(Fresh{kind, key.number(0)});
}

const StoreEntry* Store::Find(const Key& key) {
  auto it = entries_.find(key);
  if (it != entries_.end()) {
    hits_.Add();
    Touch(it->second.get());
    return it->second.get();
  }
  return KnownAbsent(key) ? &absent_ : nullptr;
}

void Store::Touch(StoreEntry* entry) {
  if (entry->lru != lru_.begin()) lru_.splice(lru_.begin(), lru_, entry->lru);
}

StoreEntry* Store::Insert(const Key& key) {
  auto [it, inserted] = entries_.try_emplace(key);
  if (!inserted) {
    Touch(it->second.get());
    return it->second.get();
  }
  it->second = std::make_unique<StoreEntry>();
  StoreEntry* entry = it->second.get();
  entry->key = key;
  entry->cost = kEntryCost;
  bytes_ += kEntryCost;
  lru_.push_front(entry);
  entry->lru = lru_.begin();
  return entry;
}

void Store::SetRecord(StoreEntry* entry, std::unique_ptr<const Message> record) {
  uint32_t cost = kEntryCost + (record ? 64 + 2 * static_cast<uint32_t>(record->ByteSizeLong()) : 0);
  bytes_ += cost;
  bytes_ -= entry->cost;
  entry->cost = cost;
  entry->record = std::move(record);
}

void Store::Evict() {
  while (bytes_ > options_.cache_bytes && entries_.size() > kMinRecords) {
    StoreEntry* last = lru_.back();
    if (last->txn > logged_) return;
    EvictOne(last);
  }
}

void Store::EvictOne(StoreEntry* entry) {
  KeyKind kind = FreshKindOf(entry->key.kind());
  if (entry->record && kind != KeyKind::kCommit) fresh_.erase(Fresh{kind, entry->key.number(0)});
  bytes_ -= entry->cost;
  lru_.erase(entry->lru);
  Key key = entry->key;  // the entry goes with its own key
  entries_.erase(key);
}

void Store::DropCacheForTest() {
  std::vector<StoreEntry*> all(lru_.begin(), lru_.end());
  for (StoreEntry* entry : all) {
    if (entry->txn <= logged_) EvictOne(entry);
  }
}

void Store::MarkFresh(KeyKind kind, uint64_t id) {
  Fresh fresh{kind, id};
  if (!fresh_.insert(fresh).second) return;
  fresh_order_.push_back(fresh);
  if (fresh_order_.size() > kMaxFresh) {
    fresh_.erase(fresh_order_.front());
    fresh_order_.pop_front();
  }
}

void Store::Apply(TxnId txn, std::vector<RecordChange> changes) {
  for (RecordChange& change : changes) {
    StoreEntry* entry = Insert(change.key);
    SetRecord(entry, std::move(change.record));
    entry->txn = txn;
    pinned_.emplace_back(txn, change.key);
    if (!loading_.empty()) {
      auto it = loading_.find(change.key);
      if (it != loading_.end()) it->second.stale = true;
    }
  }
}

void Store::Logged(TxnId txn) {
  logged_ = txn;
  while (!pinned_.empty() && pinned_.front().first <= txn) pinned_.pop_front();
  Evict();
}

Task<Status> Store::Fetch(std::vector<ColdKey> keys) {
  auto state = std::make_shared<FetchState>(loop_);
  auto load = std::make_shared<Load>();
  for (const ColdKey& cold : keys) {
    if (entries_.contains(cold.key)) continue;
    auto [it, inserted] = loading_.try_emplace(cold.key);
    it->second.waiters.push_back(state);
    ++state->pending;
    if (inserted) load->keys.push_back(cold);
  }
  if (!load->keys.empty()) {
    misses_.Add(load->keys.size());
    pool_->Run([this, load] {
      load->records.resize(load->keys.size());
      std::string value;
      for (size_t i = 0; i < load->keys.size(); ++i) {
        leveldb::Status status = db_->Get(leveldb::ReadOptions(), SliceOf(load->keys[i].key), &value);
        if (status.IsNotFound()) continue;
        const std::string name = load->keys[i].key.ToString();
        if (!status.ok()) {
          load->status = Fail(status.IsCorruption() ? ErrorCode::kCorrupt : ErrorCode::kIo,
                              "reading " + name + ": " + status.ToString());
          break;
        }
        load->records[i].reset(load->keys[i].prototype->New());
        if (!load->records[i]->ParseFromString(value)) {
          load->status = Fail(ErrorCode::kCorrupt, name + " can't be parsed");
          break;
        }
      }
      loop_.Post([this, load] { Loaded(*load); });
    });
  }
  if (state->pending > 0) co_await state->done;
  co_return state->status;
}

void Store::Loaded(Load& load) {
  for (size_t i = 0; i < load.keys.size(); ++i) {
    auto it = loading_.find(load.keys[i].key);
    if (it == loading_.end()) continue;
    Loading loading = std::move(it->second);
    loading_.erase(it);
    if (load.status && !loading.stale && !entries_.contains(load.keys[i].key)) {
      SetRecord(Insert(load.keys[i].key), std::move(load.records[i]));
    }
    for (auto& waiter : loading.waiters) {
      if (!load.status) waiter->status = load.status;
      if (--waiter->pending == 0) waiter->done.Set(0);
    }
  }
  Evict();
}

std::vector<ScannedRecord> Store::Overlay(const Key& start, const Key& end) const {
  std::vector<ScannedRecord> overlay;
  for (const auto& [txn, key] : pinned_) {
    if (key < start || !(key < end)) continue;
    overlay.push_back({key, {}});
  }
  std::sort(overlay.begin(), overlay.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  overlay.erase(std::unique(overlay.begin(), overlay.end(), [](const auto& a, const auto& b) { return a.key == b.key; }),
                overlay.end());
  for (ScannedRecord& record : overlay) {
    auto it = entries_.find(record.key);
    CHECK(it != entries_.end());
    record.deleted = !it->second->record;
    if (!record.deleted) record.value = it->second->record->SerializeAsString();
  }
  return overlay;
}

namespace {

// One scan on a pool thread: LevelDB's snapshot, with the overlay's records in place of its own.
Result<Store::ScanResult> RunScan(leveldb::DB* db, const leveldb::Snapshot* snapshot, const Store::ScanOptions& options,
                                  std::vector<ScannedRecord>& overlay) {
  leveldb::ReadOptions read;
  read.snapshot = snapshot;
  std::unique_ptr<leveldb::Iterator> it(db->NewIterator(read));
  Store::ScanResult result;
  size_t bytes = 0, steps = 0, next = 0;
  it->Seek(SliceOf(options.start));
  while (true) {
    bool from_db = it->Valid() && ViewOf(it->key()) < options.end.view();
    bool from_overlay = next < overlay.size();
    if (!from_db && !from_overlay) break;
    if (from_db && from_overlay) {
      int order = ViewOf(it->key()).compare(overlay[next].key.view());
      from_overlay = order >= 0;
      if (order == 0) it->Next();  // the overlay's is newer
      from_db = order < 0;
    }
    Key key = from_overlay ? overlay[next].key : Key::FromBytes(ViewOf(it->key()));
    if (++steps > options.max_steps || result.records.size() >= options.max_records || bytes >= options.max_bytes) {
      result.next = key;
      break;
    }
    if (from_overlay) {
      ScannedRecord& record = overlay[next++];
      if (record.deleted || (options.filter && !options.filter(key, record.value))) continue;
      bytes += record.value.size();
      result.records.push_back(std::move(record));
    } else {
      std::string_view value = ViewOf(it->value());
      if (!options.filter || options.filter(key, value)) {
        bytes += value.size();
        result.records.push_back({key, std::string(value)});
      }
      it->Next();
    }
  }
  if (!it->status().ok()) return Fail(ErrorCode::kIo, "scanning metadata: " + it->status().ToString());
  return result;
}

}  // namespace

Task<Result<Store::ScanResult>> Store::Scan(ScanOptions options) {
  struct Job {
    Job(EventLoop& loop, ScanOptions o) : options(std::move(o)), done(loop) {}
    ScanOptions options;
    std::vector<ScannedRecord> overlay;
    const leveldb::Snapshot* snapshot = nullptr;
    OneShot<Result<ScanResult>> done;
  };
  auto job = std::make_shared<Job>(loop_, std::move(options));
  job->overlay = Overlay(job->options.start, job->options.end);
  job->snapshot = db_->GetSnapshot();
  pool_->Run([this, job] {
    auto result = std::make_shared<Result<ScanResult>>(RunScan(db_, job->snapshot, job->options, job->overlay));
    db_->ReleaseSnapshot(job->snapshot);
    loop_.Post([job, result] { job->done.Set(std::move(*result)); });
  });
  Result<ScanResult> scanned = co_await job->done;
  co_return scanned;
}

}  // namespace shoal::meta
