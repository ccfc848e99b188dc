// The operations on open files: open, read, write, flush, fsync, close.
#include <fcntl.h>

#include <algorithm>

#include "client/engine_impl.h"
#include "client/read_ahead.h"
#include "common/log.h"

namespace shoal::client {
namespace {

constexpr Duration kAppendAge = 100ms;  // an end of file that old is asked for again before an append
constexpr Duration kSyncTry = 10s;
constexpr int kExec = 0x20;  // the kernel's __FMODE_EXEC: execve needs no permission to read
constexpr int kSyncRounds = 8;
constexpr uint64_t kFirstExtents = 8;  // which an answer to OPEN tells

bool Writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

}  // namespace

HandlePtr EngineImpl::MakeHandle(const StatePtr& state, const Cred& cred, int flags) {
  HandlePtr handle(new Handle);
  handle->inode_ = state->inode;
  handle->flags_ = flags;
  handle->cred_ = cred;
  handle->state_ = state;
  handle->errors_seen_ = state->errors;
  ++state->opens;
  if (Writes(flags) || state->opens == 1) state->cred = cred;
  return handle;
}

// The first extents came with the answer: those that are not among them are holes.
void EngineImpl::TakeExtents(InodeState& state, const pb::OpenResponse& response) {
  for (const pb::Extent& extent : response.extents()) locator.Put(state, extent);
  uint64_t chunks = std::min((response.attr().size() + kChunkSize - 1) / kChunkSize, kFirstExtents);
  auto hole = std::make_shared<const Location>();
  for (uint64_t i = 0; i < chunks; ++i) state.locations.try_emplace(i, hole);
}

Task<Result<Opened>> Engine::Open(const Cred& cred, InodeId inode, int flags) {
  Core& core = impl_->core;
  StatePtr state = core.State(inode);
  bool truncates = (flags & O_TRUNC) != 0;
  ++state->pins;
  if (truncates) {
    // Written out first: it must not be lost if the truncation is refused.
    co_await impl_->writer.BeginExclusive(state);
    if (!state->clean()) co_await impl_->writer.Flush(state);
  }
  pb::OpenRequest request;
  request.set_inode(inode.value);
  request.set_flags(static_cast<uint32_t>(flags & (O_ACCMODE | O_TRUNC | kExec)));
  // An open counts for the session, but only a truncating one changes anything that is kept.
  Result<pb::OpenResponse> response = co_await core.session.Call<pb::OpenResponse>(
      pb::OPEN, request, cred, truncates ? CallKind::kMutate : CallKind::kRead);
  Opened opened;
  if (response) {
    opened.handle = impl_->MakeHandle(state, cred, flags);
    bool known = state->attr.change != 0 || state->remembered_change != 0;
    ApplyAttr(*state, FromProto(response->attr()), truncates);
    if (truncates) {
      state->locations.clear();
      ++state->write_epoch;
    }
    impl_->TakeExtents(*state, *response);
    bool foreign = std::exchange(state->foreign, false);
    opened.keep_cache = known && !foreign;
  }
  if (truncates) impl_->writer.EndExclusive(state);
  --state->pins;
  core.DropIfUnused(state);
  if (!response) co_return Fail(std::move(response).error());
  opened.attr = WithLocal(*state, FromProto(response->attr()));
  co_return opened;
}

// ---- reading and writing ----

Task<Result<Payload>> Engine::Read(Handle& handle, uint64_t offset, size_t length) {
  StatePtr state = handle.state_;
  const Core& core = impl_->core;
  if (core.options.read_ahead == 0 || !state->clean()) {
    Result<Payload> result = co_await impl_->reader.Read(state, offset, length);
    co_return result;
  }
  if (!handle.read_ahead_) {
    handle.read_ahead_ = std::make_shared<Handle::ReadAhead>(impl_->core, impl_->reader, state);
  }
  std::shared_ptr<Handle::ReadAhead> ahead = handle.read_ahead_;
  Result<Payload> result = co_await ahead->Read(offset, length);
  co_return result;
}

std::optional<Result<uint64_t>> Engine::AddNow(Handle& handle, uint64_t offset, const Buffer& data,
                                               bool kill_suid_sgid, bool append) {
  InodeState& state = *handle.state_;
  if (impl_->core.stopping) return Fail(ErrorCode::kCancelled, "the client is being stopped");
  if (!Writes(handle.flags_)) return Fail(ErrorCode::kBadHandle, "the file is not open for writing");
  if (state.exclusive || !impl_->writer.HasRoom(data.size())) return std::nullopt;
  if (append) {
    if (state.clean() && Core::Now() - state.attr_time > kAppendAge) return std::nullopt;
    offset = state.size();
  }
  if (offset > kMaxFileSize || data.size() > kMaxFileSize - offset) {
    return Fail(ErrorCode::kFileTooBig, "a file has at most 4 PiB");
  }
  if (data.empty()) return offset;
  if (std::exchange(state.made_here, false)) impl_->expect_data = std::min(impl_->expect_data + 1, 4);
  impl_->writer.Add(handle.state_, offset, data, kill_suid_sgid);
  return offset;
}

Task<Result<uint64_t>> Engine::AddWhenPossible(Handle& handle, uint64_t offset, Buffer data, bool kill_suid_sgid,
                                               bool append) {
  StatePtr state = handle.state_;
  for (;;) {
    std::optional<Result<uint64_t>> done = AddNow(handle, offset, data, kill_suid_sgid, append);
    if (done) co_return std::move(*done);
    if (state->exclusive) {
      co_await state->progress.Wait();
      continue;
    }
    if (!impl_->writer.HasRoom(data.size())) {
      CO_TRY(co_await impl_->writer.MakeRoom(data.size()));
      continue;
    }
    CO_TRY(co_await impl_->RefreshAttr(state));  // an append: where is the end?
  }
}

std::optional<Result<uint64_t>> Engine::TryWrite(Handle& handle, uint64_t offset, const Buffer& data,
                                                 bool kill_suid_sgid) {
  return AddNow(handle, offset, data, kill_suid_sgid, (handle.flags_ & O_APPEND) != 0);
}

Task<Result<uint64_t>> Engine::Write(Handle& handle, uint64_t offset, Buffer data, bool kill_suid_sgid) {
  return AddWhenPossible(handle, offset, std::move(data), kill_suid_sgid, (handle.flags_ & O_APPEND) != 0);
}

Task<Result<uint64_t>> Engine::Append(Handle& handle, Buffer data) {
  return AddWhenPossible(handle, 0, std::move(data), false, true);
}

// ---- writing out ----

Status EngineImpl::ErrorOf(Handle& handle) {
  const InodeState& state = *handle.state_;
  if (handle.errors_seen_ == state.errors) return {};
  handle.errors_seen_ = state.errors;
  return Fail(state.last_error);
}

bool Engine::FlushIsNothing(const Handle& handle) const {
  if (handle.errors_seen_ != handle.state_->errors) return false;
  return !Writes(handle.flags_) || handle.state_->clean();
}

Task<Status> Engine::Flush(Handle& handle) {
  if (Writes(handle.flags_) && !handle.state_->clean()) co_await impl_->writer.Flush(handle.state_);
  co_return impl_->ErrorOf(handle);
}

Task<Status> Engine::Release(HandlePtr handle) {
  StatePtr state = handle->state_;
  if (Writes(handle->flags_) && !state->clean()) co_await impl_->writer.Flush(state);
  if (std::exchange(state->made_here, false)) impl_->expect_data = std::max(impl_->expect_data - 1, -2);
  Status status = impl_->ErrorOf(*handle);
  handle.reset();
  if (--state->opens == 0) {
    // A file that is not open here holds no write grant: the metaserver counts on it.
    for (auto& [index, location] : state->locations) {
      if (location->lease == 0) continue;
      auto plain = std::make_shared<Location>(*location);
      plain->lease = 0;
      location = std::move(plain);
    }
  }
  impl_->core.session.Released(state->inode);
  impl_->core.DropIfUnused(state);
  co_return status;
}

Task<Status> Engine::Fsync(Handle& handle, bool data_only) {
  Status status = co_await impl_->SyncFile(handle.state_, data_only);
  Status sticky = impl_->ErrorOf(handle);
  if (!sticky) co_return sticky;
  co_return status;
}

Task<Status> EngineImpl::SyncFile(StatePtr state, bool data_only) {
  uint64_t errors = state->errors;
  co_await writer.Settle(state, true);
  // Chunks whose last write went out without the flag.
  std::vector<std::pair<std::shared_ptr<ChunkWriter>, uint64_t>> unsynced;
  for (auto& [index, chunk] : state->writers) {
    if (!chunk->all_synced()) unsynced.emplace_back(chunk, chunk->acked);
  }
  for (auto& [chunk, acked] : unsynced) {
    Result<LocationPtr> found = co_await locator.Find(state, chunk->index);
    if (!found) co_return Fail(std::move(found).error());
    LocationPtr location = *found;
    if (!location->chunk) {
      chunk->synced = std::max(chunk->synced, acked);
      continue;
    }
    CO_TRY(co_await SyncReplicas(state, chunk->index, location));
    chunk->synced = std::max(chunk->synced, acked);
    if (chunk->all_synced()) state->synced.insert(location->chunk);
  }
  bool only_times = state->fresh.empty() && state->pending_end <= state->attr.size && !state->kill_suid_sgid;
  if (!data_only || !only_times || state->committing) co_await writer.Commit(state);
  if (state->errors != errors) co_return Fail(state->last_error);
  for (int round = 0; round < kSyncRounds; ++round) {
    pb::FsyncRequest request;
    request.set_inode(state->inode.value);
    request.set_data_only(data_only);
    std::vector<ChunkId> told(state->synced.begin(), state->synced.end());
    state->synced.clear();
    for (ChunkId chunk : told) request.add_synced_chunks(chunk.value);
    Result<pb::FsyncResponse> response =
        co_await core.session.Call<pb::FsyncResponse>(pb::FSYNC, request, state->cred, CallKind::kMutate);
    if (!response) co_return Fail(std::move(response).error());
    if (response->remaining_size() == 0) co_return Status{};
    state->synced.insert(told.begin(), told.end());
    for (const pb::Extent& extent : response->remaining()) {
      LocationPtr location = locator.Put(*state, extent);
      CO_TRY(co_await SyncReplicas(state, extent.index(), location));
      state->synced.insert(location->chunk);
    }
  }
  co_return Fail(ErrorCode::kBusy, "the file is being written faster than it can be synced");
}

// Every replica has what it was given on its disk, or is no replica any more.
Task<Status> EngineImpl::SyncReplicas(StatePtr state, uint64_t index, LocationPtr location) {
  SteadyTime deadline = Core::Now() + core.options.timeout;
  for (;;) {
    std::vector<Status> results(location->replicas.size());
    size_t left = results.size();
    WaitList done(core.loop);
    for (size_t i = 0; i < results.size(); ++i) core.tasks.Spawn(SyncOneReplica(location, i, &results, &left, &done));
    while (left > 0) co_await done.Wait();
    size_t bad = 0;
    while (bad < results.size() && results[bad]) ++bad;
    if (bad == results.size() && bad > 0) co_return Status{};
    Error error{ErrorCode::kUnavailable, "the chunk has no replica"};
    if (bad < results.size()) error = results[bad].error();
    if (core.stopping || Core::Now() >= deadline) co_return Fail(error);
    ServerId suspect = bad < results.size() ? location->replicas[bad].server : ServerId{};
    Result<LocationPtr> again = Fail(error);
    bool old = error.code == ErrorCode::kVersionMismatch;
    if (old) again = co_await locator.Refetch(state, index);
    // Not our place that is old: the replica.
    bool report = !old || (again && (*again)->chunk == location->chunk && (*again)->version == location->version);
    if (report) {
      again = co_await locator.Report(state, index, location, suspect, error.code, true);
    }
    if (!again) co_return Fail(std::move(again).error());
    if (!(*again)->chunk) co_return Status{};  // cut off meanwhile
    if ((*again)->version == location->version) co_await core.loop.Sleep(50ms);
    location = *again;
  }
}

Task<void> EngineImpl::SyncOneReplica(LocationPtr location, size_t which, std::vector<Status>* results, size_t* left,
                                      WaitList* done) {
  const ReplicaPlace& place = location->replicas[which];
  Result<std::shared_ptr<Connection>> connection = co_await core.servers.Connect(place.address, 2s);
  if (!connection) {
    (*results)[which] = Fail(std::move(connection).error());
  } else {
    pb::SyncChunkRequest request;
    auto* one = request.add_chunks();
    one->set_chunk(location->chunk.value);
    one->set_version(location->version.value);
    one->set_instance(place.instance.value);
    PendingReply pending = (*connection)->Call(pb::SYNC_CHUNK, request, Payload(), kSyncTry);
    Result<Reply> reply = co_await pending;
    if (!reply) (*results)[which] = Fail(std::move(reply).error());
  }
  if (--*left == 0) done->WakeAll();
}

}  // namespace shoal::client
