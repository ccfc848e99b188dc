// SYMLINK and READLINK.
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status Symlink(View& view, const pb::SymlinkRequest& request, pb::AttrResponse& response) {
  const InodeId parent(request.parent());
  if (request.target().empty()) return Fail(ErrorCode::kNotFound, "an empty target");
  if (request.target().size() > kMaxSymlink) return Fail(ErrorCode::kNameTooLong, "a target has at most 4095 bytes");
  if (request.target().find('\0') != std::string::npos) return Fail(ErrorCode::kInvalidArgument);
  TRY_ASSIGN(const pb::InodeRecord* directory, PrepareNew(view, parent, request.name()));
  TRY_ASSIGN(NewInode made, MakeInode(view, *directory, S_IFLNK | 0777));
  made.record->set_target(request.target());
  made.record->set_size(request.target().size());
  TRY(NameInode(view, parent, request.name(), made));
  FillAttr(made.id, *made.record, response.mutable_attr());
  return {};
}

Status Readlink(View& view, const pb::ReadlinkRequest& request, pb::ReadlinkResponse& response) {
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, InodeId(request.inode())));
  if (!S_ISLNK(inode->mode())) return Fail(ErrorCode::kInvalidArgument, "not a symbolic link");
  response.set_target(inode->target());
  return {};
}

}  // namespace shoal::meta
