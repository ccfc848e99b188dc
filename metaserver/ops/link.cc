// LINK: another name for a file.
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status Link(View& view, const pb::LinkRequest& request, pb::AttrResponse& response) {
  const InodeId id(request.inode()), parent(request.new_parent());
  view.Want<pb::InodeRecord>(InodeKey(id));
  TRY(PrepareNew(view, parent, request.new_name()));
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  if (S_ISDIR(inode->mode())) return Fail(ErrorCode::kNotPermitted, "a directory has one name");
  if (inode->nlink() == 0) return Fail(ErrorCode::kNotFound, "the file was removed");
  if (inode->nlink() >= kMaxLinks) return Fail(ErrorCode::kTooManyLinks);
  TRY(AddDentry(view, parent, request.new_name(), id, inode->mode() & S_IFMT));
  TouchParent(view, parent, 1);
  pb::InodeRecord* changed = view.MutableInode(id);
  changed->set_nlink(changed->nlink() + 1);
  TouchChanged(changed, view.now_ns());
  FillAttr(id, *changed, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
