// The operations on names: lookup, create, remove, rename, list.
#include <fcntl.h>

#include "client/engine_impl.h"

namespace shoal::client {
namespace {

void SetName(std::string* to, std::string_view name) { to->assign(name.data(), name.size()); }

}  // namespace

Task<Result<Attr>> Engine::Lookup(const Cred& cred, InodeId parent, std::string_view name) {
  CO_TRY(CheckName(name));
  pb::LookupRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::LOOKUP, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  co_return impl_->Seen(response->attr());
}

Task<Result<Opened>> Engine::Create(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode, int flags) {
  CO_TRY(CheckName(name));
  bool for_writing = (flags & O_ACCMODE) != O_RDONLY;
  pb::CreateRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  request.set_mode(mode & 07777);
  request.set_exclusive((flags & O_EXCL) != 0);
  request.set_open(true);
  request.set_open_flags(static_cast<uint32_t>(flags & (O_ACCMODE | O_TRUNC)));
  request.set_first_chunk(for_writing && impl_->expect_data > 0);
  request.set_truncate((flags & O_TRUNC) != 0);
  Result<pb::OpenResponse> response =
      co_await impl_->core.session.Call<pb::OpenResponse>(pb::CREATE, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  Opened opened;
  opened.created = response->created();
  StatePtr state = impl_->core.State(InodeId(response->attr().inode()));
  opened.handle = impl_->MakeHandle(state, cred, flags);
  if (!opened.created && (flags & O_TRUNC) && !state->clean()) {
    // Data written here before the truncation was still on its way.
    AttrChange change;
    change.size = 0;
    Result<Attr> truncated = co_await SetAttr(cred, state->inode, change, opened.handle.get());
    if (!truncated) {
      (void)co_await Release(std::move(opened.handle));
      co_return Fail(std::move(truncated).error());
    }
  } else {
    ApplyAttr(*state, FromProto(response->attr()));
    impl_->TakeExtents(*state, *response);
  }
  if (opened.created) state->made_here = true;
  opened.attr = WithLocal(*state, FromProto(response->attr()));
  co_return opened;
}

Task<Result<Attr>> Engine::Mkdir(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode) {
  CO_TRY(CheckName(name));
  pb::MkdirRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  request.set_mode(mode & 07777);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::MKDIR, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return FromProto(response->attr());
}

Task<Result<Attr>> Engine::Mknod(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode, uint64_t rdev) {
  CO_TRY(CheckName(name));
  pb::MknodRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  request.set_mode(mode);
  request.set_rdev(rdev);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::MKNOD, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return FromProto(response->attr());
}

Task<Result<Attr>> Engine::Symlink(const Cred& cred, InodeId parent, std::string_view name, std::string_view target) {
  CO_TRY(CheckName(name));
  if (target.size() > kMaxSymlink) co_return Fail(ErrorCode::kNameTooLong, "a symbolic link's target has at most 4095 bytes");
  pb::SymlinkRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  SetName(request.mutable_target(), target);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::SYMLINK, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return FromProto(response->attr());
}

Task<Result<std::string>> Engine::Readlink(const Cred& cred, InodeId inode) {
  pb::ReadlinkRequest request;
  request.set_inode(inode.value);
  Result<pb::ReadlinkResponse> response =
      co_await impl_->core.session.Call<pb::ReadlinkResponse>(pb::READLINK, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  co_return std::move(*response->mutable_target());
}

Task<Result<Attr>> Engine::Link(const Cred& cred, InodeId inode, InodeId new_parent, std::string_view new_name) {
  CO_TRY(CheckName(new_name));
  pb::LinkRequest request;
  request.set_inode(inode.value);
  request.set_new_parent(new_parent.value);
  SetName(request.mutable_new_name(), new_name);
  Result<pb::AttrResponse> response =
      co_await impl_->core.session.Call<pb::AttrResponse>(pb::LINK, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return impl_->Seen(response->attr(), true);
}

Task<Result<Attr>> Engine::Unlink(const Cred& cred, InodeId parent, std::string_view name) {
  CO_TRY(CheckName(name));
  pb::UnlinkRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  Result<pb::UnlinkResponse> response =
      co_await impl_->core.session.Call<pb::UnlinkResponse>(pb::UNLINK, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  Attr attr = impl_->Seen(response->attr(), true);
  attr.inode = InodeId(response->inode());
  co_return attr;
}

Task<Result<Attr>> Engine::Rmdir(const Cred& cred, InodeId parent, std::string_view name) {
  CO_TRY(CheckName(name));
  pb::UnlinkRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  Result<pb::UnlinkResponse> response =
      co_await impl_->core.session.Call<pb::UnlinkResponse>(pb::RMDIR, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  Attr attr = FromProto(response->attr());
  attr.inode = InodeId(response->inode());
  co_return attr;
}

Task<Result<Engine::Renamed>> Engine::Rename(const Cred& cred, InodeId parent, std::string_view name, InodeId new_parent,
                                             std::string_view new_name, uint32_t flags) {
  CO_TRY(CheckName(name));
  CO_TRY(CheckName(new_name));
  pb::RenameRequest request;
  request.set_parent(parent.value);
  SetName(request.mutable_name(), name);
  request.set_new_parent(new_parent.value);
  SetName(request.mutable_new_name(), new_name);
  request.set_flags(flags);
  Result<pb::RenameResponse> response =
      co_await impl_->core.session.Call<pb::RenameResponse>(pb::RENAME, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  Renamed renamed{InodeId(response->inode()), FromProto(response->replaced())};
  renamed.replaced.inode = InodeId(response->replaced_inode());
  co_return renamed;
}

Task<Result<DirPage>> Engine::ReadDir(const Cred& cred, InodeId inode, uint64_t cookie, uint32_t max_entries,
                                      uint32_t max_bytes, bool with_attr) {
  pb::ReadDirRequest request;
  request.set_inode(inode.value);
  request.set_cookie(cookie <= 2 ? 0 : cookie);
  request.set_max_entries(max_entries);
  request.set_max_bytes(max_bytes);
  request.set_with_attr(with_attr);
  Result<pb::ReadDirResponse> response =
      co_await impl_->core.session.Call<pb::ReadDirResponse>(pb::READ_DIR, request, cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  DirPage page;
  page.end = response->end();
  page.parent = InodeId(response->parent());
  page.entries.reserve(static_cast<size_t>(response->entries_size()));
  for (pb::DirEntry& from : *response->mutable_entries()) {
    DirEntry& entry = page.entries.emplace_back();
    entry.name = std::move(*from.mutable_name());
    entry.cookie = from.cookie();
    entry.inode = InodeId(from.inode());
    entry.type = from.type();
    if (from.has_attr()) entry.attr = impl_->Seen(from.attr());
  }
  co_return page;
}

Task<Status> Engine::FsyncDir(const Cred& cred, InodeId inode) {
  pb::FsyncRequest request;
  request.set_inode(inode.value);
  Result<pb::FsyncResponse> response =
      co_await impl_->core.session.Call<pb::FsyncResponse>(pb::FSYNC, request, cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  co_return Status{};
}

}  // namespace shoal::client
