// ChunkState: what the parts of the chunk service share.
#pragma once

#include <fmt/core.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <unordered_map>

#include "metaserver/chunks/registry.h"
#include "metaserver/context.h"
#include "metaserver/driver.h"
#include "metaserver/view.h"

namespace shoal::meta {

class BadReplicas;
class LossWatch;
class Reconciler;
class Recovery;
class Repairer;
class DropSender;
class UnknownReplicas;

// Which chunks of an inode may have bytes that are not on every disk, by index, as far as this metaserver knows. An
// inode that has an entry is known completely; others have to be looked up in their chunk records first. A cache:
// nothing in it is the truth. Namespace thread; owner: ChunkState.
class UnsyncedIndex {
 public:
  // The chunks known, or null: look them up between BeginLoad and EndLoad.
  const std::set<uint64_t>* Find(InodeId id) const;
  // Notes a mark that was set. `fresh`: the inode was made in this operation.
  void Marked(InodeId id, uint64_t index, bool fresh);
  void Cleared(InodeId id, uint64_t index);
  void BeginLoad(InodeId id);
  void EndLoad(InodeId id, bool ok);
  void Forget(InodeId id) { inodes_.erase(id); }

 private:
  struct Entry {
    std::set<uint64_t> indices;
    int loading = 0;
  };
  static constexpr size_t kMaxInodes = 200000;
  std::unordered_map<InodeId, Entry> inodes_;
};

// Blocks of a chunk that no replica has good, as its last recovery found. A plain value.
struct LostBlocks {
  uint32_t first = 0;
  size_t count = 0;
  std::vector<std::pair<uint32_t, uint32_t>> ranges;  // [first, last], ascending; none: too many to be kept
};

// Owner: ChunkService. Namespace thread only. The pointers are set in its constructor.
struct ChunkState {
  explicit ChunkState(MetaContext& c);
  ~ChunkState() { *alive = false; }

  MetaContext& context;
  ServerRegistry registry;
  std::mt19937_64 rng;
  WaitList changed;  // a server's state may have changed; woken ten times a second at least
  UnsyncedIndex unsynced;
  TaskGroup tasks;  // background work
  bool stop = false;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);  // false once this is gone: for callbacks of others
  std::function<BootTime()> now = BootNow;
  std::map<ChunkId, LostBlocks> lost_blocks;  // chunks damaged everywhere; bounded, and forgotten by a restart until found again
  std::set<InstanceId> stale;      // of those known to be bad: their servers have an older version
  std::set<InstanceId> in_flight;  // replicas being made, in no record yet
  // What ends a call to a server (first) before its time.
  std::list<std::pair<uint32_t, std::function<void()>>> calls;

  Recovery* recovery = nullptr;
  Repairer* repairer = nullptr;
  DropSender* drops = nullptr;
  BadReplicas* bad = nullptr;
  LossWatch* losses = nullptr;
  UnknownReplicas* unknown = nullptr;
  Reconciler* reconciler = nullptr;

  Counter& bad_replicas;  // reported
  Counter& recoveries;
  Counter& replicated_chunks;
  Counter& replicated_bytes;
  Counter& dropped_replicas;
  Gauge& unknown_replicas;

  bool stopping() const { return stop || context.driver->stopping(); }
  bool IsLive(uint32_t server) const { return registry.IsLive(ServerId(server), now()); }
  bool IsDead(uint32_t server) const { return registry.State(ServerId(server), now()) == ServerState::kDead; }
  // The connection to order this server over; null when there is none.
  std::shared_ptr<Connection> ConnectionOf(uint32_t server) const;
  // Ends calls whose servers are dead. Called when that may have changed.
  void EndDeadCalls();
  // A replica is of an older version than its record: bad, and why.
  void AddStale(ChunkId chunk, InstanceId instance, uint32_t version);
  // Servers that may serve: live ones and suspects.
  size_t possible_servers() const;
  // How many replicas a chunk that wants `copies` must have to be written.
  uint32_t MinCopies(uint32_t copies) const;
  // Soon after a restart servers that are known have not yet come back.
  bool StartingUp() const;
  uint32_t CopiesOf(const pb::InodeRecord& inode) const;
  // Versions that a restored metaserver gives lie above this one, and so above all that were given before.
  uint32_t VersionFloor() const {
    uint32_t restored = context.life.restored_incarnation;
    return restored > 1 ? (restored - 1) << 16 : 0;
  }
  // Of a history that a restore has ended (an instance, a session).
  bool IsOfBefore(uint64_t id) const { return (id >> 48) < context.life.restored_incarnation; }
};

// ---- parts of operations; all follow View's rules ----

// Fills the wire's form of one extent.
void FillExtent(const ChunkState& state, ChunkId chunk, uint64_t index, const pb::ChunkRecord& record, uint64_t lease,
                pb::Extent* out);
// Makes the list of replicas what `replicas` says: their by-server keys are written, those that go are to be dropped by
// their servers. `record` is the mutable one; its version must be set before.
void SetReplicas(View& view, ChunkState& state, ChunkId chunk, pb::ChunkRecord* record,
                 const std::vector<pb::ReplicaRecord>& replicas);
// Notes that a chunk is short of copies, for the repairer.
void PutWork(View& view, ChunkState& state, ChunkId chunk);
// An order to drop one replica, to be carried out when it is durable.
void PutDrop(View& view, ChunkState& state, ChunkId chunk, const pb::ReplicaRecord& replica, uint32_t version);
// See ChunkHooks::DropExtent.
Status DropExtentRecords(View& view, ChunkState& state, InodeId id, uint64_t index);
void SetSize(View& view, pb::InodeRecord* inode, uint64_t size);
bool HasWriter(const pb::ChunkRecord& record, SessionId session);
// The session may hold a write grant of a chunk of this file: it has it open, or has not been heard of since a restart.
bool MayWrite(const ChunkState& state, SessionId session, InodeId id);
// A writer's session has lapsed: its last bytes may be on some replicas only, or still on their way. A recovery ends
// that.
bool NeedsFence(const ChunkState& state, const pb::ChunkRecord& record);
// Nobody may be writing the chunk at this instant.
bool IsQuiet(const ChunkState& state, const pb::ChunkRecord& record);

// Runs an operation of the metaserver itself. `op` lives until the end of the task.
Task<Result<TxnId>> RunOp(ChunkState& state, std::function<Status(View&)> op, CommitLevel level);

template <typename Response>
Task<void> AnswerInto(Task<Result<Typed<Response>>> call, std::shared_ptr<OneShot<Result<Typed<Response>>>> into) {
  Result<Typed<Response>> reply = co_await call;
  into->Set(std::move(reply));
}

// Calls a method at a server and parses the answer; kUnavailable when it is not connected, or dead before it has
// answered. `request` lives until the end.
template <typename Response>
Task<Result<Response>> CallServer(ChunkState& state, uint32_t server, pb::Method method,
                                  const google::protobuf::MessageLite& request, Duration timeout) {
  using Answer = Result<Typed<Response>>;
  std::shared_ptr<Connection> connection = state.ConnectionOf(server);
  if (!connection) co_return Fail(ErrorCode::kUnavailable, fmt::format("chunkserver {} is not connected", server));
  auto answer = std::make_shared<OneShot<Answer>>(state.context.loop);
  auto entry = state.calls.emplace(state.calls.end(), server, [answer, server] {
    answer->Set(Fail(ErrorCode::kUnavailable, fmt::format("chunkserver {} does not answer, and is dead", server)));
  });
  Payload payload;
  Task<Answer> call = CallTyped<Response>(std::move(connection), method, request, std::move(payload), timeout);
  state.tasks.Spawn(AnswerInto<Response>(std::move(call), answer));
  OneShot<Answer>& shot = *answer;
  Answer reply = co_await shot;
  state.calls.erase(entry);
  if (!reply) co_return Fail(std::move(reply).error());
  co_return std::move(reply->message);
}

// Whether an answer says something of the replica itself (true), or only of the moment.
bool IsReplicaError(ErrorCode code);

}  // namespace shoal::meta
