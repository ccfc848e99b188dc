// MKNOD: regular files, FIFOs and sockets for everyone, devices for the superuser.
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status Mknod(View& view, const pb::MknodRequest& request, pb::AttrResponse& response) {
  const InodeId parent(request.parent());
  uint32_t type = request.mode() & S_IFMT;
  if (type == 0) type = S_IFREG;
  const bool device = type == S_IFCHR || type == S_IFBLK;
  if (type == S_IFDIR) return Fail(ErrorCode::kNotPermitted, "mknod makes no directories");
  if (!device && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) {
    return Fail(ErrorCode::kInvalidArgument, "no such file type");
  }
  TRY_ASSIGN(const pb::InodeRecord* directory, PrepareNew(view, parent, request.name()));
  if (device && !IsSuperuser(view.caller()) && request.rdev() != 0) {  // 0, 0 is overlayfs's whiteout
    return Fail(ErrorCode::kNotPermitted, "only the superuser makes devices");
  }
  TRY_ASSIGN(NewInode made, MakeInode(view, *directory, type | (request.mode() & 07777)));
  if (device) made.record->set_rdev(request.rdev());
  TRY(NameInode(view, parent, request.name(), made));
  FillAttr(made.id, *made.record, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
