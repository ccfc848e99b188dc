// GET_LOCK and SET_LOCK.
#pragma once

#include "common/proto/meta.pb.h"
#include "metaserver/chunks/state.h"
#include "metaserver/locks/lock_table.h"

namespace shoal::meta {

// Methods for file locks over a LockTable. After a restart new locks are given only when every session from before has
// told which it holds, or has ended. Namespace thread; owner: ChunkService.
class LockOps {
 public:
  explicit LockOps(ChunkState& state) : state_(state) {}
  void Register();
  void SessionOpened(SessionId session, const pb::OpenSessionRequest& request, bool resumed);
  void SessionEnded(SessionId session) { table_.ReleaseSession(session); }
  // Ends all waits (the metaserver stops).
  void Stop();
  LockTable& table() { return table_; }

 private:
  Task<Result<TxnId>> GetLock(CallInfo info, const pb::GetLockRequest& request, pb::GetLockResponse& response);
  Task<Result<TxnId>> SetLock(CallInfo info, const pb::SetLockRequest& request, pb::SetLockResponse& response);
  bool Reclaiming();
  Task<Status> WaitForReclaims(SteadyTime deadline);

  ChunkState& state_;
  LockTable table_;
  bool reclaimed_ = false;  // all sessions from before the restart have been heard of
};

}  // namespace shoal::meta
