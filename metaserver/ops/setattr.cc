// SET_ATTR: chmod, chown, truncate, utimens, in one batch.
#include <sys/stat.h>

#include <algorithm>

#include "common/limits.h"
#include "metaserver/attr.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/context.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {
namespace {

using Request = pb::SetAttrRequest;

Status CheckOwnership(const pb::Caller& caller, const Request& request, const pb::InodeRecord& inode) {
  if (IsSuperuser(caller)) return {};
  const bool owner = caller.uid() == inode.uid();
  if (request.has_mode() && !owner) return Fail(ErrorCode::kNotPermitted, "only the owner may change the mode");
  if (request.has_uid() && (!owner || request.uid() != inode.uid())) {
    return Fail(ErrorCode::kNotPermitted, "only the superuser may change the owner");
  }
  if (request.has_gid() && (!owner || (request.gid() != inode.gid() && !InGroup(caller, request.gid())))) {
    return Fail(ErrorCode::kNotPermitted, "only the owner may change the group, to one of their own");
  }
  return {};
}

Status CheckTimes(const pb::Caller& caller, const Request& request, const pb::InodeRecord& inode) {
  const bool set = (request.has_atime_ns() && !request.atime_now()) || (request.has_mtime_ns() && !request.mtime_now());
  const bool any = set || request.atime_now() || request.mtime_now();
  if (!any || IsOwner(caller, inode)) return {};
  // "Now" for both, or along with a truncation: who may write may do that.
  const bool touch = (request.atime_now() && request.mtime_now()) || request.has_size();
  if (set || !touch) return Fail(ErrorCode::kNotPermitted, "only the owner may set times");
  return request.opened_for_write() ? Status() : CheckAccess(caller, inode, kWrite);
}

Status CheckSize(const pb::Caller& caller, const Request& request, const pb::InodeRecord& inode) {
  if (!request.has_size()) return {};
  if (S_ISDIR(inode.mode())) return Fail(ErrorCode::kIsDirectory);
  if (!S_ISREG(inode.mode())) return Fail(ErrorCode::kInvalidArgument, "not a regular file");
  if (request.size() > kMaxFileSize) return Fail(ErrorCode::kFileTooBig);
  return request.opened_for_write() ? Status() : CheckAccess(caller, inode, kWrite);
}

// An implicit change of atime by reading: no permission, no ctime.
Status LazyAtime(View& view, InodeId id, const Request& request, const pb::InodeRecord& inode,
                 pb::AttrResponse& response) {
  if (request.atime_ns() > inode.atime_ns()) view.MutableInode(id)->set_atime_ns(request.atime_ns());
  TRY_ASSIGN(const pb::InodeRecord* now, view.GetInode(id));
  FillAttr(id, *now, response.mutable_attr());
  return {};
}

void ApplyOwner(const pb::Caller& caller, const Request& request, pb::InodeRecord* inode) {
  if (request.has_uid()) inode->set_uid(request.uid());
  if (request.has_gid()) inode->set_gid(request.gid());
  if ((request.has_uid() || request.has_gid()) && !S_ISDIR(inode->mode())) ClearSetIds(inode);
  if (request.has_mode()) {
    uint32_t mode = request.mode() & 07777;
    if (!IsSuperuser(caller) && !InGroup(caller, inode->gid())) mode &= ~S_ISGID;
    inode->set_mode((inode->mode() & S_IFMT) | mode);
  } else if (request.kill_suid_sgid() || (request.has_size() && !IsSuperuser(caller))) {
    ClearSetIds(inode);
  }
}

void ApplyTimes(int64_t now, const Request& request, pb::InodeRecord* inode) {
  if (request.atime_now()) {
    inode->set_atime_ns(now);
  } else if (request.has_atime_ns()) {
    inode->set_atime_ns(request.atime_ns());
  }
  if (request.mtime_now() || (request.has_size() && !request.has_mtime_ns())) {
    inode->set_mtime_ns(now);
  } else if (request.has_mtime_ns()) {
    inode->set_mtime_ns(request.mtime_ns());
  }
}

}  // namespace

Status SetAttr(View& view, const Request& request, pb::AttrResponse& response) {
  const InodeId id(request.inode());
  const pb::Caller& caller = view.caller();
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  if (request.lazy_atime()) return LazyAtime(view, id, request, *inode, response);
  TRY(CheckOwnership(caller, request, *inode));
  TRY(CheckTimes(caller, request, *inode));
  TRY(CheckSize(caller, request, *inode));
  const bool content = request.has_size() || request.kill_suid_sgid();
  if (content || request.has_uid() || request.has_gid()) {
    TRY(DropCapability(view, id, *inode));
  }
  if (request.has_size()) {
    TRY(view.WaitWhileBusy(id));
    TRY(view.context().chunks->Truncate(view, id, request.size()));
  }
  pb::InodeRecord* changed = view.MutableInode(id);
  ApplyOwner(caller, request, changed);
  ApplyTimes(view.now_ns(), request, changed);
  TouchChanged(changed, view.now_ns());
  FillAttr(id, *changed, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
