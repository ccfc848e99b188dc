#include "client/engine.h"

#include <sys/stat.h>

#include "client/engine_impl.h"
#include "client/read_ahead.h"
#include "common/log.h"

namespace shoal::client {
namespace {
constexpr Duration kTick = 250ms;
}  // namespace

Handle::~Handle() = default;

Engine::Engine(EventLoop& loop, ClientOptions options, Metrics& metrics)
    : impl_(std::make_unique<EngineImpl>(loop, std::move(options), metrics)) {
  EngineImpl* impl = impl_.get();
  impl->core.session.OnOpen([impl](pb::OpenSessionRequest& request) { impl->FillOpen(request); });
  impl->core.session.OnAskClosed([impl](InodeId inode) { return !impl->core.Find(inode); });
  impl->core.session.OnLost([impl] { impl->SessionLost(); });
}

Engine::~Engine() = default;

Task<Status> Engine::Start() {
  CO_TRY(co_await impl_->core.session.Start());
  if (impl_->core.options.open_session) {
    CO_TRY(co_await impl_->FindRoot());
    impl_->ArmTick();
  }
  co_return Status{};
}

Task<Status> Engine::Stop(Duration timeout) {
  Core& core = impl_->core;
  // When the time is over, what still waits for servers fails.
  std::unique_ptr<EventLoop::Timer> alarm = core.loop.RunAfter(timeout, [&core] {
    core.stopping = true;
    core.session.Close();
    core.servers.Close();
    for (auto& [inode, state] : core.states) state->progress.WakeAll();
    core.room.WakeAll();
  });
  uint64_t errors = core.write_errors.value();
  if (core.options.open_session && !core.session.closed()) co_await impl_->writer.FlushAll();
  alarm.reset();
  impl_->tick.reset();
  core.stopping = true;
  core.room.WakeAll();
  for (auto& [inode, state] : core.states) state->progress.WakeAll();
  co_await core.session.Stop();
  core.servers.Close();
  co_await core.tasks.Join();
  core.to_write.clear();
  core.states.clear();
  if (core.write_errors.value() != errors) co_return Fail(ErrorCode::kIo, "some data could not be written: see the log");
  co_return Status{};
}

InodeId Engine::root() const { return impl_->root; }
const ClientOptions& Engine::options() const { return impl_->core.options; }
const std::string& Engine::cluster_uuid() const { return impl_->core.session.cluster_uuid(); }
size_t Engine::dirty_bytes() const { return impl_->core.dirty_bytes; }

void EngineImpl::ArmTick() {
  tick = core.loop.RunAfter(kTick, [this] {
    writer.Tick();
    if (core.unsynced.size() > Core::kMaxUnsynced && !syncing_old) core.tasks.Spawn(SyncOld());
    if (!core.stopping) ArmTick();
  });
}

Task<void> EngineImpl::SyncOld() {
  syncing_old = true;
  auto old = std::exchange(core.unsynced, {});
  Cred cred;
  pb::SyncAllRequest request;
  Result<pb::SyncAllResponse> response =
      co_await core.session.Call<pb::SyncAllResponse>(pb::SYNC_ALL, request, cred, CallKind::kMutate);
  if (!response) {
    LogWarning("syncing what closed files have written failed: {}", ToString(response.error()));
    for (auto& [inode, indices] : old) {
      auto& now = core.unsynced[inode];
      now.insert(now.end(), indices.begin(), indices.end());
    }
  }
  syncing_old = false;
}

Task<Status> EngineImpl::FindRoot() {
  Cred cred;
  std::string_view rest = core.options.subdir;
  while (!rest.empty()) {
    size_t slash = rest.find('/');
    std::string_view name = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    if (name.empty()) continue;
    pb::LookupRequest request;
    request.set_parent(root.value);
    request.set_name(name.data(), name.size());
    Result<pb::AttrResponse> found =
        co_await core.session.Call<pb::AttrResponse>(pb::LOOKUP, request, cred, CallKind::kRead);
    if (!found) {
      const Error& why = found.error();
      std::string what = "the directory " + core.options.subdir + " of the file system: ";
      what += why.code == ErrorCode::kNotFound ? "there is no '" + std::string(name) + "'" : why.message.empty() ? std::string(ErrorName(why.code)) : why.message;
      co_return Fail(why.code, std::move(what));
    }
    root = InodeId(found->attr().inode());
    if (!S_ISDIR(found->attr().mode())) {
      co_return Fail(ErrorCode::kNotDirectory, "'" + std::string(name) + "' in " + core.options.subdir + " of the file system is no directory");
    }
  }
  co_return Status{};
}

// ---- the session ----

void EngineImpl::FillOpen(pb::OpenSessionRequest& request) const {
  for (const auto& [inode, state] : core.states) {
    for (int i = 0; i < state->opens; ++i) request.add_open_inodes(inode.value);
  }
  for (const auto& [key, ranges] : locks.held()) {
    for (const LockRange& range : ranges) {
      pb::LockOwnerState* lock = request.add_locks();
      lock->set_inode(std::get<0>(key).value);
      lock->set_owner(std::get<1>(key));
      lock->set_flock(std::get<2>(key));
      lock->mutable_range()->set_start(range.start);
      lock->mutable_range()->set_end(range.end);
      lock->mutable_range()->set_exclusive(range.exclusive);
      lock->mutable_range()->set_pid(range.pid);
    }
  }
}

// Write grants belonged to the old session.
void EngineImpl::SessionLost() {
  for (auto& [inode, state] : core.states) state->locations.clear();
}

// ---- shared by the operations ----

Attr EngineImpl::Seen(const pb::Attr& from, bool own) {
  Attr attr = FromProto(from);
  StatePtr state = core.Find(attr.inode);
  if (!state) {
    if (own) core.OwnChange(attr);
    return attr;
  }
  ApplyAttr(*state, attr, own);
  return WithLocal(*state, attr);
}

Status CheckName(std::string_view name) {
  if (name.size() > kMaxName) return Fail(ErrorCode::kNameTooLong, "a name may have 255 bytes");
  if (name.empty()) return Fail(ErrorCode::kNotFound, "an empty name");
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return Fail(ErrorCode::kInvalidArgument, "a name has no '/' and no NUL");
  }
  return {};
}

}  // namespace shoal::client
