// The operations on attributes: stat, chmod and the like, truncate, extended attributes, statfs.
#include "client/engine_impl.h"

namespace shoal::client {

Task<Status> EngineImpl::RefreshAttr(StatePtr state) {
  pb::GetAttrRequest request;
  request.set_inode(state->inode.value);
  Result<pb::AttrResponse> response =
      co_await core.session.Call<pb::AttrResponse>(pb::GET_ATTR, request, state->cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  ApplyAttr(*state, FromProto(response->attr()));
  state->attr_time = Core::Now();
  co_return Status{};
}

Task<Result<Attr>> Engine::GetAttr(const Cred& cred, InodeId inode) {
  pb::GetAttrRequest request;
  request.set_inode(inode.value);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::GET_ATTR, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  co_return impl_->Seen(response->attr());
}

namespace {

pb::SetAttrRequest MakeRequest(InodeId inode, const AttrChange& change, bool opened) {
  pb::SetAttrRequest request;
  request.set_inode(inode.value);
  if (change.mode) request.set_mode(*change.mode & 07777);
  if (change.uid) request.set_uid(*change.uid);
  if (change.gid) request.set_gid(*change.gid);
  if (change.size) request.set_size(*change.size);
  if (change.atime_ns) request.set_atime_ns(*change.atime_ns);
  if (change.mtime_ns) request.set_mtime_ns(*change.mtime_ns);
  request.set_atime_now(change.atime_now);
  request.set_mtime_now(change.mtime_now);
  request.set_opened_for_write(opened);
  request.set_kill_suid_sgid(change.kill_suid_sgid);
  return request;
}

}  // namespace

Task<Result<Attr>> Engine::SetAttr(const Cred& cred, InodeId inode, const AttrChange& change, Handle* handle) {
  Core& core = impl_->core;
  if (change.size && *change.size > kMaxFileSize) co_return Fail(ErrorCode::kFileTooBig, "a file has at most 4 PiB");
  StatePtr state = change.size ? core.State(inode) : core.Find(inode);
  pb::SetAttrRequest request = MakeRequest(inode, change, handle != nullptr);
  if (!state) {
    Result<pb::AttrResponse> response =
        co_await core.session.Call<pb::AttrResponse>(pb::SET_ATTR, request, cred, CallKind::kMutate);
    if (!response) co_return Fail(std::move(response).error());
    Attr attr = FromProto(response->attr());
    core.OwnChange(attr);
    co_return attr;
  }
  ++state->pins;
  if (change.size) co_await impl_->writer.BeginExclusive(state);
  // What was written before must not change times or bits afterwards.
  if (!state->clean()) co_await impl_->writer.Flush(state);
  Result<pb::AttrResponse> response =
      co_await core.session.Call<pb::AttrResponse>(pb::SET_ATTR, request, cred, CallKind::kMutate);
  if (response) ApplyAttr(*state, FromProto(response->attr()), true);
  if (change.size) {
    state->locations.erase(state->locations.lower_bound(*change.size / kChunkSize), state->locations.end());
    ++state->write_epoch;
    impl_->writer.EndExclusive(state);
  }
  --state->pins;
  core.DropIfUnused(state);
  if (!response) co_return Fail(std::move(response).error());
  co_return WithLocal(*state, FromProto(response->attr()));
}

Task<void> Engine::TouchAtime(InodeId inode, int64_t atime_ns) {
  Cred cred;
  pb::SetAttrRequest request;
  request.set_inode(inode.value);
  request.set_atime_ns(atime_ns);
  request.set_lazy_atime(true);
  Result<pb::AttrResponse> ignored =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::SET_ATTR, request, cred, CallKind::kMutate);
}

Task<Result<std::string>> Engine::GetXattr(const Cred& cred, InodeId inode, std::string_view name) {
  pb::GetXattrRequest request;
  request.set_inode(inode.value);
  request.set_name(name.data(), name.size());
  Result<pb::GetXattrResponse> response =
      co_await impl_->core.session.Call<pb::GetXattrResponse>(pb::GET_XATTR, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  co_return std::move(*response->mutable_value());
}

Task<Status> Engine::SetXattr(const Cred& cred, InodeId inode, std::string_view name, std::string_view value,
                              uint32_t flags) {
  pb::SetXattrRequest request;
  request.set_inode(inode.value);
  request.set_name(name.data(), name.size());
  request.set_value(value.data(), value.size());
  request.set_flags(flags);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::SET_XATTR, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return Status{};
}

Task<Result<std::vector<std::string>>> Engine::ListXattr(const Cred& cred, InodeId inode) {
  pb::ListXattrRequest request;
  request.set_inode(inode.value);
  Result<pb::ListXattrResponse> response =
      co_await impl_->core.session.Call<pb::ListXattrResponse>(pb::LIST_XATTR, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  std::vector<std::string> names(response->names().begin(), response->names().end());
  co_return names;
}

Task<Status> Engine::RemoveXattr(const Cred& cred, InodeId inode, std::string_view name) {
  pb::RemoveXattrRequest request;
  request.set_inode(inode.value);
  request.set_name(name.data(), name.size());
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::REMOVE_XATTR, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return Status{};
}

Task<Result<FsStat>> Engine::StatFs(const Cred& cred) {
  pb::StatFsRequest request;
  Result<pb::StatFsResponse> response =
      co_await impl_->core.session.Call<pb::StatFsResponse>(pb::STAT_FS, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  FsStat stat;
  stat.capacity_bytes = response->capacity_bytes();
  stat.free_bytes = response->free_bytes();
  stat.inodes = response->inodes();
  stat.free_inodes = response->free_inodes();
  stat.copies = response->copies();
  co_return stat;
}

}  // namespace shoal::client
