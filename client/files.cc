// The operations on open files: open, read, write, flush, fsync, close.
#include <fcntl.h>

#include <algorithm>

#include "client/engine_impl.h"
#include "client/read_ahead.h"
#include "common/log.h"

namespace shoal::client {
namespace {

constexpr Duration kAppendAge = 100ms;  // an end of file that old is asked for again before an append
constexpr int kExec = 0x20;  // the kernel's __FMODE_EXEC: execve needs no permission to read
constexpr uint64_t kFirstExtents = 8;  // which an answer to OPEN tells

bool Writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }
bool Appends(int flags, const WriteHow& how) { return how.append.value_or((flags & O_APPEND) != 0); }

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
                                                 WriteHow how) {
  return AddNow(handle, offset, data, how.kill_suid_sgid, Appends(handle.flags_, how));
}

Task<Result<uint64_t>> Engine::Write(Handle& handle, uint64_t offset, Buffer data, WriteHow how) {
  return AddWhenPossible(handle, offset, std::move(data), how.kill_suid_sgid, Appends(handle.flags_, how));
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

}  // namespace shoal::client
