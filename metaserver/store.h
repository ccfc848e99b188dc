// The metadata as the namespace thread sees it: a bounded cache of decoded records over LevelDB.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/event_loop.h"
#include "common/metrics.h"
#include "common/result.h"
#include "metaserver/keys.h"

namespace google::protobuf {
class MessageLite;
}
namespace leveldb {
class DB;
}

namespace shoal::meta {

using Message = google::protobuf::MessageLite;
class ReaderPool;

// One record in memory. A null message is a key that is known to be absent. Belongs to the Store.
struct StoreEntry {
  Key key;
  std::unique_ptr<const Message> record;
  TxnId txn;        // of its last change; it stays in memory until that is logged
  uint32_t cost = 0;
  std::list<StoreEntry*>::iterator lru;
};

// A key to read, with an empty message of the type that is stored there. A plain value.
struct ColdKey {
  Key key;
  const Message* prototype = nullptr;
};

// A change of one record: null deletes it. A plain value.
struct RecordChange {
  Key key;
  std::unique_ptr<Message> record;
};

// One record found by a scan, in key order. A plain value.
struct ScannedRecord {
  Key key;
  std::string value;  // serialized
  bool deleted = false;  // only inside a scan
};

// Reads and caches records. Lives on the namespace thread's loop, where every function is called; LevelDB itself is
// read on the threads of a pool. What was changed and has not reached LevelDB yet is pinned in the cache, so a read
// sees every change at once. Errors: kIo and kCorrupt from LevelDB, with the key's name.
class Store {
 public:
  struct Options {
    size_t cache_bytes = 512u << 20;
    int reader_threads = 2;
  };
  Store(EventLoop& loop, leveldb::DB* db, const Options& options, Metrics& metrics);
  ~Store();
  // Waits for the reads under way. Nothing may be waiting in Fetch or Scan afterwards.
  void Stop();

  // The record's entry, or null when it has to be fetched first.
  const StoreEntry* Find(const Key& key);
  // Reads keys into the cache; ends when all of them are there (they may be evicted again later).
  Task<Status> Fetch(std::vector<ColdKey> keys);

  // Puts changes of transaction `txn` into the cache, and pins them until Logged(txn).
  void Apply(TxnId txn, std::vector<RecordChange> changes);
  void Logged(TxnId txn);
  void SetLogged(TxnId txn) { logged_ = txn; }  // at the start

  // The thing with this key kind (kInode, kSession, kChunk) and id is new: what hangs on it (entries, extents, xattrs,
  // ... of an inode, slots of a session, references of a chunk) is known to be absent, unless it is in memory.
  void MarkFresh(KeyKind kind, uint64_t id);
  static bool Covers(KeyKind fresh, KeyKind kind);

  // Up to `max_records` records of [start, end) as they are at this instant, read on the pool. `filter` (may be
  // empty) is called on a pool thread and says which are wanted. At most `max_steps` records are looked at; the
  // scan goes on from `next` when that is not empty.
  struct ScanOptions {
    Key start, end;
    size_t max_records = 1000;
    size_t max_steps = 100000;
    size_t max_bytes = 1 << 20;
    std::function<bool(const Key&, std::string_view)> filter;
  };
  struct ScanResult {
    std::vector<ScannedRecord> records;
    Key next;  // empty: the end was reached
  };
  Task<Result<ScanResult>> Scan(ScanOptions options);

  size_t cached_bytes() const { return bytes_; }
  size_t cached_records() const { return entries_.size(); }
  void DropCacheForTest();  // everything that is not pinned

 private:
  struct Fresh {
    KeyKind kind;
    uint64_t id;
    bool operator==(const Fresh&) const = default;
  };
  struct FreshHash {
    size_t operator()(const Fresh& f) const { return (f.id * 31 + static_cast<size_t>(f.kind)) * 0x9e3779b97f4a7c15ull; }
  };
  struct FetchState;  // one Fetch: how many keys it still waits for
  struct Loading {
    bool stale = false;  // changed since the read began
    std::vector<std::shared_ptr<FetchState>> waiters;
  };
  struct Load;
  StoreEntry* Insert(const Key& key);
  void SetRecord(StoreEntry* entry, std::unique_ptr<const Message> record);
  void Touch(StoreEntry* entry);
  void Evict();
  void EvictOne(StoreEntry* entry);
  void Loaded(Load& load);
  bool KnownAbsent(const Key& key) const;
  std::vector<ScannedRecord> Overlay(const Key& start, const Key& end) const;

  EventLoop& loop_;
  leveldb::DB* db_;
  const Options options_;
  std::unique_ptr<ReaderPool> pool_;
  std::unordered_map<Key, std::unique_ptr<StoreEntry>, KeyHash> entries_;
  std::list<StoreEntry*> lru_;  // front: used last
  size_t bytes_ = 0;
  TxnId logged_;
  std::deque<std::pair<TxnId, Key>> pinned_;
  std::unordered_map<Key, Loading, KeyHash> loading_;
  std::unordered_set<Fresh, FreshHash> fresh_;
  std::deque<Fresh> fresh_order_;
  StoreEntry absent_;  // what Find returns for a key that is known to be absent
  bool stopped_ = false;
  Counter& hits_;
  Counter& misses_;
};

}  // namespace shoal::meta
