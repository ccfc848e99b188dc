// View: what one attempt of one operation sees and changes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "common/event_loop.h"
#include "common/ids.h"
#include "common/proto/meta.pb.h"
#include "common/proto/record.pb.h"
#include "common/result.h"
#include "common/task.h"
#include "metaserver/keys.h"
#include "metaserver/store.h"

namespace shoal::meta {

struct MetaContext;  // metaserver/context.h

// Something an operation needs done before it can go on, that takes time (asking a chunkserver, ...). Run by the
// driver off the operation; when it fails the operation fails with its error, else the operation starts again.
using Prerequisite = std::move_only_function<Task<Status>()>;

// Changes of the numbers kept in the CommitRecord. A plain value.
struct StatsDelta {
  int64_t inodes = 0;
  int64_t file_bytes = 0;
  int64_t chunks = 0;
  bool empty() const { return inodes == 0 && file_bytes == 0 && chunks == 0; }
};

// What an abandoned attempt waits for. A plain value.
struct Needs {
  std::vector<ColdKey> cold;
  std::optional<InodeId> busy;
  Prerequisite prerequisite;
  std::optional<Duration> retry_after;
  bool ids = false;
};

// An operation is a function that reads and changes records through a View, at one instant of the namespace thread:
// it may be run several times, and only the changes of its last, successful run count. A read of a record that is not
// in memory fails with a special error ("cold"): return it at once (TRY does); the driver fetches the record and runs
// the function again from the start. So a function must have no effects but through its View and its response.
// Pointers that getters return are good until the function returns, or the same record is changed.
// Owner: the driver, for one attempt. Namespace thread only.
class View {
 public:
  // `recipe`: of an earlier execution of the same, which is repeated (hand_in.h); it outlives this.
  View(MetaContext& context, const pb::Caller* caller, int64_t now_ns, const pb::Recipe* recipe = nullptr);
  ~View();
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  MetaContext& context() { return context_; }
  // Who asks; for internal operations root, of session 0.
  const pb::Caller& caller() const { return *caller_; }
  SessionId session() const { return SessionId(caller_->session()); }
  int64_t now_ns() const { return now_ns_; }
  // It is executed again, after a power cut: it was permitted and answered, and what was opened and closed meanwhile the
  // session has told. What depended on anything but the records is taken from the recipe.
  bool again() const { return recipe_ != nullptr; }

  // ---- reading. A null pointer: there is no such record. ----
  template <typename T>
  Result<const T*> Get(const Key& key) {
    static_assert(std::is_base_of_v<Message, T>);
    const Message* message = nullptr;
    if (!GetMessage(key, T::default_instance(), &message)) [[unlikely]] return ColdError();
    return static_cast<const T*>(message);
  }
  Result<const pb::InodeRecord*> GetInode(InodeId id) { return Get<pb::InodeRecord>(InodeKey(id)); }
  Result<const pb::ExtentRecord*> GetExtent(InodeId id, uint64_t index) {
    return Get<pb::ExtentRecord>(ExtentKey(id, index));
  }
  Result<const pb::ChunkRecord*> GetChunk(ChunkId id) { return Get<pb::ChunkRecord>(ChunkKey(id)); }
  Result<const pb::TruncateIntent*> GetTruncate(InodeId id) { return Get<pb::TruncateIntent>(TruncateKey(id)); }
  Result<const pb::ServerRecord*> GetServer(ServerId id) { return Get<pb::ServerRecord>(ServerKey(id)); }
  Result<const pb::XattrsRecord*> GetXattrs(InodeId id) { return Get<pb::XattrsRecord>(XattrsKey(id)); }
  // Directory entries: see dentry.h.

  // Names records that will be read, so that they are fetched together. Never fails.
  template <typename T>
  void Want(const Key& key) {
    const Message* message = nullptr;
    GetMessage(key, T::default_instance(), &message);
  }

  // ---- changing ----
  // The record for changing; it must exist and have been read in this attempt (CHECKed).
  template <typename T>
  T* Mutable(const Key& key) {
    return static_cast<T*>(MutableMessage(key, T::default_instance()));
  }
  pb::InodeRecord* MutableInode(InodeId id) { return Mutable<pb::InodeRecord>(InodeKey(id)); }
  pb::ChunkRecord* MutableChunk(ChunkId id) { return Mutable<pb::ChunkRecord>(ChunkKey(id)); }
  // A new, empty record under this key; replaces what may be there (which need not have been read).
  template <typename T>
  T* Put(const Key& key) {
    return static_cast<T*>(PutMessage(key, T::default_instance()));
  }
  pb::InodeRecord* PutInode(InodeId id) { return Put<pb::InodeRecord>(InodeKey(id)); }
  void Delete(const Key& key);  // need not have been read, nor exist
  StatsDelta& stats() { return stats_; }

  // New ids. Fail (cold) while the next range is being made durable.
  Result<InodeId> NewInodeId();  // marks its entries, extents and xattrs as known to be absent
  Result<ChunkId> NewChunkId();
  Result<InstanceId> NewInstanceId();
  Result<SessionId> NewSessionId();
  Result<ServerId> NewServerId();
  Result<uint64_t> NewOrder();  // orders to chunkservers
  Result<uint64_t> NewLease();  // fencing numbers: each is higher than all before
  // Servers that replicas were placed on: noted for the recipe, and (again()) what was noted then.
  void NotePlaced(const std::vector<ServerId>& servers);
  Result<std::vector<ServerId>> PlacedThen();

  // ---- waiting: each fails (cold) when there is something to wait for; return that error ----
  // Until a multi-step change of the inode's size (BusyTable) has ended.
  Status WaitWhileBusy(InodeId id);
  // Runs `task` and starts the operation again.
  Status Require(Prerequisite task);
  // The operation starts again after `delay`, unless its deadline comes first.
  Status RetryAfter(Duration delay);

  // ---- effects in memory ----
  // Runs at the instant when the batch was submitted, with its number (0 when nothing was changed).
  void OnApplied(std::move_only_function<void(TxnId)> effect) { effects_.push_back(std::move(effect)); }
  // The answer waits until the batch is durable, not only logged.
  void AnswerWhenDurable() { durable_ = true; }

  bool changed() const { return !changes_.empty() || !stats_.empty(); }
  // Whether an error came from one of the above, not from the operation itself.
  bool abandoned() const { return abandoned_; }

 private:
  friend class Driver;
  std::unexpected<Error> ColdError();
  bool GetMessage(const Key& key, const Message& prototype, const Message** message);
  Message* MutableMessage(const Key& key, const Message& prototype);
  Message* PutMessage(const Key& key, const Message& prototype);
  RecordChange* FindChange(const Key& key);
  Result<uint64_t> NewId(int which);
  Result<uint64_t> NextOfRecipe(int which);

  MetaContext& context_;
  const pb::Caller* caller_;
  const int64_t now_ns_;
  const pb::Recipe* recipe_;
  int recipe_used_ = 0;
  std::vector<uint64_t> numbers_;  // for the recipe
  TxnId seen_;  // the highest transaction that anything read here belongs to
  bool abandoned_ = false;
  bool durable_ = false;
  Needs needs_;
  std::vector<RecordChange> changes_;
  StatsDelta stats_;
  std::vector<std::move_only_function<void(TxnId)>> effects_;
  std::vector<std::pair<KeyKind, uint64_t>> fresh_;  // marked when the attempt succeeds
};

}  // namespace shoal::meta
