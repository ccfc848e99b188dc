// The operations on locks.
#include "client/engine_impl.h"

namespace shoal::client {
namespace {

constexpr Duration kWaitTry = 1800s;  // one wait for a lock; then it is asked for again
constexpr Duration kPlainTry = 20s;

void SetRange(pb::LockRange* to, const LockRange& range) {
  to->set_start(range.start);
  to->set_end(range.end);
  to->set_exclusive(range.exclusive);
  to->set_pid(range.pid);
}

}  // namespace

Task<Status> Engine::SetLock(const Cred& cred, InodeId inode, uint64_t owner, bool flock, const LockRange& range,
                             uint64_t wait_id) {
  for (;;) {
    pb::SetLockRequest request;
    request.set_inode(inode.value);
    request.set_owner(owner);
    request.set_flock(flock);
    SetRange(request.mutable_range(), range);
    request.set_wait(wait_id != 0);
    request.set_wait_id(wait_id);
    // Setting the same lock twice is setting it once: no slot, which a wait would keep for long.
    Result<pb::SetLockResponse> response = co_await impl_->core.session.Call<pb::SetLockResponse>(
        pb::SET_LOCK, request, cred, CallKind::kRead, wait_id != 0 ? kWaitTry : kPlainTry);
    if (response) break;
    if (wait_id != 0 && response.error().code == ErrorCode::kTimeout && !impl_->core.stopping) continue;
    co_return Fail(std::move(response).error());
  }
  LockTable::Key key{inode, owner, flock};
  impl_->locks.Lock(key, range);
  co_return Status{};
}

Task<Status> Engine::Unlock(const Cred& cred, InodeId inode, uint64_t owner, bool flock, const LockRange& range) {
  LockTable::Key key{inode, owner, flock};
  impl_->locks.Unlock(key, range);
  pb::SetLockRequest request;
  request.set_inode(inode.value);
  request.set_owner(owner);
  request.set_flock(flock);
  request.set_unlock(true);
  SetRange(request.mutable_range(), range);
  Result<pb::SetLockResponse> response =
      co_await impl_->core.session.Call<pb::SetLockResponse>(pb::SET_LOCK, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  co_return Status{};
}

Task<void> EngineImpl::SendCancel(uint64_t wait_id) {
  Cred cred;
  pb::SetLockRequest request;
  request.set_cancel(wait_id);
  Result<pb::SetLockResponse> ignored =
      co_await core.session.Call<pb::SetLockResponse>(pb::SET_LOCK, request, cred, CallKind::kRead);
}

void Engine::CancelLock(uint64_t wait_id) {
  if (impl_->core.stopping) return;
  impl_->core.tasks.Spawn(impl_->SendCancel(wait_id));
}

Task<Result<std::optional<LockRange>>> Engine::GetLock(const Cred& cred, InodeId inode, uint64_t owner,
                                                       const LockRange& range) {
  pb::GetLockRequest request;
  request.set_inode(inode.value);
  request.set_owner(owner);
  SetRange(request.mutable_range(), range);
  Result<pb::GetLockResponse> response =
      co_await impl_->core.session.Call<pb::GetLockResponse>(pb::GET_LOCK, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  std::optional<LockRange> found;
  if (response->locked()) {
    const pb::LockRange& other = response->range();
    found = LockRange{other.start(), other.end(), other.exclusive(), other.pid()};
  }
  co_return found;
}

bool Engine::HoldsLocks(InodeId inode, uint64_t owner, bool flock) const {
  LockTable::Key key{inode, owner, flock};
  return impl_->locks.Holds(key);
}

}  // namespace shoal::client
