#include "metaserver/chunks/lock_ops.h"

#include "common/log.h"
#include "metaserver/sessions.h"

namespace shoal::meta {
namespace {

Result<LockSpan> SpanOf(const pb::LockRange& range) {
  LockSpan span;
  span.start = range.start();
  span.end = range.end();
  span.exclusive = range.exclusive();
  span.pid = range.pid();
  if (span.start > span.end || span.end > kLockEnd) {
    return Fail(ErrorCode::kInvalidArgument, "a lock's range ends before it starts, or behind 2^63-1");
  }
  return span;
}

}  // namespace

void LockOps::Register() {
  Driver& driver = *state_.context.driver;
  driver.OnTask<pb::GetLockRequest, pb::GetLockResponse>(
      pb::GET_LOCK, [this](CallInfo info, const pb::GetLockRequest& request, pb::GetLockResponse& response) {
        return GetLock(std::move(info), request, response);
      });
  driver.OnTask<pb::SetLockRequest, pb::SetLockResponse>(
      pb::SET_LOCK, [this](CallInfo info, const pb::SetLockRequest& request, pb::SetLockResponse& response) {
        return SetLock(std::move(info), request, response);
      });
}

bool LockOps::Reclaiming() {
  if (reclaimed_) return false;
  for (const auto& [id, session] : state_.context.sessions->all()) {
    if (!session->resumed) return true;
  }
  reclaimed_ = true;
  return false;
}

Task<Status> LockOps::WaitForReclaims(SteadyTime deadline) {
  while (Reclaiming()) {
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
    if (std::chrono::steady_clock::now() > deadline) {
      co_return Fail(ErrorCode::kNotReady, "waiting for the sessions of before the metaserver's restart");
    }
    auto wait = state_.changed.Wait();
    co_await wait;
  }
  co_return Status();
}

Task<Result<TxnId>> LockOps::GetLock(CallInfo info, const pb::GetLockRequest& request,
                                     pb::GetLockResponse& response) {
  Result<LockSpan> span = SpanOf(request.range());
  if (!span) co_return Fail(span.error());
  Task<Status> wait = WaitForReclaims(info.deadline);
  Status ready = co_await wait;
  if (!ready) co_return Fail(ready.error());
  LockOwner owner{SessionId(request.caller().session()), request.owner()};
  auto blocker = table_.Test(InodeId(request.inode()), false, owner, *span);
  response.set_locked(blocker.has_value());
  if (blocker) {
    response.mutable_range()->set_start(blocker->start);
    response.mutable_range()->set_end(blocker->end);
    response.mutable_range()->set_exclusive(blocker->exclusive);
    response.mutable_range()->set_pid(blocker->pid);
  }
  co_return TxnId();
}

Task<Result<TxnId>> LockOps::SetLock(CallInfo info, const pb::SetLockRequest& request, pb::SetLockResponse&) {
  SessionId session(request.caller().session());
  if (request.cancel()) {
    table_.Cancel(session, request.cancel());
    co_return TxnId();
  }
  Result<LockSpan> span = SpanOf(request.range());
  if (!span) co_return Fail(span.error());
  InodeId inode(request.inode());
  LockOwner owner{session, request.owner()};
  if (request.unlock()) {
    table_.Unlock(inode, request.flock(), owner, *span);
    co_return TxnId();
  }
  Task<Status> wait = WaitForReclaims(info.deadline);
  Status ready = co_await wait;
  if (!ready) co_return Fail(ready.error());
  if (!request.wait()) {
    Status locked = table_.Lock(inode, request.flock(), owner, *span);
    if (!locked) co_return Fail(locked.error());
    co_return TxnId();
  }
  auto answer = std::make_shared<OneShot<Status>>(state_.context.loop);
  std::shared_ptr<Connection> connection = info.connection;
  LockTable::Granted granted = [answer, connection](Status status) {
    answer->Set(status);  // the waiting task must end in any case
    return !connection || !connection->closed();
  };
  table_.LockOrWait(inode, request.flock(), owner, *span, request.wait_id(), std::move(granted));
  OneShot<Status>& given = *answer;
  Status locked = co_await given;
  if (!locked) co_return Fail(locked.error());
  co_return TxnId();
}

void LockOps::SessionOpened(SessionId session, const pb::OpenSessionRequest& request, bool resumed) {
  if (!resumed) return;
  table_.DropWaits(session);  // what it still waits for it asks again
  for (const pb::LockOwnerState& lock : request.locks()) {
    Result<LockSpan> span = SpanOf(lock.range());
    if (!span) continue;
    LockOwner owner{session, lock.owner()};
    Status taken = table_.Reclaim(InodeId(lock.inode()), lock.flock(), owner, *span);
    if (!taken) {
      LogWarning("session {} lost a lock on inode {}: {}", session.value, lock.inode(), ToString(taken.error()));
    }
  }
}

void LockOps::Stop() { table_.CancelAll(); }

}  // namespace shoal::meta
