// GET_XATTR, SET_XATTR, LIST_XATTR, REMOVE_XATTR. All of an inode's stand in one record.
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kCreateOnly = 1, kReplaceOnly = 2;
constexpr size_t kMaxRecord = 256 << 10;  // bytes of all names and values of an inode

bool HasPrefix(std::string_view name, std::string_view prefix) { return name.starts_with(prefix); }

Status CheckXattrName(std::string_view name) {
  if (name.empty() || name.size() > kMaxXattrName) return Fail(ErrorCode::kRange, "an xattr name has 1 to 255 bytes");
  for (std::string_view prefix : {"user.", "trusted.", "security."}) {
    if (!HasPrefix(name, prefix)) continue;
    if (name.size() == prefix.size()) return Fail(ErrorCode::kInvalidArgument, "an xattr without a name");
    return {};
  }
  return Fail(ErrorCode::kNotSupported, "xattrs are user.*, trusted.* and security.*");
}

// What ext4 and the VFS ask of the caller.
Status CheckXattrAccess(const pb::Caller& caller, const pb::InodeRecord& inode, std::string_view name, bool change) {
  if (HasPrefix(name, "trusted.")) {
    if (IsSuperuser(caller)) return {};
    return Fail(change ? ErrorCode::kNotPermitted : ErrorCode::kNoData);
  }
  if (HasPrefix(name, "security.")) {
    if (!change || IsSuperuser(caller)) return {};
    return Fail(ErrorCode::kNotPermitted);
  }
  if (!S_ISREG(inode.mode()) && !S_ISDIR(inode.mode())) {
    return Fail(change ? ErrorCode::kNotPermitted : ErrorCode::kNoData, "only files and directories have user.* xattrs");
  }
  if (change && S_ISDIR(inode.mode()) && (inode.mode() & S_ISVTX) && !IsOwner(caller, inode)) {
    return Fail(ErrorCode::kNotPermitted);
  }
  return CheckAccess(caller, inode, change ? kWrite : kRead);
}

Result<const pb::XattrsRecord*> Read(View& view, InodeId id, const pb::InodeRecord& inode) {
  if (!inode.has_xattrs()) return nullptr;
  return view.GetXattrs(id);
}

int Find(const pb::XattrsRecord* xattrs, std::string_view name) {
  if (!xattrs) return -1;
  for (int i = 0; i < xattrs->xattrs_size(); ++i) {
    if (xattrs->xattrs(i).name() == name) return i;
  }
  return -1;
}

Status CheckRoom(const pb::XattrsRecord* xattrs, int replaced, std::string_view name, std::string_view value) {
  size_t bytes = name.size() + value.size(), names = name.size() + 1;
  for (int i = 0; xattrs && i < xattrs->xattrs_size(); ++i) {
    if (i == replaced) continue;
    bytes += xattrs->xattrs(i).name().size() + xattrs->xattrs(i).value().size();
    names += xattrs->xattrs(i).name().size() + 1;
  }
  if (bytes > kMaxRecord || names > kMaxXattrList) {
    return Fail(ErrorCode::kNoSpace, "the xattrs of an inode have at most 256 KiB");
  }
  return {};
}

}  // namespace

Status GetXattr(View& view, const pb::GetXattrRequest& request, pb::GetXattrResponse& response) {
  const InodeId id(request.inode());
  TRY(CheckXattrName(request.name()));
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  TRY(CheckXattrAccess(view.caller(), *inode, request.name(), false));
  TRY_ASSIGN(const pb::XattrsRecord* xattrs, Read(view, id, *inode));
  int place = Find(xattrs, request.name());
  if (place < 0) return Fail(ErrorCode::kNoData);
  response.set_value(xattrs->xattrs(place).value());
  return {};
}

Status SetXattr(View& view, const pb::SetXattrRequest& request, pb::AttrResponse& response) {
  const InodeId id(request.inode());
  TRY(CheckXattrName(request.name()));
  if (request.flags() & ~(kCreateOnly | kReplaceOnly)) return Fail(ErrorCode::kInvalidArgument);
  if (request.value().size() > kMaxXattrValue) return Fail(ErrorCode::kListTooBig, "a value has at most 64 KiB");
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  TRY(CheckXattrAccess(view.caller(), *inode, request.name(), true));
  TRY_ASSIGN(const pb::XattrsRecord* xattrs, Read(view, id, *inode));
  int place = Find(xattrs, request.name());
  if (place >= 0 && (request.flags() & kCreateOnly)) return Fail(ErrorCode::kExists);
  if (place < 0 && (request.flags() & kReplaceOnly)) return Fail(ErrorCode::kNoData);
  TRY(CheckRoom(xattrs, place, request.name(), request.value()));
  auto* changed = xattrs ? view.Mutable<pb::XattrsRecord>(XattrsKey(id)) : view.Put<pb::XattrsRecord>(XattrsKey(id));
  auto* one = place >= 0 ? changed->mutable_xattrs(place) : changed->add_xattrs();
  one->set_name(request.name());
  one->set_value(request.value());
  pb::InodeRecord* record = view.MutableInode(id);
  record->set_has_xattrs(true);
  TouchChanged(record, view.now_ns());
  FillAttr(id, *record, response.mutable_attr());
  return {};
}

Status ListXattr(View& view, const pb::ListXattrRequest& request, pb::ListXattrResponse& response) {
  const InodeId id(request.inode());
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  TRY_ASSIGN(const pb::XattrsRecord* xattrs, Read(view, id, *inode));
  if (!xattrs) return {};
  for (const auto& one : xattrs->xattrs()) {
    if (HasPrefix(one.name(), "trusted.") && !IsSuperuser(view.caller())) continue;
    response.add_names(one.name());
  }
  return {};
}

Status RemoveXattr(View& view, const pb::RemoveXattrRequest& request, pb::AttrResponse& response) {
  const InodeId id(request.inode());
  TRY(CheckXattrName(request.name()));
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  TRY(CheckXattrAccess(view.caller(), *inode, request.name(), true));
  TRY_ASSIGN(const pb::XattrsRecord* xattrs, Read(view, id, *inode));
  int place = Find(xattrs, request.name());
  if (place < 0) return Fail(ErrorCode::kNoData);
  pb::InodeRecord* record = view.MutableInode(id);
  if (xattrs->xattrs_size() == 1) {
    view.Delete(XattrsKey(id));
    record->set_has_xattrs(false);
  } else {
    view.Mutable<pb::XattrsRecord>(XattrsKey(id))->mutable_xattrs()->DeleteSubrange(place, 1);
  }
  TouchChanged(record, view.now_ns());
  FillAttr(id, *record, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
