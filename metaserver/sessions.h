// Sessions: clients that the metaserver knows, what they have open, and their remembered answers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/event_loop.h"
#include "common/ids.h"
#include "common/proto/meta.pb.h"
#include "common/result.h"
#include "common/rpc/rpc.h"
#include "metaserver/call_info.h"
#include "metaserver/context.h"
#include "metaserver/view.h"

namespace shoal::meta {

// One slot of a session in memory: its last answer, or the execution under way.
struct SlotState {
  uint64_t sequence = 0;     // of the last request that was begun
  bool known = false;        // false: its SlotRecord has not been read since the start
  bool running = false;
  bool answered = false;     // `response` is the answer to `sequence`
  std::string response;
  InodeId opened;            // read from the store: what the answer says was opened
  TxnId txn;
  std::unique_ptr<WaitList> joined;  // retries that wait for the first execution
};

// One client's session.
struct Session {
  SessionId id;
  std::string client_uuid;
  std::string name;
  std::string host;
  std::weak_ptr<Connection> connection;
  SteadyTime last_seen;
  bool ending = false;
  bool resumed = true;       // false: known from before a restart, and not heard of since
  std::unordered_map<InodeId, uint32_t> opens;
  std::vector<SlotState> slots;
  uint64_t hand_in_failed = 0;  // HandIn
  std::string hand_in_error;    // of the last one
};

// All sessions. A session is persistent (SessionRecord); its opens are told again by the client when it resumes.
// Without a sign of life for the session timeout it ends: its opens, locks and grants go, and it is remembered as
// lapsed: writes of it may still be on their way. Owner: MetaServer; namespace thread.
class Sessions {
 public:
  explicit Sessions(MetaContext& context);
  ~Sessions();
  // Registers OPEN_SESSION, KEEP_ALIVE, CLOSE_SESSION, RELEASE.
  void Register();
  // Reads the sessions and orphans of before the restart, starts the expiry timer.
  Task<Status> Start();
  void Stop();

  // A live session or null.
  Session* Find(SessionId id);
  // It ended without a word. One that its client closed had nothing left on its way.
  bool Lapsed(SessionId id) const { return lapsed_.contains(id); }
  const std::unordered_map<SessionId, std::unique_ptr<Session>>& all() const { return sessions_; }

  // Any session has it open, or may have (one that has not resumed yet after a restart).
  bool MayBeOpen(InodeId inode) const;
  bool IsOpen(SessionId session, InodeId inode) const;
  void AddOpen(SessionId session, InodeId inode);
  // An inode lost its last name while open: it is reaped after its last close.
  void AddOrphan(InodeId inode) { orphans_.insert(inode); }
  size_t orphans() const { return orphans_.size(); }
  // The number of opens ended. Schedules reaping of an orphan whose last open it was.
  void Release(Session& session, InodeId inode, uint32_t count = 1);
  // Reaps what nobody can have open any more.
  void CheckOrphans();

 private:
  Task<Result<TxnId>> OpenSession(CallInfo info, const pb::OpenSessionRequest& request,
                                  pb::OpenSessionResponse& response);
  Task<Result<TxnId>> KeepAlive(CallInfo info, const pb::KeepAliveRequest& request, pb::KeepAliveResponse& response);
  Task<Result<TxnId>> CloseSession(CallInfo info, const pb::CloseSessionRequest& request,
                                   pb::CloseSessionResponse& response);
  Task<Result<TxnId>> ReleaseInodes(CallInfo info, const pb::ReleaseRequest& request, pb::ReleaseResponse& response);
  Task<Status> LoadSessions();
  Task<Status> LoadOrphans();
  Session* Add(SessionId id, const pb::SessionRecord& record);
  Session* FindClient(const std::string& client_uuid);
  Task<Result<TxnId>> Create(const pb::OpenSessionRequest& request, SessionId* id);
  void Resume(Session& session, const pb::OpenSessionRequest& request);
  Task<Result<TxnId>> End(SessionId id, bool lapsed);
  void Remove(SessionId id);
  Task<void> ReapOrphan(InodeId inode);
  Task<void> EndExpired(SessionId id);
  void Tick();

  MetaContext& context_;
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  std::unordered_set<SessionId> lapsed_;
  std::unordered_map<InodeId, uint32_t> open_counts_;  // over all sessions
  std::unordered_set<InodeId> orphans_;
  size_t unresumed_ = 0;
  std::unique_ptr<EventLoop::Timer> timer_;
  Gauge& sessions_gauge_;
  Gauge& orphans_gauge_;
  Gauge& unsynced_gauge_;
  Gauge& unsynced_bytes_gauge_;
};

}  // namespace shoal::meta
